"""Ask the metrics for what a screen shows: every number of the page is an answer to a question of ``metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from headrace.serving.page.address import Span
from headrace.serving.page.drawing import Chart, Line

#: Formats of the definitions, as ``words`` writes them.
FORMS = {
    "integer": "number",
    "decimal": "number",
    "percent": "percent",
    "seconds": "seconds",
    "milliseconds": "milliseconds",
    "bytes": "bytes",
}
#: Width of windows by name, s.
WIDTHS = {"minute": 60, "5_minutes": 300, "15_minutes": 900, "hour": 3600, "day": 86_400, "week": 604_800}


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows by column, and how fresh they are.

    Attributes:
        rows: Each with ``window_start`` (a text, ISO 8601), dimensions and ``value``.
        label: Name of the metric.
        form: How its values are written, as of ``words.FORMATS``.
        window: Name of the window.
        fresh: When the newest publication in it was; None if nothing says.
        ignored: Filters that the metric does not have.
        age: For how long it has been kept, s, where the warehouse is away; None where it is of now.
    """

    rows: Sequence[Mapping[str, Any]]
    label: str = ""
    form: str = "number"
    window: str = "all"
    fresh: datetime | None = None
    ignored: tuple[str, ...] = field(default=())
    age: int | None = None

    @property
    def total(self) -> float | None:
        """The value of an answer of one row; None of none."""
        return None if not self.rows or self.rows[0]["value"] is None else float(self.rows[0]["value"])

    @property
    def values(self) -> dict[datetime, float | None]:
        """Values by begin of the window, of an answer without dimensions."""
        return {moment(row["window_start"]): _number(row["value"]) for row in self.rows}


class Numbers(Protocol):
    """Answers questions, from the cache where it can."""

    async def ask(
        self,
        metric: str,
        span: Span,
        /,
        *,
        window: str = "all",
        dimensions: Sequence[str] = (),
        filters: Mapping[str, str] | None = None,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> Answer:
        """Answer a question; filters by dimensions that the metric does not have are left out.

        Raises:
            Retriable: The warehouse is away, and there is no cached answer.
            BadData: The question is not possible.
        """

    def knows(self, metric: str, /) -> bool:
        """Tell whether there is such a metric."""

    def dimensions(self, metric: str, /) -> tuple[str, ...]:
        """Return the names of the dimensions that a metric has."""

    def window(self, metric: str, wanted: str, /) -> str:
        """Return a window that a metric has: the wanted one, or else the next that is wider."""

    def described(self, metric: str, /) -> tuple[str, str, str]:
        """Return label, description and form of a metric."""


def moment(text: str | datetime) -> datetime:
    """Read a time of an answer."""
    at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def window_of(span: Span) -> str:
    """Return the window of a chart over a range: some dozens to some hundred points."""
    length = span.end - span.start
    if length <= timedelta(hours=3):
        return "minute"
    return "hour" if length <= timedelta(days=8) else "day"


def moments(span: Span, window: str) -> list[datetime]:
    """Return the begin of every window of a range, those without rows, too."""
    width = timedelta(seconds=WIDTHS[window])
    first = span.start.replace(second=0, microsecond=0)
    if width >= timedelta(hours=1):
        first = first.replace(minute=0)
    if width >= timedelta(days=1):
        first = first.replace(hour=0)
    return [first + n * width for n in range(-(-(span.end - first) // width))]


def lines(
    answer: Answer, at: Sequence[datetime], key: str, most: int = 6, empty: float | None = 0
) -> list[Line]:
    """Return a line for each value of a dimension, the greatest first.

    Args:
        answer: By window and that dimension.
        at: Begin of the windows.
        key: Name of the dimension.
        most: Lines.
        empty: Value of a window without rows.
    """
    found: dict[str, dict[datetime, float | None]] = {}
    for row in answer.rows:
        found.setdefault(said(row[key]), {})[moment(row["window_start"])] = _number(row["value"])
    ranked = sorted(found, key=lambda one: -sum(v or 0 for v in found[one].values()))[:most]
    return [
        Line(one, tuple(found[one].get(when, empty) for when in at), n + 1) for n, one in enumerate(ranked)
    ]


async def over_time(
    numbers: Numbers,
    metric: str,
    span: Span,
    filters: Mapping[str, str],
    *,
    compare: bool,
    window: str | None = None,
    empty: float | None = 0,
    shape: str = "line",
) -> Chart:
    """Ask for a metric over time, beside that of the period before."""
    window = numbers.window(metric, window or window_of(span))
    asked = [numbers.ask(metric, span, window=window, filters=filters)]
    if compare:
        asked.append(numbers.ask(metric, span.before, window=window, filters=filters))
    answers = await asyncio.gather(*asked)
    at, found, present = moments(span, window), answers[0].values, datetime.now(UTC)
    label, form = answers[0].label, answers[0].form
    drawn = [Line(label, tuple(found.get(when, empty if when <= present else None) for when in at))]
    before: tuple[datetime, ...] = ()
    if compare:
        earlier, shift = answers[1].values, span.start - span.before.start
        before = tuple(when - shift for when in at)
        drawn.append(Line("Period before", tuple(earlier.get(when, empty) for when in before), 0))
    going_on = bool(at) and at[-1] <= present < at[-1] + timedelta(seconds=WIDTHS[window])
    fresh, age = answers[0].fresh, answers[0].age
    return Chart(label, tuple(at), tuple(drawn), form, WIDTHS[window], shape, before, going_on, fresh, age)


def said(value: Any) -> str:
    """Write the value of a dimension; an empty one has a name, too."""
    return "(none)" if value in (None, "") else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
