"""Find repeats: an index of what was accepted within the last days, by the digest of write key and id.

It is RocksDB without its own log: the collector's log holds the same entries, and what the index lost in a crash is
added again from there. So it may lag behind the log and never runs ahead of it. Memory stays flat: rows are on disk.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from headrace.collector.log import ID_BYTES
from headrace.core.atomic import make_folder
from headrace.core.errors import Fatal, Retriable

if TYPE_CHECKING:
    from headrace.collector.log import DurableLog

log = logging.getLogger(__name__)

KEY_BYTES = 16
#: Number of the entry, and digest of the event's body.
_VALUE = struct.Struct("<Q8s")
#: Key of the number up to which all entries are in the index; shorter than any digest.
_THROUGH = b"through"
_NUMBER = struct.Struct("<Q")
_MEMORY_BYTES = 16 << 20
_CACHE_BYTES = 32 << 20
_BLOOM_BITS = 10
#: Bytes of the log whose events are added together at the start.
_TOGETHER_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of events, one element each.

    Attributes:
        number: Number of the entry that holds the same write key and id; -1 for a new event.
        within: Place of the earlier event of the same call with the same write key and id; -1 for none.
        other_body: Whether the earlier one has another body.
        all_new: Whether surely none was seen before.
    """

    number: npt.NDArray[np.int64]
    within: npt.NDArray[np.int64]
    other_body: npt.NDArray[np.bool_]
    all_new: bool = False

    @property
    def new(self) -> npt.NDArray[np.bool_]:
        """Whether an event was never seen before."""
        return (self.number < 0) & (self.within < 0)


