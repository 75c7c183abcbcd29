"""The asset checks of a stream, through Dagster: they carry what the judges say, and keep bad data out of the marts."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from dagster import AssetCheckKey, AssetCheckSeverity, AssetKey, DagsterInstance, Definitions, MetadataValue

from builders import event
from headrace.config.settings import Settings
from headrace.health.parity import parity
from headrace.health.verdicts import Markdown, Severity, Verdict
from headrace.orchestration.checks import check_result
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import streams

KEY = AssetCheckKey(AssetKey(["lake", "events"]), "lag")


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_a_verdict_becomes_dagsters_result_of_the_same_words(severity: Severity) -> None:
    found = check_result(KEY, Verdict(passed=False, description="11 in kafka/a wait", severity=severity))
    assert (found.asset_key, found.check_name, found.passed) == (KEY.asset_key, "lag", False)
    assert found.description == "11 in kafka/a wait"
    assert found.severity is {"error": AssetCheckSeverity.ERROR, "warning": AssetCheckSeverity.WARN}[severity]
    assert check_result(KEY, Verdict(passed=True, description="")).passed


def test_figures_keep_their_kind() -> None:
    at = datetime(2026, 3, 10, 12, tzinfo=UTC)
    figures = {
        "rows": 3,
        "rate": 0.25,
        "inconclusive": True,
        "landed_at": "never",
        "at": at,
        "days": Markdown("- 2026-01-02"),
        "fields": {"plan": {"records": 1}},
    }
    found = check_result(KEY, Verdict(passed=True, description="", metadata=figures))
    assert found.metadata == {
        "rows": MetadataValue.int(3),
        "rate": MetadataValue.float(0.25),
        "inconclusive": MetadataValue.bool(True),
        "landed_at": MetadataValue.text("never"),
        "at": MetadataValue.timestamp(at),
        "days": MetadataValue.md("- 2026-01-02"),
        "fields": MetadataValue.json({"plan": {"records": 1}}),
    }


@pytest.mark.long
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


@pytest.mark.long
def test_freshness_is_judged_after_the_build_and_the_reject_rate_with_each_ingest_run(
    defs: Definitions, adopted: Settings
) -> None:
    """Models that were late are not when the run that builds them ends."""
    adopted.export()
    looking = streams(adopted)["events"]
    wrong = 30 + looking.lake.good.extent().rows  # other tests land in the same lake, just before perhaps
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="late-1", occurred_at="2026-02-12T10:00:00Z"), *[b"?"] * wrong])
    producer.flush()
    producer.close()
    instance = DagsterInstance.ephemeral()
    ingested = defs.get_job_def("ingest_events").execute_in_process(instance=instance)
    [rate] = ingested.get_asset_check_evaluations()
    assert (rate.check_name, rate.passed) == ("reject_rate", False)
    assert defs.get_job_def("deploy_views").execute_in_process(instance=instance).success
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
