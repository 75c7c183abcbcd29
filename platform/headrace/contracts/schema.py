"""Derive the JSON Schema of a contract, with which producers can check their records."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import polars as pl

from headrace.contracts.base import Column, Contract
from headrace.contracts.dtypes import FLOAT32, INT_RANGE, Wire, inner_of, wires_of
from headrace.contracts.shaping.schema import sent_schema
from headrace.contracts.unknown import Policy
from headrace.core.batch import STRING_MAP

#: A number of JSON, as a text may have it for a decimal.
_NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "decimal": {"type": ["number", "string"], "pattern": _NUMBER},
    "enum": {"type": "string"},
    "uuid": {"type": "string", "format": "uuid"},
    "binary": {"type": "string", "contentEncoding": "base64"},
    "object": {"type": "object"},
    "map": {"type": "object"},
    "list": {"type": "array"},
    "struct": {"type": "object"},
}
#: Pandera check and statistic -> JSON Schema keyword. Lengths of an ``object`` count its text, not its members.
_KEYWORDS = {
    ("str_length", "min_value"): "minLength",
    ("str_length", "max_value"): "maxLength",
    ("str_matches", "pattern"): "pattern",
    ("isin", "allowed_values"): "enum",
    ("greater_than_or_equal_to", "min_value"): "minimum",
    ("less_than_or_equal_to", "max_value"): "maximum",
}


def json_schema(contract: Contract) -> dict[str, Any]:
    """Return a contract as JSON Schema, draft 2020-12."""
    properties = {
        column.name: _retired(column) if column.growth.retired else _property(column, contract.unknown)
        for column in contract.read_columns
    }
    if contract.claims is not None:
        properties[contract.claims] |= {"enum": [contract.version]}
    if contract.shaping is not None:
        asked = sent_schema(contract, properties)
    else:
        required = [c.name for c in contract.columns if not c.nullable and c.default is None]
        asked = {"properties": properties, "required": required}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{contract.name} v{contract.version}",
        "type": "object",
        **asked,
        **_others(contract.unknown),
    }


def _retired(column: Column) -> dict[str, Any]:
    """Describe a field that is accepted, whatever it has, and ignored."""
    said = f"{column.description}; not used from version {column.growth.retired} on"
    return {"description": said, "deprecated": True}


def _others(unknown: Policy) -> dict[str, Any]:
    return {"additionalProperties": False} if unknown == "reject" else {}


def _property(column: Column, unknown: Policy) -> dict[str, Any]:
    found = {**_typed(column.wire, column.dtype, unknown), "description": column.description}
    for check, statistics in column.checks:
        for name, value in statistics.items():
            keyword = _KEYWORDS.get((check, name))
            if keyword and column.wire != "object":
                found[keyword] = _said(getattr(value, "pattern", value))
    if column.nullable or column.default in ([], {}):
        _or_null(found)
    if column.default is not None:
        found["default"] = _said(column.default)
    if column.growth.retired is not None:
        found["deprecated"] = True
    return found


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    kind = found["type"]
    found["type"] = [*kind, "null"] if isinstance(kind, list) else [kind, "null"]
    if "enum" in found:
        found["enum"] = [*found["enum"], None]
    return found


def _typed(wire: Wire, dtype: pl.DataType, unknown: Policy) -> dict[str, Any]:
    """Describe a dtype; what is within it may be null."""
    found = dict(_TYPES[wire])
    if wire == "map" and dtype == STRING_MAP:
        return {**found, "additionalProperties": {"type": "string"}}
    inner = {path: _or_null(_typed(wires_of(one)[0], one, unknown)) for path, one in inner_of(dtype).items()}
    if wire == "map":
        found["additionalProperties"] = inner[".*"]
    elif wire == "list":
        found["items"] = inner["[]"]
    elif wire == "struct":
        members = {path.removeprefix("."): one for path, one in inner.items()}
        found |= {"properties": members, **_others(unknown)}
    elif isinstance(dtype, pl.Enum):
        found["enum"] = dtype.categories.to_list()
    elif dtype in INT_RANGE:
        found["minimum"], found["maximum"] = INT_RANGE[dtype]
    elif dtype == pl.Float32():
        found["minimum"], found["maximum"] = -FLOAT32, FLOAT32
    return found


def _said(value: Any) -> Any:
    """Return a value of a check as JSON has it."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, date):  # a time is one, too
        return value.isoformat()
    return [_said(one) for one in value] if isinstance(value, list | tuple | set | frozenset) else value
