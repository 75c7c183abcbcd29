"""Health checks: what each judges, and that each can fail, by itself and through Dagster."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from dagster import AssetCheckSeverity, AssetKey, DagsterInstance, Definitions

from builders import event
from headrace.batch import Position
from headrace.contracts import EVENTS, violations
from headrace.orchestration import checks
from headrace.pipelines import Thresholds, discover
from headrace.producers.kafka import KafkaProducer
from headrace.settings import Settings, load_settings
from headrace.stream import Audit, Standing, streams

CURSOR = "kafka/t/i/0"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
BEHIND = timedelta(minutes=15)


def audit(**changes: Any) -> Audit:
    values = {"messages": 10, "messages_rejected": 1, "good": 9, "rejected": 1, "doubled": 0,
              "by_cursor": {CURSOR: 10}, "reasons": {}}  # fmt: skip
    return Audit(**{**values, **changes})


def test_every_message_once_sees_doubles_and_strangers() -> None:
    position = Position({CURSOR: 10})
    assert checks.once(audit(), position).passed
    doubled = checks.once(audit(doubled=1), position)
    assert not doubled.passed
    assert "1 rows are doubled" in (doubled.description or "")
    assert not checks.once(audit(by_cursor={CURSOR: 11}), position).passed
    gaps = checks.once(audit(by_cursor={CURSOR: 8}), position)
    assert gaps.passed
    assert gaps.metadata["offsets_without_message"].value == {CURSOR: 2}


def test_an_audit_of_some_days_does_not_take_the_others_for_gaps() -> None:
    some = checks.once(audit(by_cursor={CURSOR: 3}), Position(), Position({CURSOR: 10}))
    assert some.passed
    assert some.metadata["offsets_without_message"].value == {}
    assert not checks.once(audit(by_cursor={CURSOR: 11}), Position(), Position({CURSOR: 10})).passed


def test_offsets_reconcile_sees_what_was_removed_unread_and_what_was_forgotten() -> None:
    assert checks.reconciled({CURSOR: (0, 10)}, Position({CURSOR: 7})).passed
    assert checks.reconciled({CURSOR: (0, 0)}, Position()).passed
    removed = checks.reconciled({CURSOR: (8, 10)}, Position({CURSOR: 5}))
    assert not removed.passed
    assert "offsets 5 to 7 were removed" in (removed.description or "")
    forgotten = checks.reconciled({CURSOR: (0, 4)}, Position({CURSOR: 9}))
    assert not forgotten.passed
    assert "the broker ends at 4, the lake has read to 9" in (forgotten.description or "")


def test_the_reject_rate_has_a_limit() -> None:
    assert checks.rejects(95, 5, 0.05).passed
    over = checks.rejects(94, 6, 0.05)
    assert not over.passed
    assert over.severity is AssetCheckSeverity.WARN
    assert checks.rejects(0, 0, 0.05).passed


def test_lag_names_the_source() -> None:
    assert checks.lagging({"kafka/a": 10, "sqs/b": 3}, 10).passed
    over = checks.lagging({"kafka/a": 11, "sqs/b": 3}, 10)
    assert not over.passed
    assert "11 in kafka/a" in (over.description or "")


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (
            Standing({"kafka/a": 3}, landed_at=NOW - BEHIND * 2),
            "messages wait in kafka/a and none has landed",
        ),
        (Standing({"kafka/a": 3}), "none has landed yet"),
        (Standing({}, unpublished_since=NOW - BEHIND * 2), "not published"),
        (Standing({}, touched_since=NOW - BEHIND * 2), "not in the models"),
    ],
)
def test_freshness_says_what_is_late(standing: Standing, said: str) -> None:
    found = checks.fresh(standing, BEHIND, NOW)
    assert not found.passed
    assert said in (found.description or "")


def test_freshness_is_content_with_what_is_on_its_way() -> None:
    recent = NOW - BEHIND / 2
    assert checks.fresh(Standing({"kafka/a": 3}, recent, recent, recent), BEHIND, NOW).passed
    assert checks.fresh(Standing({"kafka/a": 0}, NOW - BEHIND * 9), BEHIND, NOW).passed


def test_parity_names_the_first_day() -> None:
    assert checks.equal({}).passed
    found = checks.equal({date(2026, 1, 2): (3, 2)})
    assert not found.passed
    assert (
        found.description == "1 day differs: 2026-01-02 (lake 3, warehouse 2); materialise it to rebuild it"
    )
    many = checks.equal({date(2026, 1, day): (9, 0) for day in range(5, 0, -1)})
    assert many.description is not None
    assert many.description.startswith("5 days differ: 2026-01-01 (lake 9, warehouse 0), 2026-01-02")
    assert " and 2 more; materialise them" in many.description
    assert "2026-01-05" in str(many.metadata["days"].value)


def test_rows_that_somebody_else_wrote_are_held_against_the_contract(judge: Any) -> None:
    good = judge(EVENTS, [event(), event(event_id="e-2")]).good
    assert violations(EVENTS, good) == {}
    assert checks.kept({}, good.height).passed
    wrong = good.with_columns(channel=pl.lit("pigeon"))
    broken = violations(EVENTS, wrong)
    assert list(broken.values()) == [2]
    [(column, _)] = broken
    assert column == "channel"
    found = checks.kept(broken, wrong.height)
    assert not found.passed
    assert "channel" in (found.description or "")


def test_a_pipeline_chooses_severity_and_thresholds() -> None:
    pipeline = discover().pipelines["events"]
    mild = dataclasses.replace(
        pipeline, thresholds=Thresholds(reject_rate=0.5, lag=7, warn_only=frozenset({"freshness"}))
    )
    found = {check.name: check for check in checks._checks(mild, load_settings())}
    assert "50%" in found["reject_rate"].description
    assert "7 messages" in found["lag"].description
    assert found["freshness"].severity is AssetCheckSeverity.WARN
    assert found["parity_with_lake"].severity is AssetCheckSeverity.ERROR
    assert found["parity_with_lake"].blocking
    with pytest.raises(ValueError, match="names no check 'speed'"):
        Thresholds(warn_only=frozenset({"speed"}))


def test_bad_data_goes_no_further_and_its_check_says_why(defs: Definitions, adopted: Settings) -> None:
    """A day whose raw rows are not those of the lake: the blocking check fails, and no mart is built of it."""
    adopted.export()
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="blocked-1", occurred_at="2026-02-11T10:00:00Z")])
    producer.flush()
    producer.close()
    found = streams(adopted)["events"]
    for _ in found.drain("kafka/analytics_events"):
        pass
    assert not found.parity([date(2026, 2, 11)])
    found.warehouse.query(
        "ALTER TABLE raw.events DELETE WHERE event_id = 'blocked-1' SETTINGS mutations_sync = 2"
    )
    instance = DagsterInstance.ephemeral()
    assert defs.get_job_def("deploy_views").execute_in_process(instance=instance).success
    job = defs.get_job_def("refresh_events")
    done = job.execute_in_process(instance=instance, partition_key="2026-02-11", raise_on_error=False)
    assert not done.success
    verdicts = {e.check_name: e for e in done.get_asset_check_evaluations()}
    assert not verdicts["parity_with_lake"].passed
    assert "1 day differs: 2026-02-11" in (verdicts["parity_with_lake"].description or "")
    assert verdicts["every_message_once"].passed
    assert not instance.get_materialized_partitions(AssetKey(["marts", "event_metrics"]))
    list(found.replace_days([date(2026, 2, 11)]))
    found.close()
    again = job.execute_in_process(instance=instance, partition_key="2026-02-11")
    assert again.success
    assert all(e.passed for e in again.get_asset_check_evaluations() if e.check_name == "parity_with_lake")
    assert "2026-02-11" in instance.get_materialized_partitions(AssetKey(["marts", "event_metrics"]))
