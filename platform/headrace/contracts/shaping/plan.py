"""Work out what a contract reads from a message: the fields of each object on the way to each column's value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from headrace.contracts.dtypes import WireField
from headrace.contracts.shaping.declared import Shape
from headrace.contracts.shaping.formats import EPOCHS, RFC3339
from headrace.contracts.shaping.paths import Path

if TYPE_CHECKING:
    from headrace.contracts.base import Column

#: How a column's values are read: as its own kind, as text that a format reads, as JSON text of any value.
Mode = Literal["own", "text", "token"]
#: Kinds that are never null, so that absent cannot be told from empty.
_NEVER_NULL = frozenset({"map"})


@dataclass(frozen=True, slots=True)
class Level:
    """What is read from the objects, or arrays, at one place.

    Attributes:
        path: The place.
        array: Whether an array is there; its elements are read as fields named by their number.
        fields: What the parser looks for.
        columns: Columns that each field is for, by the field's name: its own and those of values within.
        within: Levels below, by the field's name.
    """

    path: Path
    array: bool
    fields: tuple[WireField, ...]
    columns: Mapping[str, tuple[str, ...]]
    within: tuple[tuple[str, Level], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column is read.

    Attributes:
        column: The column.
        shape: What its field declares.
        mode: How its values are read.
        kind: The parser's field of its own kind.
        places: Where its value may be; the first that has one counts.
    """

    column: Column
    shape: Shape
    mode: Mode
    kind: WireField
    places: tuple[Path, ...]

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of a time that is read as text."""
        return self.shape.formats or (RFC3339,)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is read from a message for all columns.

    Attributes:
        top: Level of the message itself.
        readings: Columns that are read, in the model's order.
    """

    top: Level
    readings: tuple[Reading, ...]

    def marking(self, names: frozenset[str]) -> Plan:
        """Return the plan with these fields at the top of a message marked, too."""
        fields = tuple(replace(f, marked=f.marked or f.name in names) for f in self.top.fields)
        return replace(self, top=replace(self.top, fields=fields))


def plan_of(columns: Sequence[tuple[Column, WireField, Shape]]) -> Plan:
    """Plan the reading of columns.

    Args:
        columns: Columns that are read, with the field of their own kind, and their shaping.
    """
    outer = {path[:n] for _, _, shape in columns for path in (shape.path,) for n in range(1, len(path))}
    readings = tuple(_reading(*one, outer) for one in columns)
    tree = _Node(())
    for reading in readings:
        for place in reading.places:
            tree.add(place, reading)
    return Plan(tree.level(), readings)


def _reading(column: Column, own: WireField, shape: Shape, outer: set[Path]) -> Reading:
    places = shape.places(column.name)
    mode: Mode = "own"
    if column.wire in ("time", "date") and (shape.formats or (column.wire == "time" and _as_text(shape))):
        mode = "token" if EPOCHS.keys() & set(shape.formats) else "text"
    elif (shape.nulls and own.kind != "string") or (len(places) > 1 and own.kind in _NEVER_NULL):
        mode = "token"
    if own.kind not in ("json", "object") and any(place in outer for place in places):
        mode = "token"  # the place is read as an object, too
    return Reading(column, shape, mode, own, places)


def _as_text(shape: Shape) -> bool:
    return bool(shape.zone or shape.strip or shape.nulls)


@dataclass
class _Node:
    path: Path
    leaf: Reading | None = None
    below: dict[str | int, _Node] = field(default_factory=dict)

    def add(self, place: Path, reading: Reading) -> None:
        node = self
        for n, step in enumerate(place, 1):
            node = node.below.setdefault(step, _Node(place[:n]))
        node.leaf = reading

    def readings(self) -> Iterator[Reading]:
        if self.leaf is not None:
            yield self.leaf
        for node in self.below.values():
            yield from node.readings()

    def level(self) -> Level:
        fields, columns, within = [], {}, []
        for step, node in self.below.items():
            name = str(step)
            columns[name] = tuple(reading.column.name for reading in node.readings())
            fields.append(_field(name, node))
            if node.below:
                within.append((name, node.level()))
        array = any(isinstance(step, int) for step in self.below)
        return Level(self.path, array, tuple(fields), columns, tuple(within))


def _field(name: str, node: _Node) -> WireField:
    """Return what the parser looks for: the value, or the text of what has it inside."""
    reading = node.leaf
    if reading is None:
        return WireField(name, "json")
    marked = reading.column.default is not None
    if reading.mode == "own":
        return replace(reading.kind, name=name, marked=marked)
    return WireField(name, "string" if reading.mode == "text" else "json", marked=marked)
