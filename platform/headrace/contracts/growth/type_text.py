"""Write a dtype as plain JSON, read it back, and spell it for people.

Scalars are texts (``Int64``, ``Time``). The others are objects with one member: ``{"decimal": [18, 4]}``, ``{"enum":
["a", "b"]}``, ``{"list": ...}``, ``{"map": ...}`` and ``{"struct": {"zip": ...}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from headrace.contracts.dtypes import instance, value_of
from headrace.core.batch import UTC_MICROS, is_map, map_of
from headrace.core.errors import Fatal

_SCALARS: dict[str, pl.DataType] = {
    **{
        one.__name__: one()
        for one in (
            pl.String,
            pl.Boolean,
            pl.Int8,
            pl.Int16,
            pl.Int32,
            pl.Int64,
            pl.UInt8,
            pl.UInt16,
            pl.UInt32,
        )
    },
    **{one.__name__: one() for one in (pl.UInt64, pl.Float32, pl.Float64, pl.Date, pl.Binary)},
    "Time": UTC_MICROS,
}
_NAMES = {dtype: name for name, dtype in _SCALARS.items()}


def type_json(dtype: pl.DataType) -> Any:
    """Return a supported dtype as JSON."""
    if dtype in _NAMES:
        return _NAMES[dtype]
    if is_map(dtype):
        return {"map": type_json(value_of(dtype))}
    if isinstance(dtype, pl.Decimal):
        return {"decimal": [dtype.precision, dtype.scale]}
    if isinstance(dtype, pl.Enum):
        return {"enum": dtype.categories.to_list()}
    if isinstance(dtype, pl.List):
        return {"list": type_json(instance(dtype.inner))}
    assert isinstance(dtype, pl.Struct), dtype
    return {"struct": {member.name: type_json(instance(member.dtype)) for member in dtype.fields}}


def dtype_of_json(type: Any) -> pl.DataType:
    """Return the dtype that ``type_json`` has written.

    Raises:
        Fatal: Nobody knows this type: a newer Headrace has written it.
    """
    if isinstance(type, str) and type in _SCALARS:
        return _SCALARS[type]
    match type:
        case {"map": value}:
            return map_of(dtype_of_json(value))
        case {"decimal": [precision, scale]}:
            return pl.Decimal(precision, scale)
        case {"enum": values}:
            return pl.Enum(values)
        case {"list": inner}:
            return pl.List(dtype_of_json(inner))
        case {"struct": members}:
            return pl.Struct({name: dtype_of_json(one) for name, one in members.items()})
    raise Fatal(
        f"a contract's description has the type {type!r}, which a newer Headrace wrote; update this one"
    )


def landed_json(type: Any) -> Any:
    """Return the type in which a column lands, as ``dtypes.landed`` does: a choice of texts lands as text."""
    return _replaced(type, {})


def stored_json(type: Any) -> Any:
    """Return the type that the lake's table has for a column: Delta Lake has no unsigned integers (``lake.arrow``)."""
    return _replaced(type, _STORED)


_STORED: dict[str, Any] = {
    "UInt8": "Int16",
    "UInt16": "Int32",
    "UInt32": "Int64",
    "UInt64": {"decimal": [20, 0]},
}


def _replaced(type: Any, others: Mapping[str, Any]) -> Any:
    match type:
        case {"enum": _}:
            return "String"
        case {"list": inner}:
            return {"list": _replaced(inner, others)}
        case {"map": value}:
            return {"map": _replaced(value, others)}
        case {"struct": members}:
            return {"struct": {name: _replaced(one, others) for name, one in members.items()}}
    return others.get(type, type) if isinstance(type, str) else type


def spelled(type: Any) -> str:
    """Spell a type for people: ``Int64``, ``Decimal(18, 4)``, ``List(Struct(zip: String))``."""
    match type:
        case {"map": value}:
            return f"Map({spelled(value)})"
        case {"decimal": [precision, scale]}:
            return f"Decimal({precision}, {scale})"
        case {"enum": values}:
            return f"Enum({', '.join(values)})"
        case {"list": inner}:
            return f"List({spelled(inner)})"
        case {"struct": members}:
            return f"Struct({', '.join(f'{name}: {spelled(one)}' for name, one in members.items())})"
    return str(type)


def written(type: Any) -> str:
    """Spell a type as a model writes it: ``pl.Int64``, ``Annotated[pl.Decimal, 18, 4]``, ``map_of(pl.Float64)``."""
    match type:
        case "Time":
            return "Time"
        case {"map": value}:
            return f"map_of({written(value)})"
        case {"decimal": [precision, scale]}:
            return f"Annotated[pl.Decimal, {precision}, {scale}]"
        case {"enum": values}:
            return f"Annotated[pl.Enum, {values!r}]"
        case {"list": inner}:
            return f"Annotated[pl.List, {written(inner)}]"
        case {"struct": members}:
            body = ", ".join(f"{name!r}: {written(one)}" for name, one in members.items())
            return f"Annotated[pl.Struct, {{{body}}}]"
    return f"pl.{type}"
