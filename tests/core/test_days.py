"""Days and the parts in which they are built."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from headrace.core.days import days_between, portions

DAYS = days_between(date(2026, 1, 1), date(2026, 1, 5))


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([0, 0, 0, 0, 0], [5]),
        ([4, 4, 4, 4, 4], [2, 2, 1]),
        ([99, 1, 1, 99, 1], [1, 2, 1, 1]),
        ([10, 10, 10, 10, 10], [1, 1, 1, 1, 1]),
    ],
)
def test_no_part_is_larger_than_asked_unless_it_is_a_day(rows: list[int], parts: list[int]) -> None:
    counts = dict(zip(DAYS, rows, strict=True))
    found = portions(DAYS, counts, 10)
    assert [len(part) for part in found] == parts
    assert [day for part in found for day in part] == DAYS


def test_days_without_rows_cost_nothing() -> None:
    days = days_between(date(2000, 1, 1), date(2026, 1, 1))
    assert portions(days, {days[-1] + timedelta(days=1): 5}, 10) == [days]
    assert portions([], {}, 10) == []
