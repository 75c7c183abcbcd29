"""Divide messages between two ways to the same stream, such as a topic and a collector in front of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from zlib import crc32

import msgspec

from headrace.core.errors import HeadraceError
from headrace.producers.base import Keys, Payloads, Producer, keys_of

#: Seconds for which everything goes the first way after the second one failed.
REST_SECONDS = 30.0


class SharedProducer:
    """Sends the messages of half of the keys a second way, as long as they are JSON objects.

    Guarantee: at least once. While the second way fails, all messages go the first one; what it may have taken before
    it failed then arrives twice.

    Args:
        first: Takes everything.
        second: Takes JSON objects.
        report: Called with a line when the second way fails, and when it works again.
    """

    def __init__(self, first: Producer, second: Producer, report: Callable[[str], None]) -> None:
        self.name = f"{first.name} and {second.name}"
        self._first, self._second, self._report = first, second, report
        self._rests_until, self._failed = 0.0, False

    @property
    def acknowledged(self) -> int:
        """Messages that either has acknowledged so far."""
        return self._first.acknowledged + self._second.acknowledged

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Hand over a chunk; raises as the first way does."""
        every = list(zip(keys_of(payloads, keys), payloads, strict=True))
        rests = time.monotonic() < self._rests_until
        chosen = [not rests and _suits(key, payload) for key, payload in every]
        if any(chosen) and not self._sent(
            [one for one, is_chosen in zip(every, chosen, strict=True) if is_chosen]
        ):
            chosen = [False] * len(every)
        rest = [one for one, is_chosen in zip(every, chosen, strict=True) if not is_chosen]
        if rest:
            self._first.send([payload for _, payload in rest], [key for key, _ in rest])

    def _sent(self, messages: list[tuple[bytes | None, bytes | None]]) -> bool:
        try:
            self._second.send([payload for _, payload in messages], [key for key, _ in messages])
            self._second.flush()
        except HeadraceError as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            if not self._failed:
                self._report(f"{error}; meanwhile {self._first.name} gets all messages")
            self._failed = True
            return False
        if self._failed:
            self._report(f"{self._second.name} takes messages again")
        self._failed = False
        return True

    def flush(self) -> None:
        """Wait until all messages are acknowledged."""
        self._first.flush()

    def close(self) -> None:
        """Release the connections of both."""
        self._first.close()
        self._second.close()


def _suits(key: bytes | None, payload: bytes | None) -> bool:
    if key is None or payload is None or crc32(key) % 2:
        return False
    try:
        return isinstance(msgspec.json.decode(payload), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
