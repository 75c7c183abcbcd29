"""Questions in their normal form, and what is refused with the nearest right choice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.metrics import Catalogue, QuestionError, ask, compile_question

NOW = datetime(2026, 5, 10, 14, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "field", "nearest"),
    [
        ({"metric": "event"}, "metric", "events"),
        ({"window": "hou"}, "window", "hour"),
        ({"window": "minute", "start": "now-30d"}, "window", "5_minutes"),
        ({"dimensions": ["chanel"]}, "dimensions", "channel"),
        ({"filters": {"chanel": "web"}}, "filters", "channel"),
        ({"filters": {"channel": 3}}, "filters", None),
        ({"filters": {"weekday": "monday"}}, "filters", None),
        ({"order": ["-valeu"]}, "order", "value"),
        ({"limit": 10_000_000}, "limit", "2000000"),
        ({"limit": "few"}, "limit", None),
        ({"compare": "previous"}, "compare", "previous_period"),
        ({"start": "yesterday"}, "from", None),
        ({"start": "2026-05-11", "end": "2026-05-09"}, "from", None),
        ({"end": "9999-12-31T23:00:00-05:00"}, "to", None),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_right_choice(
    catalogue: Catalogue, asked: dict[str, Any], field: str, nearest: str | None
) -> None:
    with pytest.raises(QuestionError) as caught:
        ask(catalogue, **{"metric": "events", "now": NOW, **asked})
    assert (caught.value.field, caught.value.nearest) == (field, nearest)
    assert nearest is None or nearest in str(caught.value)
    assert caught.value.as_dict()["field"] == field


def test_values_are_parameters_and_never_sql(catalogue: Catalogue) -> None:
    evil = "'); drop table events --"
    question = ask(catalogue, "events", filters={"channel": [evil, None]}, dimensions=["channel"], now=NOW)
    statement = compile_question(question, catalogue, now=NOW)
    assert "drop" not in statement.sql
    assert statement.parameters["filter_0"] == [evil]
    assert [column.name for column in statement.columns] == ["window_start", "channel", "value"]


def test_hours_of_the_day_are_counted_from_hours_although_the_range_is_whole_days(
    catalogue: Catalogue,
) -> None:
    days: dict[str, Any] = {"start": "2026-04-01", "end": "2026-04-07", "window": "all", "now": NOW}
    by_hour = compile_question(ask(catalogue, "events", dimensions=["hour_of_day"], **days), catalogue)
    assert "landed.window_seconds = 3600" in by_hour.sql
    by_weekday = compile_question(ask(catalogue, "events", dimensions=["weekday"], **days), catalogue)
    assert "landed.window_seconds = 86400" in by_weekday.sql


TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=4
)


@given(
    times=st.lists(TIMES, min_size=2, max_size=2, unique=True).map(sorted),
    dimensions=st.lists(st.sampled_from(["channel", "event_type", "weekday"]), unique=True),
    filters=st.dictionaries(st.sampled_from(["channel", "event_type"]), TEXTS, max_size=2),
    chance=st.randoms(use_true_random=False),
)
def test_questions_that_say_the_same_have_the_same_key(
    catalogue: Catalogue,
    times: list[datetime],
    dimensions: list[str],
    filters: dict[str, list[str]],
    chance: Random,
) -> None:
    start, end = times
    one = ask(
        catalogue, "events", start=start, end=end, window="month", dimensions=dimensions, filters=filters
    )
    shuffled = [*filters.items()]
    chance.shuffle(shuffled)
    other = ask(
        catalogue,
        "events",
        start=start.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
        end=end,
        window="month",
        dimensions=chance.sample(dimensions, len(dimensions)) * 2,
        filters={name: chance.sample(values, len(values)) + values for name, values in shuffled},
    )
    assert one == other and one.key == other.key and one.digest == other.digest
    assert one.start <= start < one.end and one.end >= end
    assert one.end - one.start < end - start + timedelta(minutes=2)
    # asked again as it is, it is the same
    again = ask(
        catalogue, one.metric, start=one.start, end=one.end, window=one.window, dimensions=one.dimensions,
        filters=dict(one.filters), order=one.order, limit=one.limit, compare=one.compare,
    )  # fmt: skip
    assert again == one


CHANGES: list[dict[str, Any]] = [
    {},
    {"metric": "unique_users"},
    {"start": "2026-05-01T00:01"},
    {"end": "2026-05-06"},
    {"window": "hour"},
    {"dimensions": ["channel"]},
    {"filters": {"channel": "web"}},
    {"filters": {"channel": ["web", "chat"]}},
    {"filters": {"channel": [None]}},
    {"filters": {"event_type": "web"}},
    {"filters": {"weekday": 1}},
    {"order": ["value"]},
    {"order": ["-value"]},
    {"limit": 10},
    {"compare": "previous_period"},
]


def test_questions_that_differ_have_different_keys(catalogue: Catalogue) -> None:
    common = {"metric": "events", "start": "2026-05-01", "end": "2026-05-07", "window": "day", "now": NOW}
    keys = [ask(catalogue, **{**common, **change}).key for change in CHANGES]  # type: ignore[arg-type]
    assert len(set(keys)) == len(CHANGES)


@pytest.mark.parametrize(
    ("start", "end", "window", "before"),
    [
        ("2026-05-01", "2026-05-07", "day", ("2026-04-24T00:00", "2026-05-01T00:00")),
        ("2026-05-10", "2026-05-10T14:23", "hour", ("2026-05-09T09:00", "2026-05-09T23:23")),
        ("2026-05-10", "2026-05-10T14:23", "all", ("2026-05-09T09:37", "2026-05-10T00:00")),
        ("2026-03-01", "2026-03-31", "month", ("2026-02-01T00:00", "2026-03-01T00:00")),
        ("2026-01-01", "2026-03-30T12:00", "month", ("2025-10-01T00:00", "2025-12-30T12:00")),
        ("2026-05-01", "2026-05-10", "week", ("2026-04-17T00:00", "2026-04-27T00:00")),
    ],
)
def test_the_period_before_is_as_long_and_has_the_same_windows(
    catalogue: Catalogue, start: str, end: str, window: str, before: tuple[str, str]
) -> None:
    question = ask(
        catalogue, "events", start=start, end=end, window=window, compare="previous_period", now=NOW
    )
    assert tuple(f"{time:%Y-%m-%dT%H:%M}" for time in question.previous) == before
    assert question.days == (question.previous[0].date(), (question.end - timedelta(seconds=1)).date())


@pytest.mark.parametrize(
    ("metric", "asked", "field", "nearest"),
    [
        ("retention_rate", {"window": "week", "dimensions": ["days_since"]}, "window", "day"),
        ("retention_rate", {"window": "day"}, "dimensions", "days_since"),
        ("returning_users", {"window": "month"}, "window", "day"),
        ("funnel_sessions", {"window": "day"}, "dimensions", "step"),
        ("funnel_sessions", {"filters": {"step": [1, 2]}}, "dimensions", "step"),
        ("rejections", {"dimensions": ["stream"]}, "dimensions", "reason"),
        ("lateness_p99", {"window": "day"}, "dimensions", "stream"),
        ("new_users", {"window": "hour"}, "window", "day"),
    ],
)
def test_what_does_not_add_up_is_refused_with_the_way_out(
    catalogue: Catalogue, metric: str, asked: dict[str, Any], field: str, nearest: str
) -> None:
    with pytest.raises(QuestionError) as caught:
        ask(catalogue, metric, start="2026-05-01", end="2026-05-07", **asked)
    assert (caught.value.field, caught.value.nearest) == (field, nearest)


@pytest.mark.parametrize(
    "asked",
    [
        {"metric": "retention_rate", "window": "day", "dimensions": ["days_since"]},
        {"metric": "funnel_sessions", "window": "month", "dimensions": ["step_name"]},
        {"metric": "funnel_sessions", "window": "month", "filters": {"step": 2}},
        {"metric": "lateness_p99", "window": "day", "filters": {"stream": "events"}},
    ],
)
def test_what_adds_up_is_answered(catalogue: Catalogue, asked: dict[str, Any]) -> None:
    assert compile_question(ask(catalogue, start="2026-05-01", end="2026-05-07", **asked), catalogue).sql


def test_users_of_any_range_are_merged_and_never_added_up(catalogue: Catalogue) -> None:
    question = ask(catalogue, "unique_users", start="2026-05-01", end="2026-05-10", window="week", now=NOW)
    statement = compile_question(question, catalogue, now=NOW)
    assert statement.models == ("events_history", "event_states_live") and statement.live
    closed = compile_question(question, catalogue, live_from=date(2026, 6, 1))
    assert closed.models == ("events_history",) and not closed.live
    assert "sum(" not in statement.sql
