"""The answers of the warehouse against counts of the raw rows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.metrics import ask
from marts.oracle import Oracle

from .conftest import Answers

pytestmark = pytest.mark.long


def test_events_of_a_week_are_those_that_landed_once(answers: Answers) -> None:
    start = answers.now - timedelta(days=7)
    question = ask(
        answers.catalogue, "events", start=start, end=answers.now, window="day", dimensions=["channel"]
    )
    once = Oracle(answers.events, answers.metrics).events
    counted = once.filter(once["window_time"] >= question.start).group_by("channel").len()
    answer = answers.to(question).group_by("channel").sum()
    assert dict(answer.select("channel", "value").rows()) == dict(counted.rows())
