"""For every definition: what the warehouse answers is what raw rows come to, for windows, filters and comparisons."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headrace.config.settings import load_settings
from headrace.metrics import Metric, Question, QuestionError, ask, compile_question, expanded, load, statement

from .conftest import Answers
from .counts import COUNTS, counted
from .landed import DAYS

pytestmark = pytest.mark.long

METRICS = load(load_settings()).metrics
#: Questions of each metric; fewer where each reads all raw rows.
QUESTIONS, OF_RAW_ROWS = 8, 3


def ranges(now: datetime) -> list[tuple[datetime, datetime]]:
    """Ranges that begin and end anywhere: before, in, and after the days that the live models answer."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return [
        (midnight - timedelta(days=9), now),
        (midnight - timedelta(days=8), midnight - timedelta(days=5)),
        (now - timedelta(days=7, hours=3), now - timedelta(days=1, minutes=7)),
        (now - timedelta(hours=30), now),
        (midnight - timedelta(days=2), midnight + timedelta(days=1)),
    ]


def questions(answers: Answers, name: str) -> list[Question]:
    """Questions of one metric that can be answered: windows, dimensions, filters and comparisons at random."""
    chance = random.Random(name)
    metric = answers.catalogue.metric(name)
    rows = COUNTS[name].rows(answers.landed)
    found: dict[str, Question] = {}
    for _ in range(400):
        dimensions = chance.sample(metric.dimensions, chance.randint(0, min(2, len(metric.dimensions))))
        filtered = chance.sample(metric.dimensions, chance.choice([0, 0, 1]) if metric.dimensions else 0)
        start, end = chance.choice(ranges(answers.now))
        given: dict[str, Any] = {
            "start": start,
            "end": end,
            "window": chance.choice(answers.catalogue.windows_of(metric)),
            "dimensions": dimensions,
            "filters": {
                one: chance.choices(rows[one].to_list(), k=chance.choice([1, 2, 3])) for one in filtered
            },
            "compare": chance.choice([None, "previous_period"]),
        }
        try:
            question = ask(answers.catalogue, name, limit=100_000, now=answers.now, **given)
        except QuestionError as error:
            assert error.field in ("window", "dimensions", "filters")
            continue
        found[question.key] = question
        if len(found) == (OF_RAW_ROWS if {"data_quality_daily"} & {*metric.models} else QUESTIONS):
            break
    assert len(found) >= OF_RAW_ROWS, f"hardly a question of {name} can be answered"
    return list(found.values())


def assert_same(answer: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """Two answers are the same, in any order; sums of floats agree to 9 digits."""
    keys = [name for name in answer.columns if name not in ("value", "previous")]
    assert answer.columns == wanted.columns
    kinds = {name: pl.Float64 for name in answer.columns if answer.schema[name].is_numeric()}
    answer, wanted = (
        frame.with_columns(pl.col(n).cast(k) for n, k in kinds.items()) for frame in (answer, wanted)
    )
    assert_frame_equal(
        answer.sort(keys or ["value"]), wanted.sort(keys or ["value"]), check_dtypes=False, rel_tol=1e-9
    )


def test_every_definition_is_counted() -> None:
    assert COUNTS.keys() == METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_the_warehouse_answers_what_raw_rows_come_to(answers: Answers, name: str) -> None:
    metric = answers.catalogue.metric(name)
    for question in questions(answers, name):
        live = compile_question(question, answers.catalogue, now=answers.now).live
        wanted = counted(COUNTS[name], metric, question, answers.landed, live=live)
        try:
            assert_same(answers.to(question), wanted)
        except AssertionError as error:
            raise AssertionError(f"{question.key}\n{error}") from error


def by_day(answers: Answers, name: str) -> Question:
    """A question about whole days by day, with as few dimensions as it takes."""
    metric = answers.catalogue.metric(name)
    first, today = (answers.now - timedelta(days=DAYS)).date(), answers.now.date()
    for count in range(len(metric.dimensions) + 1):
        for dimensions in combinations(metric.dimensions, count):
            with contextlib.suppress(QuestionError):
                given: dict[str, Any] = {
                    "start": first,
                    "end": today,
                    "window": "day",
                    "dimensions": dimensions,
                }
                return ask(answers.catalogue, name, now=answers.now, **given)
    raise AssertionError(f"no question of {name} by day can be answered")


@pytest.mark.parametrize("name", METRICS)
def test_card_and_panel_say_what_the_question_says(answers: Answers, name: str) -> None:
    question = by_day(answers, name)
    answer = answers.to(question)
    given: dict[str, Any] = {"window": "day", "dimensions": question.dimensions}
    card = statement(answers.catalogue, name, "metabase", **given)
    panel = statement(answers.catalogue, name, "grafana", **given)
    last = question.end - timedelta(seconds=1)
    of_card = {"from": f"{question.start:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}
    for sql in (
        expanded(card.sql, "metabase", of_card),
        expanded(panel.sql, "grafana", {"from": question.start + timedelta(hours=3), "to": last}),
    ):
        assert_frame_equal(answers.sql(sql), answer)
    assert not answer.is_empty()


def wrong(metric: Metric) -> Metric:
    """Users as someone would add them up who does not know better."""
    return replace(metric, measure="sum(unique_users)", models=("event_metrics",))


def test_a_wrong_measure_is_seen(answers: Answers) -> None:
    family = answers.catalogue.families["events"]
    metrics = {**family.metrics, "unique_users": wrong(family.metrics["unique_users"])}
    families = {**answers.catalogue.families, "events": replace(family, metrics=metrics)}
    broken = replace(answers, catalogue=replace(answers.catalogue, families=families))
    with pytest.raises(AssertionError):
        test_the_warehouse_answers_what_raw_rows_come_to(broken, "unique_users")
