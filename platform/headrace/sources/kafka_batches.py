"""Kafka's record batches, as bytes, to columns: no Python object per message.

Format: https://kafka.apache.org/documentation/#recordbatch (magic 2). Compiled code (``record_scan``) goes from record
to record. Keys, values and headers are not copied: their columns are Arrow views into the one buffer that the batches
were joined into, and keep it alive.

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
from headrace.compiled import viewed
from headrace.sources.record_scan import PROBLEMS, find_fields, find_headers

#: Columns of ``decode``: of ``RECORD_SCHEMA`` those that a record itself holds.
BATCH_SCHEMA = pl.Schema(
    {name: RECORD_SCHEMA[name] for name in ("payload", "key", "headers", "timestamp", "offset")}
)
#: Bytes that are joined at once. A view counts its place in 31 bits; a longer batch stands alone.
_JOINED_BYTES = 1 << 26
_VIEW_BYTES = 2**31 - 1
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
    if len(data) > _VIEW_BYTES:
        raise CorruptBatch(f"a record batch of {len(data)} bytes; Kafka's limit is {_VIEW_BYTES}")
    octets = np.frombuffer(data, np.uint8)
    views, known, numbers = _fields(octets, batches)
    headers = _headers(octets, numbers)

    def each(values: Iterable[int]) -> Ints:
        return np.repeat(np.fromiter(values, np.int64, len(batches)), counts)

    timestamp = each(batch.first_timestamp for batch in batches) + numbers[0]
    offset = each(batch.base_offset for batch in batches) + numbers[1]
    for batch, end in zip(batches, np.cumsum(counts), strict=True):
        if batch.append_timestamp is not None:
            timestamp[end - batch.count : end] = batch.append_timestamp
    whole = pl.DataFrame(
        {
            "payload": viewed(pa.binary_view(), views[0], known[0], octets),
            "key": viewed(pa.binary_view(), views[1], known[1], octets),
            "headers": headers,
            "timestamp": utc(pl.Series(timestamp)),
            "offset": pl.Series(offset),
        },
        schema=BATCH_SCHEMA,
    )
    if all(batch.wanted <= batch.base_offset for batch in batches):
        return whole
    return whole.filter(pl.Series(offset >= each(batch.wanted for batch in batches)))


def _fields(
    octets: npt.NDArray[np.uint8], batches: list[RawBatch]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], Ints]:
    """See ``find_fields``."""
    for batch in batches:
        if not 0 <= batch.count * _SMALLEST_RECORD <= len(batch):
            what = f"{len(batch)} bytes cannot hold as many"
            raise CorruptBatch(f"record batch of {batch.count} at offset {batch.base_offset}: {what}")
    rows = sum(batch.count for batch in batches)
    views, known = np.empty((2, rows, 4), np.int32), np.empty((2, rows), np.bool_)
    numbers = np.empty((5, rows), np.int64)
    begin = row = 0
    for batch in batches:
        end = begin + len(batch)
        broken, problem, at = find_fields(octets, begin, end, row, batch.count, views, known, numbers)
        if problem:
            raise _Torn(broken, PROBLEMS[problem])
        if at != end:
            what = f"{end - at} bytes are left over"
            raise CorruptBatch(f"record batch of {batch.count} at offset {batch.base_offset}: {what}")
        begin, row = end, row + batch.count
    return views, known, numbers


def _headers(octets: npt.NDArray[np.uint8], numbers: Ints) -> pl.Series:
    """``HEADERS``, null for none."""
    counts = numbers[2]
    found = int(counts.sum())
    if not found:
        return pl.Series([None], dtype=HEADERS).new_from_index(0, counts.size)
    views, known = np.empty((2, found, 4), np.int32), np.empty(found, np.bool_)
    broken, problem = find_headers(octets, numbers, views, known)
    if problem:
        raise _Torn(broken, PROBLEMS[problem])
    names = viewed(pa.binary_view(), views[0], None, octets)
    try:
        text = names.cast(pl.String)
    except pl.exceptions.PolarsError:
        first = next(n for n, name in enumerate(names) if not _is_utf8(name))
        row = int(np.searchsorted(np.cumsum(counts), first, side="right"))
        raise _Torn(row, "a header's name is not UTF-8") from None
    value = viewed(pa.binary_view(), views[1], known, octets)
    pairs = pl.DataFrame({"key": text, "value": value}).to_struct()
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int64())
    lists = pa.LargeListArray.from_arrays(offsets, pairs.to_arrow(), mask=pa.array(counts == 0))
    column = pl.from_arrow(lists)
    assert isinstance(column, pl.Series)
    return column.cast(HEADERS)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def utc(milliseconds: pl.Series) -> pl.Series:
    """Milliseconds since 1970 as ``UTC_MICROS``."""
    return milliseconds.cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
