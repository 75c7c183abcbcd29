"""Jobs that fail are launched again after growing pauses, and what fails holds up nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetKey,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    RunsFilter,
    build_sensor_context,
    job,
    op,
)

from builders import event
from headrace.alerts import AlertState, Findings
from headrace.alerts.notifier import Alert
from headrace.config.settings import Settings
from headrace.core.errors import Fatal, Retriable
from headrace.health import run_history as recorded
from headrace.health import status
from headrace.health.backoff import Policy
from headrace.models.project import manifest, views_version
from headrace.orchestration import alerts, backoff, dbt, refresh, sensors
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.pipelines import discover
from headrace.producers.kafka import KafkaProducer
from headrace.streams.stream import Stream
from headrace.warehouse import StaleDay

KAFKA = {"headrace/stream": "events", sensors.SOURCE: "kafka/analytics_events"}
ROOT = Path(__file__).parents[2]
_CLOCK = r"\d\d:\d\d:\d\d"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DAGSTER_HOME of an instance that ``headrace status`` can read."""
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.get() as instance:
        yield instance


def run_of(
    instance: DagsterInstance, name: str, tags: dict[str, str], error: Exception | None = None
) -> None:
    """A run of a job of that name that ends as it should, or with an error."""

    @op
    def work() -> None:
        if error is not None:
            raise error

    @job(name=name)
    def made() -> None:
        work()

    done = made.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert done.success == (error is None)


def named(name: str) -> Any:
    @job(name=name)
    def made() -> None:
        pass

    return made


def begun(instance: DagsterInstance, run_id: str) -> None:
    """Record that a run has started."""
    for kind in (DagsterEventType.RUN_STARTING, DagsterEventType.RUN_START):
        instance.report_dagster_event(DagsterEvent(kind.value, "ingest_events"), run_id)


def tick(defs: Definitions, name: str, instance: DagsterInstance) -> Any:
    sensor = defs.get_sensor_def(name)
    with build_sensor_context(instance=instance, resources=dict(defs.resources or {})) as context:
        return sensor.evaluate_tick(context)


@pytest.fixture
def waiting(adopted: Settings) -> None:
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="backoff-1")])
    producer.flush()
    producer.close()


def sources(found: Any) -> list[str]:
    return [request.tags[sensors.SOURCE] for request in found.run_requests or []]


def test_an_ingest_job_that_fails_waits_and_says_until_when_and_why(
    defs: Definitions, adopted: Settings, instance: DagsterInstance, waiting: None, home: Path
) -> None:
    found = tick(defs, "events_backlog", instance)
    assert sources(found) == ["kafka/analytics_events"]
    [request] = found.run_requests
    assert request.tags[recorded.VERSION]
    run_of(instance, "ingest_events", request.tags, Fatal("topic 'x' was read up to 12345"))
    held = tick(defs, "events_backlog", instance)
    assert sources(held) == []
    said = rf"kafka/analytics_events: failed once since {_CLOCK}, next try at {_CLOCK} UTC: .*topic 'x'"
    assert re.search(said, held.skip_message), held.skip_message
    # another source of the stream, another stream, another version of the code
    now, pauses = datetime.now(UTC), backoff.backoff(adopted, "another")
    assert pauses.pause(instance, "ingest_events", KAFKA) is None
    own = backoff.Backoff(request.tags[recorded.VERSION], pauses.policy)
    assert own.pause(instance, "ingest_events", {**KAFKA, sensors.SOURCE: "sqs/analytics_events"}) is None
    # the record says it to ``headrace status`` too, where a trial that is not made means that nothing waits
    config = adopted.model_copy(update={"dagster_home": home})
    [shown] = recorded.pauses(config)
    assert (shown.job, shown.what, shown.failures) == ("ingest_events", "kafka/analytics_events", 1)
    assert "topic 'x' was read" in shown.reason
    health = status.Health([], [], [], [], failing=[shown])
    assert not health.healthy
    [line] = [said for _, what, said in status.lines(health) if what == "runs"]
    assert line.startswith("ingest_events (kafka/analytics_events) failed once since")
    assert recorded.pauses(config, now + timedelta(minutes=10)) == []
    # the pause ends by itself; with each failure the next is longer; a success ends them
    assert own.pause(instance, "ingest_events", KAFKA, now + timedelta(seconds=12)) is None
    for _ in range(3):
        run_of(instance, "ingest_events", request.tags, Fatal("topic 'x' was read up to 67890"))
    longer = own.pause(instance, "ingest_events", KAFKA)
    assert longer is not None and longer.failures == 4
    assert (longer.next_try - datetime.now(UTC)).total_seconds() > 40
    run_of(instance, "ingest_events", request.tags)
    assert own.pause(instance, "ingest_events", KAFKA) is None
    assert recorded.pauses(config) == []
    assert sources(tick(defs, "events_backlog", instance)) == ["kafka/analytics_events"]


