"""Derive the JSON Schema of a contract, with which producers can check their records."""

from __future__ import annotations

from typing import Any

from headrace.contracts.base import Column, Contract

_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "time": {"type": "string", "format": "date-time"},
    "object": {"type": "object"},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
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
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{contract.name} v{contract.version}",
        "type": "object",
        "properties": {column.name: _property(column) for column in contract.columns},
        **({"additionalProperties": False} if contract.unknown == "reject" else {}),
        "required": [c.name for c in contract.columns if not c.nullable and c.default is None],
    }


def _property(column: Column) -> dict[str, Any]:
    found = {**_TYPES[column.wire], "description": column.description}
    if column.nullable:
        found["type"] = [found["type"], "null"]
    if column.default is not None:
        found["default"] = column.default
    for check, statistics in column.checks:
        for name, value in statistics.items():
            keyword = _KEYWORDS.get((check, name))
            if keyword and column.wire != "object":
                found[keyword] = getattr(value, "pattern", value)
    return found
