"""Follow the types that a Parquet file declares: its writer knew more than a sample shows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from headrace.contracts.inference.proposal import Proposal

_T = pa.types
_MOST_DIGITS = 38
_INTEGERS = {
    pa.int8(): "pl.Int8",
    pa.int16(): "pl.Int16",
    pa.int32(): "pl.Int32",
    pa.int64(): "pl.Int64",
    pa.uint8(): "pl.UInt8",
    pa.uint16(): "pl.UInt16",
    pa.uint32(): "pl.UInt32",
    pa.uint64(): "pl.UInt64",
}


def follow(proposal: Proposal, declared: Any, *, binary: bool) -> None:
    """Change a proposal to the type that the file declares.

    Args:
        proposal: What the values suggest; of a column without values, a guess.
        declared: Arrow type of the column.
        binary: Whether some of its values are bytes that are no text.
    """
    guess = not proposal.seen or proposal.seen.startswith("no value")
    found = _declared(declared)
    if binary:
        found = ("binary", "pl.Binary")
    if found is not None and (guess or binary or proposal.kind in _MAY_BECOME[found[0]]):
        proposal.kind, proposal.dtype = found
        proposal.hints.clear()
        if guess or binary:
            proposal.decide.clear()
            proposal.arguments.clear()  # what is said of text
    if _T.is_dictionary(declared) and proposal.dtype == "pl.String" and proposal.kind == "text":
        proposal.arguments["low_cardinality"] = True


#: Declared kind -> kinds of proposals that it makes more exact.
_MAY_BECOME = {
    "integer": ("integer",),
    "number": ("number", "integer"),
    "decimal": ("number", "integer", "decimal"),
    "boolean": (),
    "date": (),
    "time": (),
    "binary": (),
}


def _declared(kind: Any) -> tuple[str, str] | None:
    """Return kind and annotation of an Arrow type; None for text and for what has members."""
    if kind in _INTEGERS:
        return "integer", _INTEGERS[kind]
    if _T.is_float32(kind) or _T.is_float16(kind):
        return "number", "pl.Float32"
    if _T.is_float64(kind):
        return "number", "pl.Float64"
    if _T.is_decimal(kind) and kind.precision <= _MOST_DIGITS and 0 <= kind.scale <= kind.precision:
        return "decimal", f"Annotated[pl.Decimal, {kind.precision}, {kind.scale}]"
    if _T.is_boolean(kind):
        return "boolean", "pl.Boolean"
    if _T.is_date(kind):
        return "date", "pl.Date"
    if _T.is_timestamp(kind) and kind.tz is not None:
        return "time", "Time"
    return None
