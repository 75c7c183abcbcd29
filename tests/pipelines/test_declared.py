"""What a pipeline file declares is checked when it is declared."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from headrace.config.settings import load_settings
from headrace.contracts import EVENTS
from headrace.orchestration import checks
from headrace.pipelines import Cadence, Files, Kafka, Pipeline, Sqs, Thresholds, discover
from headrace.pipelines.base import CHECKS

RIGHT: dict[str, Any] = {
    "contract": EVENTS,
    "sources": (Kafka("a"),),
    "owner": "team:a",
    "description": "x",
}


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "ü", "a" * 250, None, 3, "a\n"])
def test_a_topic_that_kafka_refuses_is_refused(topic: Any) -> None:
    with pytest.raises(ValueError, match="is none that Kafka takes: 1 to 249"):
        Kafka(topic)


@pytest.mark.parametrize("topic", ["a", "...", "a.b_c-D9", "a" * 249])
def test_a_topic_that_kafka_takes_is_taken(topic: str) -> None:
    assert Kafka(topic).topic == topic


@pytest.mark.parametrize(
    "queue", ["", "a b", "a.b", "a" * 81, "a" * 76 + ".fifo", ".fifo", "https://sqs/1/a", None, "a\n"]
)
def test_a_queue_that_sqs_refuses_is_refused(queue: Any) -> None:
    with pytest.raises(ValueError, match="is no name that SQS takes"):
        Sqs(queue)


@pytest.mark.parametrize("queue", ["a", "A-b_9", "a" * 80, "a" * 75 + ".fifo"])
def test_a_queue_that_sqs_takes_is_taken(queue: str) -> None:
    assert Sqs(queue).queue == queue


WRONG: list[tuple[Any, str]] = [
    (lambda: Kafka("a", runs=0), "runs 0 of topic 'a' is no number of runs from 1 on"),
    (lambda: Kafka("a", runs=True), "runs True"),
    (lambda: Files("/etc"), "is not below the archive"),
    (lambda: Files("a", format="cvs"), "format 'cvs' of folder 'a' is unknown: did you mean 'csv'?"),  # type: ignore[arg-type]
    (lambda: Files(None), "folder None is no text"),  # type: ignore[arg-type]
    (lambda: Cadence(look=timedelta(0)), "cadence: look 0:00:00 is no time span above zero"),
    (lambda: Cadence(look=5), "cadence: look 5 is no timedelta: write timedelta(seconds=...)"),  # type: ignore[arg-type]
    (lambda: Cadence(cooldown=timedelta(seconds=-1)), "cadence: cooldown -1 day, 23:59:59 is no time span"),
    (
        lambda: Cadence(cooldown=timedelta(seconds=9), at_most=timedelta(seconds=3)),
        "cadence: at_most 0:00:03 is less than cooldown 0:00:09",
    ),
    (lambda: Thresholds(reject_rate=5), "reject_rate 5 is no share between 0 and 1"),
    (lambda: Thresholds(reject_rate="1%"), "reject_rate '1%' is no share"),  # type: ignore[arg-type]
    (lambda: Thresholds(reject_rate=float("nan")), "reject_rate nan is no share"),
    (lambda: Thresholds(lag=-1), "lag -1 is no number of messages"),
    (lambda: Thresholds(lag=0.5), "lag 0.5 is no number of messages"),  # type: ignore[arg-type]
    (lambda: Thresholds(behind=timedelta(0)), "thresholds: behind 0:00:00 is no time span above zero"),
    (lambda: Thresholds(silence=60), "thresholds: silence 60 is no timedelta"),  # type: ignore[arg-type]
    (lambda: Thresholds(warn_only="lag"), "warn_only 'lag' is no set of checks"),  # type: ignore[arg-type]
    (lambda: Thresholds(warn_only=frozenset({"frehsness"})), "names no check 'frehsness': did you mean 'freshness'?"),
    (lambda: Pipeline(**{**RIGHT, "contract": "events"}), "contract 'events' is no Contract"),
    (lambda: Pipeline(**{**RIGHT, "sources": Kafka("a")}), "sources is one source, not a tuple of them: write (Kafka("),
    (lambda: Pipeline(**{**RIGHT, "sources": ()}), "a pipeline needs at least one source"),
    (lambda: Pipeline(**{**RIGHT, "sources": ("kafka/a",)}), "source 'kafka/a' is none: write Kafka(...)"),
    (lambda: Pipeline(**{**RIGHT, "sources": (Kafka("a"), Kafka("a"))}), "source 'kafka/a' is declared twice"),
    (lambda: Pipeline(**{**RIGHT, "owner": "me"}), "owner 'me' is neither an e-mail address nor team:<name>"),
    (lambda: Pipeline(**{**RIGHT, "owner": None}), "owner None is neither"),
    (lambda: Pipeline(**{**RIGHT, "description": None}), "description None is no text"),
    (lambda: Pipeline(**{**RIGHT, "models": ""}), "models '' is no tag of dbt models"),
    (lambda: Pipeline(**{**RIGHT, "models": "a,tag:b"}), "models 'a,tag:b' is no tag of dbt models"),
    (lambda: Pipeline(**{**RIGHT, "cadence": 5}), "cadence 5 is no Cadence: write Cadence(...)"),
    (lambda: Pipeline(**{**RIGHT, "thresholds": None}), "thresholds None is no Thresholds"),
    (lambda: Pipeline(**{**RIGHT, "tags": {"a b": "c"}}), "tags: key 'a b' is none that Dagster takes"),
    (lambda: Pipeline(**{**RIGHT, "tags": {"a": 3}}), "tags: value 3 of 'a' is none that Dagster takes"),
    (lambda: Pipeline(**{**RIGHT, "tags": "a"}), "tags 'a' is no mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("declare", "said"), WRONG)
def test_an_impossible_value_is_refused_with_its_name(declare: Any, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        declare()
    assert said in str(refused.value)


def test_what_is_right_is_taken() -> None:
    thresholds = Thresholds(0.5, 0, timedelta(seconds=1), timedelta(0), frozenset({"lag"}))
    cadence = Cadence(timedelta(seconds=1), timedelta(0), timedelta(0))
    tags = {"team/area": "a-b.c", "x": ""}
    sources = [Kafka("a", 2), Sqs("a"), Files("a/b", "csv")]
    found = Pipeline(
        **{**RIGHT, "sources": sources, "models": "a-b_c"}, thresholds=thresholds, cadence=cadence, tags=tags
    )
    assert found.name == "events"


def test_the_checks_that_may_only_warn_are_those_that_there_are() -> None:
    defined = checks.stream_checks(discover().pipelines["events"], load_settings())
    assert {spec.name for one in defined for spec in one.check_specs} == {*CHECKS}
