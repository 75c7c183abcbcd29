"""The state of a page, as its address says it: whoever opens the same address sees the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from urllib.parse import urlencode

from headrace.core.errors import HeadraceError

#: Periods by name, with what people read; days count back from today (UTC), which is the last of them.
PERIODS = {"today": "Today", "24h": "24 h", "7d": "7 days", "30d": "30 days"}
DEFAULT_PERIOD = "7d"
_DAYS = {"today": 1, "7d": 7, "30d": 30}
#: Longest range of days, the filters that go from screen to screen, and their longest value.
MOST_DAYS = 400
FILTERS = {"channel": "Channel", "event_type": "Event type"}
LONGEST = 200
_SHARED = ("period", "from", "to", "compare", "plain", *FILTERS)


class Wrong(HeadraceError):
    """An address asks for something that there is not; the message names the right choices.

    Attributes:
        status: Status of the response.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time, in UTC, without its end.

    Attributes:
        start: First moment.
        end: First moment after it.
    """

    start: datetime
    end: datetime

    @property
    def days(self) -> tuple[date, date]:
        """First and last day."""
        return self.start.date(), (self.end - timedelta(microseconds=1)).date()

    @property
    def before(self) -> Span:
        """The period before: as long, and at the same hours, so that half a day is compared with half a day."""
        whole = timedelta(days=-(-(self.end - self.start) // timedelta(days=1)))
        return Span(self.start - whole, self.end - whole)


@dataclass(frozen=True, slots=True)
class View:
    """What an address asks for.

    Attributes:
        path: The screen.
        period: A name of ``PERIODS``; empty where days are given.
        first: First day (UTC), where days are given.
        last: Last day, where days are given.
        filters: Values by filter.
        compare: Whether the period before is shown, too.
        plain: Whether the page comes whole, for browsers without JavaScript.
        extra: Parameters of the screen alone.
    """

    path: str
    period: str = DEFAULT_PERIOD
    first: date | None = None
    last: date | None = None
    filters: tuple[tuple[str, str], ...] = ()
    compare: bool = True
    plain: bool = False
    extra: tuple[tuple[str, str], ...] = ()

    def span(self, now: datetime) -> Span:
        """Return the range that is asked for; today's end is the end of the current hour."""
        hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        if self.first is not None and self.last is not None:
            start, end = _midnight(self.first), _midnight(self.last + timedelta(days=1))
            return Span(start, min(end, max(hour, start + timedelta(hours=1))))
        if self.period == "24h":
            return Span(hour - timedelta(days=1), hour)
        return Span(_midnight(now.date() - timedelta(days=_DAYS[self.period] - 1)), hour)

    def of(self, name: str, otherwise: str = "") -> str:
        """Return a parameter of the screen."""
        return dict(self.extra).get(name, otherwise)

    def every(self, name: str) -> list[str]:
        """Return all values of a parameter of the screen that may be given several times."""
        return [value for key, value in self.extra if key == name]

    def one_of(self, name: str, choices: Sequence[str]) -> str:
        """Return a parameter of the screen that is one of some words; the first of them where it is not given.

        Raises:
            Wrong: It is none of them.
        """
        return chosen(name, self.of(name, choices[0]), choices)

    def filtered(self, name: str) -> str:
        """Return the value of a filter; empty for none."""
        return dict(self.filters).get(name, "")

    def query(self, path: str | None = None, **changes: str | int | None) -> str:
        """Return the query of this view with some parameters changed; None takes one out.

        Args:
            path: Of another screen, which does not get this one's parameters.
            changes: By name; ``from_`` stands for ``from``.
        """
        said: list[tuple[str, str]] = []
        if self.first is not None and self.last is not None:
            said += [("from", f"{self.first}"), ("to", f"{self.last}")]
        elif self.period != DEFAULT_PERIOD:
            said.append(("period", self.period))
        said += self.filters
        said += [] if self.compare else [("compare", "none")]
        said += [("plain", "1")] if self.plain else []
        said += self.extra if path is None else ()
        given = {name.rstrip("_"): value for name, value in changes.items()}
        if {"from", "period"} & given.keys():
            given = {"from": None, "to": None, "period": None, **given}
        kept = [(name, value) for name, value in said if name not in given]
        return urlencode([*kept, *((n, str(v)) for n, v in given.items() if v not in (None, ""))])

    def link(self, path: str | None = None, **changes: str | int | None) -> str:
        """Return the address of this view, or of another screen, with some parameters changed."""
        query = self.query(path, **changes)
        return f"{path or self.path}{'?' if query else ''}{query}"

    def panel(self, name: str) -> str:
        """Return the address of one panel of this view."""
        query = self.query()
        return f"/panels{self.path.rstrip('/') or '/overview'}/{name}{'?' if query else ''}{query}"

    def at(self, path: str) -> View:
        """Return this view on another path."""
        return replace(self, path=path)


