"""Decode message payloads to the typed columns of a contract: parse JSON, then type the values."""

from __future__ import annotations

import polars as pl

from headrace.contracts.base import Contract
from headrace.contracts.unknown import EXTRA
from headrace.contracts.wire.decoded import Decoded, Failures, Parsed, Raw, Refusal
from headrace.contracts.wire.parse import parse
from headrace.contracts.wire.structs import never
from headrace.contracts.wire.typed import defaulted, typed


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
    return finished(
        contract, parse(contract.wire_fields, contract.unknown, payloads, max_message_bytes, refusal)
    )


def finished(contract: Contract, parsed: Parsed) -> Decoded:
    """Type what was parsed; both ways of parsing end here, so that they cannot disagree about types."""
    rows = _rows(contract, parsed.raw, parsed.failures)
    return Decoded(rows, parsed.message, parsed.index, parsed.failures, parsed.arrays, parsed.unknown)


def _rows(contract: Contract, raw: Raw, failures: Failures) -> pl.DataFrame:
    columns = []
    for column in contract.columns:
        values = typed(column, raw.fields[column.name], failures)
        missing = raw.missing[column.name] if column.default is not None else None
        columns.append(defaulted(column, values, missing))
    if raw.extra is not None:
        columns.append(raw.extra.alias(EXTRA))
    return pl.DataFrame(columns)
