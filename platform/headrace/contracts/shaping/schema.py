"""Describe what a producer sends to a contract that declares shaping, as parts of a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.contracts.shaping.declared import Shape
from headrace.contracts.shaping.formats import EPOCHS, ISO8601, RFC3339, pattern_of
from headrace.contracts.shaping.paths import Path

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract

#: Keywords that hold for the text of a record once it is stripped and in lower case, not for what is sent.
_AFTERWARDS = ("minLength", "maxLength", "pattern", "enum")
_ISO = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.,]\d+)?)?( ?([Zz]|UTC|GMT|[+-]\d\d(:?\d\d)?))?$"
_LOCAL = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?$"


def sent_schema(contract: Contract, described: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return ``properties`` and what is required of them.

    A computed field is not asked for. A required field with several names needs one of them.

    Args:
        contract: The contract.
        described: Schema of each field's values, by the field's name.
    """
    found: dict[str, Any] = {"properties": {}, "required": []}
    either = []
    for column in contract.read_columns:
        shape = column.shape or Shape()
        schema = described[column.name]
        if not column.growth.retired:
            schema = _as_sent(column, shape, schema)
        first, *others = shape.places(column.name)
        needed = not column.nullable and column.default is None
        if others:  # a null under one name is nothing, if another has the value
            schema = _or_null(schema)
        _put(found, first, schema, needed=needed and not others)
        for place in others:
            also = {**schema, "description": f"another name of {column.name}: {schema['description']}"}
            _put(found, place, also, needed=False)
        if needed and others:
            either.append({"anyOf": [_having(place) for place in (first, *others)]})
    return {**found, "allOf": either} if either else found


def _as_sent(column: Column, shape: Shape, schema: dict[str, Any]) -> dict[str, Any]:
    """Describe a value before it is shaped."""
    said = []
    if column.wire in ("time", "date") and (shape.formats or shape.zone):
        formats = shape.formats or (RFC3339,)
        schema = _of_formats(schema, formats, shape.zone)
        said.append(f"format {' or '.join(formats)}")
    if shape.zone:
        said.append(f"in {shape.zone} if it has no zone")
    if shape.lower or shape.strip:
        schema = {key: value for key, value in schema.items() if key not in _AFTERWARDS}
        said.append("is " + " and ".join(["stripped"] * shape.strip + ["lower-cased"] * shape.lower))
    if shape.nulls:
        said.append(f"{', '.join(map(repr, shape.nulls))} mean null")
        schema = _or_text(
            schema, {"type": "string"} if shape.lower or shape.strip else {"enum": list(shape.nulls)}
        )
    description = "; ".join([schema["description"], *said])
    return {**schema, "description": description}


def _of_formats(schema: dict[str, Any], formats: tuple[str, ...], zone: str) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in ("type", "format", "pattern")}
    nullable = [{"type": "null"}] if "null" in schema["type"] else []
    return {**kept, "anyOf": [*(_of_format(format, zone) for format in formats), *nullable]}


def _of_format(format: str, zone: str) -> dict[str, Any]:
    if format in EPOCHS:
        return {"type": ["number", "string"]}
    if format == RFC3339:
        return {"type": "string", "pattern": _LOCAL} if zone else {"type": "string", "format": "date-time"}
    return {"type": "string", "pattern": _ISO if format == ISO8601 else pattern_of(format)}


def _or_text(schema: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    said = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in said}
    return {**said, "anyOf": [*(rest["anyOf"] if rest.keys() == {"anyOf"} else [rest]), text]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "type" not in schema:  # any value at all
        return schema
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = {**schema, "type": [*kinds, *({"null"} - set(kinds))]}
    return {**found, "enum": [*schema["enum"], None]} if "enum" in schema else found


def _put(schema: dict[str, Any], place: Path, leaf: dict[str, Any], *, needed: bool) -> None:
    """Put a value's schema into that of the message, through objects and lists that may be null if it may."""
    step, *rest = place
    if isinstance(step, int):
        items = schema.setdefault("prefixItems", [])
        items += [{} for _ in range(step + 1 - len(items))]
        schema["minItems"] = max(schema.get("minItems", 0), step + 1 if needed else 0)
    else:
        items = schema.setdefault("properties", {})
        if needed and step not in schema.setdefault("required", []):
            schema["required"].append(step)
    if not rest:
        items[step] = {**items[step], **leaf} if step in items and isinstance(items, dict) else leaf
        return
    kind = "array" if isinstance(rest[0], int) else "object"
    inner = items[step] if isinstance(step, int) else items.setdefault(step, {})
    inner.setdefault("type", [kind, "null"])
    if needed and "null" in inner["type"]:
        inner["type"] = kind
    _put(inner, tuple(rest), leaf, needed=needed)


def _having(place: Path) -> dict[str, Any]:
    """Require a value at a place."""
    step, *rest = place
    below = _having(tuple(rest)) if rest else {"not": {"type": "null"}}
    if isinstance(step, int):
        return {"minItems": step + 1, "prefixItems": [*[{}] * step, below]}
    return {"required": [step], "properties": {step: below}}
