"""Charts as plain values: for SVG that the server draws, and for the script that draws over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

#: Levels of a heat map, as classes of the stylesheet.
LEVELS = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: Its name.
        values: One for each moment; None for a gap.
        colour: 1 to 6, or 0 for a line that something is compared with.
    """

    label: str
    values: tuple[float | None, ...]
    colour: int = 1


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart over time.

    Attributes:
        title: What it shows, for those who do not see it.
        moments: Begin of each window, in order (UTC).
        lines: Lines, the most important first.
        form: How its values are written (``words.FORMATS``).
        step: Width of a window, s.
        shape: ``line`` or ``bars``.
        before: Begin of the windows of the period before, beside ``moments``.
        unfinished: Whether the last window is still going on, so that its values grow.
        fresh: When the newest publication in it was; None if nothing says.
        age: For how long it has been kept, s, where the warehouse is away; None where it is of now.
    """

    title: str
    moments: tuple[datetime, ...]
    lines: tuple[Line, ...]
    form: str = "number"
    step: int = 3600
    shape: str = "line"
    before: tuple[datetime, ...] = ()
    unfinished: bool = False
    fresh: datetime | None = None
    age: int | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for line in self.lines for value in line.values)

    @property
    def data(self) -> dict[str, Any]:
        """What the script is given: times in seconds."""
        return {
            "title": self.title,
            "x": [_epoch(at) for at in self.moments],
            "before": [_epoch(at) for at in self.before],
            "lines": [asdict(line) for line in self.lines],
            "form": self.form,
            "step": self.step,
            "shape": self.shape,
            "unfinished": self.unfinished,
        }

    @property
    def paths(self) -> list[tuple[int, str]]:
        """Colour and path of each line within 1000 by 100, the one in front last."""
        top = max((v for line in self.lines for v in line.values if v is not None), default=0) or 1
        return [(line.colour, path(line.values, top)) for line in reversed(self.lines)]


@dataclass(frozen=True, slots=True)
class Spark:
    """A small line without axes.

    Attributes:
        values: In order of time.
    """

    values: tuple[float | None, ...] = field(default=())

    @property
    def line(self) -> str:
        """Its path within 1000 by 100."""
        return path(self.values, max((v for v in self.values if v is not None), default=0) or 1)

    @property
    def under(self) -> str:
        """The area under it."""
        return f"{self.line} L1000 100 L0 100 Z" if len(self.values) > 1 and None not in self.values else ""


def path(values: Sequence[float | None], top: float) -> str:
    """Return the path of a line from 0 to ``top`` within 1000 by 100; gaps stay open."""
    wide, drawn, pen = 1000 / max(1, len(values) - 1), [], False
    for n, value in enumerate(values):
        if value is None or not math.isfinite(value):
            pen = False
            continue
        drawn.append(f"{'L' if pen else 'M'}{n * wide:.1f} {100 - 100 * value / top:.1f}")
        pen = True
    return " ".join(drawn)


def level(value: float | None, most: float) -> int:
    """Return the level of a heat map's cell: 0 for nothing, else 1 to ``LEVELS``."""
    return 0 if not value or most <= 0 else max(1, min(LEVELS, math.ceil(value / most * LEVELS)))


def _epoch(at: datetime) -> int:
    return int((at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp())
