"""The Dagster definitions: what is there, what sensors do, and checks that can fail."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetChecksDefinition,
    AssetKey,
    DagsterInstance,
    DagsterInvalidDefinitionError,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    build_sensor_context,
    materialize,
)

from builders import event, metric
from conftest import Stack
from headrace.config.settings import Settings, load_settings
from headrace.core.days import ranges
from headrace.orchestration import checks, definitions, sensors
from headrace.orchestration.checks import stream_checks
from headrace.orchestration.refresh import FIRST_BUILD_SECONDS, Staleness, why_wait
from headrace.pipelines import Pipeline, discovery
from headrace.producers.kafka import KafkaProducer
from headrace.streams.stream import streams
from headrace.warehouse import StaleDay
from headrace.warehouse.server import Server


def test_the_catalogue(defs: Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    keys = sorted(key.to_user_string() for key in graph.get_all_asset_keys())
    assert keys == [
        "exposures/events",
        "exposures/funnel",
        "exposures/measurements",
        "exposures/performance",
        "exposures/quality",
        "exposures/retention",
        "exposures/sessions",
        "files/events",
        "files/metrics",
        "http/events",
        "http/metrics",
        "intermediate/int_events_deduplicated",
        "intermediate/int_metrics_deduplicated",
        "kafka/analytics_events",
        "kafka/metrics",
        "lake/events",
        "lake/metrics",
        "marts/cohort_days",
        "marts/conversion_funnel",
        "marts/conversion_funnel_live",
        "marts/daily_active_users",
        "marts/data_quality_daily",
        "marts/event_metrics",
        "marts/event_metrics_live",
        "marts/event_metrics_rollups",
        "marts/event_states_live",
        "marts/events_history",
        "marts/landings_daily",
        "marts/metric_windows",
        "marts/metric_windows_live",
        "marts/metric_windows_rollups",
        "marts/performance_metrics",
        "marts/performance_metrics_live",
        "marts/performance_metrics_rollups",
        "marts/performance_states_live",
        "marts/rejections_daily",
        "marts/session_metrics",
        "marts/session_metrics_live",
        "marts/sessions_current",
        "marts/sessions_latest",
        "marts/user_days",
        "marts/user_retention",
        "marts/users_current",
        "marts/users_latest",
        "speed/event_metrics_speed",
        "speed/metric_windows_speed",
        "speed/performance_metrics_speed",
        "speed/session_metrics_speed",
        "speed/speed_event_keys",
        "speed/speed_event_windows",
        "speed/speed_metric_keys",
        "speed/speed_metric_windows",
        "speed/speed_performance_windows",
        "speed/speed_sessions",
        "sqs/analytics_events",
        "sqs/metrics",
        "staging/stg_events",
        "staging/stg_metrics",
        "staging/stg_rejected",
        "warehouse/events",
        "warehouse/events_rejected",
        "warehouse/metrics",
        "warehouse/metrics_rejected",
    ]
    jobs = {job.name for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {
        "deploy_views", "health", "ingest_events", "ingest_metrics", "rebuild_events", "rebuild_metrics",
        "refresh_events", "refresh_metrics", "upkeep",
    }  # fmt: skip
    assert {plan.name: plan.cron_schedule for plan in defs.get_repository_def().schedule_defs} == {
        "events_daily": "20 1 * * *",
        "events_hourly": "37 * * * *",
        "hourly_health": "7 * * * *",
        "metrics_daily": "20 1 * * *",
        "metrics_hourly": "37 * * * *",
        "hourly_upkeep": "40 * * * *",
    }


def test_lineage_goes_from_topic_to_mart(defs: Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    by_name = {key.to_user_string(): key for key in graph.get_all_asset_keys()}
    path = ["http/events", "kafka/analytics_events", "lake/events", "warehouse/events", "staging/stg_events",
            "marts/session_metrics", "marts/session_metrics_live",
            "exposures/sessions"]  # fmt: skip
    for upstream, downstream in pairwise(path):
        assert by_name[upstream] in graph.get(by_name[downstream]).parent_keys, (upstream, downstream)


def test_the_catalogue_says_whose_an_asset_is_and_where_it_is_declared(defs: Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    declared = {
        ("kafka", "analytics_events"): ("team:analytics", "events_pipeline.py"),
        ("lake", "events"): ("team:analytics", "events_pipeline.py"),
        ("warehouse", "metrics"): ("team:platform", "metrics_pipeline.py"),
        ("warehouse", "metrics_rejected"): ("team:platform", "metrics_pipeline.py"),
        ("marts", "session_metrics"): ("team:analytics", "session_metrics.sql"),
        ("marts", "metric_windows"): ("team:platform", "metric_windows.sql"),
    }
    for path, (owner, file) in declared.items():
        node = graph.get(AssetKey(list(path)))
        assert list(node.owners) == [owner], path
        assert node.group_name == path[0] if path[0] != "kafka" else node.group_name == "sources"
        [reference] = node.metadata["dagster/code_references"].code_references
        assert Path(reference.file_path).name == file
        assert Path(reference.file_path).is_file()
        assert node.description


ODD = """
from dataclasses import replace

