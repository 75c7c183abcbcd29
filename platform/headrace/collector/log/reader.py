"""Read a log's entries in order, while others are appended and removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from headrace.collector.log.frames import hole_at, skip
from headrace.collector.log.segments import Damage, within
from headrace.core.errors import Retriable

if TYPE_CHECKING:
    from headrace.collector.log.log import DurableLog, Segment

#: Bytes that are read at a time.
_PIECE = 1 << 20

T = TypeVar("T")
#: Returns what is wanted of the entries of a piece, as ``frames.entries_at`` does.
Decode = Callable[[bytes, int, int], tuple[list[tuple[int, T]], int]]


class Reader(Generic[T]):
    """A place in a log. For one thread; ``close`` when done.

    Attributes:
        next: Number from which on nothing has been taken yet.
    """

    def __init__(self, owner: DurableLog, first: int, decode: Decode[T]) -> None:
        self._log, self.next, self._decode = owner, first, decode
        self._segment: Segment | None = None
        self._descriptor = -1
        self._at = 0  # place in the segment of what is read next
        self._hole: tuple[int, bytes] | None = None  # place and bytes of what was passed over last

    def take(self, most_bytes: int = _PIECE) -> list[tuple[int, T]]:
        """Take the next entries with their numbers, up to so many bytes of the log, one at least; empty at the end.

        What cannot be read is left out and noted with the log.

        Raises:
            Retriable: The disk fails.
        """
        taken: list[tuple[int, T]] = []
        left, end = most_bytes, self._log.next
        try:
            while (left > 0 or not taken) and self.next < end and self._entered(end):
                before = self._at
                taken += self._more(left)
                left -= self._at - before
        except OSError as error:
            said = f"the collector's log {self._log.folder} cannot be read: {error}; look at its disk"
            raise Retriable(said) from error
        return taken

    def close(self) -> None:
        """Close the file; the next ``take`` opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._segment = -1, None

    def _entered(self, end: int) -> bool:
        """Be in a segment with something to read; false at the end of the log."""
        while self._segment is None or self._at >= self._segment.bytes:
            segments, here = self._log.segments(), self._segment
            if here is None:
                self.next = max(self.next, segments[0].first)
                self._open([one for one in segments if one.first <= self.next][-1])
                continue
            behind = [one for one in segments if one.first > here.first]
            self._passed(behind[0].first if behind else end)  # it is read to its end
            if not behind:
                return False
            self._open(behind[0])
        return True

    def _open(self, segment: Segment) -> None:
        self.close()
        try:
            self._descriptor = os.open(segment.path, os.O_RDONLY)
        except FileNotFoundError:
            if segment in self._log.segments():  # somebody else removed it: its entries are lost
                self._segment, self._at = segment, segment.bytes
            return
        self._segment, self._at = segment, 0
        while self._at < segment.bytes and (piece := self._read(_PIECE)):
            passed = skip(piece, self.next)
            self._at += passed
            if not passed:  # wanted, damaged, or longer than a piece
                return

    def _read(self, size: int) -> bytes:
        assert self._segment is not None
        return os.pread(self._descriptor, min(size, self._segment.bytes - self._at), self._at)

    def _more(self, most: int) -> list[tuple[int, T]]:
        """Return the wanted entries of the next piece of the segment, or pass over what is none."""
        size = _PIECE
        piece = self._read(size)
        while True:
            found, passed = self._decode(piece, 0, most)
            if found:
                self._at += passed
                return self._wanted(found)
            if len(piece) < size:  # nothing follows that an entry could be in
                self._pass_over(piece)
                return []
            size *= 2
            piece = self._read(size)

    def _wanted(self, found: list[tuple[int, T]]) -> list[tuple[int, T]]:
        """Go along with entries; leaves out what was not asked for, and what is void."""
        first, last, void = found[0][0], found[-1][0], self._log.void
        if first == self.next and last - first == len(found) - 1 and not void:
            self.next = last + 1
            return found
        wanted = []
        for number, entry in found:
            if number >= self.next and not within(number, void):
                self._passed(number)
                self.next = number + 1
                wanted.append((number, entry))
        return wanted

    def _pass_over(self, rest: bytes) -> None:
        """Pass over what is no entry; ``rest`` is the segment from there on."""
        assert self._segment is not None
        if not any(rest):  # its end, or a file that is shorter than it was
            self._at = self._segment.bytes
            return
        hole = hole_at(rest, 0)
        self._hole = self._at, rest[: hole.end]
        self._at += hole.end

    def _passed(self, to: int) -> None:
        """Note that no entry was found from ``next`` to below ``to``."""
        first, end = max(self.next, self._log.oldest), to  # what was removed meanwhile is not lost
        for begin, stop in sorted(self._log.void, reverse=True):
            first = stop if begin <= first < stop else first
            end = begin if begin < end <= stop else end
        hole, self._hole = self._hole, None
        if first < end:
            assert self._segment is not None
            at, data = hole or (self._at, b"")
            self._log.lost(Damage(first, end, self._segment.path), data.rstrip(b"\0"), at)
        self.next = max(self.next, to)
