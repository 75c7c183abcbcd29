"""Questions in their normal form, and what is refused with the nearest right choice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from headrace.metrics import Catalogue, QuestionError, ask, compile_question

NOW = datetime(2026, 5, 10, 14, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "field", "nearest"),
    [
        ({"metric": "event"}, "metric", "events"),
        ({"window": "hou"}, "window", "hour"),
        ({"window": "minute", "start": "now-30d"}, "window", "5_minutes"),
        ({"dimensions": ["chanel"]}, "dimensions", "channel"),
        ({"filters": {"chanel": "web"}}, "filters", "channel"),
        ({"filters": {"channel": 3}}, "filters", None),
        ({"filters": {"weekday": "monday"}}, "filters", None),
        ({"order": ["-valeu"]}, "order", "value"),
        ({"limit": 1_000_000}, "limit", "100000"),
        ({"limit": "few"}, "limit", None),
        ({"compare": "previous"}, "compare", "previous_period"),
        ({"start": "yesterday"}, "from", None),
        ({"start": "2026-05-11", "end": "2026-05-09"}, "from", None),
        ({"end": "9999-12-31T23:00:00-05:00"}, "to", None),
    ],
)
def test_what_is_wrong_is_named_with_the_nearest_right_choice(
    catalogue: Catalogue, given: dict[str, Any], field: str, nearest: str | None
) -> None:
    with pytest.raises(QuestionError) as caught:
        ask(catalogue, **{"metric": "events", "now": NOW, **given})
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
