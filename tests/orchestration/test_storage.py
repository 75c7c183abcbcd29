"""Events that are stored as a batch lie in the database as Dagster's own storage would have laid them there."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckKey, AssetKey, AssetMaterialization, DailyPartitionsDefinition
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEvent,
    DagsterEventType,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage

from headrace.orchestration.runtime.storage import BatchingSqliteEventLogStorage

RUN = "5f0c8d56-0000-4000-8000-000000000000"
DAYS = [f"2026-01-{n:02d}" for n in range(1, 6)]
EXECUTIONS = ("index", "asset_check_executions")
TABLES = ("event_logs", "asset_check_executions", "asset_event_tags", "asset_keys")


def entry(event: DagsterEvent) -> EventLogEntry:
    return EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=RUN,
        timestamp=1767225600.25,
        step_key=event.step_key,
        job_name="job",
        dagster_event=event,
    )


def planned_check(name: str, days: list[str] | None) -> EventLogEntry:
    definition = DailyPartitionsDefinition(datetime(2026, 1, 1))
    subset = definition.empty_subset().with_partition_keys(days).to_serializable_subset() if days else None
    planned = AssetCheckEvaluationPlanned(
        asset_key=AssetKey(["a"]), check_name=name, partitions_subset=subset
    )
    return entry(
        DagsterEvent(
            DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value, "job", event_specific_data=planned
        )
    )


def asset_events() -> list[EventLogEntry]:
    planned = [
        DagsterEvent.build_asset_materialization_planned_event(
            "job", "step", AssetMaterializationPlannedData(AssetKey([name]), partition=day)
        )
        for name in ("a", "b")
        for day in DAYS
    ]
    made = [
        DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            "job",
            event_specific_data=StepMaterializationData(
                AssetMaterialization("b", partition=day, tags={"dagster/data_version": f"v{day}"})
            ),
        )
        for day in DAYS
    ]
    return [entry(e) for e in planned + made]


def stored(storage: Any, folder: Path) -> dict[str, Any]:
    storage.dispose()
    found = {}
    for name, tables in (("index", TABLES), (RUN, TABLES[:1])):
        with sqlite3.connect(next(folder.rglob(f"{name}.db"))) as db:
            for table in tables:
                columns = [
                    c[1] for c in db.execute(f"pragma table_info({table})") if c[1] != "create_timestamp"
                ]
                found[name, table] = db.execute(
                    f"select {', '.join(columns)} from {table} order by id"
                ).fetchall()
    return found


@pytest.mark.parametrize(
    "checks", [[None], [DAYS], [None, DAYS, DAYS[1:2]], []], ids=["whole", "days", "all kinds", "none"]
)
@pytest.mark.parametrize("assets", [True, False], ids=["with assets", "checks alone"])
def test_a_batch_is_stored_as_single_events_are(tmp_path: Path, checks: list[Any], assets: bool) -> None:
    events = asset_events() if assets else []
    events += [planned_check(f"check_{n}", days) for n, days in enumerate(checks)]
    ours = BatchingSqliteEventLogStorage(str(tmp_path / "ours"))
    stock = SqliteEventLogStorage(str(tmp_path / "stock"))
    ours.store_event_batch(events)
    for event in events:
        stock.store_event(event)
    if not events:
        return
    found, due = stored(ours, tmp_path / "ours"), stored(stock, tmp_path / "stock")
    plans, by_day = found.pop(EXECUTIONS), due.pop(EXECUTIONS)
    assert found == due
    assert len(found["index", "event_logs"]) == len(found[RUN, "event_logs"]) == len(events)
    assert len(plans) == len(checks), "a run plans a check once, whatever its range"
    assert len(by_day) == sum(len(days) if days else 1 for days in checks), "what Dagster would plan"
    assert len(found["index", "asset_event_tags"]) == (len(DAYS) if assets else 0)


@pytest.mark.parametrize("together", [True, False], ids=["in a batch", "alone"])
def test_a_check_that_was_evaluated_leaves_no_plan_behind(tmp_path: Path, together: bool) -> None:
    ours = BatchingSqliteEventLogStorage(str(tmp_path))
    plans = [planned_check(name, DAYS) for name in ("first", "second")]
    if together:
        ours.store_event_batch(plans)
    else:
        for one in plans:
            ours.store_event(one)
    key = AssetCheckKey(AssetKey(["a"]), "first")
    passed = AssetCheckEvaluation(key.asset_key, key.name, True, {})
    ours.store_event(
        entry(DagsterEvent(DagsterEventType.ASSET_CHECK_EVALUATION.value, "job", event_specific_data=passed))
    )
    [found] = ours.get_asset_check_execution_history(key, limit=10)
    assert found.status.value == "SUCCEEDED", "the UI would show other plans as skipped"


def test_what_a_batch_holds_besides_is_stored_after_them(tmp_path: Path) -> None:
    other = entry(DagsterEvent(DagsterEventType.STEP_START.value, "job", step_key="step"))
    ours = BatchingSqliteEventLogStorage(str(tmp_path))
    ours.store_event_batch([other, *asset_events(), planned_check("check", None)])
    kinds = [row[3] for row in stored(ours, tmp_path)[RUN, "event_logs"]]
    assert kinds[-2:] == ["ASSET_CHECK_EVALUATION_PLANNED", "STEP_START"] and len(kinds) == 17
