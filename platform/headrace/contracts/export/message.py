"""Work out the message that a producer sends to a contract: a tree of objects, lists and values.

A field that is computed is in none, and neither is one that is retired: whoever still sends it is accepted. A value of
several names has the first one here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.contracts.growth.describe import checks_json, value_json
from headrace.contracts.growth.type_text import type_json

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract


@dataclass(frozen=True, slots=True)
class Value:
    """A value that becomes a column.

    Attributes:
        column: The column.
        type: Its type; see ``growth.type_text``.
        checks: What the sent value must pass: arguments by check. Checks of what is trimmed or lower-cased
            afterwards are none of them.
        formats: Formats of a time or date; empty for RFC 3339 and ISO 8601 dates.
        nulls: Texts that mean null.
    """

    column: Column
    type: Any
    checks: Mapping[str, Mapping[str, Any]]
    formats: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()

    @property
    def choices(self) -> list[Any] | None:
        """The values that pass, if they are few; None for any."""
        if isinstance(self.type, dict) and "enum" in self.type and not self.loose:
            return list(self.type["enum"])
        if "isin" in self.checks and self.type in ("String", *INTEGERS):
            return list(self.checks["isin"]["allowed_values"])
        return None

    @property
    def loose(self) -> bool:
        """Whether the text is trimmed or lower-cased before it is checked."""
        shape = self.column.shape
        return shape is not None and (shape.lower or shape.strip)


@dataclass(slots=True)
class Member:
    """A member of an object, or the element of a list.

    Attributes:
        name: Its name in the message.
        required: Whether it must be there and not be null.
        description: One line for people.
        of: What it is: a value, or an object or a list with members. An element of a list is called ``[]``.
        aliases: Other names that it may have.
    """

    name: str
    required: bool = False
    description: str = ""
    of: Value | None = None
    members: dict[str, Member] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def nullable(self) -> bool:
        """Whether it may be null. A field with a default may be absent; null is null, which may be refused."""
        if self.required or self.of is None:
            return not self.required
        return self.of.column.nullable or self.of.column.default in ([], {})

    @property
    def is_list(self) -> bool:
        """Whether it is a list with known elements."""
        return list(self.members) == ["[]"]


#: Integer types by name -> smallest and largest value.
INTEGERS: dict[str, tuple[int, int]] = {
    f"{sign}Int{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}


def message_of(contract: Contract, fits: Callable[[str], object] = bool) -> Member:
    """Return the message of a contract's version, as an object with members.

    Args:
        contract: The contract.
        fits: Whether a name can be written; of a field's several names, the first that can is taken.
    """
    top = Member("", required=True, description=(contract.model.__doc__ or contract.name).strip())
    for column in contract.read_columns:
        if not _retired(column, contract):
            _put(top, column, fits)
    return top


def retired_columns(contract: Contract) -> list[Column]:
    """Return the fields that the contract's version no longer asks for."""
    return [column for column in contract.fields if _retired(column, contract)]


def _retired(column: Column, contract: Contract) -> bool:
    return column.growth.is_retired(contract.version)


def _put(top: Member, column: Column, fits: Callable[[str], object]) -> None:
    shape = column.shape
    every = shape.places(column.name) if shape is not None else ((column.name,),)
    own = next((n for n, place in enumerate(every) if all(fits(s) for s in place if isinstance(s, str))), 0)
    others = (*every[:own], *every[own + 1 :])
    asked = not column.nullable and column.default is None
    at = top
    for step in every[own]:
        name = "[]" if isinstance(step, int) else step
        if at.of is not None:  # the object is kept as a whole, with all that is within
            return
        at = at.members.setdefault(name, Member(name))
        at.required = at.required or asked
    at.of, at.members = _value(column), {}
    at.description = _said(column)
    at.aliases = tuple(".".join(map(str, place)) for place in others)


def _value(column: Column) -> Value:
    shape = column.shape
    loose = shape is not None and (shape.lower or shape.strip)
    checks = {} if loose or column.wire == "object" else checks_json(column.checks)
    if shape is None:
        return Value(column, type_json(column.dtype), checks)
    formats = shape.formats or (("local",) if shape.zone and column.wire == "time" else ())
    return Value(column, type_json(column.dtype), checks, formats, shape.nulls)


def _said(column: Column) -> str:
    """Describe a field for people, with what its type does not show."""
    said, shape = [column.description], column.shape
    if column.growth.earlier(column.name):
        said.append(f"formerly {', '.join(column.growth.earlier(column.name))}")
    if shape is not None and shape.formats:
        said.append(f"format {' or '.join(shape.formats)}")
    if shape is not None and shape.zone:
        said.append(f"in {shape.zone} if it has no zone")
    if shape is not None and shape.nulls:
        said.append(
            f"{' and '.join(map(repr, shape.nulls))} {'mean' if len(shape.nulls) > 1 else 'means'} null"
        )
    if column.default not in (None, [], {}):
        said.append(f"{value_json(column.default)!r} if it is absent")
    return " ".join("; ".join(said).split())


def check_texts(checks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say what a value must pass, in words."""
    for name, given in checks.items():
        yield _WORDS[name](given) if name in _WORDS else name


def _length(given: Mapping[str, Any]) -> str:
    if "exact_value" in given:
        return f"{given['exact_value']} characters"
    low, high = given.get("min_value", 0), given.get("max_value")
    return f"{low} to {high} characters" if high is not None else f"{low} characters or more"


def _range(given: Mapping[str, Any]) -> str:
    low = "from" if given.get("include_min", True) else "more than"
    high = "to" if given.get("include_max", True) else "less than"
    return f"{low} {given['min_value']} {high} {given['max_value']}"


_WORDS: dict[str, Any] = {
    "equal_to": lambda given: f"is {given['value']!r}",
    "not_equal_to": lambda given: f"is not {given['value']!r}",
    "greater_than": lambda given: f"more than {given['min_value']}",
    "greater_than_or_equal_to": lambda given: f"{given['min_value']} or more",
    "less_than": lambda given: f"less than {given['max_value']}",
    "less_than_or_equal_to": lambda given: f"{given['max_value']} or less",
    "in_range": _range,
    "isin": lambda given: f"one of {', '.join(map(str, given['allowed_values']))}",
    "notin": lambda given: f"none of {', '.join(map(str, given['forbidden_values']))}",
    "str_length": _length,
    "str_matches": lambda given: f"matches `{given['pattern']}` from its beginning",
    "str_contains": lambda given: f"contains `{given['pattern']}`",
    "str_startswith": lambda given: f"begins with {given['string']!r}",
    "str_endswith": lambda given: f"ends with {given['string']!r}",
}


def class_name(*parts: str) -> str:
    """Make a name of a class from names of fields: ``orders``, ``ship_to`` -> ``OrdersShipTo``."""
    words = [word for part in parts for word in re.split(r"[^A-Za-z0-9]+", part) if word]
    name = "".join(word[0].upper() + word[1:] for word in words)
    return name if name[:1].isalpha() else f"C{name}"
