"""Kafka's record batches, as bytes, to columns: no Python object per message.

Format: https://kafka.apache.org/documentation/#recordbatch (magic 2). A record's place depends on the lengths of
all before it, so one pass over the length varints is sequential; everything else is numpy over all records of
many batches at once. Keys, values and headers are not copied: their columns are Arrow views into the one buffer
that the batches were joined into, and keep it alive.

Knows bytes alone. Who fetches them, checks their CRC and decompresses them is ``kafka_fetch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.batch import HEADERS, RECORD_SCHEMA

#: Columns of ``decode``: of ``RECORD_SCHEMA`` those that a record itself holds.
BATCH_SCHEMA = pl.Schema(
    {name: RECORD_SCHEMA[name] for name in ("payload", "key", "headers", "timestamp", "offset")}
)
#: Bytes that are joined at once. A view counts its place in 31 bits; a longer batch stands alone.
_JOINED_BYTES = 1 << 26
_VIEW_BYTES = 2**31 - 1
#: Bytes that a view holds within itself (https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout).
_INLINE = 12
#: Bytes of a record at least: length, attributes, two deltas, two lengths, the headers' number.
_SMALLEST_RECORD = 7

Ints = npt.NDArray[np.int64]


class CorruptBatch(ValueError):
    """A record batch whose records are not what its header or their lengths say."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """One record batch, decompressed and not decoded.

    Attributes:
        records: The bytes after the batch's header.
        count: Records in it.
        base_offset: Offset that the records' deltas count from.
        first_timestamp: Milliseconds since 1970 that the records' deltas count from.
        append_timestamp: Milliseconds since 1970 of all its records (LogAppendTime); None for CreateTime.
        wanted: Records before this offset are left out: a fetch may begin within a batch.
    """

    records: bytes | bytearray | memoryview
    count: int
    base_offset: int
    first_timestamp: int
    append_timestamp: int | None
    wanted: int

    def __len__(self) -> int:
        return len(self.records)


@dataclass(slots=True)
class _Torn(Exception):
    """Row ``row`` is broken."""

    row: int
    what: str


def decode(batches: Sequence[RawBatch]) -> pl.DataFrame:
    """Consecutive batches of one partition as columns.

    Returns:
        ``BATCH_SCHEMA``, one row per record in the order of the batches. ``headers`` is null for none.

    Raises:
        CorruptBatch: A record is cut off, or does not end where its length says. Nothing is returned then.
    """
    return joined(BATCH_SCHEMA, [_decode(run) for run in _runs(batches)])


def joined(schema: pl.Schema, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames of ``schema`` as one. Bytes are not copied."""
    return pl.concat([schema.to_frame(), *frames]).rechunk()


def _runs(batches: Iterable[RawBatch]) -> Iterator[list[RawBatch]]:
    """Neighbours that are worth one concatenation."""
    run: list[RawBatch] = []
    size = 0
    for batch in batches:
        if run and size + len(batch) > _JOINED_BYTES:
            yield run
            run, size = [], 0
        run.append(batch)
        size += len(batch)
    if run:
        yield run


def _decode(batches: list[RawBatch]) -> pl.DataFrame:
    data = b"".join([batch.records for batch in batches])
    counts = np.array([batch.count for batch in batches], np.int64)
    try:
        return _columns(data, batches, counts)
    except _Torn as torn:
        at = int(np.searchsorted(np.cumsum(counts), torn.row, side="right"))
        nth, batch = torn.row - int(counts[:at].sum()), batches[at]
        raise CorruptBatch(
            f"record {nth} of {batch.count} in the record batch at offset {batch.base_offset}: {torn.what}"
        ) from None


def _columns(data: bytes, batches: list[RawBatch], counts: Ints) -> pl.DataFrame:
    ends = np.array(_ends(data, batches), np.int64)
    if not ends.size:
        return BATCH_SCHEMA.to_frame()

    def each(values: Iterable[int]) -> Ints:
        return np.repeat(np.fromiter(values, np.int64, len(batches)), counts)

    reader = _Reader(
        np.frombuffer(data, np.uint8), np.concatenate(([0], ends[:-1])), ends, np.arange(ends.size)
    )
    length = reader.varint()
    reader.refuse(length != reader.end - reader.at, "its length is negative")
    reader.step(np.ones_like(length))  # attributes: unused so far
    timestamp = each(batch.first_timestamp for batch in batches) + reader.varint()
    offset = each(batch.base_offset for batch in batches) + reader.varint()
    key, value = reader.blob(), reader.blob()
    headers = _Headers(reader)
    for batch, end in zip(batches, np.cumsum(counts), strict=True):
        if batch.append_timestamp is not None:
            timestamp[end - batch.count : end] = batch.append_timestamp
    whole = pl.DataFrame(
        {
            "payload": _binary(data, *value),
            "key": _binary(data, *key),
            "headers": headers.column(data),
            "timestamp": utc(pl.Series(timestamp)),
            "offset": pl.Series(offset),
        },
        schema=BATCH_SCHEMA,
    )
    if all(batch.wanted <= batch.base_offset for batch in batches):
        return whole
    return whole.filter(pl.Series(offset >= each(batch.wanted for batch in batches)))


def _ends(data: bytes, batches: list[RawBatch]) -> list[int]:
    """Where each record ends. The one step that has to go from record to record: about 0.1 microseconds each."""
    ends: list[int] = []
    at = limit = 0
    for batch in batches:
        limit += len(batch)
        if not 0 <= batch.count * _SMALLEST_RECORD <= len(batch):
            what = f"{len(batch)} bytes cannot hold as many"
            raise CorruptBatch(f"record batch of {batch.count} at offset {batch.base_offset}: {what}")
        try:
            for _ in range(batch.count):
                byte = data[at]
                length, shift = byte & 0x7F, 7
                while byte & 0x80:
                    at += 1
                    byte = data[at]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                at += 1 + (length >> 1)
                if at > limit:
                    raise _Torn(len(ends), f"it reaches {at - limit} bytes beyond the batch's end")
                ends.append(at)
        except IndexError:
            raise _Torn(len(ends), "it is cut off") from None
        if at != limit:
            what = f"{limit - at} bytes are left over"
            raise CorruptBatch(f"record batch of {batch.count} at offset {batch.base_offset}: {what}")
    return ends


