"""Make the reference of contracts from the code that reads them: docs/contract-reference.md."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field, map_of
from headrace.contracts.schema import json_schema
from headrace.lake.arrow import arrow_schema
from headrace.warehouse.ddl import column_type

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


def reference() -> str:
    """Return the page as Markdown."""
    parts = [
        "# Contracts: the reference",
        "Made from the code by `headrace contracts reference`; [Your first stream](first-stream.md) is the place to"
        " begin.",
        "## A field",
        f"`{_called(field)}` declares a column of a Pandera model.",
        _table(("argument", "default", "meaning"), _arguments(field)),
        "## Types",
        'A value of another JSON type is rejected, never converted: `"1"` is no number, `1` no boolean, `1.5` no'
        " integer. Cells of CSV are text and are read by the column's type. Lists, structs and maps may hold each"
        " other. An absent or null list or map is empty in lake and warehouse.",
        _table(("in the model", "JSON", "Delta Lake", "ClickHouse"), _types()),
        "## Checks",
        "Arguments of `field`, too. Null passes each of them; `required=True` refuses it.",
        _table(("argument", "a value passes if", "check in a rejected row's reasons"), _checks()),
        "## A contract",
        f"`{_called(Contract)}` makes a model the contract of a stream.",
        _table(("attribute", "default", "meaning"), _arguments(Contract)),
    ]
    return "\n\n".join(parts) + "\n"


def _called(what: Callable[..., Any]) -> str:
    return f"{what.__name__}(...)"


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _arguments(what: Callable[..., Any]) -> Iterator[tuple[str, ...]]:
    """List arguments with their defaults, and what the docstring says of them.

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


def _types() -> Iterator[tuple[str, ...]]:
    fields = {f"c{n}": (dtype, field("a value", wire=wire)) for n, (_, dtype, wire) in enumerate(TYPES)} | {
        "key": (pl.String, field("key", required=True)),
        "at": (Time, field("time", required=True)),
    }
    body = {
        "__annotations__": {name: dtype for name, (dtype, _) in fields.items()},
        **{name: declared for name, (_, declared) in fields.items()},
    }
    model = type("Every", (pa.DataFrameModel,), {"__module__": __name__, **body})
    every = Contract("every", 1, model, key="key", time="at", partition="day", order_by=("at",))
    properties = json_schema(every)["properties"]
    lake = arrow_schema(every.table)
    for n, (written, _, _) in enumerate(TYPES):
        name = f"c{n}"
        stored = column_type(every.table, name)[0].removeprefix("Nullable(")
        stored = stored[:-1] if stored.count(")") > stored.count("(") else stored
        yield f"`{written}`", _json(properties[name]), f"`{_delta(lake.field(name).type)}`", f"`{stored}`"


def _json(found: dict[str, Any]) -> str:
    """Say what a value is in JSON, from its JSON Schema."""
    kinds = (
        [found["type"]] if isinstance(found["type"], str) else [one for one in found["type"] if one != "null"]
    )
    if kinds == ["integer"] and "minimum" in found:
        return f"integer, {found['minimum']:,} to {found['maximum']:,}"
    more = found.get("format") or found.get("contentEncoding")
    if "enum" in found:
        more = "one of the values"
    return " or ".join(kinds) + (f" ({more})" if more else "")


def _delta(kind: Any) -> str:
    """Name a type as the protocol of Delta Lake does."""
    from deltalake import Schema
    from deltalake.schema import PrimitiveType

    found = Schema.from_arrow(__import__("pyarrow").schema([("c", kind)])).fields[0].type
    return found.type if isinstance(found, PrimitiveType) else str(kind)


def _checks() -> Iterator[tuple[str, ...]]:
    for argument, (name, meaning) in CHECKS.items():
        yield f"`{argument}`", meaning, f"`{_spelled(name)}`"


def _spelled(name: str) -> str:
    parameters = inspect.signature(getattr(pa.Check, name)).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return f"{name}({', '.join(names)})"
