"""Find the bytes of single records in the messages of a batch."""

from __future__ import annotations

import polars as pl

from headrace.contracts.wire.decoded import Decoded
from headrace.contracts.wire.json_array import take


def payloads_of(
    messages: pl.Series, decoded: Decoded, rows: pl.Series, whole: pl.Series | None = None
) -> pl.Series:
    """Return the bytes of some records; a message that is an array is split once.

    Args:
        messages: Payload of each message.
        decoded: The records of the messages.
        rows: Boolean, one per record: which of them.
        whole: Bytes of each message that is one record, if they are not its payload.
    """
    message, index = decoded.message.filter(rows), decoded.index.filter(rows)
    bytes_of = messages if whole is None else whole
    found = pl.DataFrame([message, index, bytes_of[message].alias("payload")]).with_row_index("place")
    element = message.is_in(decoded.arrays)
    if not element.any():
        return found["payload"]
    by_message = found.filter(element).group_by("message", maintain_order=True).agg("index")
    payloads = [part for at, places in by_message.iter_rows() for part in take(messages[at], places)]
    elements = found.filter(element).with_columns(payload=pl.Series(payloads, dtype=pl.Binary))
    return pl.concat([found.filter(~element), elements]).sort("place")["payload"]
