"""Name the windows of an answer, and place times in them. Every window is of UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Window:
    """A width of the windows of an answer.

    Attributes:
        name: As questions name it.
        seconds: Its width, s; None for months, and for the whole range.
        sql: Start of the window of a time ``{0}``, DateTime64(0, 'UTC'); empty for the whole range.
    """

    name: str
    seconds: int | None
    sql: str

    @property
    def spans_days(self) -> bool:
        """Whether it is made of whole days."""
        return self.seconds is None or self.seconds >= DAY


def _within_day(seconds: int) -> str:
    return f"toDateTime64(toStartOfInterval({{0}}, toIntervalSecond({seconds}), 'UTC'), 0, 'UTC')"


ALL = "all"
#: From the narrowest on.
WINDOWS = {
    one.name: one
    for one in (
        Window("minute", 60, _within_day(60)),
        Window("5_minutes", 300, _within_day(300)),
        Window("15_minutes", 900, _within_day(900)),
        Window("hour", 3_600, _within_day(3_600)),
        Window("day", DAY, "toDateTime64(toDate({0}), 0, 'UTC')"),
        Window("week", 7 * DAY, "toDateTime64(toMonday(toDate({0})), 0, 'UTC')"),
        Window("month", None, "toDateTime64(toStartOfMonth(toDate({0})), 0, 'UTC')"),
        Window(ALL, None, ""),
    )
}


def midnight(time: datetime) -> datetime:
    """Return the start of a time's UTC day."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def floor(time: datetime, seconds: int) -> datetime:
    """Return the start of the window that a time is in; windows of ``seconds`` begin anew at each midnight."""
    start = midnight(time)
    into = (time - start) // timedelta(seconds=seconds)
    return start + timedelta(seconds=into * seconds)


def ceil(time: datetime, seconds: int) -> datetime:
    """Return the end of the window that a time is in; the time itself if one begins there."""
    start = floor(time, seconds)
    if start == time:
        return time
    return min(start + timedelta(seconds=seconds), midnight(time) + timedelta(days=1))


def is_aligned(time: datetime, seconds: int) -> bool:
    """Tell whether a window of ``seconds`` begins at a time."""
    return floor(time, seconds) == time


def start_of(time: datetime, window: Window) -> datetime:
    """Return the start of the window that a time is in; for the whole range, the time."""
    if window.name == ALL:
        return time
    if window.name == "month":
        return midnight(time).replace(day=1)
    if window.name == "week":
        return midnight(time) - timedelta(days=time.weekday())
    return floor(time, window.seconds or DAY)


def count(start: datetime, end: datetime, window: Window) -> int:
    """Count the windows that a range touches."""
    if window.name == ALL:
        return 1
    if window.name == "month":
        last = end - timedelta(microseconds=1)
        return (last.year - start.year) * 12 + last.month - start.month + 1
    width = timedelta(seconds=window.seconds or DAY)
    return -((end - start_of(start, window)) // -width)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the period before lies back: so many months and seconds."""

    months: int
    seconds: int

    def back(self, time: datetime) -> datetime:
        """Return a time of the period before; the last day of a month where that one is shorter."""
        if self.months:
            place = time.year * 12 + time.month - 1 - self.months
            time = _at(time, place // 12, place % 12 + 1)
        return time - timedelta(seconds=self.seconds)


def _at(time: datetime, year: int, month: int) -> datetime:
    following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    last = (following - timedelta(days=1)).day
    return time.replace(year=year, month=month, day=min(time.day, last))


def shift_of(start: datetime, end: datetime, window: Window) -> Shift:
    """Return how far back the period before begins: the range's length, up to whole windows.

    So each of its windows has its counterpart, and the two periods are equally long, months apart.
    """
    if window.name == "month":
        return Shift(count(start, end, window), 0)
    length = end - start
    width = timedelta(seconds=window.seconds) if window.seconds else length
    return Shift(0, round((-(length // -width) * width).total_seconds()))