from headrace.contracts import METRICS
from headrace.pipelines import Kafka, Pipeline

pipeline = Pipeline(
    contract=replace(METRICS, name="odd"),
    sources=(Kafka("odd"),),
    owner="a@example.com",
    description="x",
    models=MODELS,
)
"""


def test_a_broken_pipeline_is_named_and_the_others_load(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_pipeline.py").write_text("import nothing_of_that_name\n")
    shutil.copy(discovery.HERE / "events_pipeline.py", tmp_path / "second_events_pipeline.py")
    config = stack.settings.model_copy(update={"pipelines": tmp_path})
    found = discovery.discover(*config.pipeline_folders)
    assert set(found.pipelines) == {"events", "metrics"}
    assert "nothing_of_that_name" in found.broken["broken_pipeline.py"]
    assert "already declared by events_pipeline.py" in found.broken["second_events_pipeline.py"]
    thief = (discovery.HERE / "events_pipeline.py").read_text()
    thief = thief.replace("contract=EVENTS", "contract=replace(EVENTS, name='thief')")
    (tmp_path / "thief_pipeline.py").write_text("from dataclasses import replace\n" + thief)
    found = discovery.discover(*config.pipeline_folders)
    line = 2 + thief[: thief.index("pipeline = ")].count("\n")
    assert found.broken["thief_pipeline.py"] == (
        f"line {line}: sqs/analytics_events is already read by stream 'events'"
    )
    (tmp_path / "odd_pipeline.py").write_text(ODD.replace("MODELS", "None"))
    (tmp_path / "unmodelled_pipeline.py").write_text(
        ODD.replace("MODELS", "'event'").replace("odd", "untagged")
    )

    def refusing(
        pipeline: Pipeline, settings: Settings, marts: Iterable[AssetKey]
    ) -> list[AssetChecksDefinition]:
        if pipeline.name == "odd":
            raise DagsterInvalidDefinitionError("not so")
        return stream_checks(pipeline, settings, marts)

    monkeypatch.setattr(checks, "stream_checks", refusing)
    shown = definitions.build(config).get_repository_def().asset_graph
    keys = {key.to_user_string() for key in shown.get_all_asset_keys()}
    assert {"broken/broken_pipeline", "lake/events", "lake/metrics"} <= keys
    # what Dagster refuses of a stream, and a stream whose models are not there
    assert "broken/odd_pipeline" in keys and "lake/odd" not in keys
    assert {"broken/unmodelled_pipeline", "lake/untagged"} <= keys
    said = {node.key.to_user_string(): node.description for node in shown.asset_nodes}
    assert "DagsterInvalidDefinitionError: not so" in (said["broken/odd_pipeline"] or "")
    assert "did you mean 'events'?" in (said["broken/unmodelled_pipeline"] or "")


def keys_of(defs: Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.get_repository_def().asset_graph.get_all_asset_keys()}


@pytest.mark.long
def test_a_broken_model_is_shown_and_takes_nothing_down(stack: Stack, tmp_path: Path) -> None:
    shutil.copytree(stack.settings.project_dir / "dbt_project", tmp_path / "dbt_project")
    config = stack.settings.model_copy(update={"project_dir": tmp_path})
    whole = definitions.build(config)
    mart = tmp_path / "dbt_project" / "models" / "marts" / "users" / "users_latest.sql"
    good = mart.read_text()
    mart.write_text(good + "select 1 from {{ ref('nothing') }}\n")
    broken = definitions.build(config)
    assert keys_of(broken) == keys_of(whole) | {"broken/dbt_project"}
    spec = broken.get_repository_def().asset_graph.get(AssetKey(["broken", "dbt_project"]))
    assert spec.description and spec.description.startswith(
        "dbt_project/models/marts/users/users_latest.sql:39: "
    )
    [reference] = spec.metadata["dagster/code_references"].code_references
    assert (Path(reference.file_path), reference.line_number) == (mart, 39)
    mart.write_text(good)
    assert keys_of(definitions.build(config)) == keys_of(whole)
    # dbt does not mind, Dagster does
    yml = mart.with_name("user_days.yml")
    yml.write_text(re.sub(r"days_back: \d+", "days_back: two", yml.read_text(), count=1))
    assert "days_back: two" in yml.read_text()
    refused = definitions.build(config)
    assert keys_of(refused) == keys_of(whole) | {"broken/dbt_project"}
    shown = refused.get_repository_def().asset_graph.get(AssetKey(["broken", "dbt_project"])).description
    assert shown and "user_days.yml" in shown and "'two'" in shown


def test_a_new_home_with_a_broken_project_ingests(stack: Stack, tmp_path: Path) -> None:
    shutil.copytree(stack.settings.project_dir / "dbt_project", tmp_path / "dbt_project")
    (tmp_path / "dbt_project" / "models" / "bad.yml").write_text("models: [\n")
    config = stack.settings.model_copy(update={"project_dir": tmp_path, "home": tmp_path / "home"})
    found = definitions.build(config)
    assert {"broken/dbt_project", "lake/events", "warehouse/metrics"} <= keys_of(found)
    assert not {key for key in keys_of(found) if key.startswith("marts/")}
    names = {sensor.name for sensor in found.get_repository_def().sensor_defs}
    assert names == {
        "alerts",
        "events_backlog",
        "events_catalogue",
        "metrics_backlog",
        "metrics_catalogue",
    }
    jobs = {job.name for job in found.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert jobs == {
        "health",
        "ingest_events",
        "ingest_metrics",
        "rebuild_events",
        "rebuild_metrics",
        "upkeep",
    }


def tick(defs: Definitions, name: str, instance: DagsterInstance) -> Any:
    sensor = defs.get_sensor_def(name)
    with build_sensor_context(instance=instance, resources=dict(defs.resources or {})) as context:
        return sensor.evaluate_tick(context)


def test_a_backlog_becomes_one_run_and_that_run_drains_it(defs: Definitions, adopted: Settings) -> None:
    instance = DagsterInstance.ephemeral()
    looking = streams(adopted)["events"]
    waiting = looking.backlog("kafka/analytics_events").waiting  # of other tests of this process
    looking.close()
    producer = KafkaProducer(adopted.kafka_bootstrap_servers, "analytics_events")
    producer.send([event(event_id="s-1"), event(event_id="s-2", country="DE"), b"bad"])
    producer.flush()
    producer.close()
    requests: list[RunRequest] = list(tick(defs, "events_backlog", instance).run_requests)
    assert [r.tags[sensors.SOURCE] for r in requests] == ["kafka/analytics_events"]
    assert tick(defs, "events_backlog", instance).run_requests, "looking must not consume"
    job = defs.get_job_def("ingest_events")
    done = job.execute_in_process(run_config=requests[0].run_config, instance=instance)
    assert done.success
    [landed] = [
        m
        for m in done.get_asset_materialization_events()
        if m.asset_key and m.asset_key.path == ["lake", "events"]
    ]
    metadata = landed.materialization.metadata
    assert metadata["messages"].value == waiting + 3
    assert metadata["rejected"].value >= 1
    assert metadata["unknown_fields"].value == {"country": 1}
    assert "refused_files" not in metadata
    days = instance.get_materialized_partitions(AssetKey(["warehouse", "events"]))
    assert "2026-01-02" in days
    assert not tick(defs, "events_backlog", instance).run_requests
    skipped = tick(defs, "events_refresh", instance)
    assert "not deployed" in (skipped.skip_message or "")


def test_files_in_the_archive_become_a_run_that_names_the_broken_one(
    defs: Definitions, adopted: Settings
) -> None:
    instance, folder = DagsterInstance.ephemeral(), Path(adopted.archive_uri) / "metrics"
    folder.mkdir(parents=True)
    for name, content in (("a.ndjson", metric()), ("b.csv", b"metric_id,nam\n1,2\n")):
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    requests: list[RunRequest] = list(tick(defs, "metrics_backlog", instance).run_requests)
    [request] = [r for r in requests if r.tags[sensors.SOURCE] == "files/metrics"]
    job = defs.get_job_def("ingest_metrics")
    done = job.execute_in_process(run_config=request.run_config, instance=instance)
    [landed] = [m for m in done.get_asset_materialization_events() if m.asset_key.path == ["lake", "metrics"]]
    metadata = landed.materialization.metadata
    assert metadata["messages"].value == 1
    assert "b.csv: metrics has no column 'nam'" in str(metadata["refused_files"].value)
    again = list(tick(defs, "metrics_backlog", instance).run_requests or [])
    assert "files/metrics" not in [r.tags[sensors.SOURCE] for r in again]
    shutil.rmtree(folder)  # other tests of this process find nothing broken


def test_materialising_a_day_replaces_it_from_the_lake(defs: Definitions, adopted: Settings) -> None:
    warehouse = [a for a in defs.assets or [] if getattr(a, "keys", None) and "warehouse/events" in
                 {k.to_user_string() for k in a.keys}]  # fmt: skip
    done = materialize(
        warehouse, partition_key="2026-01-09", instance=DagsterInstance.ephemeral(), resources=defs.resources
    )
    assert done.success
    [made] = done.get_asset_materialization_events()
    assert made.partition == "2026-01-09"
    assert (
        made.materialization.metadata["days"].value,
        made.materialization.metadata["dagster/partition_row_count"].value,
    ) == (1, 0)


@pytest.fixture(scope="module")
def deployed(defs: Definitions, adopted: Settings) -> ExecuteInProcessResult:
    """What is said of the models that are no marts when they are built."""
    adopted.export()
    return defs.get_job_def("deploy_views").execute_in_process(instance=DagsterInstance.ephemeral())


def test_a_built_model_says_what_its_columns_are_made_of(deployed: ExecuteInProcessResult) -> None:
    events = deployed.get_asset_materialization_events()
    built = {m.asset_key.to_user_string(): m.materialization for m in events}
    lineage = built["intermediate/int_events_deduplicated"].metadata["dagster/column_lineage"].value
    [dep] = lineage.deps_by_column["page"]
    assert (dep.asset_key.to_user_string(), dep.column_name) == ("staging/stg_events", "page")
    assert "warehouse/events" in {d.asset_key.to_user_string() for d in
                                  built["staging/stg_events"].metadata["dagster/column_lineage"].value
                                  .deps_by_column["window_time"]}  # fmt: skip


def checked(defs: Definitions) -> dict[str, bool]:
    """What the health job's checks on models that are no marts say, by name."""
    health = defs.get_job_def("health")
    done = health.execute_in_process(instance=DagsterInstance.ephemeral(), raise_on_error=False)
    layers = ("staging", "intermediate", "speed")
    return {
        e.check_name: e.passed for e in done.get_asset_check_evaluations() if e.asset_key.path[0] in layers
    }


