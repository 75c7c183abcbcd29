"""A line in front of a thread, which takes all that waits at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

#: Events and bytes of a group, beyond which it is committed without waiting for more.
_GROUP_EVENTS, _GROUP_BYTES = 5_000, 4 << 20


class Waiting(Protocol):
    """Something that waits in a line."""

    @property
    def number(self) -> int:
        """How many events it has."""

    @property
    def bytes(self) -> int:
        """Bytes of their payloads."""


_T = TypeVar("_T", bound=Waiting)


class Line(Generic[_T]):
    """What waits for a thread. Any thread may put, one takes."""

    def __init__(self) -> None:
        self._waiting: list[_T] = []
        self._lock, self._begun = threading.Lock(), SimpleQueue[None]()
        self._ended = False

    def put(self, one: _T) -> None:
        """Put something at the end."""
        with self._lock:
            self._waiting.append(one)
            first = len(self._waiting) == 1
        if first:
            self._begun.put(None)

    def end(self) -> None:
        """Let ``take`` return None once the line is empty."""
        self._ended = True
        self._begun.put(None)

    def take(self, not_before: float = 0.0) -> list[_T] | None:
        """Wait for something, and take as much of it as makes a group; None at the end.

        Args:
            not_before: Moment of the clock ``time.perf_counter`` until which more may come.
        """
        while True:
            self._begun.get()
            if (wait := not_before - time.perf_counter()) > 0 and not self._ended:
                time.sleep(wait)
            with self._lock:
                taken = self._waiting[: fitting(self._waiting)]
                del self._waiting[: len(taken)]
                more = bool(self._waiting) or self._ended
            if more:
                self._begun.put(None)
            if taken:
                return taken
            if self._ended:
                return None


def fitting(waiting: Sequence[Waiting]) -> int:
    """Return how many of those that wait make a group, one at least."""
    events = size = 0
    for at, one in enumerate(waiting):
        if events >= _GROUP_EVENTS or size >= _GROUP_BYTES:
            return at
        events += one.number
        size += one.bytes
    return len(waiting)
