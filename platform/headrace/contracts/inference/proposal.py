"""Define what is proposed for one field, and texts that are safe in source code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import polars as pl

#: Marks comments that a person must read.
DECIDE = "Decide:"


@dataclass(slots=True)
class Misfits:
    """Values that will be rejected, of one kind.

    Attributes:
        count: How many there are.
        what: What they are.
        example: The first one, as source text.
        row: Number of its record.
    """

    count: int
    what: str
    example: str
    row: int


@dataclass(slots=True)
class Proposal:
    """A column that is proposed.

    Attributes:
        path: Names from the outermost object of a message to the field; empty for a column that Headrace makes.
        kind: ``text``, ``uuid``, ``integer``, ``number``, ``decimal``, ``boolean``, ``date``, ``time``, ``list``,
            ``map``, ``object`` or ``binary``.
        dtype: Its annotation, as source text.
        arguments: Keyword arguments of ``field``.
        seen: What the sample holds, for people.
        decide: What a person has to decide.
        hints: What a person may want.
        misfits: Values that will be rejected.
        missing: Records without a value.
        series: The values, one per record, to compare them; null for none.
        element: Type of a list's elements, as ``layout`` writes it; None if it is no list.
        name: Name of the column.
    """

    path: tuple[str, ...]
    kind: str
    dtype: str
    arguments: dict[str, Any] = field(default_factory=dict)
    seen: str = ""
    decide: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    misfits: list[Misfits] = field(default_factory=list)
    missing: int = 0
    series: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.Null))
    element: Any = None
    name: str = ""

    @property
    def required(self) -> bool:
        """Whether a record without it is rejected."""
        return bool(self.arguments.get("required"))

    @property
    def whole(self) -> bool:
        """Whether every record has a value of the right type."""
        return not self.missing and not self.misfits and not self.series.null_count()


def quoted(text: str) -> str:
    """Return text as a literal of Python on one line, as ``ruff format`` writes it.

    Whatever the text holds, the literal ends where it should: it is safe in code and in comments.
    """
    double, single = text.count('"'), text.count("'")
    mark = "'" if double > single else '"'
    parts = (f"\\{c}" if c in (mark, "\\") else c if c.isprintable() else _escaped(c) for c in text)
    return f"{mark}{''.join(parts)}{mark}"


def _escaped(character: str) -> str:
    return repr(character)[1:-1]


def listed(texts: Iterable[str]) -> str:
    """Join for people: ``a, b and c``."""
    found = list(texts)
    return " and ".join([", ".join(found[:-1]), found[-1]]) if len(found) > 1 else "".join(found)


def shown(value: object, most: int = 40) -> str:
    """Return a value of the data as source text, cut off."""
    if isinstance(value, bool | int | float | Decimal):
        return str(value)[:most]
    text = value if isinstance(value, str) else str(value)
    return quoted(text if len(text) <= most else f"{text[:most]}…")


def percent(part: int, whole: int) -> str:
    """Return a share for people; only all is 100 %, only none is 0 %."""
    share = 100 * part / whole
    if 0 < part < whole:
        share = min(max(share, 0.1), 99.9)
    return f"{share:.1f}".removesuffix(".0") + " %"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which is in the plural unless it is one."""
    return f"{number:,} {noun.removesuffix('s') if number == 1 else noun}"
