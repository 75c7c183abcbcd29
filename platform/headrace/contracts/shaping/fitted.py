"""Fit computed values to a column's dtype without changing them."""

from __future__ import annotations

import polars as pl


def fitted(values: pl.Series, dtype: pl.DataType) -> tuple[pl.Series, pl.Series]:
    """Cast values to a dtype; one that would change becomes null.

    Numbers become other numbers, text becomes an enum, and an instant loses its zone's name and what is finer than
    a microsecond. A double becomes a single one by rounding.

    Returns:
        The values, and which of them did not fit.

    Raises:
        TypeError: Nothing of the one dtype becomes the other; the message says what to write.
    """
    source = values.dtype
    if source == dtype or source == pl.Null:
        return values.cast(dtype), values.is_null() & False
    if not _related(source, dtype):
        hint = f"; write .cast(pl.{dtype})" if not dtype.is_nested() else ""
        if isinstance(source, pl.Datetime) and source.time_zone is None:
            hint = '; say its zone with .dt.replace_time_zone("UTC")'
        raise TypeError(f"it gives {source}, which is no {dtype}{hint}")
    found = values.cast(dtype, strict=False)
    wrong = found.is_null() & values.is_not_null()
    if source.is_numeric() and dtype.is_numeric():
        if dtype == pl.Float32():
            wrong |= (found.is_infinite() & values.cast(pl.Float64).is_finite()).fill_null(False)
        else:
            wrong |= (found.cast(source, strict=False) != values).fill_null(True) & values.is_not_null()
        if source.is_float() and dtype.is_float():
            wrong &= values.is_not_nan()
    return (found.set(wrong, None) if wrong.any() else found), wrong


def _related(source: pl.DataType, dtype: pl.DataType) -> bool:
    if source.is_numeric() and dtype.is_numeric():
        return True
    if isinstance(source, pl.Datetime) and isinstance(dtype, pl.Datetime):
        return source.time_zone is not None
    if isinstance(dtype, pl.Enum | pl.String):
        return isinstance(source, pl.String | pl.Enum | pl.Categorical)
    if isinstance(source, pl.List) and isinstance(dtype, pl.List):
        return True
    return isinstance(source, pl.Struct) and isinstance(dtype, pl.Struct)
