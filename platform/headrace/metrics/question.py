"""Ask for a metric: a question in its one normal form, with a key that is equal for equal questions."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headrace.metrics import windows
from headrace.metrics.definitions import WINDOW
from headrace.metrics.errors import QuestionError, nearest
from headrace.metrics.windows import ALL, WINDOWS, Window

if TYPE_CHECKING:
    from headrace.metrics.catalogue import Catalogue
    from headrace.metrics.definitions import Dimension, Metric

Value = str | float | bool | None
Moment = str | date | datetime
#: Most windows of one answer.
MAX_WINDOWS = 11_000
DEFAULT_LIMIT, MAX_LIMIT = 10_000, 2_000_000
#: Most values of one filter.
MAX_VALUES = 1_000
COMPARISONS = ("previous_period",)
#: Times that the warehouse's windows can hold.
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2105, 12, 31, tzinfo=UTC)
#: Default window of a range that is at most so long.
_DEFAULT_WINDOWS = (
    (timedelta(hours=3), "minute"),
    (timedelta(days=4), "hour"),
    (timedelta(days=120), "day"),
    (timedelta(days=730), "week"),
)
_DEFAULT_RANGE = timedelta(days=7)
_RELATIVE = re.compile(r"now(?:-(\d{1,5})([mhdw]))?")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Question:
    """One metric over a range, by windows and dimensions. ``ask`` makes it; equal questions are equal values.

    Attributes:
        metric: Name of the metric.
        start, end: The range, UTC, ``[start, end)``, on whole windows of the narrowest model.
        window: Name of the window of the answer's rows.
        dimensions: Dimensions of the answer's rows, in the order of the definition.
        filters: Dimensions with the values that count, both sorted; None is a missing value.
        order: Columns to sort by, with ``-`` in front for descending; every key of the answer is in it.
        limit: Most rows.
        compare: ``previous_period``, or None.
    """

    metric: str
    start: datetime
    end: datetime
    window: str
    dimensions: tuple[str, ...] = ()
    filters: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    order: tuple[str, ...] = ()
    limit: int = DEFAULT_LIMIT
    compare: str | None = None

    @cached_property
    def key(self) -> str:
        """The question as text: equal for equal questions, and for no others."""
        return json.dumps(
            [
                self.metric, self.start.isoformat(), self.end.isoformat(), self.window, self.dimensions,
                self.filters, self.order, self.limit, self.compare,
            ],
            separators=(",", ":"),
        )  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the key, in hexadecimal digits: short enough for the name of a cached answer."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def days(self) -> tuple[date, date]:
        """First and last UTC day that are asked for, those of the comparison included."""
        first = self.previous[0] if self.compare else self.start
        return first.date(), (self.end - timedelta(microseconds=1)).date()

    @property
    def shift(self) -> windows.Shift:
        """How far the period before lies back."""
        return windows.shift_of(self.start, self.end, WINDOWS[self.window])

    @property
    def previous(self) -> tuple[datetime, datetime]:
        """The period before: as long, and aligned to whole windows."""
        return self.shift.back(self.start), self.shift.back(self.end)


def ask(
    catalogue: Catalogue,
    metric: str,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    window: str | None = None,
    dimensions: Iterable[str] = (),
    filters: Mapping[str, Any] | None = None,
    order: Iterable[str] = (),
    limit: int | str | None = None,
    compare: str | None = None,
    now: datetime | None = None,
) -> Question:
    """Make a question of what a person or program gave; texts as in a URL are fine.

    Args:
        catalogue: The definitions.
        metric: Name of the metric.
        start: First moment, UTC unless it says otherwise: a date, ``2026-05-01T10:00``, ``now-24h``; default: a week
            before ``end``. It moves back to the start of the narrowest window in which it is.
        end: End of the range, which is not in it; a date is the end of that day. Default: now. It moves on to the end
            of the narrowest window in which it is.
        window: ``minute`` to ``month``, or ``all`` for one row over the whole range; default: by the range's length.
        dimensions: Names of dimensions.
        filters: Dimensions with a value or several.
        order: Columns, with ``-`` in front for descending; default: by time, then the greatest value first.
        limit: Most rows.
        compare: ``previous_period`` to have its values beside.
        now: The present; default: the clock.

    Raises:
        QuestionError: Something of it is not possible.
    """
    found = catalogue.metric(metric)
    from_, to, width = _range(
        catalogue, found, start, end, window, (now or datetime.now(UTC)).astimezone(UTC)
    )
    offered = catalogue.dimensions_of(found)
    chosen = chosen_dimensions(dimensions, offered)
    compared = _one_of("compare", compare, COMPARISONS) if compare else None
    question = Question(
        found.name,
        from_,
        to,
        width.name,
        chosen,
        tuple(sorted((name, typed_values(name, value, offered)) for name, value in (filters or {}).items())),
        chosen_order(order, width, chosen, compared),
        _limit(limit),
        compared,
    )
    if compared and question.previous[0] < FIRST:
        raise QuestionError("compare", compare, f"the period before begins before {FIRST.date()}")
    if compared and not all(windows.is_aligned(t, catalogue.resolution(found)) for t in question.previous):
        raise QuestionError("compare", compare, "no windows of the period before begin and end as these do")
    catalogue.plan(question)  # refuses what no model can answer
    return question


def _range(
    catalogue: Catalogue,
    metric: Metric,
    start: Moment | None,
    end: Moment | None,
    window: str | None,
    now: datetime,
) -> tuple[datetime, datetime, Window]:
    to = _moment("to", end, now) if end is not None else now
    if _is_date(end):
        to += timedelta(days=1)
    from_ = _moment("from", start, now) if start is not None else max(to - _DEFAULT_RANGE, FIRST)
    if from_ >= to:
        raise QuestionError("from", _said(start, from_), f"it is not before the end, {to.isoformat()}")
    resolution = catalogue.resolution(metric)
    from_, to = windows.floor(from_, resolution), windows.ceil(to, resolution)
    offered = catalogue.windows_of(metric)
    width = _window(metric, window, offered, to - from_)
    if windows.count(from_, to, width) > MAX_WINDOWS:
        wider = next((w for w in offered if windows.count(from_, to, WINDOWS[w]) <= MAX_WINDOWS), None)
        many = windows.count(from_, to, width)
        raise QuestionError(
            "window",
            width.name,
            f"the range has {many} of them; at most {MAX_WINDOWS} are possible",
            nearest=wider,
        )
    return from_, to, width


def _moment(field: str, value: Moment, now: datetime) -> datetime:
    if isinstance(value, str):
        text = value.strip()
        if match := _RELATIVE.fullmatch(text):
            ago = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match[1] else timedelta()
            found = now - ago
        else:
            try:
                found = datetime.fromisoformat(text)
            except ValueError:
                raise QuestionError(
                    field, value, "it is no time; write 2026-05-01, 2026-05-01T10:00, or now-24h"
                ) from None
    elif isinstance(value, datetime):
        found = value
    elif isinstance(value, date):
        found = datetime(value.year, value.month, value.day)
    else:
        raise QuestionError(field, value, "it is no time; write 2026-05-01, 2026-05-01T10:00, or now-24h")
    try:
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:
        found = FIRST - timedelta(days=1)
    if not FIRST <= found <= LAST:
        raise QuestionError(field, value, f"it is not between {FIRST.date()} and {LAST.date()}")
    return found


def _is_date(value: Moment | None) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{8}|\d{4}-?W\d\d(-?\d)?", value.strip()))
    return isinstance(value, date) and not isinstance(value, datetime)


def _said(given: Moment | None, found: datetime) -> str:
    return found.isoformat() if given is None else str(given)


def _window(metric: Metric, name: str | None, offered: Sequence[str], length: timedelta) -> Window:
    if name is None:
        wanted = next((w for most, w in _DEFAULT_WINDOWS if length <= most), "month")
        names = list(WINDOWS)
        name = min(offered, key=lambda one: (one == ALL, abs(names.index(one) - names.index(wanted))))
    if name not in offered:
        sums = metric.adds_up_over is None or WINDOW in metric.adds_up_over
        said = f"{metric.name} has no such window" if sums else f"{metric.name} does not add up over time"
        raise QuestionError("window", name, said, nearest=_near_window(name, offered), choices=offered)
    return WINDOWS[name]


def _near_window(name: object, offered: Sequence[str]) -> str | None:
    names = list(WINDOWS)
    if name in names:  # one that others have: the next in width
        place = names.index(str(name))
        return min(offered, key=lambda one: abs(names.index(one) - place))
    return nearest(name, offered)


def _one_of(field: str, value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise QuestionError(
            field, value, "there is no such choice", nearest=nearest(value, choices), choices=choices
        )
    return str(value)


def chosen_dimensions(given: Iterable[str], offered: Mapping[str, Dimension]) -> tuple[str, ...]:
    """Return dimensions that were asked for, in the order of the definition; refuse others."""
    asked = [given] if isinstance(given, str) else list(given)
    for name in asked:
        known_dimension("dimensions", name, offered)
    return tuple(name for name in offered if name in asked)


def known_dimension(field: str, name: str, offered: Mapping[str, Dimension]) -> None:
    """Refuse a dimension that a metric does not have, naming the nearest one."""
    if name not in offered:
        raise QuestionError(
            field, name, "the metric has no such dimension", nearest=nearest(name, offered), choices=offered
        )


def typed_values(name: str, given: Any, offered: Mapping[str, Dimension]) -> tuple[Value, ...]:
    """Return the values of a filter in their kind, sorted and each once; refuse what is of another kind."""
    known_dimension("filters", name, offered)
    several = list(given) if isinstance(given, list | tuple | set | frozenset) else [given]
    if not 1 <= len(several) <= MAX_VALUES:
        raise QuestionError("filters", name, f"it has {len(several)} values; 1 to {MAX_VALUES} are possible")
    found = {_typed(name, one, offered[name].kind) for one in several}
    return tuple(sorted(found, key=lambda one: (one is not None, one or 0) if _is_number(one) else (True, str(one))
                        if one is not None else (False, "")))  # fmt: skip


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float)


def _typed(name: str, value: Any, kind: str) -> Value:
    if value is None:
        return None
    wrong = f"{value!r} is no {kind} of {name}"
    if kind == "number":
        try:
            number = float(value) if not isinstance(value, bool) else math.nan
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise QuestionError("filters", name, f"{wrong}; write a number")
        return number + 0.0  # -0.0 is 0.0
    if kind == "boolean":
        text = str(value).lower()
        if text not in ("true", "false"):
            raise QuestionError(
                "filters",
                name,
                f"{wrong}",
                nearest=nearest(text, ("true", "false")),
                choices=("true", "false"),
            )
        return text == "true"
    if kind == "time":
        try:
            day = value if isinstance(value, date) else date.fromisoformat(str(value))
        except ValueError:
            raise QuestionError("filters", name, f"{wrong}; write a day such as 2026-05-01") from None
        return f"{day:%Y-%m-%d}"
    if not isinstance(value, str):
        raise QuestionError("filters", name, f"{wrong}; write a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise QuestionError("filters", name, f"{wrong}: it is no Unicode") from None
    if "\0" in value:
        raise QuestionError("filters", name, f"{wrong}: it has a zero byte")
    return value


def chosen_order(
    given: Iterable[str], width: Window, dimensions: tuple[str, ...], compared: str | None
) -> tuple[str, ...]:
    """Return the columns to sort by, with every key of the answer, so that ties have one order, too."""
    time = ("window_start",) if width.name != ALL else ()
    columns = (*time, *dimensions, "value", *(("previous",) if compared else ()))
    asked = [given] if isinstance(given, str) else list(given)
    found: dict[str, str] = {}
    for one in asked:
        name = str(one).removeprefix("-")
        if name not in columns:
            raise QuestionError(
                "order", one, "it is no column of the answer", nearest=nearest(name, columns), choices=columns
            )
        found.setdefault(name, str(one))
    rest = (*time, "-value", *dimensions) if not asked else (*time, *dimensions)
    for one in rest:
        found.setdefault(one.removeprefix("-"), one)
    return tuple(found.values())


def _limit(value: int | str | None) -> int:
    if value is None:
        return DEFAULT_LIMIT
    try:
        number = int(value) if not isinstance(value, bool | float) else 0
    except ValueError:
        number = 0
    if not 1 <= number <= MAX_LIMIT:
        near = str(MAX_LIMIT) if number > MAX_LIMIT else None
        raise QuestionError("limit", value, f"it is no number of rows from 1 to {MAX_LIMIT}", nearest=near)
    return number
