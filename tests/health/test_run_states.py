"""Runs by state, queued runs and heartbeats, held against an instance that Dagster wrote."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, asset, materialize
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from headrace.config.settings import load_settings, settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.core.errors import Fatal
from headrace.health.run_states import run_states


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "a home" / "dagster"
    folder.mkdir(parents=True)
    shutil.copy(shipped(DAGSTER), folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("HEADRACE_HOME", str(folder.parent))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@asset
def lake() -> None:
    pass


def test_runs_queued_runs_and_heartbeats_are_those_that_dagster_wrote(home: Path) -> None:
    config = load_settings()
    assert run_states(config) is None, "Dagster has not run"
    before = datetime.now(UTC) - timedelta(seconds=1)
    with DagsterInstance.get() as instance:
        materialize([lake], instance=instance)
        found = run_states(config)
        assert found is not None
        assert list(found.runs.values()) == [1]
        assert {state for _, state in found.runs} == {"SUCCESS"}
        assert (found.queued_since, found.heartbeats) == (None, {})
        for _ in range(2):
            create_run_for_test(instance, job_name="ingest_events")
        with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            waiting = RunsTable.c.pipeline_name == "ingest_events"
            connection.execute(RunsTable.update().where(waiting).values(status="QUEUED"))
        beat = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        instance.add_daemon_heartbeat(DaemonHeartbeat(beat.timestamp(), "SENSOR", "an id", []))
        again = run_states(config)
    assert again is not None
    assert again.runs["ingest_events", "QUEUED"] == 2
    assert again.heartbeats == {"SENSOR": beat}
    assert again.queued_since is not None
    assert before <= again.queued_since <= datetime.now(UTC)


def test_tables_that_cannot_be_read_are_named(home: Path) -> None:
    file = home / "history" / "runs.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(Fatal, match="Dagster's tables cannot be read"):
        run_states(load_settings())