def test_a_run_that_is_well_ends_the_alarm_although_it_goes_on(
    defs: Definitions,
    adopted: Settings,
    instance: DagsterInstance,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An ingest run stays for what comes later: for hours it neither succeeds nor fails."""
    config = adopted.model_copy(update={"dagster_home": home})
    places = alerts.Places(defs.get_repository_def(), discover().pipelines, "http://ui")
    book = AlertState()

    def look() -> Findings:
        news = Findings()
        alerts.look_at_runs(news, book, instance, places, datetime.now(UTC) + timedelta(minutes=1))
        book.alerts |= {one.key: Alert(one) for one in news.problems}
        return news

    look()
    run_of(instance, "ingest_events", KAFKA, Fatal("no space left"))
    assert [one.key for one in look().problems] == ["run/ingest_events kafka/analytics_events"]
    assert len(recorded.pauses(config)) == 1
    stays = instance.create_run_for_job(job_def=named("ingest_events"), tags=KAFKA)
    begun(instance, stays.run_id)
    assert look().recovered == set()
    assert [one.trying for one in recorded.pauses(config)] == [True]
    instance.add_run_tags(stays.run_id, {recorded.WELL: "true"})
    assert look().recovered == {"run/ingest_events kafka/analytics_events"}
    assert recorded.pauses(config) == []
    # once it fails, it is tried again soon: how long it was well says nothing of how long a try takes
    with monkeypatch.context() as long_ago:
        long_ago.setattr("time.time", lambda: datetime.now(UTC).timestamp() + 3_600)
        instance.report_run_failed(instance.get_run_by_id(stays.run_id))  # type: ignore[arg-type]
    [record] = instance.get_run_records(RunsFilter(run_ids=[stays.run_id]))
    assert record.start_time is not None and record.end_time is not None
    lasted = timedelta(seconds=record.end_time - record.start_time)
    [shown] = recorded.pauses(config, datetime.fromtimestamp(record.end_time, UTC))
    own = backoff.Backoff("", Policy.of(config)).pause(instance, "ingest_events", KAFKA)
    for pause in (shown, own):
        assert pause is not None and pause.failures == 2
        assert pause.next_try - datetime.fromtimestamp(record.end_time, UTC) < timedelta(minutes=5) < lasted


def test_views_that_come_back_are_deployed_again(
    defs: Definitions, adopted: Settings, instance: DagsterInstance
) -> None:
    """A broken model that is taken back leaves the version that was deployed before it, and some of its own views."""
    version = views_version(manifest(adopted), adopted)
    run_of(instance, "deploy_views", {sensors.VIEWS: version})
    assert "is deployed" in tick(defs, "views_version", instance).skip_message
    run_of(instance, "deploy_views", {sensors.VIEWS: "broken"}, RuntimeError("no such column"))
    assert refresh.undeployed(instance, "deploy_views", version, frozenset({AssetKey("v")})) == ["v"]
    [request] = tick(defs, "views_version", instance).run_requests
    run_of(instance, "deploy_views", {})  # by hand: of no version
    assert tick(defs, "views_version", instance).run_requests
    run_of(instance, "deploy_views", request.tags)
    assert "is deployed" in tick(defs, "views_version", instance).skip_message
    assert refresh.undeployed(instance, "deploy_views", version, frozenset({AssetKey("v")})) == []


def test_days_that_fail_wait_and_the_others_are_refreshed(
    defs: Definitions, adopted: Settings, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime.now(UTC) - timedelta(hours=1)
    days = [date(2026, 3, 2), date(2026, 3, 8)]
    monkeypatch.setattr(Stream, "stale_days", lambda self: [StaleDay(day, old, old) for day in days])
    assert "not deployed" in tick(defs, "metrics_refresh", instance).skip_message
    run_of(instance, "deploy_views", {sensors.VIEWS: views_version(manifest(adopted), adopted)})
    [request] = tick(defs, "metrics_refresh", instance).run_requests
    assert request.tags[RANGE_START] <= "2026-03-02" and request.tags[RANGE_END] >= "2026-03-08", "one run"
    run_of(instance, "refresh_metrics", request.tags, RuntimeError("a test of dbt"))
    held = tick(defs, "metrics_refresh", instance)
    assert not held.run_requests
    assert "2 days touched; failed once" in held.skip_message
    # a run of one day alone succeeds: it is free, and does not take the other one along
    well = {**request.tags, RANGE_START: "2026-03-08", RANGE_END: "2026-03-09"}
    run_of(instance, "refresh_metrics", well)
    [request] = tick(defs, "metrics_refresh", instance).run_requests
    assert request.tags[RANGE_START] == "2026-03-08"


def test_one_alert_for_the_whole_episode(
    defs: Definitions, adopted: Settings, instance: DagsterInstance
) -> None:
    places = alerts.Places(defs.get_repository_def(), discover().pipelines, "http://ui")
    book, known = AlertState(), {"headrace/stream": "metrics"}
    now = datetime.now(UTC)

    def look() -> Findings:
        news = Findings()
        alerts.look_at_runs(news, book, instance, places, now + timedelta(minutes=1))
        return news

    look()
    bad = {**known, RANGE_START: "2026-03-02", RANGE_END: "2026-03-02"}
    good = {**known, RANGE_START: "2026-03-08", RANGE_END: "2026-03-08"}
    run_of(instance, "refresh_metrics", bad, RuntimeError("a test of dbt"))
    first = look()
    assert [one.key for one in first.problems] == ["run/refresh_metrics"]
    run_of(instance, "refresh_metrics", good)
    assert look().recovered == set(), "the other day still fails"
    run_of(instance, "refresh_metrics", bad)
    assert look().recovered == {"run/refresh_metrics"}


def test_views_are_not_deployed_while_the_warehouse_is_away_or_right_after_a_failure(
    defs: Definitions, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.warehouse.clickhouse import ClickHouse

    def away(*_: object) -> None:
        raise Retriable("the warehouse is away")

    with monkeypatch.context() as patch:
        patch.setattr(ClickHouse, "query", away)
        assert tick(defs, "views_version", instance).skip_message == "the warehouse is away"
    [request] = tick(defs, "views_version", instance).run_requests
    run_of(instance, "deploy_views", request.tags, RuntimeError("Syntax error"))
    assert "failed once since" in tick(defs, "views_version", instance).skip_message


def test_a_view_that_cannot_be_deployed_holds_up_the_marts_above_it_alone(
    defs: Definitions, instance: DagsterInstance, adopted: Settings
) -> None:
    from dagster import AssetMaterialization, Output

    from headrace.pipelines import discover

    below = {
        name: dbt.views_below(manifest(adopted), pipeline) for name, pipeline in discover().pipelines.items()
    }
    assert not below["events"] & below["metrics"], "the streams share no view"
    assert {key.path[-1] for key in below["metrics"]} > {"stg_metrics"}

    @op
    def deploy() -> Iterator[Any]:
        for key in sorted(below["metrics"]):
            yield AssetMaterialization(key)
        yield Output(None)
        raise RuntimeError("stg_events has a syntax error")

    @job(name="deploy_views")
    def made() -> None:
        deploy()

    def missing(name: str, version: str = "v1") -> list[str]:
        return refresh.undeployed(instance, "deploy_views", version, below[name])

    assert "staging/stg_metrics" in missing("metrics")
    done = made.execute_in_process(instance=instance, tags={sensors.VIEWS: "v1"}, raise_on_error=False)
    assert not done.success
    assert missing("metrics") == []
    assert "staging/stg_events" in missing("events")
    assert missing("metrics", "v2") != [], "of another version"
