"""Make a condition on rows of a lake table of what a person wrote; no text of it is ever run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

import polars as pl

from headrace.core.batch import Table
from headrace.core.errors import BadData
from headrace.serving.page.seen import OPERATORS, Condition

_ORDERED = ("gt", "ge", "lt", "le")


def expression(conditions: Sequence[Condition], table: Table) -> pl.Expr | None:
    """Return an expression that is true where all conditions hold; None for none.

    Raises:
        BadData: A column or operator is none that there is, or a value is of a wrong type.
    """
    found: pl.Expr | None = None
    for one in conditions:
        made = _made(one, table).fill_null(value=False)
        found = made if found is None else found & made
    return found


def _made(one: Condition, table: Table) -> pl.Expr:
    if one.column not in table.schema:
        near = get_close_matches(one.column, table.schema.names(), 1, 0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise BadData(f"{table.name} has no column {one.column!r}{meant} It has: {', '.join(table.schema)}")
    if one.operator not in OPERATORS:
        raise BadData(f"there is no operator {one.operator!r}; there are: {', '.join(OPERATORS)}")
    column, dtype = pl.col(one.column), table.schema[one.column]
    if one.operator in ("null", "present"):
        return column.is_null() if one.operator == "null" else column.is_not_null()
    if one.operator == "contains":
        return _contains(one, column, dtype)
    if dtype.is_nested() or (one.operator in _ORDERED and dtype == pl.Boolean):
        raise BadData(f"{one.column} holds {dtype}: it can be asked for with 'is missing' or 'is there' only")
    value = pl.lit(_value(one, dtype), dtype)
    match one.operator:
        case "eq":
            return column == value
        case "ne":
            return column.ne_missing(value)
        case "gt":
            return column > value
        case "ge":
            return column >= value
        case "lt":
            return column < value
    return column <= value


def _contains(one: Condition, column: pl.Expr, dtype: Any) -> pl.Expr:
    if dtype == pl.String:
        return column.str.contains(one.value, literal=True)
    if dtype == pl.Binary:
        return column.bin.contains(one.value.encode())
    raise BadData(f"{one.column} is no text, it holds {dtype}; 'contains' is for texts")


def _value(one: Condition, dtype: Any) -> Any:
    text, said = one.value, f"{one.value!r} is no value of {one.column}"
    try:
        if dtype == pl.String:
            return text
        if dtype == pl.Binary:
            return text.encode()
        if dtype == pl.Boolean:
            return {"true": True, "false": False}[text.lower()]
        if dtype.is_integer():
            return int(text)
        if dtype.is_decimal():
            return Decimal(text)
        if dtype.is_float():
            number = float(text)
            return number if math.isfinite(number) else _raise(said)
        if dtype == pl.Date:
            return date.fromisoformat(text)
        if isinstance(dtype, pl.Datetime):
            moment = datetime.fromisoformat(text)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, KeyError, InvalidOperation, OverflowError):
        pass
    return _raise(said + f", which holds {dtype}")


def _raise(said: str) -> Any:
    raise BadData(said)
