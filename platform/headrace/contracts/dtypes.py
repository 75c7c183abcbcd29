"""List the dtypes that pass from JSON through Delta Lake to ClickHouse.

A column has a dtype (Polars) and a *wire*: what its values are in JSON. A wire is read as a *kind*, of which the
decoder knows eight; ``wire/typed.py`` makes the rest of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import polars as pl

from headrace.core.batch import HEADERS, STRING_MAP, UTC_MICROS, is_map

Wire = Literal[
    "string", "number", "integer", "boolean", "time", "date", "decimal", "enum", "uuid", "binary", "object",
    "map", "list", "struct",
]  # fmt: skip
#: What the decoder reads from a message; ``typed`` makes a column's dtype of it. ``json`` is any value at all.
Kind = Literal["string", "number", "integer", "boolean", "time", "object", "map", "json"]

#: Wires that are read as another kind.
_KINDS: dict[Wire, Kind] = {
    "date": "string",
    "enum": "string",
    "uuid": "string",
    "binary": "string",
    "decimal": "json",
    "list": "json",
    "struct": "object",
}
#: Wires of the dtypes without parameters, the default first.
_SCALARS: dict[pl.DataType, tuple[Wire, ...]] = {
    pl.String(): ("string", "object", "uuid"),
    pl.Float64(): ("number",),
    pl.Float32(): ("number",),
    pl.Boolean(): ("boolean",),
    pl.Date(): ("date",),
    pl.Binary(): ("binary",),
    UTC_MICROS: ("time",),
}
#: How models write the supported dtypes, for error messages.
SUPPORTED = (
    "pl.String, pl.Boolean, pl.Int8 to pl.Int64, pl.UInt8 to pl.UInt64, pl.Float32, pl.Float64, pl.Date, pl.Binary,"
    " headrace.contracts.Time, Annotated[pl.Decimal, p, s], Annotated[pl.Enum, [...]], Annotated[pl.List, X],"
    " Annotated[pl.Struct, {...}] and headrace.contracts.map_of(X)"
)
#: Most levels of lists, structs and maps within each other.
DEEPEST = 8
#: Most digits of a decimal, in Delta Lake as in Arrow.
MOST_DIGITS = 38
#: Name of a struct's member, which becomes one of a ClickHouse tuple.
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

#: Smallest and largest value of each integer dtype.
INT_RANGE: dict[pl.DataType, tuple[int, int]] = {
    pl.Int8(): (-(2**7), 2**7 - 1),
    pl.Int16(): (-(2**15), 2**15 - 1),
    pl.Int32(): (-(2**31), 2**31 - 1),
    pl.Int64(): (-(2**63), 2**63 - 1),
    pl.UInt8(): (0, 2**8 - 1),
    pl.UInt16(): (0, 2**16 - 1),
    pl.UInt32(): (0, 2**32 - 1),
    pl.UInt64(): (0, 2**64 - 1),
}

#: First and last day of a ``Date32`` in ClickHouse (https://clickhouse.com/docs/sql-reference/data-types/date32).
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2299, 12, 31)
#: Largest finite value of a ``Float32``.
FLOAT32 = (2 - 2**-23) * 2.0**127

#: A column of times, as Pandera models write it.
Time = Annotated[pl.Datetime, "us", "UTC"]


def instance(dtype: Any) -> Any:
    """Return a dtype as an instance: Pandera has classes of those without parameters."""
    bare = isinstance(dtype, type) and issubclass(dtype, pl.DataType)
    return dtype() if bare and dtype not in _WITH_PARAMETERS else dtype


_WITH_PARAMETERS = (pl.Decimal, pl.Enum, pl.List, pl.Struct, pl.Array, pl.Datetime, pl.Duration)


def wires_of(dtype: Any) -> tuple[Wire, ...]:
    """Return the wires that a dtype may have, the default first; none if it is not supported."""
    if dtype in _SCALARS:
        return _SCALARS[dtype]
    if dtype in INT_RANGE:
        return ("integer",)
    if is_map(dtype):
        return ("map",)
    if dtype == HEADERS:  # what map_of(pl.Binary) makes
        return ()
    for kind, wire in _COMPOUND:
        if isinstance(dtype, kind):
            return (wire,)
    return ()


_COMPOUND: tuple[tuple[type[pl.DataType], Wire], ...] = (
    (pl.Decimal, "decimal"),
    (pl.Enum, "enum"),
    (pl.List, "list"),
    (pl.Struct, "struct"),
)


def kind_of(wire: Wire, dtype: pl.DataType) -> Kind:
    """Return how the decoder reads a wire. It makes maps of text to text itself."""
    if wire == "map" and dtype != STRING_MAP:
        return "object"
    return _KINDS.get(wire, wire)  # type: ignore[arg-type]


def inner_of(dtype: pl.DataType) -> dict[str, pl.DataType]:
    """Return the dtypes within a list (``[]``), a map (``.*``) or a struct (``.member``), by their path."""
    if is_map(dtype):
        return {".*": value_of(dtype)}
    if isinstance(dtype, pl.List):
        return {"[]": instance(dtype.inner)}
    if isinstance(dtype, pl.Struct):
        return {f".{f.name}": instance(f.dtype) for f in dtype.fields}
    return {}


def value_of(dtype: pl.DataType) -> pl.DataType:
    """Return the dtype of a map's values."""
    assert isinstance(dtype, pl.List)
    assert isinstance(dtype.inner, pl.Struct)
    return instance(dtype.inner.fields[1].dtype)  # type: ignore[no-any-return]


