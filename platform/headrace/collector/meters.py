"""Count what happens at the door, for ``/metrics``."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from operator import add

import msgspec

#: Upper bounds of the buckets of durations, in seconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_HEAD = "# HELP {name} {said}\n# TYPE {name} {kind}\n"


class Histogram:
    """Durations by bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def note(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    @property
    def durations(self) -> Durations:
        """What was counted until now."""
        return Durations(tuple(self._counts), self._sum)


class Durations(msgspec.Struct, frozen=True, array_like=True):
    """Durations: how many in each bucket, and their sum in seconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0

    def __add__(self, other: Durations) -> Durations:
        """Return both together."""
        return Durations(tuple(map(add, self.counts, other.counts)), self.sum + other.sum)

    def lines(self, name: str) -> Iterator[str]:
        """Yield samples in Prometheus' text format."""
        total = 0
        for bound, count in zip((*BOUNDS, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}\n'
        yield f"{name}_sum {self.sum:.6f}\n{name}_count {total}\n"


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What was counted until a moment.

    Attributes:
        events: Events by outcome.
        requests: Requests as (route, status, number).
        refused: Requests that could not be committed.
        seconds: From a request's body to its answer.
        commits: Lookup, append and sync of a group.
    """

    events: dict[str, int] = {}
    requests: list[tuple[str, int, int]] = []
    refused: int = 0
    seconds: Durations = Durations()
    commits: Durations = Durations()

    def __add__(self, other: Counts) -> Counts:
        """Return both together."""
        events, requests = Counter(self.events), Counter[tuple[str, int]]()
        events.update(other.events)
        for route, status, number in (*self.requests, *other.requests):
            requests[route, status] += number
        return Counts(
            dict(events),
            [(*at, number) for at, number in requests.items()],
            self.refused + other.refused,
            self.seconds + other.seconds,
            self.commits + other.commits,
        )

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all in Prometheus' text format.

        Args:
            gauges: Description and value of further measurements by name.
        """
        name = "headrace_collector_events_total"
        parts = [_HEAD.format(name=name, said="Events by outcome.", kind="counter")]
        parts += [f'{name}{{outcome="{s}"}} {n}\n' for s, n in sorted(self.events.items())]
        name = "headrace_collector_requests_total"
        parts.append(_HEAD.format(name=name, said="Requests by route and status.", kind="counter"))
        parts += [f'{name}{{route="{r}",status="{s}"}} {n}\n' for r, s, n in sorted(self.requests)]
        name = "headrace_collector_refused_requests_total"
        parts.append(_HEAD.format(name=name, said="Requests that could not be committed.", kind="counter"))
        parts.append(f"{name} {self.refused}\n")
        for name, said, one in (
            ("headrace_collector_request_seconds", "From a request's body to its answer.", self.seconds),
            ("headrace_collector_commit_seconds", "Lookup, append and sync of a group.", self.commits),
        ):
            parts += [_HEAD.format(name=name, said=said, kind="histogram"), *one.lines(name)]
        for name, (said, value) in gauges.items():
            parts += [_HEAD.format(name=name, said=said, kind="gauge"), f"{name} {value:g}\n"]
        return "".join(parts)


class Meters:
    """Counters of a process, since its start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, int] = {}
        self._requests: dict[tuple[str, int], int] = {}
        self._seconds, self._commits = Histogram(), Histogram()
        self._refused = 0

    def events(self, outcomes: Mapping[str, int]) -> None:
        """Count events by their outcome."""
        with self._lock:
            for status, count in outcomes.items():
                self._events[status] = self._events.get(status, 0) + count

    def group(self, seconds: float) -> None:
        """Count a group of requests that was committed in so many seconds."""
        self._commits.note(seconds)

    def refused(self, requests: int) -> None:
        """Count requests that could not be committed."""
        with self._lock:
            self._refused += requests

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        at = route, status
        self._requests[at] = self._requests.get(at, 0) + 1
        self._seconds.note(seconds)

    @property
    def counts(self) -> Counts:
        """What was counted until now."""
        with self._lock:
            events, refused = dict(self._events), self._refused
        requests = [(*at, number) for at, number in list(self._requests.items())]
        return Counts(events, requests, refused, self._seconds.durations, self._commits.durations)
