"""Say when somebody sends too fast, and when to come again."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.collector.base import Claim

Clock = Callable[[], float]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Token buckets by name, each of which holds what may come within ``burst_seconds``.

    A request is let in while its bucket has any token, and may overdraw it: so a batch that is larger than the bucket
    passes, and the next request waits for it. For one thread; memory is bounded.

    Args:
        burst_seconds: Seconds of the rate that may come at once.
        most: Names that are remembered; the one that came longest ago is forgotten first.
        clock: Seconds, monotonic.
    """

    def __init__(self, burst_seconds: float = 2.0, most: int = 10_000, clock: Clock = time.monotonic) -> None:
        self._burst, self._most, self._clock = burst_seconds, most, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, name: str, rate: float, events: int) -> float:
        """Take tokens; return 0, or the seconds until any can be taken, in which case none were.

        Args:
            name: Who sends.
            rate: Events per second; 0 for no limit.
            events: How many were sent.
        """
        if rate <= 0:
            return 0.0
        now, full = self._clock(), rate * self._burst
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(full, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.tokens = min(full, bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.tokens <= 0:
            return max(-bucket.tokens / rate, 1 / rate)
        bucket.tokens -= events
        return 0.0


class Rated:
    """Counts what comes against the rates of keys and addresses. For one thread."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._by = {"key": Rates(clock=clock), "address": Rates(clock=clock)}

    def wait(self, claims: Sequence[Claim], events: int) -> float:
        """Count events; return 0, or after how many seconds they may come again."""
        for claim in claims:
            if seconds := self._by[claim.whose].wait(claim.name, claim.rate, events):
                return seconds
        return 0.0


class Drain:
    """How fast the log becomes free, which says when one may come again.

    Args:
        clock: Seconds, monotonic.
    """

    #: Seconds that are looked back, and between two looks.
    _WINDOW, _APART = 60.0, 1.0
    #: Shortest and longest answer, in seconds.
    _SOONEST, _LATEST = 1.0, 300.0
    #: The answer while nothing drains.
    _UNKNOWN = 30.0

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._freed: deque[tuple[float, int]] = deque()

    @property
    def due(self) -> bool:
        """Whether it is time for another ``note``."""
        return not self._freed or self._clock() - self._freed[-1][0] >= self._APART

    def note(self, removed_bytes: int) -> None:
        """Note how many bytes the log has given back since it was opened."""
        now = self._clock()
        self._freed.append((now, removed_bytes))
        while len(self._freed) > 2 and now - self._freed[0][0] > self._WINDOW:
            self._freed.popleft()

    def seconds_until(self, wanted_bytes: int) -> int:
        """Return after how many seconds there should be room."""
        if len(self._freed) < 2:
            return round(self._UNKNOWN)
        (began, before), (ended, after) = self._freed[0], self._freed[-1]
        freed = (after - before) / max(ended - began, 1e-3)
        if freed <= 0:
            return round(self._UNKNOWN)
        return round(min(max(wanted_bytes / freed, self._SOONEST), self._LATEST))
