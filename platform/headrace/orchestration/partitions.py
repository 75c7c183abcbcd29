"""Days, the one partition of everything in the warehouse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

from dagster import AssetExecutionContext, DailyPartitionsDefinition

from headrace.settings import Settings


def daily(settings: Settings) -> DailyPartitionsDefinition:
    """UTC days from the earliest accepted event to tomorrow, which clocks that run ahead may reach."""
    return DailyPartitionsDefinition(start_date=settings.event_time_min, end_offset=2)


def days_of(context: AssetExecutionContext) -> list[date]:
    """The days that this run was asked for."""
    window = context.partition_time_window
    count = (window.end - window.start).days
    return [window.start.date() + timedelta(days=n) for n in range(count)]


def ranges(
    days: Iterable[date], settings: Settings, days_back: int = 0, days_ahead: int = 0
) -> Iterator[tuple[date, date]]:
    """Touched days, widened to all whose models change with them, as few contiguous ranges.

    Ranges closer than a week become one, because a run costs more than a week of models.

    Args:
        days: Days with new rows.
        settings: Bounds of the calendar.
        days_back: Days before a touched one that change with it: a session that began the day before.
        days_ahead: Days after it that do.
    """
    back, ahead = timedelta(days=days_back), timedelta(days=days_ahead)
    first = settings.event_time_min.date()
    last = datetime.now(UTC).date() + timedelta(days=1)
    start = end = None
    for day in sorted(days):
        low, high = max(first, day - back), min(last, day + ahead)
        if end is not None and low <= end + timedelta(days=7):
            end = max(end, high)
            continue
        if start is not None and end is not None:
            yield start, end
        start, end = low, high
    if start is not None and end is not None:
        yield start, end
