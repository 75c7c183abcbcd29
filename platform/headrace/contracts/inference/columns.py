"""Turn the records of a sample into columns, nested ones by their path."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from headrace.contracts.inference.sample import JSON, Sample

#: Deepest object whose members become columns, and most columns that one object becomes.
_DEEPEST, _MOST_MEMBERS = 3, 40
#: Cells are JSON if so many of them are.
_MOST_CELLS = 0.98
#: An object whose names change has more than so many names, beyond so many times those of one record.
_FEW_NAMES, _TIMES_NAMES = 8, 3
#: Names that a path can have without quotes.
_PLAIN_NAME = re.compile(r"[^\s.\[\]\"'$][^\s.\[\]\"']*")


@dataclass(slots=True)
class Values:
    """The values of one field.

    Attributes:
        path: Names from the outermost object to the field.
        records: Records of the sample.
        values: Values that are neither absent nor null.
        at: Place of each value's record in the sample.
    """

    path: tuple[str, ...]
    records: int
    values: list[Any] = field(default_factory=list)
    at: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Number of records without a value."""
        return self.records - len(self.values)

    def kinds(self) -> Counter[str]:
        """Count the values by their kind in JSON; a whole number is an ``integer``."""
        counted = Counter(map(type, self.values))
        found: Counter[str] = Counter()
        for kind, n in counted.items():
            found[_KINDS.get(kind, "text")] += n
        return found

    def of_kind(self, *kinds: str) -> Values:
        """Return the values of some kinds."""
        chosen = [n for n, value in enumerate(self.values) if _KINDS.get(type(value), "text") in kinds]
        if len(chosen) == len(self.values):
            return self
        return Values(self.path, self.records, [self.values[n] for n in chosen], [self.at[n] for n in chosen])


_KINDS = {
    bool: "boolean",
    int: "integer",
    float: "number",
    Decimal: "number",
    str: "text",
    list: "array",
    tuple: "array",
    dict: "object",
}


def most_common(kinds: Counter[str]) -> str:
    """Return the kind of most values; numbers with and without a fraction are one kind, ``number``."""
    merged = Counter(kinds)
    if merged["number"] and merged["integer"]:
        merged["number"] += merged.pop("integer")
    return max(merged, key=lambda one: (merged[one], one))


def columns(sample: Sample) -> list[Values]:
    """Collect the top-level fields, in the order in which they first occur."""
    found: dict[str, Values] = {}
    for name in sample.types:
        found[name] = Values((name,), len(sample.records))
    _collect(found, (), enumerate(sample.records), len(sample.records))
    return list(found.values())


def members(objects: Values) -> list[Values]:
    """Collect the members of a field whose values are objects."""
    found: dict[str, Values] = {}
    _collect(found, objects.path, zip(objects.at, objects.values, strict=True), objects.records)
    return list(found.values())


def _collect(
    found: dict[str, Values], path: tuple[str, ...], rows: Iterable[tuple[int, Any]], records: int
) -> None:
    for at, record in rows:
        for name, value in record.items():
            if value is None:
                found.setdefault(name, Values((*path, name), records))
                continue
            one = found.get(name)
            if one is None:
                one = found[name] = Values((*path, name), records)
            one.values.append(value)
            one.at.append(at)


def unpacked(cells: Values) -> Values:
    """Return the objects or lists that nearly all cells of a CSV's column hold as JSON; else the cells."""
    packed = [n for n, cell in enumerate(cells.values) if cell.lstrip()[:1] in ("{", "[")]
    if not packed or len(packed) < _MOST_CELLS * len(cells.values):
        return cells
    found = Values(cells.path, cells.records, list(cells.values), cells.at)
    for n in packed:
        with suppress(msgspec.DecodeError, RecursionError):
            found.values[n] = JSON.decode(cells.values[n])
    read = sum(isinstance(value, dict | list) for value in found.values)
    return found if read >= _MOST_CELLS * len(cells.values) else cells


def shape(objects: Values) -> str:
    """Decide what an object becomes.

    Returns:
        ``columns``: one column per member. ``map``: its names change from record to record. ``text``: it stays
            as JSON text, because it is neither.
    """
    names = Counter(name for value in objects.values for name in value)
    average = sum(names.values()) / max(1, len(objects.values))
    changing = len(names) > _TIMES_NAMES * average + _FEW_NAMES or _are_numbers(names)
    if changing:
        values = Values(objects.path, 0, [v for o in objects.values for v in o.values()])
        kinds = set(values.kinds())
        return "map" if kinds in ({"text"}, {"integer"}, {"number"}, {"integer", "number"}) else "text"
    if not names or any(path_text((*objects.path, name)) is None for name in names):
        return "text"
    return "columns" if _leaves(objects) <= _MOST_MEMBERS else "text"


def path_text(path: tuple[str, ...]) -> str | None:
    """Write a path as ``field`` takes it, names with dots in quotes; None if a name has quotes of both kinds."""
    found = ""
    for name in path:
        if _PLAIN_NAME.fullmatch(name):
            found += f".{name}"
        elif name and "'" not in name:
            found += f"['{name}']"
        elif name and '"' not in name:
            found += f'["{name}"]'
        else:
            return None
    return f"${found}" if found.startswith("[") else found.removeprefix(".")


def _are_numbers(names: Counter[str]) -> bool:
    return len(names) > 1 and all(name.isdigit() for name in names)


def _leaves(objects: Values) -> int:
    """Count the columns that an object would become; too many if it is too deep."""
    if len(objects.path) > _DEEPEST:
        return _MOST_MEMBERS + 1
    total = 0
    for member in members(objects):
        inner = member.of_kind("object")
        nested = bool(inner.values) and len(inner.values) * 2 > len(member.values)
        total += _leaves(inner) if nested and shape(inner) == "columns" else 1
    return total