@dataclass(slots=True)
class _Reader:
    """A place in each of many records, which moves on as they are read side by side."""

    data: npt.NDArray[np.uint8]
    at: Ints
    end: Ints
    row: Ints  # as the caller counts them

    def refuse(self, bad: npt.NDArray[np.bool_], what: str) -> None:
        if bad.any():
            raise _Torn(int(self.row[int(bad.argmax())]), what)

    def step(self, size: Ints) -> None:
        self.refuse(size > self.end - self.at, "a field of it reaches beyond its end")
        self.at = self.at + size

    def varint(self) -> Ints:
        """Zigzag, of up to 64 bits (https://protobuf.dev/programming-guides/encoding/#signed-ints)."""
        begin = self.at
        self.step(np.ones_like(begin))
        byte = self.data[begin]
        value = (byte & 0x7F).astype(np.uint64)
        more, shift = np.flatnonzero(byte & 0x80), 7
        while more.size:
            if shift > 63:
                raise _Torn(int(self.row[more[0]]), "a number in it is longer than 64 bits")
            at = self.at[more]
            if (beyond := at >= self.end[more]).any():
                raise _Torn(int(self.row[more[int(beyond.argmax())]]), "a number in it is cut off")
            byte = self.data[at]
            value[more] |= (byte & 0x7F).astype(np.uint64) << np.uint64(shift)
            self.at[more] = at + 1
            more = more[byte >= 0x80]
            shift += 7
        return (value >> np.uint64(1)).astype(np.int64) ^ -(value & np.uint64(1)).astype(np.int64)

    def blob(self) -> tuple[Ints, Ints]:
        """Start and length of bytes that follow their length; a length below zero is null."""
        length = self.varint()
        start = self.at
        self.step(np.maximum(length, 0))
        return start, length

    def some(self, chosen: npt.NDArray[np.bool_]) -> _Reader:
        return _Reader(self.data, self.at[chosen], self.end[chosen], self.row[chosen])


class _Headers:
    """Names and values of all records' headers."""

    def __init__(self, reader: _Reader) -> None:
        """Reads on to the records' ends: the first header of all records, then the second, and so on."""
        self.counts = reader.varint()
        reader.refuse(self.counts < 0, "the number of its headers is negative")
        self.found: list[tuple[Ints, ...]] = []
        left = self.counts
        while True:
            reader.refuse((left == 0) & (reader.at != reader.end), "it is longer than its fields")
            reader = reader.some(left > 0)
            left = left[left > 0] - 1
            if not left.size:
                return
            name_at, name_size = reader.blob()
            reader.refuse(name_size < 0, "a header has no name")
            self.found.append((reader.row, name_at, name_size, *reader.blob()))

    def column(self, data: bytes) -> pl.Series:
        """``HEADERS``, null for none."""
        if not self.found:
            return pl.Series([None], dtype=HEADERS).new_from_index(0, self.counts.size)
        row, *places = (np.concatenate(column) for column in zip(*self.found, strict=True))
        order = np.argsort(row, kind="stable")
        name_at, name_size, value_at, value_size = (place[order] for place in places)
        names = _binary(data, name_at, name_size)
        try:
            text = names.cast(pl.String)
        except pl.exceptions.PolarsError:
            first = next(n for n, name in enumerate(names) if not _is_utf8(name))
            raise _Torn(int(row[order][first]), "a header's name is not UTF-8") from None
        pairs = pl.DataFrame({"key": text, "value": _binary(data, value_at, value_size)}).to_struct()
        none = pa.array(self.counts == 0)
        offsets = pa.array(np.concatenate(([0], np.cumsum(self.counts))), pa.int64())
        lists = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pairs.to_arrow(), mask=none))
        assert isinstance(lists, pl.Series)
        return lists.cast(HEADERS)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _binary(data: bytes, start: Ints, length: Ints) -> pl.Series:
    """Pieces of ``data`` as Arrow views; a length below zero is null."""
    if len(data) > _VIEW_BYTES:
        raise CorruptBatch(f"a record batch of {len(data)} bytes; Kafka's limit is {_VIEW_BYTES}")
    octets = np.frombuffer(data, np.uint8)
    views = np.zeros((length.size, 4), "<i4")
    views[:, 0] = np.maximum(length, 0)
    far = np.flatnonzero(length > _INLINE)
    views[far, 1] = octets[start[far, None] + np.arange(4)].view("<i4").ravel()
    views[far, 3] = start[far]
    near = np.flatnonzero((length > 0) & (length <= _INLINE))
    within = np.arange(_INLINE)
    # beyond the end of data nothing is wanted, so any byte will do
    inline = octets[np.minimum(start[near, None] + within, octets.size - 1)]
    inline[within >= length[near, None]] = 0
    views[near, 1:] = inline.view("<i4")
    known = length >= 0
    validity = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    buffers = [validity, pa.py_buffer(views), pa.py_buffer(data)]
    column = pl.from_arrow(pa.Array.from_buffers(pa.binary_view(), length.size, buffers))
    assert isinstance(column, pl.Series)
    return column


def utc(milliseconds: pl.Series) -> pl.Series:
    """Milliseconds since 1970 as ``UTC_MICROS``."""
    return milliseconds.cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
