"""Health checks: what each judges, and that each can fail, by itself and through Dagster."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from dagster import AssetCheckSeverity, AssetKey, DagsterInstance, Definitions

from builders import event
from headrace.config.settings import Settings, load_settings
from headrace.contracts import EVENTS, violations
from headrace.contracts.unknown import Seen
from headrace.core.batch import Position
from headrace.health.audit import Audit
from headrace.health.freshness import Freshness
from headrace.health.parity import Parity, parity
from headrace.orchestration import checks
from headrace.pipelines import Thresholds, discover
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import streams

CURSOR = "kafka/t/i/0"
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
BEHIND = timedelta(minutes=15)


def audit(**changes: Any) -> Audit:
    values = {"messages": 10, "messages_rejected": 1, "good": 9, "rejected": 1, "doubled": 0,
              "by_cursor": {CURSOR: 10}, "reasons": {}}  # fmt: skip
    return Audit(**{**values, **changes})


def test_every_message_once_sees_doubles_and_strangers() -> None:
    assert checks.once(audit()).passed
    doubled = checks.once(audit(doubled=1))
    assert not doubled.passed
    assert "1 rows are doubled" in (doubled.description or "")
    assert not checks.once(audit(beyond={CURSOR: 1})).passed
    gaps = checks.once(audit(missing={CURSOR: [(3, 4), (8, 9)]}))
    assert gaps.passed
    assert gaps.metadata["offsets_without_message"].value == {CURSOR: 2}


def test_offsets_reconcile_sees_what_was_removed_unread_and_what_was_forgotten() -> None:
    assert checks.reconciled({CURSOR: (0, 10)}, Position({CURSOR: 7})).passed
    assert checks.reconciled({CURSOR: (0, 0)}, Position()).passed
    removed = checks.reconciled({CURSOR: (8, 10)}, Position({CURSOR: 5}))
    assert not removed.passed
    assert "offsets 5 to 7 were removed" in (removed.description or "")
    forgotten = checks.reconciled({CURSOR: (0, 4)}, Position({CURSOR: 9}))
    assert not forgotten.passed
    assert "the broker ends at 4, the lake has read to 9" in (forgotten.description or "")


def test_a_writer_beside_makes_no_offsets_forgotten_or_lost() -> None:
    """The lake moves after the broker was asked, and retention removes what has just been read."""
    assert checks.reconciled({CURSOR: (0, 10)}, Position({CURSOR: 7}), Position({CURSOR: 12})).passed
    assert checks.reconciled({CURSOR: (9, 10)}, Position({CURSOR: 7}), Position({CURSOR: 10})).passed
    assert not checks.reconciled({CURSOR: (9, 10)}, Position({CURSOR: 7}), Position({CURSOR: 8})).passed
    assert not checks.reconciled({CURSOR: (0, 6)}, Position({CURSOR: 7}), Position({CURSOR: 7})).passed


def test_lag_names_the_source() -> None:
    assert checks.lagging({"kafka/a": 10, "sqs/b": 3}, 10).passed
    over = checks.lagging({"kafka/a": 11, "sqs/b": 3}, 10)
    assert not over.passed
    assert "11 in kafka/a" in (over.description or "")


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (
            Freshness({"kafka/a": 3}, landed_at=NOW - BEHIND * 2),
            "messages wait in kafka/a and none has landed",
        ),
        (Freshness({"kafka/a": 3}), "none has landed yet"),
        (Freshness({}, unpublished_since=NOW - BEHIND * 2), "not published"),
        (Freshness({}, stale_since=NOW - BEHIND * 2), "not in the models"),
    ],
)
def test_freshness_says_what_is_late(standing: Freshness, said: str) -> None:
    found = checks.fresh(standing, BEHIND, NOW)
    assert not found.passed
    assert said in (found.description or "")


def test_freshness_is_content_with_what_is_on_its_way() -> None:
    recent = NOW - BEHIND / 2
    assert checks.fresh(Freshness({"kafka/a": 3}, recent, recent, recent), BEHIND, NOW).passed
    assert checks.fresh(Freshness({"kafka/a": 0}, NOW - BEHIND * 9), BEHIND, NOW).passed


@pytest.mark.parametrize("lands", [True, False])
def test_what_came_after_a_quiet_night_is_given_a_moment_to_land(
    monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    monkeypatch.setattr(checks, "_ON_ITS_WAY_SECONDS", 0.5)
    monkeypatch.setattr(checks, "_PAUSE_SECONDS", 0.01)
    now = datetime.now(UTC)
    looks = iter([Freshness({"kafka/a": 1}, now - BEHIND * 9)] * 3)

    class Looked:
        def standing(self) -> Freshness:
            if not lands:
                return Freshness({"kafka/a": 1}, now - BEHIND * 9)
            return next(looks, Freshness({"kafka/a": 0}, now))

    assert checks._freshness(Looked(), BEHIND).passed == lands  # type: ignore[arg-type]


def test_what_is_late_otherwise_is_said_at_once() -> None:
    now = datetime.now(UTC)

    class Looked:
        looks = 0

        def standing(self) -> Freshness:
            self.looks += 1
            return Freshness({"kafka/a": 1}, now - BEHIND * 9, unpublished_since=now - BEHIND * 2)

    stream = Looked()
    assert not checks._freshness(stream, BEHIND).passed  # type: ignore[arg-type]
    assert stream.looks == 1


def test_parity_names_the_first_day() -> None:
    assert checks.equal(Parity(1)).passed
    found = checks.equal(Parity(1, {date(2026, 1, 2): (3, 2)}))
    assert not found.passed
    assert (
        found.description == "1 day differs: 2026-01-02 (lake 3, warehouse 2); materialise it to rebuild it"
    )
    many = checks.equal(Parity(1, {date(2026, 1, day): (9, 0) for day in range(5, 0, -1)}))
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


def test_fields_outside_the_contract_warn_unless_they_are_kept() -> None:
    late = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    seen = {name: Seen(n, late) for n, name in enumerate(["country", "city", "zip", "street"], 1)}
    assert checks.named({}, "count").passed
    found = checks.named(seen, "count")
    assert (found.passed, found.severity) == (False, AssetCheckSeverity.WARN)
    assert found.description == (
        "dropped: 'country' in 1 record, 'city' in 2 records, 'zip' in 3 records and 1 more, the newest"
        " 2026-01-02 03:04 UTC; add them to the contract, or let it say unknown='keep' or 'reject'"
    )
    assert found.metadata["fields"].value["street"]["records"] == 4  # type: ignore[index]
    kept = checks.named(seen, "keep")
    assert kept.passed and str(kept.description).startswith("kept in _extra: 'country' in 1 record")


def test_a_pipeline_chooses_severity_and_thresholds() -> None:
    pipeline = discover().pipelines["events"]
    mild = dataclasses.replace(
        pipeline,
        thresholds=Thresholds(
            reject_rate=0.5, error_reject_rate=0.9, lag=7, warn_only=frozenset({"freshness"})
        ),
    )
    found = {check.name: check for check in checks._checks(mild, load_settings())}
    assert "50%" in found["reject_rate"].description
    assert "90% are an error" in found["reject_rate"].description
    assert found["reject_rate"].severity is None, "it depends on what is found"
    quiet = dataclasses.replace(pipeline, thresholds=Thresholds(warn_only=frozenset({"reject_rate"})))
    [rate] = [one for one in checks._checks(quiet, load_settings()) if one.name == "reject_rate"]
    assert rate.severity is AssetCheckSeverity.WARN
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
    producer.send([event(event_id="blocked-1", occurred_at="2026-02-11T10:00:00Z", plan="free")])
    producer.flush()
    producer.close()
    found = streams(adopted)["events"]
    for _ in drain(found, "kafka/analytics_events"):
        pass
    assert not parity(found, [date(2026, 2, 11)]).different
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
    strange = verdicts["unknown_fields"]
    assert (strange.passed, strange.severity) == (False, AssetCheckSeverity.WARN)
    assert "'plan' in 1 record" in (strange.description or "")
    assert not instance.get_materialized_partitions(AssetKey(["marts", "event_metrics"]))
    list(found.replace_days([date(2026, 2, 11)]))
    found.close()
    again = job.execute_in_process(instance=instance, partition_key="2026-02-11")
    assert again.success
    assert all(e.passed for e in again.get_asset_check_evaluations() if e.check_name == "parity_with_lake")
    assert "2026-02-11" in instance.get_materialized_partitions(AssetKey(["marts", "event_metrics"]))


def test_freshness_is_judged_after_the_build_and_the_reject_rate_with_each_ingest_run(
    defs: Definitions, adopted: Settings
) -> None:
    """Models that were late are not when the run that builds them ends."""
    adopted.export()
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="late-1", occurred_at="2026-02-12T10:00:00Z"), *[b"?"] * 30])
    producer.flush()
    producer.close()
    instance = DagsterInstance.ephemeral()
    ingested = defs.get_job_def("ingest_events").execute_in_process(instance=instance)
    [rate] = ingested.get_asset_check_evaluations()
    assert (rate.check_name, rate.passed) == ("reject_rate", False)
    assert defs.get_job_def("deploy_views").execute_in_process(instance=instance).success
    looking = streams(adopted)["events"]
    assert date(2026, 2, 12) in {one.day for one in looking.stale_days()}
    done = defs.get_job_def("refresh_events").execute_in_process(
        instance=instance, partition_key="2026-02-12"
    )
    assert done.success
    steps = [event.step_key for event in done.all_events if event.event_type_value == "STEP_SUCCESS"]
    assert steps.index("events_marts") < steps.index("check_events_last")
    assert steps.index("check_events") < steps.index("events_marts")
    assert date(2026, 2, 12) not in {one.day for one in looking.stale_days()}
    [freshness] = [e for e in done.get_asset_check_evaluations() if e.check_name == "freshness"]
    assert freshness.passed
    looking.close()
