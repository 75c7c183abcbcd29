"""Decode Kafka's record batches from bytes to columns: no Python object per message.

Format: https://kafka.apache.org/documentation/#recordbatch (magic 2). Compiled code (``scan``) goes from record
to record. Keys, values and headers are not copied. Their columns are Arrow views into the one buffer into which
the batches were joined, and keep it alive.

This module knows bytes alone. ``fetch`` gets them, checks their CRC and decompresses them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl

from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, RawBatch, concat

#: Bytes that are joined at once, because the place in a view has 31 bits; a longer batch stands alone.
_JOINED_BYTES = 1 << 26


def decode(batches: Sequence[RawBatch]) -> pl.DataFrame:
    """Decode consecutive batches of one partition.

    Returns:
        ``BATCH_SCHEMA``, one row per record in the order of the batches. ``headers`` is null for none.

    Raises:
        CorruptBatch: A record is cut off, or does not end where its length says. Nothing is returned then.
    """
    return concat(BATCH_SCHEMA, [_decode(run) for run in _runs(batches)])


def _runs(batches: Iterable[RawBatch]) -> Iterator[list[RawBatch]]:
    """Group neighbouring batches for one concatenation."""
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
    # importing Numba takes longer than a whole command that reads no topic
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
