"""Say what a field of a contract may declare, as the code has it: arguments, types and checks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.base import Contract, Time, field
from headrace.core.batch import map_of

#: The supported types: how a model writes one, the same as Python sees it, and ``wire`` if it needs one.
TYPES: tuple[tuple[str, Any, Any], ...] = (
    ("pl.String", pl.String, None),
    ('pl.String, wire="uuid"', pl.String, "uuid"),
    ('pl.String, wire="object"', pl.String, "object"),
    ("pl.Boolean", pl.Boolean, None),
    *((f"pl.Int{bits}", getattr(pl, f"Int{bits}"), None) for bits in (8, 16, 32, 64)),
    *((f"pl.UInt{bits}", getattr(pl, f"UInt{bits}"), None) for bits in (8, 16, 32, 64)),
    ("pl.Float32", pl.Float32, None),
    ("pl.Float64", pl.Float64, None),
    ("Annotated[pl.Decimal, 18, 4]", Annotated[pl.Decimal, 18, 4], None),
    ("Time", Time, None),
    ("pl.Date", pl.Date, None),
    ('Annotated[pl.Enum, ["a", "b"]]', Annotated[pl.Enum, ["a", "b"]], None),
    ("pl.Binary", pl.Binary, None),
    ("Annotated[pl.List, pl.Int64]", Annotated[pl.List, pl.Int64], None),
    ('Annotated[pl.Struct, {"zip": pl.String}]', Annotated[pl.Struct, {"zip": pl.String}], None),
    ("map_of(pl.Float64)", map_of(pl.Float64), None),
)

#: Arguments of ``field`` that pandera makes checks of: the check's name, and what passes it.
CHECKS = {
    "eq": ("equal_to", "it equals this value"),
    "ne": ("not_equal_to", "it is another value"),
    "gt": ("greater_than", "it is greater"),
    "ge": ("greater_than_or_equal_to", "it is this or greater"),
    "lt": ("less_than", "it is less"),
    "le": ("less_than_or_equal_to", "it is this or less"),
    "in_range": ("in_range", "it lies between both, which pass, too"),
    "isin": ("isin", "it is one of these"),
    "notin": ("notin", "it is none of these"),
    "str_length": ("str_length", "it has so many characters; `length=(1, 64)` says the same"),
    "str_matches": ("str_matches", "its beginning matches this regular expression"),
    "str_contains": ("str_contains", "some part of it matches this regular expression"),
    "str_startswith": ("str_startswith", "it begins with this text"),
    "str_endswith": ("str_endswith", "it ends with this text"),
}
_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


def arguments(what: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    """List the arguments of a callable, their defaults, and what its docstring says of them.

    Raises:
        KeyError: The docstring leaves one out.
    """
    said = _said(inspect.getdoc(what) or "")
    for name, parameter in inspect.signature(what).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            none = parameter.default in (parameter.empty, None)
            yield f"`{name}`", "" if none else f"`{parameter.default!r}`", said[name]


def _said(docstring: str) -> dict[str, str]:
    """Read the entries of a docstring's section of arguments or attributes."""
    found: dict[str, str] = {}
    name = ""
    for line in (
        docstring.partition("\nArgs:")[2].splitlines() or docstring.partition("\nAttributes:")[2].splitlines()
    ):
        if entry := _ENTRY.match(line):
            name = entry[1]
            found[name] = entry[2]
        elif line.startswith(" " * 8) and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return {name: text.replace("``", "`") for name, text in found.items()}


def checks() -> Iterator[tuple[str, ...]]:
    """List the checks: argument, what passes, and the name in a rejected row's reasons."""
    for argument, (name, meaning) in CHECKS.items():
        yield f"`{argument}`", meaning, f"`{_spelled(name)}`"


def _spelled(name: str) -> str:
    parameters = inspect.signature(getattr(pa.Check, name)).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return f"{name}({', '.join(names)})"


def every_type() -> Contract:
    """Return a contract with a column of each of ``TYPES``: ``c0``, ``c1`` and so on."""
    fields = {f"c{n}": (dtype, field("a value", wire=wire)) for n, (_, dtype, wire) in enumerate(TYPES)} | {
        "key": (pl.String, field("key", required=True)),
        "at": (Time, field("time", required=True)),
    }
    body = {
        "__annotations__": {name: dtype for name, (dtype, _) in fields.items()},
        **{name: declared for name, (_, declared) in fields.items()},
    }
    model = type("Every", (pa.DataFrameModel,), {"__module__": __name__, **body})
    return Contract("every", 1, model, key="key", time="at", partition="day", order_by=("at",))
