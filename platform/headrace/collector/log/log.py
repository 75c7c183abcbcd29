"""A log of one process: what ``append`` returned survives kill -9 and a power cut, until ``remove``.

One thread appends; others may read and remove. Numbers are dense from 0, but for ranges that a fault of the disk took.
A number is never given twice: what is sent under it could land in another's place.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.collector.log.columns import ids_at
from headrace.collector.log.frames import SHORTEST, Bytes, Entry, encoded, entries_at
from headrace.collector.log.reader import Reader
from headrace.collector.log.segments import (
    Damage,
    Disk,
    Identity,
    examine,
    identity_in,
    segment_path,
    segments_in,
    set_aside,
    write_identity,
)
from headrace.core.atomic import make_folder, sync_folder
from headrace.core.errors import Busy, Fatal, Retriable
from headrace.core.locks import Patience, file_lock

log = logging.getLogger(__name__)

SEGMENT_BYTES = 64 << 20
_PATIENCE = Patience(silent_seconds=3.0, max_seconds=3.0)
_ONE = "A log has one collector: send to that one, stop it, or give this one another HEADRACE_COLLECTOR_LOG"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class LogFull(Retriable):
    """The log has no room until the lake has taken something; nothing was appended."""


@dataclass(slots=True)
class Segment:
    """A file of the log: number of its first entry, place, and bytes of its entries."""

    first: int
    path: Path
    bytes: int


class DurableLog:
    """A log in a folder, which one process owns. ``close`` when done.

    Attributes:
        id: Id of the log.
        lanes: Into how many sequences each stream's entries are divided.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        lanes: int = 16,
        disk: Disk | None = None,
    ) -> None:
        """Open or make a log; what a crash left is mended, and is synced before anybody may read it.

        Args:
            folder: Its folder.
            limit_bytes: Most bytes that it keeps.
            segment_bytes: Bytes of a segment; at most an eighth of the limit.
            lanes: Lanes of a new log; one that exists keeps its own.
            disk: What to write with; for tests.

        Raises:
            Busy: Another process has it.
            LogFull: The disk has no room for a segment.
            Fatal: The folder cannot be used, or its identity cannot be read.
        """
        self.folder, self._limit, self._disk = folder, limit_bytes, disk or Disk()
        self._segment_bytes = max(1, min(segment_bytes, limit_bytes // 8))
        self._lock, self._more = threading.Lock(), threading.Condition()
        self._stopped: str | None = None
        self.damaged: list[Damage] = []
        self._descriptor = -1
        with ExitStack() as held:
            try:
                make_folder(folder, synced=True)
            except OSError as error:
                raise self._translated(error, "cannot be opened") from error
            try:
                held.enter_context(file_lock(folder / "lock", f"the collector's log {folder}", _PATIENCE))
            except Busy as error:
                raise Busy(f"{error}. {_ONE}") from error
            try:
                self._open(lanes)
            except OSError as error:
                raise self._translated(error, "cannot be opened") from error
            self._held = held.pop_all()

    def _open(self, lanes: int) -> None:
        identity, there = identity_in(self.folder), segments_in(self.folder)
        if (
            identity is None or not there
        ):  # without segments nothing waits, and no number of the old id may be given again
            identity = Identity.new(lanes if identity is None else identity.lanes)
            write_identity(self.folder, identity)
        self._identity = identity
        self._segments = [Segment(first, path, path.stat().st_size) for first, path in there]
        self._next = 0
        if self._segments:
            self._recover(self._segments[-1])
        else:
            self._begin_segment(0)

    def _recover(self, last: Segment) -> None:
        """Find the end of the last segment; what is torn behind it is set aside, and its numbers are left out."""
        found = examine(last.path, last.first)
        last.bytes, self._next = found.end, found.next
        for first, end in self._identity.void:
            if first <= self._next <= end:
                self._next = end
        self._descriptor = os.open(last.path, os.O_RDWR)
        if found.torn:
            kept = set_aside(self.folder, f"{last.path.stem}-{found.end}-torn.bytes", found.torn)
            self._note(Damage(self._next, self._next, last.path, kept))
            self._skip(self._next + len(found.torn) // SHORTEST + 1)
        self._disk.sync(self._descriptor)
        sync_folder(self.folder)
        if self._next != found.next:
            self._begin_segment(self._next)

    def _skip(self, to: int) -> None:
        """Give no number below ``to``; the next entries need another segment."""
        identity = self._identity.without(self._next, to, self.oldest)
        write_identity(self.folder, identity)
        self._identity, self._next = identity, to

    @property
    def id(self) -> str:
        """Id of the log."""
        return self._identity.log

    @property
    def lanes(self) -> int:
        """Into how many sequences each stream's entries are divided."""
        return self._identity.lanes

    @property
    def next(self) -> int:
        """Number of the next entry; all below it are durable."""
        return self._next

    @property
    def oldest(self) -> int:
        """Number of the oldest entry that the log may hold; equal to ``next`` if it is empty."""
        return self._segments[0].first if self._segments else self._next

    @property
    def bytes(self) -> int:
        """Bytes of the entries that it holds."""
        with self._lock:
            return sum(one.bytes for one in self._segments)

    @property
    def limit_bytes(self) -> int:
        """Most bytes that it keeps."""
        return self._limit

    @property
    def stopped(self) -> str | None:
        """Why nothing is appended any more; None while all is well."""
        return self._stopped

    def append(self, entries: Sequence[Entry]) -> range:
        """Append entries and wait until they survive a power cut; for one thread.

        Returns:
            Their numbers.

        Raises:
            LogFull: There is no room; nothing was appended.
            Retriable: The disk failed; nothing was appended, and the next try writes into another file.
            Fatal: The disk failed and there is no way round it; nothing is appended any more.
            ValueError: An entry is too long.
        """
        if self._stopped is not None:
            raise Fatal(self._stopped)
        first = self._next
        if not entries:
            return range(first, first)
        data = encoded(first, entries)
        if self.bytes + len(data) > self._limit:
            raise LogFull(
                f"the collector's log {self.folder} holds {self.bytes:,} of {self._limit:,} bytes, which the lake does"
                " not have yet; it takes more once ingestion has caught up, see 'headrace status'"
            )
        try:
            active = self._roomy(len(data))
            self._disk.write(self._descriptor, data, active.bytes)
        except OSError as error:
            self._take_back(first + len(entries), error)
            raise self._translated(error, "takes nothing at the moment") from error
        try:
            self._disk.sync(self._descriptor)
        except OSError as error:
            self._give_up_segment(first + len(entries), error)
            raise self._translated(error, "could not be synced") from error
        active.bytes += len(data)
        with self._more:
            self._next = first + len(entries)
            self._more.notify_all()
        return range(first, self._next)

    def _roomy(self, size: int) -> Segment:
        """Return the segment to append to, a new one if the last is full."""
        last = self._segments[-1]
        if last.bytes and last.bytes + size > self._segment_bytes:
            self._begin_segment(self._next, size)
        return self._segments[-1]

    def _begin_segment(self, first: int, size: int = 0) -> None:
        path = segment_path(self.folder, first)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            self._disk.reserve(descriptor, max(self._segment_bytes, size))
            self._disk.sync(descriptor)
            sync_folder(self.folder)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._seal()
        with self._lock:
            if self._segments and self._segments[-1].path == path:  # it held no entry
                self._segments.pop()
            self._segments.append(Segment(first, path, 0))
        self._descriptor = descriptor

    def _seal(self) -> None:
        """Give back the space that the last segment does not need."""
        if self._descriptor >= 0:
            with suppress(OSError):
                self._disk.truncate(self._descriptor, self._segments[-1].bytes)
            os.close(self._descriptor)

    def _take_back(self, end: int, error: OSError) -> None:
        """Leave nothing of a write that failed: half of it could be read as entries after a crash."""
        last = self._segments[-1]
        try:
            self._disk.truncate(self._descriptor, last.bytes)
            self._disk.reserve(self._descriptor, self._segment_bytes)
        except OSError:
            if os.fstat(self._descriptor).st_size > last.bytes:
                self._give_up_segment(end, error)

    def _give_up_segment(self, end: int, error: OSError) -> None:
        """Append no more to a segment that may not hold what was written to it.

        After a failed sync the system forgets which pages are not on the disk, and the next sync says that all is well
        (https://wiki.postgresql.org/wiki/Fsync_Errors). So the numbers of what was to be synced are void, whatever
        is found there later, and nothing is appended behind it.
        """
        log.error("%s cannot be synced (%s); another file is begun", self._segments[-1].path, error)
        try:
            self._skip(end)
            self._begin_segment(end)
        except OSError as worse:
            self._stopped = (
                f"the collector's log {self.folder} cannot be written: {worse}; nothing is accepted until the disk is"
                " mended and the collector started again"
            )

    def _translated(self, error: OSError, what: str) -> Retriable | Fatal:
        said = f"the collector's log {self.folder} {what}: {(error.strerror or str(error)).lower()}"
        if self._stopped is not None:
            return Fatal(self._stopped)
        if error.errno in _FULL:
            return LogFull(f"{said}; make room on its disk")
        return (
            Retriable(f"{said}; look at its disk")
            if self._descriptor >= 0
            else Fatal(f"{said}; look at its disk")
        )

    def wait(self, beyond: int, seconds: float) -> bool:
        """Wait until there is an entry with a number from ``beyond`` on; returns whether there is."""
        with self._more:
            return self._more.wait_for(lambda: self._next > beyond, seconds)

    def wake(self) -> None:
        """End every ``wait`` that is under way."""
        with self._more:
            self._more.notify_all()

    def reader(self, first: int) -> Reader[Entry]:
        """Return what reads the entries from a number on, in order; for one thread."""
        return Reader(self, first, entries_at)

    def ids_reader(self, first: int) -> Reader[Bytes]:
        """Return what reads the ids of entries alone, which takes a fraction of the time; for one thread."""
        return Reader(self, first, ids_at)

    def read(self, first: int) -> Iterator[tuple[int, Entry]]:
        """Yield the durable entries from a number on with their numbers, up to the present end.

        What cannot be read is set aside, named in the log and in ``damaged``, and left out.

        Raises:
            Retriable: The disk fails.
        """
        reader, end = self.reader(first), self._next
        try:
            while reader.next < end and (taken := reader.take()):
                yield from ((number, entry) for number, entry in taken if number < end)
        finally:
            reader.close()

    def segments(self) -> list[Segment]:
        """List the segments as they are now."""
        with self._lock:
            return list(self._segments)

    @property
    def void(self) -> tuple[tuple[int, int], ...]:
        """Ranges of numbers that no entry has."""
        return self._identity.void

    def lost(self, damage: Damage, data: Bytes, at: int) -> None:
        """Note what a reader could not read, once; its bytes are set aside."""
        with self._lock:
            if any(one.first == damage.first and one.end == damage.end for one in self.damaged):
                return
        kept = None
        with suppress(OSError):  # no room: the segment itself is there until it is removed
            kept = set_aside(self.folder, f"{damage.file.stem}-{at}.bytes", data) if data else None
        self._note(Damage(damage.first, damage.end, damage.file, kept))

    def _note(self, damage: Damage) -> None:
        self.damaged.append(damage)
        log.error("%s", damage)

    def remove(self, before: int) -> None:
        """Remove the segments whose entries all have numbers below ``before``; the last one stays.

        Raises:
            Retriable: A file cannot be removed.
        """
        while True:
            with self._lock:
                if len(self._segments) < 2 or self._segments[1].first > before:
                    return
                gone = self._segments[0]
                try:
                    gone.path.unlink(missing_ok=True)
                except OSError as error:
                    raise Retriable(
                        f"{gone.path} cannot be removed: {error}; look at its permissions"
                    ) from error
                self._segments.pop(0)

    def close(self) -> None:
        """Release the folder. Closing twice is a no-op."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._stopped = f"the collector's log {self.folder} is closed"
        self.wake()
        self._held.close()
