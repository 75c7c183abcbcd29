"""List the dtypes that pass from JSON through Delta Lake to ClickHouse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import polars as pl

from headrace.core.batch import STRING_MAP, UTC_MICROS

Wire = Literal["string", "number", "integer", "time", "object", "map"]
#: What the decoder reads from a message; ``typed`` makes a column's dtype of it.
Kind = Literal["string", "number", "integer", "time", "object", "map"]

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


@dataclass(frozen=True, slots=True)
class WireField:
    """A field of a message, as the decoder looks for it.

    Attributes:
        name: Its name in the message.
        kind: Its JSON type; anything else is a reason to reject.
        low: Smallest integer that it may hold.
        high: Largest integer that it may hold.
        marked: Whether the decoder also tells which records lack it, so that null is told from absent.
    """

    name: str
    kind: Kind
    low: int = 0
    high: int = 0
    marked: bool = False

    @property
    def dtype(self) -> pl.DataType:
        """The dtype in which the decoder returns its values."""
        return RAW_DTYPES[self.kind]


#: Dtypes of the decoder's columns. An ``object`` is its JSON text.
RAW_DTYPES: dict[Kind, pl.DataType] = {
    "string": pl.String(),
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "time": UTC_MICROS,
    "object": pl.String(),
    "map": STRING_MAP,
}
