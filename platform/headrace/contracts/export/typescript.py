"""Write a contract as TypeScript interfaces."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from headrace.contracts.export.message import INTEGERS, Member, Value, check_texts, class_name, message_of
from headrace.contracts.shaping.formats import EPOCHS

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PLAIN = {
    "String": "string",
    "Boolean": "boolean",
    "Float32": "number",
    "Float64": "number",
    "Binary": "string",
    "Date": "string",
    "Time": "string",
}
#: What a text holds, for people.
_SAID = {"Binary": "base64", "Date": "YYYY-MM-DD", "Time": "RFC 3339 with a zone"}


def typescript(contract: Contract) -> str:
    """Return an interface of a contract's message, with one for each object within it.

    Checks are in comments: TypeScript's types have none, but choices of a few values. Integers beyond 2**53 are rounded
    by JavaScript before they are sent.
    """
    written: list[str] = []
    _interface(written, message_of(contract), class_name(contract.name))
    head = f"// Contract {contract.name}, version {contract.version}; made by `headrace contracts export`.\n"
    return head + "\n" + "\n".join(reversed(written))


def _interface(written: list[str], member: Member, name: str) -> None:
    lines = [_comment(member.description, ""), f"export interface {name} {{"]
    inner: list[str] = []
    for one in member.members.values():
        said = one.description + "".join(f"; {text}" for text in _checks(one))
        kept = one.name if _NAME.fullmatch(one.name) else json.dumps(one.name)
        type = _type(inner, one, class_name(name, one.name))
        lines += [_comment(said, "  ")] if said else []
        lines.append(f"  {kept}{'' if one.required else '?'}: {type}{' | null' if one.nullable else ''};")
    written += [*inner, "\n".join(line for line in [*lines, "}"] if line) + "\n"]


def _checks(member: Member) -> list[str]:
    if member.of is None:
        return []
    value = member.of
    kind = value.type if isinstance(value.type, str) else ""
    said = [_SAID[kind]] if kind in _SAID and not value.formats else []
    said += [kind] if kind in INTEGERS and value.choices is None else []
    return said + [
        text for text in check_texts(value.checks) if value.choices is None or "one of" not in text
    ]


def _comment(text: str, indent: str) -> str:
    safe = " ".join(text.split()).replace("*/", "*\\/")
    return f"{indent}/** {safe} */" if safe else ""


def _type(written: list[str], member: Member, name: str) -> str:
    if member.of is not None:
        return _of_value(member.of)
    if member.is_list:
        return f"Array<{_type(written, member.members['[]'], name)} | null>"
    _interface(written, member, name)
    return name


def _of_value(value: Value) -> str:
    if value.column.wire == "object":
        return "{ [name: string]: unknown }"
    if value.choices is not None:
        found = " | ".join(json.dumps(one, ensure_ascii=False) for one in value.choices)
    elif value.formats:
        found = "number | string" if EPOCHS.keys() & set(value.formats) else "string"
    else:
        found = _of_type(value.type)
    texts = "".join(f" | {json.dumps(one, ensure_ascii=False)}" for one in value.nulls)
    return found + texts if "string" not in found.split(" | ") else found


def _of_type(type: Any) -> str:
    if isinstance(type, str):
        return "number" if type in INTEGERS else _PLAIN[type]
    match type:
        case {"enum": values}:
            return " | ".join(json.dumps(one, ensure_ascii=False) for one in values)
        case {"list": inner}:
            return f"Array<{_of_type(inner)} | null>"
        case {"map": inner}:
            null = "" if inner == "String" else " | null"
            return f"{{ [name: string]: {_of_type(inner)}{null} }}"
        case {"struct": members}:
            body = "; ".join(f"{name}?: {_of_type(one)} | null" for name, one in members.items())
            return f"{{ {body} }}"
    return "number | string"  # a decimal: text keeps all its digits
