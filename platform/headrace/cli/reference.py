"""Make the reference of contracts from the code that reads them: docs/contract-reference.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headrace.contracts import Contract, field
from headrace.contracts.reference import TYPES, arguments, checks, every_type
from headrace.contracts.schema import json_schema
from headrace.lake.arrow import arrow_schema
from headrace.lake.delta.type_names import type_name
from headrace.warehouse.ddl import column_type


def reference() -> str:
    """Return the page as Markdown."""
    parts = [
        "# Contracts: the reference",
        "Made from the code by `headrace contracts reference`; [Your first stream](first-stream.md) is the place to"
        " begin.",
        "## A field",
        f"`{_called(field)}` declares a column of a Pandera model.",
        _table(("argument", "default", "meaning"), arguments(field)),
        "## Types",
        'A value of another JSON type is rejected, never converted: `"1"` is no number, `1` no boolean, `1.5` no'
        " integer. Cells of CSV are text and are read by the column's type. Lists, structs and maps may hold each"
        " other. An absent or null list or map is empty in lake and warehouse.",
        _table(("in the model", "JSON", "Delta Lake", "ClickHouse"), _types()),
        "## Checks",
        "Arguments of `field`, too. Null passes each of them; `required=True` refuses it.",
        _table(("argument", "a value passes if", "check in a rejected row's reasons"), checks()),
        "## A contract",
        f"`{_called(Contract)}` makes a model the contract of a stream.",
        _table(("attribute", "default", "meaning"), arguments(Contract)),
    ]
    return "\n\n".join(parts) + "\n"


def _called(what: Callable[..., Any]) -> str:
    return f"{what.__name__}(...)"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _types() -> Iterator[tuple[str, ...]]:
    every = every_type()
    properties = json_schema(every)["properties"]
    lake = arrow_schema(every.table)
    for n, (written, _, _) in enumerate(TYPES):
        name = f"c{n}"
        stored = column_type(every.table, name)[0].removeprefix("Nullable(")
        stored = stored[:-1] if stored.count(")") > stored.count("(") else stored
        yield (
            f"`{written}`",
            _json(properties[name]),
            f"`{type_name(lake.field(name).type)}`",
            f"`{stored}`" if "`" not in stored else f"`` {stored} ``",
        )


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
