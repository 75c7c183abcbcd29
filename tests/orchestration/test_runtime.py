"""Private interfaces of Dagster and Python: where one is built differently, the stock way serves, with one warning."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

import inspect
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    materialize,
)
from dagster import asset as define
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME, is_reserved_asset_job_name
from dagster._core.definitions.target import ANONYMOUS_ASSET_JOB_PREFIX
from dagster._core.execution.backfill import BulkActionStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._grpc import server
from sqlalchemy import Column, Integer, MetaData, Table

from headrace.config.settings import settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.orchestration import alerts
from headrace.orchestration.runtime import code_server, storage, tables, trial
from headrace.orchestration.runtime.materializations import report_materializations
from headrace.orchestration.runtime.retention import Forgotten, Keep, forget

PACKAGE = Path(__file__).parents[2] / "platform" / "headrace"
STOCK = (SqliteRunStorage, SqliteEventLogStorage, SqliteScheduleStorage)
DAYS = {"2026-01-01", "2026-01-02"}
EVERYTHING = Keep(datetime.now(UTC) + timedelta(days=1), runs=0, listed=0, history=1)


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """Nothing was tried in this process."""
    before = dict(trial._outcomes)
    trial._outcomes.clear()
    yield
    trial._outcomes.clear()
    trial._outcomes.update(before)


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the trials have said."""
    caplog.set_level(logging.WARNING, logger=trial.__name__)
    return lambda: [r.getMessage() for r in caplog.records if r.name == trial.__name__]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], DagsterInstance]]:
    """Opens Dagster's instance with the ``dagster.yaml`` of the checkout."""
    (tmp_path / "dagster.yaml").write_text(shipped(DAGSTER).read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "headrace"))
    settings.cache_clear()
    made: list[DagsterInstance] = []

    def get() -> DagsterInstance:
        made.append(DagsterInstance.get())
        return made[-1]

    yield get
    for instance in made:
        instance.dispose()
    settings.cache_clear()


def run(instance: DagsterInstance) -> str:
    def built(context: AssetExecutionContext) -> None:
        made = [AssetMaterialization("reported", partition=day) for day in sorted(DAYS)]
        report_materializations(context.op_execution_context, made)

    return materialize([define(built)], instance=instance).run_id


