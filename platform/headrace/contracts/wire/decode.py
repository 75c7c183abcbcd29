"""Decode message payloads to typed columns.

Decoding is strict about types: a number is not a string, an object is not a number. A lenient parser would turn
a wrong type into a null, and nobody would see the loss.

Compiled code (``json_columns``) takes plainly valid records from bytes to columns without a Python object
(docs/adr/0016). ``structs`` decodes all other records, which are wrong or merely rare, and names every reason.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.contracts.base import Contract
from headrace.contracts.unknown import added
from headrace.contracts.wire.decoded import Decoded, Failures, Refusal
from headrace.contracts.wire.structs import StructDecoder, decodable, never


def decode(
    contract: Contract, payloads: pl.Series, max_message_bytes: int, refusal: Refusal = never
) -> Decoded:
    """Decode one micro-batch; time and memory grow with its bytes.

    Args:
        contract: What the records should be.
        payloads: Binary, one per message.
        max_message_bytes: Longer messages fail whole.
        refusal: Called for each message that is an array.

    Returns:
        At least one row per message, so that no message vanishes: an empty array becomes one failed row.
    """
    # importing Numba takes longer than a whole command that decodes nothing
    from headrace.contracts.wire.json_columns import scan_columns

    odd = ~decodable(payloads, max_message_bytes)
    frames, unknown = scan_columns(contract, payloads, odd)
    sure = pl.concat(frames, rechunk=True)
    if not odd.any():
        message = pl.int_range(len(payloads), dtype=pl.UInt32, eager=True)
        return Decoded(sure, message.alias("message"), _zeros(len(payloads)), Failures(), unknown=unknown)
    at = np.flatnonzero(odd)
    rest = StructDecoder(
        contract, payloads[at], max_message_bytes, lambda row, records: refusal(int(at[row]), records)
    ).decoded()
    rest.message = pl.Series("message", at.astype(np.uint32))[rest.message]
    rest.arrays = at[rest.arrays].tolist()
    rest.unknown = added(unknown, rest.unknown)
    return rest if odd.all() else _merged(sure, odd, rest)


def _merged(sure: pl.DataFrame, odd: npt.NDArray[np.bool_], rest: Decoded) -> Decoded:
    """Merge both parts in the order of the messages."""
    right = np.flatnonzero(~odd).astype(np.uint32)
    message = pl.concat([pl.Series("message", right), rest.message])
    order = np.argsort(message, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    failures = rest.failures
    failures.row = place[right.size + np.array(failures.row, np.int64)].tolist()
    rows = pl.concat([sure.filter(pl.Series(~odd)), rest.rows], rechunk=True)[order]
    index = pl.concat([_zeros(right.size), rest.index])
    return Decoded(rows, message[order], index[order], failures, rest.arrays, rest.unknown)


def _zeros(rows: int) -> pl.Series:
    return pl.zeros(rows, pl.Int32, eager=True).alias("index")