@pytest.mark.long
def test_models_that_are_no_marts_are_checked_by_the_health_job_for_the_last_days(
    deployed: ExecuteInProcessResult, defs: Definitions, adopted: Settings
) -> None:
    assert len(deployed.get_asset_materialization_events()) >= 13
    assert not deployed.get_asset_check_evaluations(), "to deploy is not to check"
    adopted.export()
    server, table = Server(adopted), f"{adopted.raw_database}.events"
    today, ran = datetime.now(UTC).date(), []
    for day, noticed in ((today - timedelta(days=9), set()), (today, {"stg_events_rows_hold"})):
        row = f"('{day}', '{day} 00:00:00', now64(6), 'e', 'click', 's', 'web', '_twice')"
        server.command(
            f"INSERT INTO {table} (event_date, occurred_at, _ingested_at, event_id, event_type, session_id, channel,"
            f" _cursor) VALUES {row}, {row}"
        )
        found = checked(defs)
        server.command(f"ALTER TABLE {table} DELETE WHERE _cursor = '_twice' SETTINGS mutations_sync = 2")
        assert {name for name, passed in found.items() if not passed} == noticed
        ran.append(found.keys())
    assert len(ran[0]) >= 15 and ran[0] == ran[1]


SETTINGS = load_settings()
EARLIEST = SETTINGS.event_time_min.date()
D = date(2026, 3, 10)


