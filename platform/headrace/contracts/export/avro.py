"""Write a contract as an Avro schema (https://avro.apache.org/docs/1.12.0/specification/)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headrace.contracts.export.message import INTEGERS, Member, Value, class_name, message_of
from headrace.contracts.growth.describe import value_json
from headrace.contracts.growth.type_text import spelled
from headrace.contracts.shaping.formats import EPOCHS, RFC3339
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = {
    "String": "string",
    "Boolean": "boolean",
    "Float32": "float",
    "Float64": "double",
    "Binary": "bytes",
    "Date": {"type": "int", "logicalType": "date"},
    "Time": {"type": "long", "logicalType": "timestamp-micros"},
    "UInt32": "long",
    "UInt64": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0},
    "Int64": "long",
}
#: What a JSON object may hold that the contract does not look into.
_ANY = {"type": "map", "values": ["null", "boolean", "long", "double", "string"]}


def avro(contract: Contract) -> dict[str, Any]:
    """Return a contract as an Avro record, whose messages land as the contract's rows.

    Avro has no checks. What may be null is a union with null; a default that Avro can say is the field's, and a field
    with another one must be sent. Texts that mean null are null here.

    Raises:
        Fatal: A field has a name in messages that Avro cannot have.
    """
    found = _record(contract, message_of(contract, _NAME.fullmatch), class_name(contract.name))
    return {**found, "namespace": "headrace.contracts", "doc": f"{found['doc']} (version {contract.version})"}


def _record(contract: Contract, member: Member, name: str) -> dict[str, Any]:
    fields = [_field(contract, one, class_name(name, one.name)) for one in member.members.values()]
    return {"type": "record", "name": name, "doc": member.description, "fields": fields}


def _field(contract: Contract, member: Member, inner: str) -> dict[str, Any]:
    if not _NAME.fullmatch(member.name):
        raise Fatal(
            f"contract {contract.name!r}: {member.name!r} in messages is no name in Avro (letters, digits and _): give"
            " the field an alias that is one, or take another --format"
        )
    type = _type(contract, member, inner)
    found: dict[str, Any] = {"name": member.name, "doc": member.description}
    default = member.of.column.default if member.of is not None else None
    if default is not None and _has_default(member.of):
        found |= {"type": [type, "null"] if member.nullable else type, "default": value_json(default)}
    elif member.nullable:
        found |= {"type": ["null", type], "default": None}
    else:
        found["type"] = type
    aliases = [name for name in member.aliases if _NAME.fullmatch(name)]
    return found | ({"aliases": aliases} if aliases else {})


def _has_default(value: Value | None) -> bool:
    """Tell whether Avro can write the default of a type as JSON; where it cannot, the field is always sent."""
    if value is None or value.formats:
        return False
    if isinstance(value.type, str):
        return value.type not in ("Date", "Time", "Binary", "UInt64")
    return "decimal" not in value.type


def _type(contract: Contract, member: Member, name: str) -> Any:
    if member.of is not None:
        return _of_value(member.of, name)
    if member.is_list:
        return {"type": "array", "items": ["null", _type(contract, member.members["[]"], name)]}
    return _record(contract, member, name)


def _of_value(value: Value, name: str) -> Any:
    if value.column.wire == "object":
        return _ANY
    if value.column.wire == "uuid":
        return {"type": "string", "logicalType": "uuid"}
    if value.formats:
        return _of_format(value.formats[0], value.type)
    return _of_type(value.type, name, loose=value.loose)


def _of_format(format: str, type: str) -> Any:
    if format in EPOCHS:
        return "long"
    if format == "local":
        return {"type": "long", "logicalType": "local-timestamp-micros"}
    return _PLAIN[type] if format == RFC3339 else "string"


def _of_type(type: Any, name: str, *, loose: bool = False) -> Any:
    if isinstance(type, str):
        return "int" if type in INTEGERS and type not in _PLAIN else _PLAIN[type]
    match type:
        case {"decimal": [precision, scale]}:
            return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
        case {"enum": values} if not loose and all(_NAME.fullmatch(one) for one in values):
            return {"type": "enum", "name": name, "symbols": values}
        case {"enum": _}:
            return "string"
        case {"list": inner}:
            return {"type": "array", "items": ["null", _of_type(inner, f"{name}Item")]}
        case {"map": inner}:
            # of text, Headrace takes no null
            values = _of_type(inner, f"{name}Value")
            return {"type": "map", "values": values if inner == "String" else ["null", values]}
        case {"struct": members}:
            fields = [
                {"name": one, "type": ["null", _of_type(inner, class_name(name, one))], "default": None}
                for one, inner in members.items()
            ]
            return {"type": "record", "name": name, "fields": fields}
    raise Fatal(f"there is no Avro type for {spelled(type)}")
