"""Type columns of JSON values: the dtype that the contract declares, and every value that does not fit it."""

from __future__ import annotations

import polars as pl

from headrace.contracts.base import Column
from headrace.contracts.wire.decoded import Failures


def typed(column: Column, raw: pl.Series, failures: Failures) -> pl.Series:
    """Convert values to the column's dtype.

    Args:
        column: What the values should be.
        raw: Values in the dtype of the column's wire field.
        failures: Gets every value that does not fit; such a value becomes null.
    """
    found = raw if raw.dtype == column.dtype else raw.cast(column.dtype)
    return found.alias(column.name)


def defaulted(column: Column, values: pl.Series, missing: pl.Series | None) -> pl.Series:
    """Put the column's default into the records that lack the field; a null stays null."""
    if missing is None or not missing.any():
        return values
    default = pl.Series([column.default], dtype=column.dtype)
    return values.zip_with(~missing, default.new_from_index(0, len(values))).alias(column.name)
