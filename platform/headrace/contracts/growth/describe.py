"""Describe a contract as plain JSON: its newest version and how it grew, enough to judge a later change.

The description is recorded with the lake's table and compared by ``differences``. It has what a record must be, where
its values are read and what lands, and leaves out what changes neither: texts for people and ``low_cardinality``. Of
code (``derive``, ``transform``, checks of one's own) it has the names alone. Keys whose value is the default are
absent, so that a new key does not change the descriptions of contracts that do not use it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from headrace.contracts.dtypes import instance, wires_of
from headrace.contracts.growth.type_text import dtype_of_json, landed_json, type_json
from headrace.core.batch import ORIGIN_SCHEMA
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract
    from headrace.contracts.shaping.declared import Shape

#: Form of the description; another one if a reader of this one would misunderstand it.
FORMAT = 1
#: Keys of a field whose values may have been others in earlier versions.
VERSIONED = ("name", "type", "wire", "required", "default", "checks")


def described(contract: Contract) -> dict[str, Any]:
    """Describe a contract as JSON's values, always in the same order.

    Returns:
        ``format``, ``contract``, ``version``, ``oldest``, ``claims``, ``key``, ``time``, ``partition``, ``order_by``,
        ``unknown``, ``transform`` (whether there is one), ``checks`` of whole frames, and ``fields``. A field has
        ``name``, ``type`` (see ``type_text``), ``wire``, ``required``, ``default``, ``checks`` (their arguments by
        name), its shaping, and ``since``, ``retired``, ``moved_to``, ``was``: by version, the values of other keys
        up to and including it, null for a default.
    """
    found = {
        "format": FORMAT,
        "contract": contract.name,
        "version": contract.version,
        "oldest": contract.oldest,
        "claims": contract.claims,
        "key": contract.key,
        "time": contract.time,
        "partition": contract.partition,
        "order_by": list(contract.order_by),
        "unknown": contract.unknown,
        "transform": contract.transform is not None,
        "checks": sorted(str(check.name) for check in contract.schema.checks),
        "fields": [
            _field(_declared(contract, column)) | _growth(contract, column) for column in contract.fields
        ],
    }
    return {
        name: value for name, value in found.items() if name not in _BY_DEFAULT or value != _BY_DEFAULT[name]
    }


_BY_DEFAULT: dict[str, Any] = {
    "oldest": 1,
    "claims": None,
    "unknown": "count",
    "transform": False,
    "checks": [],
}


def described_table(name: str, schema: pl.Schema, partition: str) -> dict[str, Any]:
    """Describe a table of which nothing but the columns is known: no version, and fields with a type alone.

    Args:
        name: The table's name.
        schema: Its columns, in the dtypes that landed; those of another dtype than contracts have are left out.
        partition: Its partition column, which is none of the contract's fields.
    """
    fields = [
        {"name": column, "type": type_json(instance(dtype))}
        for column, dtype in schema.items()
        if column not in ORIGIN_SCHEMA and column != partition and wires_of(instance(dtype))
    ]
    return {"format": FORMAT, "contract": name, "fields": fields}


def ever_null(description: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a description that are null in rows of some version; lists and maps are empty instead."""
    return frozenset(
        field["name"]
        for field in description["fields"]
        if not field.get("required")
        or (field.get("since", 1) > 1 and "default" not in field)
        or any("required" in was and not was["required"] for was in field.get("was", {}).values())
    )


def landed_types(description: Mapping[str, Any]) -> dict[str, pl.DataType]:
    """Return the dtypes in which fields land, without those that only a newer Headrace knows."""
    found: dict[str, pl.DataType] = {}
    for field in description["fields"]:
        with suppress(Fatal):
            found[field["name"]] = dtype_of_json(landed_json(field["type"]))
    return found


def text_of(description: Mapping[str, Any]) -> str:
    """Return a description as it is recorded: one line of JSON, the same for the same contract."""
    return json.dumps(description, ensure_ascii=False, separators=(",", ":"))


def _declared(contract: Contract, column: Column) -> Column:
    """Return a column as it is declared: records that claim no version are of the newest, which is said by itself."""
    return replace(column, default=None) if column.name == contract.claims else column


def _field(column: Column) -> dict[str, Any]:
    wire = column.wire if column.wire != wires_of(column.dtype)[0] else None
    found = {
        "name": column.name,
        "type": type_json(column.dtype),
        "wire": wire,
        "required": not column.nullable,
        "default": value_json(column.default),
        "checks": checks_json(column.checks),
        **(_shape(column.shape, column.growth.earlier(column.name)) if column.shape is not None else {}),
    }
    return {name: value for name, value in found.items() if _says(name, value)}


def _says(name: str, value: Any) -> bool:
    """Tell whether a value is none of the absent ones; a default may be empty or false."""
    if name in ("default", "constant"):
        return value is not None
    return value is not None and value is not False and value not in ({}, [])


def _growth(contract: Contract, column: Column) -> dict[str, Any]:
    """Describe how a field grew; in ``was``, each version has what was otherwise than in the next one there."""
    growth, was, later = column.growth, {}, _field(column)
    ends = {last for last, _ in growth.was} | ({growth.retired - 1} if growth.retired is not None else set())
    for last in sorted((one for one in ends if growth.has(one)), reverse=True):
        name = growth.at(last).get("name", column.name)
        then = _field(next(one for one in contract.at(last).fields if one.name == name))
        other = {key: then.get(key) for key in VERSIONED if then.get(key) != later.get(key)}
        if other:
            was[str(last)] = other
        later = then
    found = {"retired": growth.retired, "moved_to": growth.moved_to or None, "was": was or None}
    since = {"since": growth.since} if growth.since > 1 else {}
    return since | {name: value for name, value in found.items() if value is not None}


def _shape(shape: Shape, earlier: tuple[str, ...]) -> dict[str, Any]:
    computed = "derive" if shape.derive is not None else "hashed" if shape.hashed else None
    return {
        "alias": [name for name in shape.alias if name not in earlier],
        "path": list(shape.path),
        "formats": list(shape.formats),
        "zone": shape.zone or None,
        "lower": shape.lower,
        "strip": shape.strip,
        "nulls": list(shape.nulls),
        "computed": "constant" if shape.constant is not None else computed,
        "constant": value_json(shape.constant),
        "hashed": list(shape.hashed) if isinstance(shape.hashed, tuple) else shape.hashed,
        "apart": not shape.landed,
    }


def checks_json(checks: Any) -> dict[str, Any]:
    """Return checks, pairs of a name and its arguments, as JSON in a stable order."""
    return {
        str(name): {key: value_json(value) for key, value in sorted(arguments.items()) if value is not None}
        for name, arguments in sorted(checks, key=lambda one: str(one[0]))
    }


def value_json(value: Any) -> Any:
    """Return a value of a contract as JSON: a time in UTC, a decimal as text, bytes in base64, choices as a list."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return sorted(map(value_json, value), key=str)
    if isinstance(value, list | tuple):
        return [value_json(one) for one in value]
    return getattr(value, "pattern", value)
