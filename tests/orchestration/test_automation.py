"""Schedules, hand-over and rebuilds that go on where they stopped."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    Definitions,
    build_schedule_context,
    build_sensor_context,
    job,
    op,
)
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator

from builders import event
from headrace.config.settings import Settings
from headrace.orchestration import resume, sensors
from headrace.orchestration.backlog import why_no_run_needed
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import streams

NOW = datetime(2026, 3, 10, 1, 20, tzinfo=UTC)


def plan(defs: Definitions, name: str, instance: DagsterInstance) -> Any:
    context = build_schedule_context(instance=instance, scheduled_execution_time=NOW)
    return defs.get_repository_def().get_schedule_def(name).evaluate_tick(context)


def test_yesterday_is_closed_every_night_once(defs: Definitions) -> None:
    [request] = plan(defs, "events_daily", DagsterInstance.ephemeral()).run_requests
    assert request.run_key == "2026-03-09"
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2026-03-09", "2026-03-09")
    selected = {
        key.to_user_string() for key in defs.get_job_def("rebuild_events").asset_layer.executable_asset_keys
    }
    assert {"warehouse/events", "marts/event_metrics"} <= selected


def test_the_hourly_schedule_leaves_fresh_days_to_the_sensor(
    defs: Definitions, adopted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.streams.stream import Stream
    from headrace.warehouse import StaleDay

    old, fresh = NOW - timedelta(hours=3), NOW - timedelta(minutes=5)
    touched = [StaleDay(date(2026, 1, 5), old, old), StaleDay(date(2026, 2, 5), fresh, fresh)]
    monkeypatch.setattr(Stream, "stale_days", lambda self: touched)
    requests = plan(defs, "metrics_hourly", DagsterInstance.ephemeral()).run_requests
    assert [r.tags[RANGE_START] <= "2026-01-05" <= r.tags[RANGE_END] for r in requests] == [True]
    assert requests[0].tags[RANGE_END] < "2026-02-01"
    monkeypatch.setattr(Stream, "stale_days", lambda self: touched[1:])
    assert "no day" in (plan(defs, "metrics_hourly", DagsterInstance.ephemeral()).skip_message or "")


@pytest.mark.parametrize(
    ("started", "why"),
    [
        ([], ""),
        ([None], "a run is on it"),  # it has not begun yet
        ([1_000.0], "a run is on it"),
        ([899.0], ""),  # its time is nearly up
        ([899.0, None], "a run is on it, and the next one is ready"),
    ],
)
def test_a_relief_is_started_before_a_run_hands_over(started: list[float | None], why: str) -> None:
    assert why_no_run_needed(started, relief_after=600.0, now=1_500.0) == why


def test_a_source_that_a_run_reads_gets_no_other_until_it_hands_over(
    defs: Definitions, adopted: Settings
) -> None:
    tags = {"headrace/stream": "events", sensors.SOURCE: "kafka/analytics_events"}

    @op
    def nothing() -> None: ...

    @job(name="ingest_events")
    def ingest_events() -> None:
        nothing()

    def sources(found: Any) -> list[str]:
        return [request.tags[sensors.SOURCE] for request in found.run_requests or []]

    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="relief-1")])
    producer.flush()
    producer.close()
    with (
        DagsterInstance.ephemeral() as instance,
        build_sensor_context(instance=instance, resources=dict(defs.resources or {})) as context,
    ):
        backlog = defs.get_sensor_def("events_backlog")
        assert "kafka/analytics_events" in sources(backlog.evaluate_tick(context))
        instance.create_run_for_job(ingest_events, tags=tags, status=DagsterRunStatus.STARTED)
        assert "kafka/analytics_events" not in sources(backlog.evaluate_tick(context))


def test_ingest_runs_that_stay_leave_places_for_others() -> None:
    from dagster._core.storage.dagster_run import DagsterRun
    from dagster._core.utils import make_new_run_id
    from dagster._utils.tags import TagConcurrencyLimitsCounter

    config = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"
    limits = yaml.safe_load(config.read_text())["concurrency"]["runs"]

    def run(source: str | None) -> DagsterRun:
        tags = {} if source is None else {sensors.SOURCE: source}
        return DagsterRun("ingest", run_id=make_new_run_id(), tags=tags, status=DagsterRunStatus.STARTED)

    def counter(active: list[DagsterRun]) -> TagConcurrencyLimitsCounter:
        made = TagConcurrencyLimitsCounter(limits["tag_concurrency_limits"], [])
        for one in active:
            made.update_counters_with_launched_item(one)
        return made

    one_source = counter([run("kafka/a")] * 2)
    assert one_source.is_blocked(run("kafka/a")) and not one_source.is_blocked(run("kafka/b"))
    ingest = [run(f"kafka/{n}") for n in range(100)]
    launched: list[DagsterRun] = []
    for one in ingest:
        if not counter(launched).is_blocked(one):
            launched.append(one)
    everything = counter(launched)
    assert everything.is_blocked(run("kafka/new")) and not everything.is_blocked(run(None))
    assert limits["max_concurrent_runs"] - len(launched) >= 8


def test_a_rebuild_that_died_goes_on_with_the_days_that_are_left(
    defs: Definitions, adopted: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id=f"resume-{n}", occurred_at=f"2026-02-0{n}T10:00:00Z") for n in (1, 2, 3)])
    producer.flush()
    producer.close()
    found = streams(adopted)["events"]
    for _ in drain(found, "kafka/analytics_events"):
        pass
    found.close()
    from headrace.streams.stream import Stream

    replaced: list[date] = []
    real = Stream.replace_days

    def dying(self: Stream, days: Any) -> Any:
        for day, rows in real(self, days):
            replaced.append(day)
            yield day, rows
            if day == date(2026, 2, 2) and len(replaced) == 2:
                raise RuntimeError("the process dies here")

    monkeypatch.setattr(Stream, "replace_days", dying)
    key = AssetKey(["warehouse", "events"])
    tags = {RANGE_START: "2026-02-01", RANGE_END: "2026-02-03"}
    warehouse = defs.get_job_def("rebuild_events").get_subset(asset_selection={key})
    with DagsterInstance.ephemeral() as instance:
        died = warehouse.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not died.success
        assert sorted(resume.finished(instance, key, died.run_id)) == ["2026-02-01", "2026-02-02"]
        # as Dagster's retries and the UI make it
        again = instance.create_run_for_job(
            warehouse, tags=tags, parent_run_id=died.run_id, root_run_id=died.run_id
        )
        events = list(execute_run_iterator(InMemoryJob(warehouse), again, instance))
        assert events[-1].event_type is DagsterEventType.RUN_SUCCESS
    assert replaced == [date(2026, 2, n) for n in (1, 2, 3)]