def kinds(instance: DagsterInstance) -> tuple[type, ...]:
    return tuple(
        type(one) for one in (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    )


def works_as_a_whole(instance: DagsterInstance) -> None:
    run_id = run(instance)
    assert instance.get_materialized_partitions(AssetKey("reported")) == DAYS
    assert [one.run_id for one in instance.get_runs()] == [run_id]


def test_nothing_warns_with_the_versions_that_are_locked(
    opened: Callable[[], DagsterInstance], warnings: Callable[[], list[str]]
) -> None:
    instance = opened()
    works_as_a_whole(instance)
    assert forget(instance, EVERYTHING).logs == 1
    code_server._try_forking()
    assert not {*kinds(instance)} & {*STOCK}
    assert not warnings()
    assert len(trial._outcomes) == 4 and all(trial._outcomes.values())


def broken(*_: Any, **__: Any) -> Any:
    raise AttributeError("it has gone")


BREAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "runs": lambda patch: patch.setattr(storage.KeptSqliteRunStorage, "connect", broken),
    "schedules": lambda patch: patch.setattr(storage.KeptSqliteScheduleStorage, "connect", broken),
    "import": lambda patch: patch.setitem(sys.modules, storage.__name__, None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", BREAKS)
def test_storages_that_do_not_fit_leave_dagsters_own(
    what: str,
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    earlier = run(opened())  # packed, by our own
    trial._outcomes.clear()
    BREAKS[what](monkeypatch)
    instance = opened()
    assert kinds(instance) == STOCK
    run(instance)
    assert instance.all_logs(earlier), "what was packed can still be read"
    opened()
    said = [line for line in warnings() if line.startswith("SQLite storages that keep their connections: ")]
    assert len(said) == 1 and said[0].endswith("; Dagster's own serve, slower")


def test_events_that_are_stored_otherwise_are_noticed(
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage.BatchingSqliteEventLogStorage, "_store_together", lambda *_: None)
    instance = opened()
    assert kinds(instance) == STOCK
    works_as_a_whole(instance)
    [said] = warnings()
    assert "events are lost" in said


def test_tables_that_cannot_be_packed_stay_plain(
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Table("runs", MetaData(), Column("run_body", Integer))
    monkeypatch.setattr(storage, "RunsTable", other)
    works_as_a_whole(opened())
    [said] = warnings()
    assert said.startswith("packed rows in Dagster's tables: ") and "runs.run_body is INTEGER" in said


def test_materialisations_are_reported_one_by_one_where_there_are_no_batches(
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock = DagsterEvent.asset_materialization

    def otherwise(step: Any, made: Any, batch: Any = None) -> DagsterEvent:
        return stock(step, made, batch)

    monkeypatch.setattr(DagsterEvent, "asset_materialization", staticmethod(otherwise))
    instance = opened()
    works_as_a_whole(instance)
    run(instance)
    [said] = warnings()
    assert said.startswith("materialisations in batches: ") and "each is reported by itself" in said


def test_nothing_is_removed_from_tables_that_are_built_differently(
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Table("runs", MetaData(), Column("id", Integer), Column("run_id", Integer))
    monkeypatch.setattr(tables, "RunsTable", other)
    instance = opened()
    run_id = run(instance)
    for _ in range(2):
        assert forget(instance, EVERYTHING) == Forgotten(0, 0, 0, 0)
    assert instance.all_logs(run_id)
    [said] = warnings()
    assert said.startswith("retention: ") and said.endswith("; Dagster keeps all runs, events and ticks")


class Became(Exception):
    """This process would be another now."""


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """The command that the code server becomes."""

    def execv(_: str, command: list[str]) -> None:
        raise Became(*command)

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(sys, "argv", ["code_server", *arguments])
    with pytest.raises(Became) as became:
        code_server.main()
    return [*became.value.args]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--port", "1"], ["api", "grpc", "--port", "1"]),
        (["--reloadable", "--port", "1"], ["code-server", "start", "--port", "1"]),
    ],
)
def test_without_the_setting_the_code_server_is_dagsters(
    arguments: list[str],
    command: list[str],
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert served(monkeypatch, *arguments) == [sys.executable, "-m", "dagster", *command]
    assert not warnings()


@pytest.mark.parametrize(
    ("owner", "name", "other"),
    [
        (server, "open_ipc_subprocess", lambda parts: None),
        (forkserver, "main", lambda one: None),
        (forkserver, "_forkserver", object()),
    ],
)
def test_forking_that_does_not_fit_leaves_dagsters_own_server(
    owner: Any,
    name: str,
    other: Any,
    opened: Callable[[], DagsterInstance],
    warnings: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADRACE_FORK_RUNS", "true")
    monkeypatch.setattr(owner, name, other)
    for _ in range(2):
        assert served(monkeypatch, "--port", "1")[1:5] == ["-m", "dagster", "api", "grpc"]
    [said] = warnings()
    assert said.startswith("forked runs: ") and "Dagster starts a process for each run" in said


def test_a_run_whose_events_a_power_cut_has_torn_is_given_up(opened: Callable[[], DagsterInstance]) -> None:
    instance = opened()
    run_id = run(instance)
    instance.run_storage.handle_run_event(
        run_id, DagsterEvent(DagsterEventType.PIPELINE_START.value, "job"), datetime.now(UTC)
    )
    [shard] = Path(instance.root_directory).rglob(f"{run_id}.db")
    shard.write_bytes(b"torn" * 1_000)
    code_server._give_up_lost_runs()
    assert [one.status for one in instance.get_runs()] == [DagsterRunStatus.FAILURE]
    [event] = instance.all_logs(run_id)
    assert "ended with the platform" in str(event.dagster_event and event.dagster_event.message)


@pytest.mark.parametrize(("name", "mode"), [("runs", 1), ("index", 1), ("schedules", 1), ("run", 0)])
def test_databases_are_synced_at_checkpoints_but_a_runs_own(name: str, mode: int, tmp_path: Path) -> None:
    engine = storage._engine(f"sqlite:///{tmp_path}/{name}.db", keep_connections=name != "run")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == mode
    engine.dispose()


STARTS = """
import logging, multiprocessing, os, time
from multiprocessing import forkserver
from headrace.orchestration.runtime import code_server
logging.basicConfig(format="%(message)s")
if {broken}:
    forkserver.main = lambda *_: os._exit(3)
if {late}:
    ensure_running = forkserver.ensure_running
    forkserver.ensure_running = lambda: (ensure_running(), time.sleep({late}))
if __name__ == "__main__":
    print(code_server._forking_started(), code_server._forking_started())
    spawned = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",))
    spawned.start()
    spawned.join()
"""


@pytest.mark.long
@pytest.mark.parametrize(("is_broken", "late"), [(False, 0), (True, 0), (True, 0.3)])
def test_a_fork_server_that_does_not_answer_is_noticed(is_broken: bool, late: float, tmp_path: Path) -> None:
    """Also one that has ended before anything is asked of it."""
    script = tmp_path / "starts.py"
    script.write_text(STARTS.format(broken=is_broken, late=late))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(not is_broken)] * 2 + ["spawned"]
    assert len(done.stderr.splitlines()) == is_broken, done.stderr
    if is_broken:
        assert re.match(
            r"the fork server of process \d+: .*Dagster starts a process for each run", done.stderr
        )


def test_names_of_dagster_that_are_written_here_are_its_own() -> None:
    assert (alerts._WILL_RETRY, alerts._IMPLICIT_JOB) == (WILL_RETRY_TAG, IMPLICIT_ASSET_JOB_NAME)
    assert alerts._ANONYMOUS_JOB == ANONYMOUS_ASSET_JOB_PREFIX
    assert "ANONYMOUS_ASSET_JOB_PREFIX" in inspect.getsource(is_reserved_asset_job_name)
    assert AssetCheckExecutionRecordStatus("SUCCEEDED") and AssetCheckExecutionRecordStatus("FAILED")
    assert BulkActionStatus("REQUESTED")


def test_private_names_of_dagster_are_behind_one_door() -> None:
    users = {
        file.relative_to(PACKAGE).parent.as_posix()
        for file in PACKAGE.rglob("*.py")
        if re.search(r"\bdagster\w*\._", file.read_text())
    }
    assert users == {"orchestration/runtime"}
