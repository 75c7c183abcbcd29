"""Kafka's record batches, as bytes, to columns: no Python object per message.

Format: https://kafka.apache.org/documentation/#recordbatch (magic 2). Compiled code (``columns``) goes from
record to record. Keys, values and headers are not copied: their columns are Arrow views into the one buffer that the
batches were joined into, and keep it alive.

Knows bytes alone. Who fetches them, checks their CRC and decompresses them is ``fetch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.core.batch import RECORD_SCHEMA

#: Columns of ``decode``: of ``RECORD_SCHEMA`` those that a record itself holds.
BATCH_SCHEMA = pl.Schema(
    {name: RECORD_SCHEMA[name] for name in ("payload", "key", "headers", "timestamp", "offset")}
)
#: Bytes that are joined at once. A view counts its place in 31 bits; a longer batch stands alone.
_JOINED_BYTES = 1 << 26

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
    # Numba takes longer to import than all that a command which reads no topic needs
    from headrace.sources.kafka.columns import Torn, columns

    data = b"".join([batch.records for batch in batches])
    counts = np.array([batch.count for batch in batches], np.int64)
    try:
        return columns(data, batches, counts)
    except Torn as torn:
        at = int(np.searchsorted(np.cumsum(counts), torn.row, side="right"))
        nth, batch = torn.row - int(counts[:at].sum()), batches[at]
        raise CorruptBatch(
            f"record {nth} of {batch.count} in the record batch at offset {batch.base_offset}: {torn.what}"
        ) from None


def utc(milliseconds: pl.Series) -> pl.Series:
    """Milliseconds since 1970 as ``UTC_MICROS``."""
    return milliseconds.cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
