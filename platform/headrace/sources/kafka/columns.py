"""Turn Kafka's records into columns; see ``decode``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.core.batch import HEADERS
from headrace.core.compiled import view_column
from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, Ints, RawBatch, utc
from headrace.sources.kafka.scan import PROBLEMS, find_fields, find_headers

#: Most bytes of a batch: the place in a view has 31 bits.
_VIEW_BYTES = 2**31 - 1
#: Fewest bytes of a record: length, attributes, two deltas, two lengths, the number of headers.
_SMALLEST_RECORD = 7


@dataclass(slots=True)
class Torn(Exception):
    """Row ``row`` is broken."""

    row: int
    what: str


def columns(data: bytes, batches: Sequence[RawBatch], counts: Ints) -> pl.DataFrame:
    """Make columns of one partition's batches, whose bytes are joined in ``data``.

    Raises:
        Torn: A record is broken.
        CorruptBatch: A batch is too long, or does not hold what its header says.
    """
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
            "payload": view_column(pa.binary_view(), views[0], known[0], octets),
            "key": view_column(pa.binary_view(), views[1], known[1], octets),
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
    octets: npt.NDArray[np.uint8], batches: Sequence[RawBatch]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], Ints]:
    """Find the fields of all records; see ``find_fields``."""
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
            raise Torn(broken, PROBLEMS[problem])
        if at != end:
            what = f"{end - at} bytes are left over"
            raise CorruptBatch(f"record batch of {batch.count} at offset {batch.base_offset}: {what}")
        begin, row = end, row + batch.count
    return views, known, numbers


def _headers(octets: npt.NDArray[np.uint8], numbers: Ints) -> pl.Series:
    """Make the column ``HEADERS``; null for no headers."""
    counts = numbers[2]
    found = int(counts.sum())
    if not found:
        return pl.Series([None], dtype=HEADERS).new_from_index(0, counts.size)
    views, known = np.empty((2, found, 4), np.int32), np.empty(found, np.bool_)
    broken, problem = find_headers(octets, numbers, views, known)
    if problem:
        raise Torn(broken, PROBLEMS[problem])
    names = view_column(pa.binary_view(), views[0], None, octets)
    try:
        text = names.cast(pl.String)
    except pl.exceptions.PolarsError:
        first = next(n for n, name in enumerate(names) if not _is_utf8(name))
        row = int(np.searchsorted(np.cumsum(counts), first, side="right"))
        raise Torn(row, "a header's name is not UTF-8") from None
    value = view_column(pa.binary_view(), views[1], known, octets)
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