def days(*offsets: int) -> list[date]:
    return [D + timedelta(days=n) for n in offsets]


def test_touched_days_widen_and_near_ones_become_one_range() -> None:
    assert list(ranges(days(0), EARLIEST, 1, 2)) == [(D - timedelta(1), D + timedelta(2))]
    assert list(ranges(days(0, 3, 30), EARLIEST)) == [(D, days(3)[0]), (days(30)[0], days(30)[0])]
    assert list(ranges([], EARLIEST)) == []
    [(start, _)] = ranges([EARLIEST], EARLIEST, 5, 0)
    assert start == EARLIEST


def test_models_wait_for_quiet_but_not_for_ever() -> None:
    now = datetime(2026, 3, 10, tzinfo=UTC)
    pipeline = discovery.discover().pipelines["events"]

    def hot(since: float, latest: float, unpublished: bool = False, built: bool = True) -> str | None:
        stale = [StaleDay(D, now - timedelta(seconds=since), now - timedelta(seconds=latest))]
        return why_wait(Staleness(stale, built, unpublished), pipeline, SETTINGS, D, now)

    assert hot(5, 5)
    assert hot(60, 60, unpublished=True)
    assert hot(60, 60) is None
    assert hot(SETTINGS.refresh_max_wait_seconds + 1, 0, unpublished=True) is None
    assert hot(FIRST_BUILD_SECONDS + 1, 0, unpublished=True)
    assert hot(FIRST_BUILD_SECONDS - 1, 0, unpublished=True, built=False)
    assert hot(FIRST_BUILD_SECONDS + 1, 0, unpublished=True, built=False) is None


