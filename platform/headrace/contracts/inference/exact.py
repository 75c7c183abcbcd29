"""Work out the exact type of what lists hold: plain values, lists, and objects whose members have one type each."""

from __future__ import annotations

import re
from typing import Any

from headrace.contracts.inference.columns import Values, members, most_common
from headrace.contracts.inference.layout import Call, Code

#: Annotation of plain values by their kind in JSON.
SCALARS = {"text": "pl.String", "integer": "pl.Int64", "number": "pl.Float64", "boolean": "pl.Boolean"}
#: Levels within each other, fewer than a contract may have, and members of one object.
_DEEPEST, _MOST_MEMBERS = 4, 40
_MEMBER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")


def element_type(lists: Values, level: int = 1) -> Code | Call | None:
    """Return the type of the elements of lists, that of most of them; None if they have no exact one.

    Args:
        lists: Values that are lists.
        level: How deep they are themselves.
    """
    elements = [element for one in lists.values for element in one if element is not None]
    return _type(Values((), len(elements), elements, list(range(len(elements)))), level)


def _type(values: Values, level: int) -> Code | Call | None:
    kind = most_common(values.kinds()) if values.values else "text"
    if kind in SCALARS:
        return Code(SCALARS[kind])
    if level >= _DEEPEST:
        return None
    if kind == "array":
        inner = element_type(values.of_kind("array"), level + 1)
        return inner and Call("pl.List", (("", inner),))
    told: dict[str, Any] = {}
    for member in members(values.of_kind("object")):
        found = _type(Values((), member.records, member.values, member.at), level + 1)
        if found is None or not _MEMBER.fullmatch(member.path[0]):
            return None
        told[member.path[0]] = found
    alike = {name.lower() for name in told}
    fits = told and len(alike) == len(told) <= _MOST_MEMBERS
    return Call("pl.Struct", (("", told),)) if fits else None
