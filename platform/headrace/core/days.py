"""Calendar days (UTC), the unit of everything that is rebuilt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta


def days_between(first: date, last: date) -> list[date]:
    """List every day from ``first`` to ``last``, both inclusive."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def ranges(
    days: Iterable[date], first: date, days_back: int = 0, days_ahead: int = 0
) -> Iterator[tuple[date, date]]:
    """Widen stale days to all whose models change with them, as few contiguous ranges.

    Ranges closer than a week become one, because a run costs more than a week of models.

    Args:
        days: Days with new rows.
        first: Where the calendar begins.
        days_back: Days before a stale one that change with it: a session that began the day before.
        days_ahead: Days after it that do.
    """
    back, ahead = timedelta(days=days_back), timedelta(days=days_ahead)
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


def portions(days: Sequence[date], rows: Mapping[date, int], most: int) -> list[list[date]]:
    """Days in a row, cut into parts of at most ``most`` rows, or of one day.

    Args:
        days: In order.
        rows: By day; a day that is absent has none.
        most: Rows of one part.
    """
    parts: list[list[date]] = []
    held = 0
    for day in days:
        held += rows.get(day, 0)
        if not parts or (parts[-1] and held > most):
            parts.append([])
            held = rows.get(day, 0)
        parts[-1].append(day)
    return parts