def landed(dtype: pl.DataType) -> pl.DataType:
    """Return the dtype that lands: a choice of texts lands as text, also within other dtypes."""
    if isinstance(dtype, pl.Enum):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(landed(instance(dtype.inner)))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({f.name: landed(instance(f.dtype)) for f in dtype.fields})
    return dtype


def dtype_faults(dtype: Any, levels: int = 0) -> Iterator[str]:
    """Say why a dtype is not supported, with the choices or with how to write it."""
    if not wires_of(dtype):
        hint = _HINTS.get(dtype if isinstance(dtype, type) else dtype.__class__, "")
        yield f"has dtype {dtype}, which is not supported{hint}; supported are {SUPPORTED}"
    elif isinstance(dtype, pl.Decimal):
        if not (dtype.precision and 1 <= dtype.precision <= MOST_DIGITS):
            yield f"has dtype {dtype}; a decimal has 1 to {MOST_DIGITS} digits, write Annotated[pl.Decimal, 18, 4]"
        elif not 0 <= dtype.scale <= dtype.precision:
            yield f"has dtype {dtype}; of its {dtype.precision} digits, 0 to {dtype.precision} follow the point"
    elif isinstance(dtype, pl.Enum) and not len(dtype.categories):
        yield "has dtype Enum without values; write Annotated[pl.Enum, ['web', 'mobile']]"
    elif levels >= DEEPEST and inner_of(dtype):
        yield f"is nested deeper than {DEEPEST} levels"
    else:
        if isinstance(dtype, pl.Struct):
            yield from _member_faults(dtype)
        for path, inner in inner_of(dtype).items():
            yield from (f"{one} (at {path!r})" for one in dtype_faults(inner, levels + 1))


def _member_faults(dtype: pl.Struct) -> Iterator[str]:
    names = [f.name for f in dtype.fields]
    if not names:
        yield "has a Struct without members; write Annotated[pl.Struct, {'zip': pl.String}]"
    for name in names:
        if not _MEMBER.fullmatch(name):
            yield f"has a Struct with member {name!r}, which is no identifier: letters, digits and _, a letter first"
    lower = [name.lower() for name in names]
    for name in names:
        if lower.count(name.lower()) > 1:
            yield f"has a Struct with member {name!r} twice; upper and lower case are one to Delta Lake"


#: What a person wants who writes an unsupported dtype.
_HINTS: dict[Any, str] = {
    pl.List: "; a list says of what: Annotated[pl.List, pl.String], and the values of a map are anything but binary",
    pl.Decimal: "; write Annotated[pl.Decimal, 18, 4]",
    pl.Enum: "; write Annotated[pl.Enum, ['web', 'mobile']]",
    pl.Struct: "; write Annotated[pl.Struct, {'zip': pl.String}]",
    pl.Datetime: "; for times write headrace.contracts.Time",
    pl.Categorical: "; for few values write Annotated[pl.Enum, [...]], or pl.String with low_cardinality=True",
    pl.Int128: "; for more than 64 bits write Annotated[pl.Decimal, 38, 0]",
    pl.Array: "; for lists write Annotated[pl.List, X]",
    pl.Duration: "; for durations write pl.Float64 or pl.Int64, with the unit in the description",
    pl.Time: "; for a time of day write pl.String with str_matches",
}


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
        return pl.UInt64() if self.high >= 2**63 else RAW_DTYPES[self.kind]


#: Dtypes of the decoder's columns. Those of ``object`` and ``json`` are JSON text.
RAW_DTYPES: dict[Kind, pl.DataType] = {
    "string": pl.String(),
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "time": UTC_MICROS,
    "object": pl.String(),
    "map": STRING_MAP,
    "json": pl.String(),
}
