"""Write a contract as a module of Pydantic models, which stands alone: it imports Pydantic and no Headrace."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from headrace.contracts.dtypes import FLOAT32
from headrace.contracts.export.message import INTEGERS, Member, Value, class_name, message_of
from headrace.contracts.shaping.formats import EPOCHS

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

_PLAIN = {
    "String": "str",
    "Boolean": "bool",
    "Float32": "float",
    "Float64": "float",
    "Binary": "_pydantic.Base64Bytes",
    "Date": "_datetime.date",
    "Time": "_pydantic.AwareDatetime",
}
_BOUNDS = {
    "greater_than": ("gt", "min_value"),
    "greater_than_or_equal_to": ("ge", "min_value"),
    "less_than": ("lt", "max_value"),
    "less_than_or_equal_to": ("le", "max_value"),
}
#: Names that mean something to Pydantic's models, or to their annotations; such a field gets an underscore and an
#: alias.
_TAKEN = frozenset(
    {
        "copy",
        "dict",
        "json",
        "schema",
        "construct",
        "validate",
        "parse_obj",
        "parse_raw",
        "parse_file",
        "from_orm",
        *("str", "int", "float", "bool", "list"),
    }
)
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def pydantic_models(contract: Contract) -> str:
    """Return a module with a model of a contract's message, and one for each object within it.

    ``Model(...).model_dump_json(exclude_none=True, by_alias=True)`` is a message that passes the checks in it:
    lengths, bounds, choices and patterns.
    """
    name = class_name(contract.name)
    classes: list[str] = []
    _class(classes, contract, message_of(contract), name)
    return "\n".join(
        [
            f'"""Contract {contract.name}, version {contract.version}, as Pydantic models.',
            "",
            f"A message is `{name}(...).model_dump_json(exclude_none=True, by_alias=True)`.",
            "Made by `headrace contracts export`.",
            '"""',
            "",
            "import datetime as _datetime",
            "import decimal as _decimal",
            "import typing as _typing",
            "import uuid as _uuid",
            "",
            "import pydantic as _pydantic",
            "",
            *classes,
        ]
    )


def _class(classes: list[str], contract: Contract, member: Member, name: str) -> None:
    extra = "forbid" if contract.unknown == "reject" else "ignore"
    config = (
        f'_pydantic.ConfigDict(extra="{extra}", strict=True, validate_by_name=True, validate_by_alias=True)'
    )
    lines = [
        "",
        f"class {name}(_pydantic.BaseModel):",
        f"    {_text(member.description or f'Part of {contract.name}.')}",
    ]
    lines += ["", f"    model_config = {config}", ""]
    for one in member.members.values():
        field, alias = _named(one.name)
        type, given = _type(classes, contract, one, class_name(name, one.name))
        options: dict[str, Any] = {**given, "description": one.description}
        options = {key: value for key, value in options.items() if value not in (None, "")}
        options |= {"alias": alias} if alias else {}
        hint = _annotated(f"{type}{'' if one.required else ' | None'}", options)
        lines.append(f"    {field}: {hint}{'' if one.required else ' = None'}")
    classes.append("\n".join([*lines, ""]))


def _annotated(type: str, options: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"_typing.Annotated[{type}, _pydantic.Field({arguments})]" if arguments else type


class _Number(Decimal):
    """A bound of decimals, which is written as one."""

    def __repr__(self) -> str:
        return f"_decimal.Decimal({str(self)!r})"


def _text(text: str) -> str:
    return repr(text) if '"' in text or "\\" in text else f'"""{text}"""'


def _named(name: str) -> tuple[str, str]:
    """Return the name of a model's field, and its name in the message if that is another."""
    taken = name in _TAKEN or name.startswith("model_") or keyword.iskeyword(name)
    if _IDENTIFIER.fullmatch(name) and not taken:
        return name, ""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"f_{name}" if not name[:1].isalpha() else f"{name}_"), name


def _type(classes: list[str], contract: Contract, member: Member, name: str) -> tuple[str, dict[str, Any]]:
    """Return the annotation of a member, and the arguments of its ``Field``."""
    if member.of is not None:
        return _of_value(classes, contract, member.of, name)
    if member.is_list:
        inner, _ = _type(classes, contract, member.members["[]"], name)
        return f"list[{inner} | None]", {}
    _class(classes, contract, member, name)
    return name, {}


