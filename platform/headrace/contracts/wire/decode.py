"""Decode message payloads to the typed columns of a contract: parse JSON, then type the values."""

from __future__ import annotations

import msgspec
import polars as pl

from headrace.contracts.base import Contract
from headrace.contracts.unknown import EXTRA, added
from headrace.contracts.wire.decoded import Decoded, Failures, Parsed, Raw, Refusal
from headrace.contracts.wire.nested import Strangers
from headrace.contracts.wire.parse import parse
from headrace.contracts.wire.structs import never
from headrace.contracts.wire.typed import defaulted, typed

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


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
    strangers = Strangers(contract.unknown)
    rows = _rows(contract, parsed.raw, parsed.failures, strangers)
    unknown = added(parsed.unknown, strangers.counts) if strangers.counts else parsed.unknown
    absent = parsed.raw.missing if parsed.absent is None else parsed.absent
    return Decoded(rows, parsed.message, parsed.index, parsed.failures, parsed.arrays, unknown, absent)


def _rows(contract: Contract, raw: Raw, failures: Failures, strangers: Strangers) -> pl.DataFrame:
    columns = []
    for column in contract.read_columns:
        values = typed(column, raw.fields[column.name], failures, strangers)
        missing = raw.missing[column.name] if column.default is not None else None
        columns.append(defaulted(column, values, missing))
    if raw.extra is not None:
        columns.append(_extra(raw.extra, strangers).alias(EXTRA))
    return pl.DataFrame(columns)


def _extra(extra: pl.Series, strangers: Strangers) -> pl.Series:
    """Add the members that nobody named to the JSON objects of kept fields, under their path."""
    if not strangers.kept:
        return extra
    by_row: dict[int, dict[str, msgspec.Raw]] = {}
    for row, path, value in strangers.kept:
        by_row.setdefault(row, {}).setdefault(path, value)
    for row, strange in by_row.items():
        own = _OBJECT.decode(extra[row]) if extra[row] is not None else {}
        by_row[row] = own | strange
    texts = [msgspec.json.encode(strange).decode() for strange in by_row.values()]
    return extra.scatter(list(by_row), pl.Series(texts, dtype=pl.String))
