"""Type columns of JSON values: the dtype that the contract declares, and every value that does not fit it.

Both ways of parsing end here, so that they cannot disagree. A column that is an object or an array of its own is
parsed again, by the same code that parses messages, one level deeper; the reasons then name the path: ``address.zip``
for a member, ``tags[]`` for an element, ``prices.*`` for a value of a map.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from headrace.contracts.base import Column, wire_field
from headrace.contracts.dtypes import FIRST_DAY, FLOAT32, LAST_DAY, inner_of, wires_of
from headrace.contracts.wire.decoded import Failures
from headrace.contracts.wire.json_numbers import decimal_of
from headrace.contracts.wire.nested import Strangers, lists_of, maps_of, structs_of

_DATES = f"in_range({FIRST_DAY}, {LAST_DAY})"
_FLOATS = f"in_range(-{FLOAT32:.8g}, {FLOAT32:.8g})"


def typed(
    column: Column, raw: pl.Series, failures: Failures, strangers: Strangers | None = None
) -> pl.Series:
    """Convert values to the column's dtype.

    Args:
        column: What the values should be. Its name is the path that reasons show.
        raw: Values in the dtype of the column's wire field.
        failures: Gets every value that does not fit; such a value becomes null.
        strangers: Judges the members of objects that the column's dtype does not name; by default nobody does.
    """
    convert = _CONVERT.get(column.wire)
    if convert is not None:
        found = convert(column, raw, failures)
    elif raw.dtype == column.dtype:
        found = raw
    elif column.wire in ("list", "map", "struct"):
        found = _nested(column, raw, failures, strangers or Strangers())
    else:
        found = raw.cast(column.dtype)
    return found.alias(column.name)


def defaulted(column: Column, values: pl.Series, missing: pl.Series | None) -> pl.Series:
    """Put the column's default into the records that lack the field; a null stays null."""
    if missing is None or not missing.any():
        return values
    default = pl.Series([column.default], dtype=column.dtype)
    return values.zip_with(~missing, default.new_from_index(0, len(values))).alias(column.name)


def within(column: Column, path: str, dtype: pl.DataType) -> Column:
    """Describe what is within a column as a column of its own, which may be null."""
    return Column(f"{column.name}{path}", dtype, wires_of(dtype)[0], True, "", False, None, ())


def _fail(
    column: Column, found: pl.Series, raw: pl.Series, failures: Failures, check: str | Callable[[str], str]
) -> None:
    """Add a reason for each value that was there and could not be converted."""
    if found.null_count() == raw.null_count():
        return
    for row in (found.is_null() & raw.is_not_null()).arg_true().to_list():
        said = check if isinstance(check, str) else check(raw[row])
        failures.add(row, said, column.name, str(raw[row]))


def _number(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    if column.dtype != pl.Float32():
        return raw
    found = raw.cast(pl.Float32)
    beyond = found.is_infinite()
    if beyond.any():
        found = found.set(beyond, None)
        _fail(column, found, raw, failures, _FLOATS)
    return found


def _date(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    from headrace.contracts.wire.json_columns import dates  # see parse

    found = dates(raw)
    _fail(column, found, raw, failures, "date(YYYY-MM-DD)")
    beyond = ~found.is_between(FIRST_DAY, LAST_DAY)
    if beyond.any():
        kept = found.set(beyond, None)
        _fail(column, kept, found, failures, _DATES)
        return kept
    return found


def _enum(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    assert isinstance(column.dtype, pl.Enum)
    found = raw.cast(column.dtype, strict=False)
    _fail(column, found, raw, failures, f"isin({column.dtype.categories.to_list()})")
    return found


def _uuid(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    from headrace.contracts.wire.json_columns import uuids

    found = uuids(raw)
    _fail(column, found, raw, failures, "uuid")
    return found


def _binary(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    found = raw.str.decode("base64", strict=False)
    _fail(column, found, raw, failures, "base64")
    return found


def _decimal(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    from headrace.contracts.wire.json_columns import decimals

    assert isinstance(column.dtype, pl.Decimal)
    precision, scale = column.dtype.precision, column.dtype.scale
    assert precision is not None
    found = decimals(raw, precision, scale)
    if found.null_count() == raw.null_count():
        return found
    rare = {}  # written otherwise than the compiled code expects
    for row in (found.is_null() & raw.is_not_null()).arg_true().to_list():
        value = decimal_of(raw[row].encode(), precision, scale)
        if isinstance(value, str):
            failures.add(row, value, column.name, raw[row])
        else:
            rare[row] = value
    return found.scatter(list(rare), pl.Series(list(rare.values()), dtype=column.dtype)) if rare else found


_CONVERT: dict[str, Callable[[Column, pl.Series, Failures], pl.Series]] = {
    "number": _number,
    "date": _date,
    "enum": _enum,
    "uuid": _uuid,
    "binary": _binary,
    "decimal": _decimal,
}


def _nested(column: Column, raw: pl.Series, failures: Failures, strangers: Strangers) -> pl.Series:
    members = {path: within(column, path, dtype) for path, dtype in inner_of(column.dtype).items()}

    def convert(path: str, values: pl.Series, found: Failures, deeper: Strangers) -> pl.Series:
        return typed(members[path], values, found, deeper)

    if column.wire == "struct":
        fields = {p: wire_field(c, p.removeprefix(".")) for p, c in members.items()}
        return structs_of(column, raw, fields, failures, strangers, convert)
    [(path, inner)] = members.items()
    build = maps_of if column.wire == "map" else lists_of
    found = build(column, raw, path, wire_field(inner, "v"), failures, strangers, convert)
    # what is wrong has a reason already, and must not fail a second time for being null
    empty = column.nullable or column.default is not None
    if not empty or not found.null_count():
        return found
    return found.zip_with(
        found.is_not_null(), pl.Series([[]], dtype=column.dtype).new_from_index(0, len(found))
    )