def _of_value(classes: list[str], contract: Contract, value: Value, name: str) -> tuple[str, dict[str, Any]]:
    texts = f" | _typing.Literal[{', '.join(map(repr, value.nulls))}]" if value.nulls else ""
    if value.column.wire == "object":
        return "dict[str, _typing.Any]", {}
    if value.choices is not None:
        return f"_typing.Literal[{', '.join(map(repr, value.choices))}]{texts}", {}
    if value.formats:
        return ("int | float | str" if EPOCHS.keys() & set(value.formats) else "str"), {}
    if value.column.wire == "uuid":
        return f"_uuid.UUID{texts}", {}
    if value.loose and isinstance(value.type, dict) and "enum" in value.type:
        return "str", {}
    type, own = _of_type(classes, contract, value.type, name), _checks(value.type, value.checks)
    if not texts:
        return type, own
    return (type if type == "str" else f"{_annotated(type, own)}{texts}"), {}


def _checks(type: Any, checks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if type in ("Float32", "Float64"):
        found = {"allow_inf_nan": False}
    if type == "Float32":
        found |= {"ge": -FLOAT32, "le": FLOAT32}
    if isinstance(type, str) and type in INTEGERS:
        found["ge"], found["le"] = INTEGERS[type]
    if isinstance(type, dict) and "decimal" in type:
        found |= {"max_digits": type["decimal"][0], "decimal_places": type["decimal"][1]}
    if type in ("Date", "Time"):  # their bounds are texts here
        return found
    for name, given in checks.items():
        if name in _BOUNDS:
            key, of = _BOUNDS[name]
            _bound(found, key, given[of])
        elif name == "in_range":
            _bound(found, "ge" if given.get("include_min", True) else "gt", given["min_value"])
            _bound(found, "le" if given.get("include_max", True) else "lt", given["max_value"])
        elif name == "str_length":
            exact = given.get("exact_value")
            found["min_length"] = given.get("min_value", exact)
            found["max_length"] = given.get("max_value", exact)
        elif name in _PATTERNS:
            found["pattern"] = _PATTERNS[name](given)
    return found


_PATTERNS: dict[str, Any] = {
    "str_matches": lambda given: f"^(?:{given['pattern']})",
    "str_contains": lambda given: given["pattern"],
    "str_startswith": lambda given: f"^{re.escape(given['string'])}",
    "str_endswith": lambda given: f"{re.escape(given['string'])}$",
}


def _bound(found: dict[str, Any], key: str, value: Any) -> None:
    """Put a bound beside those of the type, the tighter one."""
    number = _Number(value) if isinstance(value, str) else value
    if key == "ge" and key in found:
        number = max(number, found[key])
    if key == "le" and key in found:
        number = min(number, found[key])
    found[key] = number


def _of_type(classes: list[str], contract: Contract, type: Any, name: str) -> str:
    """Return the annotation of a type; a struct becomes a class."""
    if isinstance(type, str):
        return "int" if type in INTEGERS else _PLAIN[type]
    match type:
        case {"enum": values}:
            return f"_typing.Literal[{', '.join(map(repr, values))}]"
        case {"list": inner}:
            return f"list[{_inner(classes, contract, inner, class_name(name, 'item'))} | None]"
        case {"map": inner}:
            null = "" if inner == "String" else " | None"
            return f"dict[str, {_inner(classes, contract, inner, class_name(name, 'value'))}{null}]"
        case {"struct": members}:
            config = (
                '    model_config = _pydantic.ConfigDict(extra="ignore", strict=True, validate_by_name=True)'
            )
            lines = [
                "",
                f"class {name}(_pydantic.BaseModel):",
                f"    {_text(f'Part of {contract.name}.')}",
                "",
                config,
                "",
            ]
            for member, one in members.items():
                field, alias = _named(member)
                options = {"alias": alias} if alias else {}
                hint = f"{_inner(classes, contract, one, class_name(name, member))} | None"
                lines.append(f"    {field}: {_annotated(hint, options)} = None")
            classes.append("\n".join([*lines, ""]))
            return name
    return "_decimal.Decimal"


def _inner(classes: list[str], contract: Contract, type: Any, name: str) -> str:
    """Return the annotation of an element, with the bounds of its type."""
    return _annotated(_of_type(classes, contract, type, name), _checks(type, {}))