def view_of(path: str, query: Sequence[tuple[str, str]], own: Sequence[str] = ()) -> View:
    """Read the query of an address.

    Args:
        path: The screen.
        query: Names and values, in order.
        own: Names of the screen's own parameters.

    Raises:
        Wrong: A name or a value is none that there is.
    """
    known, extra = (*_SHARED, *own), []
    given: dict[str, str] = {}
    for name, value in query:
        chosen("parameter", name, known)
        if len(value) > LONGEST:
            raise Wrong(f"{name} is {len(value):,} characters long; give up to {LONGEST}")
        if name in own:
            extra.append((name, value))
        else:
            given[name] = value
    first, last = _days(given)
    return View(
        path,
        chosen("period", given.get("period") or DEFAULT_PERIOD, list(PERIODS)),
        first,
        last,
        tuple((name, given[name]) for name in FILTERS if given.get(name)),
        chosen("compare", given.get("compare") or "previous", ["previous", "none"]) == "previous",
        given.get("plain") == "1",
        tuple((name, value) for name, value in extra if value),
    )


def chosen(what: str, value: str, choices: Sequence[str]) -> str:
    """Return a value that is one of some choices.

    Raises:
        Wrong: It is none of them; the message names the nearest.
    """
    if value in choices:
        return value
    near = get_close_matches(value, choices, 1, 0.5)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(choices)
    raise Wrong(f"there is no {what} {value[:LONGEST]!r}{meant}{' T' if meant else '; t'}here are: {listed}")


def day_of(name: str, text: str) -> date:
    """Read a day.

    Raises:
        Wrong: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Wrong(f"{name}={text!r} is no day; write it as 2026-11-30") from None


def moment_of(name: str, text: str) -> datetime:
    """Read a moment; without a zone it is UTC.

    Raises:
        Wrong: It is none.
    """
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Wrong(f"{name}={text!r} is no moment; write it as 2026-11-30T12:00, which is UTC") from None


def whole(name: str, text: str, least: int, most: int) -> int:
    """Read a whole number.

    Raises:
        Wrong: It is none, or out of its bounds.
    """
    if text.isascii() and text.isdigit() and len(text) < 19 and least <= int(text) <= most:
        return int(text)
    raise Wrong(f"{name}={text!r} is no whole number from {least:,} to {most:,}")


def _days(given: Mapping[str, str]) -> tuple[date | None, date | None]:
    if not (given.get("from") or given.get("to")):
        return None, None
    if not (given.get("from") and given.get("to")):
        raise Wrong("a range of days needs both: from=2026-11-24&to=2026-11-30")
    if given.get("period"):
        raise Wrong("from and to exclude period: give one of them")
    first, last = day_of("from", given["from"]), day_of("to", given["to"])
    if not date(1970, 1, 1) <= first <= last < date(2200, 1, 1):
        raise Wrong(f"from={first} to={last} is no range: the first day comes first, and both are after 1970")
    if (last - first).days >= MOST_DAYS:
        raise Wrong(f"from={first} to={last} are {(last - first).days + 1:,} days; ask for up to {MOST_DAYS}")
    return first, last


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
