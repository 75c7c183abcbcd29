"""Parse message payloads to values of JSON types.

Parsing is strict about types: a number is not a string, an object is not a number. A lenient parser would turn
a wrong type into a null, and nobody would see the loss.

Compiled code (``json_columns``) takes plainly valid records from bytes to columns without a Python object
(docs/adr/0016). ``structs`` parses all other records, which are wrong or merely rare, and names every reason.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.contracts.dtypes import WireField
from headrace.contracts.unknown import Policy, added
from headrace.contracts.wire.decoded import Parsed, Raw, Refusal
from headrace.contracts.wire.structs import StructParser, decodable, never


def parse(
    fields: Sequence[WireField],
    unknown: Policy | None,
    payloads: pl.Series,
    max_message_bytes: int,
    refusal: Refusal = never,
) -> Parsed:
    """Parse JSON objects; time and memory grow with their bytes.

    Args:
        fields: The fields to look for.
        unknown: Policy for all other fields; None if nobody asks for them.
        payloads: Binary, one per message.
        max_message_bytes: Longer messages fail whole.
        refusal: Called for each message that is an array.

    Returns:
        At least one row per message, so that no message vanishes: an empty array becomes one failed row.
    """
    # importing Numba takes longer than a whole command that decodes nothing
    from headrace.contracts.wire.json_columns import scan_columns

    fields = tuple(fields)
    odd = ~decodable(payloads, max_message_bytes)
    parts, counted = scan_columns(fields, unknown, payloads, odd)
    sure = Raw.concat(parts)
    if not odd.any():
        message = pl.int_range(len(payloads), dtype=pl.UInt32, eager=True)
        return Parsed(sure, message.alias("message"), _zeros(len(payloads)), unknown=counted)
    at = np.flatnonzero(odd)
    rest = StructParser(
        fields,
        unknown,
        payloads[at],
        max_message_bytes,
        lambda row, records: refusal(int(at[row]), records),
    ).parsed()
    rest.message = pl.Series("message", at.astype(np.uint32))[rest.message]
    rest.arrays = at[rest.arrays].tolist()
    rest.unknown = added(counted, rest.unknown)
    return rest if odd.all() else _merged(sure, odd, rest)


def _merged(sure: Raw, odd: npt.NDArray[np.bool_], rest: Parsed) -> Parsed:
    """Merge both parts in the order of the messages."""
    right = np.flatnonzero(~odd).astype(np.uint32)
    message = pl.concat([pl.Series("message", right), rest.message])
    order = np.argsort(message, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    failures = rest.failures
    failures.row = place[right.size + np.array(failures.row, np.int64)].tolist()
    rows = pl.Series(order)
    raw = Raw.concat([sure.filter(pl.Series(~odd)), rest.raw]).gather(rows)
    index = pl.concat([_zeros(right.size), rest.index])
    return Parsed(raw, message[order], index[order], failures, rest.arrays, rest.unknown)


def _zeros(rows: int) -> pl.Series:
    return pl.zeros(rows, pl.Int32, eager=True).alias("index")
