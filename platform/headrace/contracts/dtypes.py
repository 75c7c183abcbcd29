"""List the dtypes that pass from JSON through Delta Lake to ClickHouse."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl

from headrace.core.batch import STRING_MAP, UTC_MICROS

Wire = Literal["string", "number", "integer", "time", "object", "map"]

#: Default JSON type of each supported dtype.
WIRE_OF_DTYPE: dict[Any, Wire] = {
    pl.String(): "string",
    pl.Float64(): "number",
    pl.Int32(): "integer",
    pl.Int64(): "integer",
    UTC_MICROS: "time",
    STRING_MAP: "map",
}
#: How models write the supported dtypes, for error messages.
SUPPORTED = (
    "pl.String, pl.Int32, pl.Int64, pl.Float64, headrace.contracts.Time and headrace.core.batch.STRING_MAP"
)

#: JSON types that a dtype may have.
WIRES_OF_DTYPE: dict[Any, tuple[Wire, ...]] = {
    **{dtype: (wire,) for dtype, wire in WIRE_OF_DTYPE.items()},
    pl.String(): ("string", "object"),
}

#: Smallest and largest value of each integer dtype.
INT_RANGE: dict[pl.DataType, tuple[int, int]] = {
    pl.Int32(): (-(2**31), 2**31 - 1),
    pl.Int64(): (-(2**63), 2**63 - 1),
}

#: A column of times, as Pandera models write it.
Time = Annotated[pl.Datetime, "us", "UTC"]
