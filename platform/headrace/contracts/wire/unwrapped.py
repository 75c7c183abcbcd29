"""Check messages of other formats: they become JSON text first, and keep the bytes that were sent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from headrace.contracts.wire.decoded import Decoded, Failures
from headrace.core.batch import MicroBatch

#: Columns of the records of a batch that was unwrapped: the bytes that were sent; of those that could not be read, the
#: check that they failed, and the value.
_SENT, _CHECK, _VALUE = "_sent", "_unread", "_unread_value"
#: Longest JSON text: who unwraps bounds it, and the limit on messages is one on the bytes that were sent.
_LONGEST_TEXT = 2**31 - 1


def unwrapped(batch: MicroBatch, most: int) -> MicroBatch:
    """Return a batch whose payloads are JSON; one that has no other is returned as it is.

    Args:
        batch: The messages.
        most: Longer messages are not read.
    """
    if batch.unwrap is None:
        return batch
    sent = batch.records["payload"]
    sizes = sent.bin.size().fill_null(0)
    long = sizes > most
    payloads = sent.zip_with(~long, pl.Series([None], dtype=pl.Binary)) if long.any() else sent
    found = batch.unwrap(payloads)
    why = dict(found.unread)
    why |= {row: (f"max_message_bytes({most})", str(sizes[row])) for row in long.arg_true()}
    reasons = [
        pl.Series(name, [None], dtype=pl.String).new_from_index(0, len(sent)) for name in (_CHECK, _VALUE)
    ]
    if why:
        for n, column in enumerate(reasons):
            reasons[n] = column.scatter(list(why), [reason[n] for reason in why.values()])
    records = batch.records.with_columns(found.payloads.alias("payload"), sent.alias(_SENT), *reasons)
    return replace(batch, records=records)


def longest(batch: MicroBatch, most: int) -> int:
    """Return the most bytes of a payload as it is decoded."""
    return most if batch.unwrap is None else _LONGEST_TEXT


def as_sent(records: pl.DataFrame) -> pl.Series:
    """Return the bytes that were sent."""
    return records[_SENT if _SENT in records.columns else "payload"]


def tell(decoded: Decoded, records: pl.DataFrame) -> None:
    """Give each message that could not be read its reason, instead of that of a message without bytes."""
    if _CHECK not in records.columns or records[_CHECK].null_count() == records.height:
        return
    unread = records.select(_CHECK, _VALUE).with_row_index().drop_nulls()
    rows = np.searchsorted(decoded.message.to_numpy(), unread["index"].to_numpy()).tolist()
    theirs, before = set(rows), decoded.failures
    decoded.failures = after = Failures()
    for row, check, column, value in zip(before.row, before.check, before.column, before.value, strict=True):
        if row not in theirs:
            after.add(row, check, column, value)
    for row, check, value in zip(rows, unread[_CHECK], unread[_VALUE], strict=True):
        after.add(row, check, "", value)
