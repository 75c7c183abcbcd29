"""Numbers as people read them, addresses and what is drawn."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from headrace.serving.page import words
from headrace.serving.page.address import Span, Wrong, view_of
from headrace.serving.page.drawing import level, path
from headrace.serving.page.numbers import moments, window_of
from headrace.serving.page.screens.funnel import steps
from headrace.serving.page.screens.retention import cohorts

NOW = datetime(2026, 11, 30, 15, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (7, "7"), (0.25, "0.25"), (1234, "1,234"), (9999, "9,999"), (10_000, "10k"), (12_345, "12.3k"),
     (999_949, "999.9k"), (999_950, "1M"), (1_000_000, "1M"),
     (123_456_789, "123.5M"), (4.0, "4"), (12.34, "12.3"), (-1234, "-1,234"),
     (None, "–"), (float("nan"), "–"), (float("inf"), "–")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, written: str) -> None:
    assert words.number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0%"),
        (0.5, "50.0%"),
        (1, "100%"),
        (0.9996, "100%"),
        (0.0001, "0.01%"),
        (0.123456, "12.3%"),
        (None, "–"),
    ],
)
def test_shares_are_percent(value: float | None, written: str) -> None:
    assert words.percent(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (59.94, "59.9 s"),
        (60, "1 min 00 s"),
        (119.9, "2 min"),
        (3600, "1 h 00 min"),
        (90_000, "1 d 01 h"),
    ],
)
def test_durations(value: float, written: str) -> None:
    assert words.seconds(value) == written


def test_a_range_ends_with_the_hour_and_the_one_before_has_the_same_hours() -> None:
    today = view_of("/", [("period", "today")]).span(NOW)
    assert today == Span(datetime(2026, 11, 30, tzinfo=UTC), datetime(2026, 11, 30, 16, tzinfo=UTC))
    assert today.before == Span(datetime(2026, 11, 29, tzinfo=UTC), datetime(2026, 11, 29, 16, tzinfo=UTC))
    week = view_of("/", []).span(NOW)
    assert week.start == datetime(2026, 11, 24, tzinfo=UTC)
    assert week.before == Span(datetime(2026, 11, 17, tzinfo=UTC), datetime(2026, 11, 23, 16, tzinfo=UTC))
    days = view_of("/", [("from", "2026-11-01"), ("to", "2026-11-03")]).span(NOW)
    assert (days.end - days.start, days.days) == (timedelta(days=3), (date(2026, 11, 1), date(2026, 11, 3)))
    later = view_of("/", [("from", "2030-01-01"), ("to", "2030-01-03")]).span(NOW)
    assert later.start < later.end


def test_the_state_is_in_the_address() -> None:
    query = [
        ("from", "2026-11-01"),
        ("to", "2026-11-03"),
        ("channel", "a&b"),
        ("compare", "none"),
        ("metric", "x"),
    ]
    view = view_of("/", query, ["metric"])
    assert view.link() == "/?from=2026-11-01&to=2026-11-03&channel=a%26b&compare=none&metric=x"
    assert view.link("/sessions") == "/sessions?from=2026-11-01&to=2026-11-03&channel=a%26b&compare=none"
    assert view.link(period="30d") == "/?channel=a%26b&compare=none&metric=x&period=30d"
    assert view.link(channel=None, metric=None, compare=None) == "/?from=2026-11-01&to=2026-11-03"
    with pytest.raises(Wrong):
        view_of("/", [("metric", "x")])


def test_a_chart_has_some_dozens_to_some_hundred_points() -> None:
    for hours, window, points in ((1, "minute", 60), (24, "hour", 24), (96, "hour", 96), (720, "day", 30)):
        span = Span(NOW.replace(hour=0, minute=0), NOW.replace(hour=0, minute=0) + timedelta(hours=hours))
        assert (window_of(span), len(moments(span, window))) == (window, points)


def test_what_is_drawn() -> None:
    assert path([0, 5, None, 10], 10) == "M0.0 100.0 L333.3 50.0 M1000.0 0.0"
    assert [level(value, 10) for value in (None, 0, 0.01, 1, 1.01, 10)] == [0, 0, 1, 1, 2, 10]
    assert level(5, 0) == 0


def test_steps_of_a_funnel() -> None:
    rows = [{"step": n, "step_name": f"s{n}", "value": value} for n, value in ((2, 40), (1, 100), (3, 0))]
    found = steps(rows, None)
    assert [(one.number, one.of_first, one.of_previous, one.lost) for one in found] == [
        (1, 1.0, None, 0.0), (2, 0.4, 0.4, 60.0), (3, 0.0, 0.0, 40.0)
    ]  # fmt: skip
    assert steps([], None) == []
    assert steps([{"step": 1, "step_name": "a", "value": 0}], [])[0].of_first == 0.0


def test_days_that_are_yet_to_come_are_no_zeros() -> None:
    today = date(2026, 11, 30)
    found = cohorts({date(2026, 11, 28): {0: 10, 2: 5}, date(2026, 11, 29): {0: 4}}, today)
    assert [one.day.day for one in found] == [29, 28]
    assert [cell.users for cell in found[0].cells] == [4, 0, None]
    assert [cell.share for cell in found[1].cells] == [1.0, 0.0, 0.5]
