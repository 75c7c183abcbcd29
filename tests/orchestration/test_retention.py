"""What Dagster keeps: what goes, what stays, and that it does not grow for ever."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetCheckKey,
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    DagsterInstance,
    DagsterRunStatus,
    DailyPartitionsDefinition,
    asset,
    asset_check,
    materialize,
)
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickData, TickStatus
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.packed import packed, unpacked
from headrace.orchestration.runtime.materializations import report_materializations
from headrace.orchestration.runtime.retention import Keep, forget

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
BUILT = AssetKey("built")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
KEEP = Keep(LONG_AGO, runs=5, listed=20, history=2)
FEW = replace(KEEP, listed=6)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    config = Path(__file__).parents[2] / "dagster_home" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_text(config.read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with DagsterInstance.get() as made:
        yield made


def definitions() -> list[Any]:
    def _built(context: AssetExecutionContext) -> None:
        report_materializations(
            context.op_execution_context,
            [AssetMaterialization("warehouse", partition=day, metadata={"rows": 5}) for day in DAYS],
        )
        context.log.info("built")

    _built.__annotations__["context"] = AssetExecutionContext
    built: AssetsDefinition = asset(name="built", partitions_def=DailyPartitionsDefinition(DAYS[0]))(_built)

    @asset_check(asset=built)
    def fine() -> AssetCheckResult:
        return AssetCheckResult(passed=True, metadata={"rows": 5}, description="all is well " * 5)

    return [built, fine]


def run(instance: DagsterInstance, day: str = DAYS[0]) -> str:
    return materialize(definitions(), instance=instance, partition_key=day).run_id


def tick(instance: DagsterInstance, status: TickStatus) -> None:
    at = datetime.now(UTC).timestamp()
    instance.create_tick(
        TickData("o", "s", InstigatorType.SENSOR, status, at, run_ids=[], run_keys=[], selector_id="s")
    )


def kept(instance: DagsterInstance) -> int:
    home = Path(instance.root_directory)
    return sum(p.stat().st_size for p in home.rglob("*") if p.is_file() and p.suffix != ".yaml")


def test_it_does_not_grow_for_ever(instance: DagsterInstance) -> None:
    sizes = []
    for _ in range(4):
        for _ in range(7):
            run(instance)
            tick(instance, TickStatus.SKIPPED)
        forget(instance, FEW)
        sizes.append(kept(instance))
    assert max(sizes[1:]) < 1.1 * min(sizes[1:]), sizes
    assert instance.get_runs_count() == 6
    assert len([p for p in Path(instance.root_directory).rglob("*.db") if len(p.stem) == 36]) == 5


def test_without_it_everything_grows(instance: DagsterInstance) -> None:
    sizes = []
    for _ in range(2):
        for _ in range(6):
            run(instance)
        sizes.append(kept(instance))
    assert sizes[1] > 1.5 * sizes[0], "the test before would not notice growth"


def test_the_newest_of_every_day_and_check_stays(instance: DagsterInstance) -> None:
    for day in DAYS * 2:
        run(instance, day)
    everything = Keep(datetime.now(UTC) + timedelta(minutes=5), runs=1, listed=1, history=1)
    gone = forget(instance, everything)
    assert (gone.logs, gone.runs) == (6, 5)
    assert instance.get_materialized_partitions(BUILT) == set(DAYS)
    assert instance.get_materialized_partitions(AssetKey("warehouse")) == set(DAYS)
    records = instance.fetch_materializations(BUILT, limit=100).records
    assert len(records) == 3, "one of each day"
    check = AssetCheckKey(BUILT, "fine")
    [found] = instance.event_log_storage.get_asset_check_execution_history(check, limit=100)
    assert found.status.value == "SUCCEEDED"
    assert forget(instance, everything) == replace(gone, logs=0, runs=0, events=0, ticks=0)


def test_what_is_young_and_among_the_newest_stays_whole(instance: DagsterInstance) -> None:
    first, second = run(instance), run(instance)
    gone = forget(instance, KEEP)
    assert (gone.logs, gone.runs, gone.ticks) == (0, 0, 0)
    for one in (first, second):
        assert len(instance.all_logs(one)) > 10


def test_events_go_by_age_and_by_number_and_the_run_stays_listed(instance: DagsterInstance) -> None:
    ids = [run(instance) for _ in range(7)]
    assert forget(instance, KEEP).logs == 2, "beyond the newest five"
    assert all(instance.get_run_by_id(one) for one in ids)
    aged = replace(KEEP, since=datetime.now(UTC) + timedelta(minutes=5))
    assert forget(instance, aged).logs == 5, "too old"
    assert not any(instance.all_logs(one) for one in ids), "the UI may still ask for them"
    assert instance.get_latest_materialization_event(BUILT) is not None


def test_failures_do_not_push_successes_out(instance: DagsterInstance) -> None:
    good = run(instance)
    for _ in range(8):
        failed = run(instance)
        instance.report_run_failed(instance.get_run_by_id(failed))  # type: ignore[arg-type]
    forget(instance, KEEP)
    assert instance.all_logs(good)


def test_a_run_that_goes_on_keeps_everything(instance: DagsterInstance) -> None:
    ids = [run(instance) for _ in range(8)]
    storage: Any = instance.run_storage
    with storage.connect() as connection:
        connection.exec_driver_sql("UPDATE runs SET status = 'STARTED' WHERE run_id = ?", (ids[0],))
    forget(instance, KEEP)
    assert instance.all_logs(ids[0])
    assert instance.get_runs_count() == 8


def test_ticks_go_by_number(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.orchestration.runtime import tables

    monkeypatch.setattr(tables, "_TICKS", 3)
    for status in [TickStatus.SKIPPED] * 10 + [TickStatus.SUCCESS] * 2 + [TickStatus.STARTED] * 5:
        tick(instance, status)
    assert forget(instance, KEEP).ticks == 7
    left = [one.status for one in instance.get_ticks("o", "s")]
    assert left.count(TickStatus.SKIPPED) == 3 and left.count(TickStatus.SUCCESS) == 2
    assert left.count(TickStatus.STARTED) == 5


def test_files_give_back_their_room(instance: DagsterInstance) -> None:
    run(instance)
    home = Path(instance.root_directory) / "history"
    index = home / "runs" / "index.db"
    columns = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"
    with closing(sqlite3.connect(index)) as db, db:
        for _ in range(8):
            db.execute(f"INSERT INTO event_logs ({columns}) SELECT {columns} FROM event_logs")
    before = kept(instance)
    forget(instance, Keep(LONG_AGO, runs=1, listed=1, history=1))
    assert kept(instance) < 0.5 * before
    assert not any(p.stat().st_size for p in home.rglob("*.db-wal"))


def test_old_rows_are_read_and_new_ones_are_small(instance: DagsterInstance) -> None:
    made = run(instance)
    events = [one.message for one in instance.all_logs(made)]
    index = Path(instance.root_directory) / "history" / "runs" / "index.db"
    for file in (index, index.with_name(f"{made}.db")):
        with closing(sqlite3.connect(file)) as db, db:
            rows = db.execute("SELECT id, event FROM event_logs").fetchall()
            assert all(isinstance(event, bytes) for _, event in rows)
            plain = [(unpacked(event), one) for one, event in rows]
            assert sum(len(event) for event, _ in plain) > 4 * sum(len(event) for _, event in rows)
            db.executemany(
                "UPDATE event_logs SET event = ? WHERE id = ?", plain
            )  # as Dagster's own storage writes
    assert [one.message for one in instance.all_logs(made)] == events
    assert instance.get_materialized_partitions(AssetKey("warehouse")) == set(DAYS)
    found = instance.get_run_by_id(made)
    assert found is not None and found.status is DagsterRunStatus.SUCCESS


@given(st.text(alphabet=st.characters(), max_size=2_000))
def test_packed_text_is_what_it_was(text: str) -> None:
    assert unpacked(packed(text)) == text
    assert unpacked(packed(text * 50)) == text * 50


@pytest.mark.parametrize("stored", [b"\x02abc", b"\x01not deflated", b""])
def test_what_is_no_packed_text_is_said(stored: bytes) -> None:
    with pytest.raises(ValueError, match="packed"):
        unpacked(stored)


def test_the_dictionary_never_changes() -> None:
    """What was packed with it could not be read any more: a better one is another version beside it."""
    from hashlib import sha256

    from headrace.core import packed as module

    assert sha256(module._dictionary()).hexdigest().startswith("11e8ec280e5a")