class Ids:
    """The index, in a folder. For one thread that adds, and others that look.

    Guarantee: an event that ``add`` took is found for ``keep`` at least, across restarts and power cuts, as long as
    entries leave the log only below ``synced``.
    """

    def __init__(self, folder: Path, keep: timedelta) -> None:
        """Open or make the index.

        Args:
            folder: Its folder; RocksDB's own lock keeps other processes out.
            keep: How long an event is remembered; it may be longer.

        Raises:
            Fatal: It cannot be opened.
        """
        self.folder = folder
        seconds = max(1, round(keep.total_seconds()))
        make_folder(folder, synced=True)
        try:
            self._rows = Rdict(str(folder), _options(), access_type=AccessType.with_ttl(seconds))
        except Exception as error:
            raise Fatal(
                f"the collector's index {folder} cannot be opened: {error}; if it is damaged, move it away: it is made"
                " again from the log, without what the log no longer holds"
            ) from error
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # typed as a function
        self._rows.set_write_options(self._unlogged)
        self.through = self.synced = self._read_through()

    def _read_through(self) -> int:
        found = self._rows.get(_THROUGH)
        return int(_NUMBER.unpack(found)[0]) if found else 0

    def look(self, digests: bytes) -> Looked:
        """Look events up.

        Args:
            digests: ``ID_BYTES`` of each event.
        """
        keys = _keys(digests)
        rows: Any = self._rows
        found = rows.get(keys) if keys else []
        none, unique = found.count(None) == len(found), len(set(keys)) == len(keys)
        if none and unique:
            return _unseen(len(keys))
        number = np.full(len(keys), -1, np.int64)
        within, other = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.bool_)
        if not unique:
            first: dict[bytes, int] = {}
            for place, key in enumerate(keys):
                if (earlier := first.setdefault(key, place)) != place:
                    within[place] = earlier
                    other[place] = _body(digests, earlier) != _body(digests, place)
        if not none:
            for place, row in enumerate(found):
                if row is not None:
                    number[place], body = _VALUE.unpack(row)
                    other[place] = body != _body(digests, place)
        return Looked(number, within, other)

    def add(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Add the events of entries that are durable, whose numbers ascend.

        Args:
            entries: Number and digests (``Entry.ids``) of each entry.

        Raises:
            Retriable: The disk fails; what was to be added is added again at the next start.
        """
        batch, through = WriteBatch(raw_mode=True), self.through
        put = batch.put
        for number, digests in entries:
            begin = _NUMBER.pack(number)  # as _VALUE packs it
            for at in range(0, len(digests), ID_BYTES):
                put(digests[at : at + KEY_BYTES], begin + digests[at + KEY_BYTES : at + ID_BYTES])
            through = number + 1
        self._write(batch, through)

    def _add_many(self, entries: Sequence[tuple[int, bytes]]) -> None:
        """Do as ``add`` does, with rows in the order of their keys, which cost RocksDB a quarter."""
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in _rows_of(entries):
            put(key, value)
        self._write(batch, entries[-1][0] + 1)

    def _write(self, batch: WriteBatch, through: int) -> None:
        batch.put(_THROUGH, _NUMBER.pack(through))
        try:
            self._rows.write(batch, self._unlogged)
        except Exception as error:
            raise Retriable(
                f"the collector's index {self.folder} cannot be written: {error}; look at its disk"
            ) from error
        self.through = through

    def catch_up(self, durable: DurableLog) -> int:
        """Add what the log holds and the index lacks; call it before the first ``look``.

        Returns:
            Number of entries that were added.
        """
        if self.through > durable.next:  # the log was made anew: its numbers begin again
            self.through = 0
        added, lost = 0, max(0, durable.oldest - self.through)
        if lost and self.through:
            log.error(
                "the collector's index %s lacks entries %d to %d, which the log no longer holds: repeats of them are"
                " not recognised",
                self.folder,
                self.through,
                durable.oldest - 1,
            )
        reader, end = durable.ids_reader(self.through), durable.next
        try:
            while reader.next < end and (taken := reader.take(_TOGETHER_BYTES)):
                self._add_many(taken)
                added += len(taken)
        finally:
            reader.close()
        return added

    def sync(self) -> int:
        """Make all that was added survive a power cut.

        Returns:
            The number below which all entries are in the index for good: the log may drop them.

        Raises:
            Retriable: The disk fails.
        """
        through = self.through
        try:
            self._rows.flush(wait=True)
        except Exception as error:
            raise Retriable(
                f"the collector's index {self.folder} cannot be synced: {error}; look at its disk"
            ) from error
        self.synced = max(self.synced, through)
        return self.synced

    def close(self) -> None:
        """Close the index."""
        self._rows.close()


@lru_cache(64)
def _unseen(events: int) -> Looked:
    """Return what is known of events that are all new; nobody may change it."""
    number, within = np.full(events, -1, np.int64), np.full(events, -1, np.int64)
    other = np.zeros(events, np.bool_)
    for one in (number, within, other):
        one.setflags(write=False)
    return Looked(number, within, other, True)


def _keys(digests: bytes) -> list[bytes]:
    """Return the digests of write keys and ids."""
    if len(digests) % ID_BYTES:
        raise ValueError(f"{len(digests)} bytes of digests; each event has {ID_BYTES}")
    return [digests[at : at + KEY_BYTES] for at in range(0, len(digests), ID_BYTES)]


def _rows_of(entries: Sequence[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Return keys and values of all events, sorted by key; of two with the same key, the later one is behind."""
    digests = np.frombuffer(b"".join(ids for _, ids in entries), np.uint8).reshape(-1, ID_BYTES)
    numbers = np.array([number for number, _ in entries], "<u8")
    events = np.array([len(ids) for _, ids in entries]) // ID_BYTES
    values = np.empty((len(digests), _VALUE.size), np.uint8)
    values[:, : _NUMBER.size] = np.repeat(numbers, events).view(np.uint8).reshape(-1, _NUMBER.size)
    values[:, _NUMBER.size :] = digests[:, KEY_BYTES:]
    order = np.argsort(np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0], kind="stable")
    return zip(_each(digests[order, :KEY_BYTES]), _each(values[order]), strict=True)


def _each(rows: npt.NDArray[np.uint8]) -> list[bytes]:
    """Return the bytes of each row."""
    found: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0].tolist()
    return found


def _body(digests: bytes, place: int) -> bytes:
    """Return the digest of an event's body."""
    return digests[place * ID_BYTES + KEY_BYTES : (place + 1) * ID_BYTES]


def _options() -> Options:
    """Set a filter of 10 bits a key (new ids, nearly all, read no block) and small, fixed memory."""
    options, table = Options(raw_mode=True), BlockBasedOptions()
    table.set_bloom_filter(_BLOOM_BITS, block_based=False)
    table.set_block_cache(Cache(_CACHE_BYTES))
    table.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())  # digests do not get smaller
    options.create_if_missing(True)
    options.set_write_buffer_size(_MEMORY_BYTES)
    options.set_keep_log_file_num(2)
    return options
