"""Define a record batch as bytes, and the columns that its records become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.core.batch import RECORD_SCHEMA

#: Columns of ``decode``: the part of ``RECORD_SCHEMA`` that a record itself holds.
BATCH_SCHEMA = pl.Schema(
    {name: RECORD_SCHEMA[name] for name in ("payload", "key", "headers", "timestamp", "offset")}
)

Ints = npt.NDArray[np.int64]


class CorruptBatch(ValueError):
    """The records of a batch are not what its header or their lengths say."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """One record batch, decompressed and not decoded.

    Attributes:
        records: The bytes after the batch's header.
        count: Number of records.
        base_offset: Offset to which the records' deltas are added.
        first_timestamp: Milliseconds since 1970 to which the records' deltas are added.
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


def concat(schema: pl.Schema, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate frames of ``schema``; bytes are not copied."""
    return pl.concat([schema.to_frame(), *frames]).rechunk()


def utc(milliseconds: pl.Series) -> pl.Series:
    """Convert milliseconds since 1970 to ``UTC_MICROS``."""
    return milliseconds.cast(pl.Datetime("ms")).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