def test_days_before_the_partitions_wait_until_these_are_loaded_again() -> None:
    now, pipeline = datetime(2026, 3, 10, tzinfo=UTC), discovery.discover().pipelines["events"]
    hour = now - timedelta(hours=1)
    assert "as new as their rows" in str(why_wait(Staleness([]), pipeline, SETTINGS, D, now))
    early = Staleness([StaleDay(D - timedelta(days=1), hour, hour)])
    assert "2026-03-09 is before 2026-03-10" in str(why_wait(early, pipeline, SETTINGS, D, now))
    both = Staleness([*early.days, StaleDay(D, hour, hour)])
    assert why_wait(both, pipeline, SETTINGS, D, now) is None
    assert [one.day for one in both.since(D).days] == [D]


def test_a_batch_of_events_is_stored_like_single_ones(tmp_path: Path) -> None:
    from dagster import AssetExecutionContext, AssetMaterialization, asset

    from headrace.orchestration.runtime.materializations import report_materializations

    config = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_text(config.read_text())
    found = {}
    for size in ("0", "500"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(tmp_path))
            patch.setenv("DAGSTER_EVENT_BATCH_SIZE", size)

            def report(context: AssetExecutionContext) -> None:
                days = [f"2026-01-{n:02d}" for n in range(1, 6)]
                name = f"w{os.environ['DAGSTER_EVENT_BATCH_SIZE']}"
                made = [AssetMaterialization(AssetKey(name), partition=day) for day in days]
                report_materializations(context.op_execution_context, made)

            report.__annotations__["context"] = AssetExecutionContext
            with DagsterInstance.from_ref(DagsterInstance.get().get_ref()) as instance:
                assert type(instance.event_log_storage).__name__ == "BatchingSqliteEventLogStorage"
                done = materialize([asset(name=f"a{size}")(report)], instance=instance)
                key = AssetKey(f"w{size}")
                found[size] = (
                    sorted(instance.get_materialized_partitions(key)),
                    sum(
                        1
                        for e in instance.all_logs(done.run_id)
                        if e.dagster_event and e.dagster_event.asset_key == key
                    ),
                    instance.get_latest_materialization_event(key) is not None,
                )
    assert found["0"] == found["500"] == ([f"2026-01-{n:02d}" for n in range(1, 6)], 5, True)
