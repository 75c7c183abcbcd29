"""Schemas of the bodies that Metabase's REST API takes, closed: a key that is not named is a 400."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Body = dict[str, Any]
Check = Callable[[Any], bool]


class Refusal(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, said: Any) -> None:
        super().__init__(str(said))
        self.status, self.said = status, said


def text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def any_text(value: Any) -> bool:
    return isinstance(value, str)


def number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def natural(value: Any) -> bool:
    return value == 0 or number(value)


def integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def boolean(value: Any) -> bool:
    return isinstance(value, bool)


def mapping(value: Any) -> bool:
    return isinstance(value, dict)


def maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def one_of(*choices: str) -> Check:
    return lambda value: value in choices


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def closed(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    known = {**required, **(optional or {})}

    def check(value: Any) -> bool:
        faults(value, required, known)
        return True

    return check


def faults(value: Any, required: Mapping[str, Check], known: Mapping[str, Check]) -> None:
    """Refuse a body that is not as the schema says, as Metabase does: with the keys and what they lack."""
    if not isinstance(value, dict):
        raise Refusal(400, {"errors": {"_": "value must be a map."}})
    found = {name: "missing required key" for name in required if name not in value}
    found |= {name: "disallowed key" for name in value if name not in known}
    found |= {
        name: f"invalid value {value[name]!r}"
        for name in value
        if name in known and not known[name](value[name])
    }
    if found:
        raise Refusal(400, {"errors": found})


SEMANTIC = re.compile(r"(type|Relation)/[A-Za-z]+")
PARAMETER = closed(
    {"id": text, "type": one_of("category", "string/=", "number/=", "date/single")},
    {
        "name": text,
        "slug": text,
        "sectionId": text,
        "default": any_text,
        "target": lambda v: isinstance(v, list),
    },
)
TAG = closed(
    {
        "id": lambda v: bool(re.fullmatch(r"[0-9a-f-]{36}", str(v))),
        "name": text,
        "display-name": text,
        "type": one_of("text", "number", "date"),
    },
    {"required": boolean, "default": any_text},
)
NATIVE = closed({"query": text}, {"template-tags": lambda v: mapping(v) and all(map(TAG, v.values()))})
QUERY = closed({"type": one_of("native"), "database": number, "native": NATIVE})
DASHCARD = closed(
    {"id": integer, "size_x": number, "size_y": number, "row": natural, "col": natural},
    {
        "card_id": maybe(number),
        "visualization_settings": mapping,
        "series": list_of(mapping),
        "parameter_mappings": list_of(
            closed({"parameter_id": text, "target": lambda v: isinstance(v, list)}, {"card_id": number})
        ),
        "dashboard_tab_id": maybe(integer),
    },
)
CARD = {
    "name": text,
    "type": one_of("question", "model", "metric"),
    "dataset_query": QUERY,
    "display": text,
    "visualization_settings": mapping,
    "description": maybe(text),
    "collection_id": maybe(number),
    "collection_position": maybe(number),
    "parameters": list_of(PARAMETER),
    "parameter_mappings": maybe(list_of(mapping)),
    "cache_ttl": maybe(number),
    "dashboard_id": maybe(number),
}
DASHBOARD = {
    "name": text,
    "description": maybe(any_text),
    "collection_id": maybe(number),
    "collection_position": maybe(number),
    "parameters": list_of(PARAMETER),
    "cache_ttl": maybe(number),
}
CONNECTION = {
    "host": text,
    "port": number,
    "user": text,
    "password": text,
    "dbname": text,
    "ssl": boolean,
    "scan-all-databases": boolean,
}
