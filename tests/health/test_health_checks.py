"""The health checks of a stream: their thresholds and severities, and the grace that freshness gives."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from conftest import Stack
from headrace.config.settings import load_settings
from headrace.core.errors import Inconclusive, Retriable
from headrace.health.checks import HealthCheck, freshness_with_grace, health_checks
from headrace.health.freshness import Freshness
from headrace.health.verdicts import Verdict
from headrace.pipelines import Thresholds, discover
from headrace.streams.stream import Stream

BEHIND = timedelta(minutes=15)


@pytest.mark.parametrize("lands", [True, False])
def test_what_came_after_a_quiet_night_is_given_a_moment_to_land(lands: bool) -> None:
    now = datetime.now(UTC)
    waits = Freshness({"kafka/a": 1}, now - BEHIND * 9)
    looks = iter([waits] * 3)

    def look() -> Freshness:
        return next(looks, Freshness({"kafka/a": 0}, now)) if lands else waits

    assert freshness_with_grace(look, BEHIND, grace=0.5, pause=0.01).passed == lands


def test_what_is_late_otherwise_is_said_at_once() -> None:
    now, looks = datetime.now(UTC), 0

    def look() -> Freshness:
        nonlocal looks
        looks += 1
        return Freshness({"kafka/a": 1}, now - BEHIND * 9, unpublished_since=now - BEHIND * 2)

    assert not freshness_with_grace(look, BEHIND, grace=60).passed
    assert looks == 1


def test_a_check_that_cannot_be_made_fails_and_says_why(stack: Stack) -> None:
    def away(*_: object) -> Verdict:
        raise Retriable("the broker is away")

    stream = Stream(discover().pipelines["events"], stack.settings)
    for severity, shown in ((None, "error"), ("warning", "warning")):
        check = HealthCheck("lag", "lake", "", away, severity)  # type: ignore[arg-type]
        assert check.run(stream) == Verdict(False, "cannot be checked: the broker is away", {}, shown)  # type: ignore[arg-type]
    stream.close()


def test_a_check_without_a_consistent_look_says_so_and_blames_nobody(stack: Stack) -> None:
    def busy(*_: object) -> Verdict:
        raise Inconclusive("the broker did not say where orders/3 ends")

    stream = Stream(discover().pipelines["events"], stack.settings)
    found = HealthCheck("offsets_reconcile", "lake", "", busy).run(stream)
    stream.close()
    said = "inconclusive: the broker did not say where orders/3 ends"
    assert found == Verdict(True, said, {"inconclusive": True}, "error")


def test_a_pipeline_chooses_severity_and_thresholds() -> None:
    pipeline = discover().pipelines["events"]
    mild = dataclasses.replace(
        pipeline,
        thresholds=Thresholds(
            reject_rate=0.5, error_reject_rate=0.9, lag=7, warn_only=frozenset({"freshness"})
        ),
    )
    found = {check.name: check for check in health_checks(mild, load_settings())}
    assert "50%" in found["reject_rate"].description
    assert "90% are an error" in found["reject_rate"].description
    assert found["reject_rate"].severity is None, "it depends on what is found"
    quiet = dataclasses.replace(pipeline, thresholds=Thresholds(warn_only=frozenset({"reject_rate"})))
    [rate] = [one for one in health_checks(quiet, load_settings()) if one.name == "reject_rate"]
    assert rate.severity == "warning"
    assert "7 messages" in found["lag"].description
    assert found["freshness"].severity == "warning"
    assert found["parity_with_lake"].severity == "error"
    assert found["parity_with_lake"].blocking
    with pytest.raises(ValueError, match="names no check 'speed'"):
        Thresholds(warn_only=frozenset({"speed"}))


def test_the_checks_are_these() -> None:
    found = [
        (one.of, one.name, one.severity, one.blocking, one.last)
        for one in health_checks(discover().pipelines["events"], load_settings())
    ]
    assert found == [
        ("lake", "every_message_once", "error", False, False),
        ("lake", "offsets_reconcile", "error", False, False),
        ("lake", "contract_holds", "error", False, False),
        ("lake", "unknown_fields", "warning", False, False),
        ("lake", "reject_rate", None, False, False),
        ("lake", "lag", "warning", False, False),
        ("lake", "acknowledged_events_land", "error", False, False),
        ("lake", "freshness", "error", False, True),
        ("warehouse", "parity_with_lake", "error", True, False),
    ]
