"""Say what columns of a file may be called: the names in a message, and places in it with dots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.contracts.shaping.declared import Shape
from headrace.contracts.shaping.paths import Path, written

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract


@dataclass(frozen=True, slots=True)
class Sent:
    """A column of a file that a contract reads.

    Attributes:
        place: Where its value goes in the message.
        column: The column that is read from it; None for an object that has several inside.
    """

    place: Path
    column: Column | None


def sent_columns(contract: Contract) -> dict[str, Sent]:
    """Return what a contract reads from a file, by the name of the file's column.

    A nested place may be named by its path, ``context.page.url``, by the field's own name, or be inside an object.
    Of two meanings of a name, that in a message counts.
    """
    found: dict[str, Sent] = {}
    later: dict[str, Sent] = {}
    for column in contract.read_columns:
        for place in (column.shape or Shape()).places(column.name):
            if len(place) == 1:
                found.setdefault(str(place[0]), Sent(place, column))
            else:
                later.setdefault(str(place[0]), Sent(place[:1], None))
                later.setdefault(written(place), Sent(place, column))
                later.setdefault(column.name, Sent(place, column))
    return later | found


def names_of(contract: Contract, column: Column) -> tuple[str, ...]:
    """Return all names by which a file may have a column."""
    return tuple(name for name, sent in sent_columns(contract).items() if _has(sent, column))


def _has(sent: Sent, column: Column) -> bool:
    if sent.column is not None:
        return sent.column.name == column.name
    return bool(column.shape and column.shape.path[:1] == sent.place)


def put(record: dict[str, Any], place: Path, value: Any) -> None:
    """Put a value into a record at a place, making the objects and lists on the way."""
    within: Any = record
    for step, following in zip(place, (*place[1:], None), strict=True):
        if isinstance(step, int):
            within += [None] * (step + 1 - len(within))
        if following is None:
            within[step] = value
            return
        inner = within[step] if isinstance(step, int) else within.get(step)
        if inner is None:
            inner = within[step] = [] if isinstance(following, int) else {}
        within = inner
