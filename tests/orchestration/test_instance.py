"""Where Dagster keeps what it knows, chosen by settings under one ``dagster.yaml``."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from headrace.clients.postgres import described
from headrace.config.settings import load_settings, settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.core.errors import Fatal


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster home with the ``dagster.yaml`` of the checkout."""
    shutil.copy(shipped(DAGSTER), tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "headrace"))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def test_without_settings_all_of_it_is_below_dagster_home(home: Path) -> None:
    with DagsterInstance.get() as instance:
        assert isinstance(instance.compute_log_manager, LocalComputeLogManager)
        kinds = {
            type(s).__name__
            for s in (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
        }
        assert kinds == {"KeptSqliteRunStorage", "BatchingSqliteEventLogStorage", "KeptSqliteScheduleStorage"}
    assert {one.name for one in home.iterdir()} >= {"history", "schedules"}


def test_compute_logs_go_to_s3_by_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_COMPUTE_LOGS", "s3://bucket/some/prefix/")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    settings.cache_clear()
    with DagsterInstance.get() as instance:
        manager = instance.compute_log_manager
        assert type(manager).__name__ == "S3ComputeLogManager"
        assert (manager._s3_bucket, manager._s3_prefix) == ("bucket", "some/prefix")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url", ["s3cret", "mysql://u:s3cret@h/d", "postgresql://u:s3cret@/d", "postgresql://h:s3cret"]
)
def test_what_is_no_address_of_a_database_is_one_clear_line(url: str) -> None:
    with pytest.raises(Fatal, match="HEADRACE_DAGSTER_POSTGRES is no address") as raised:
        described(url)
    assert "s3cret" not in str(raised.value) + repr(load_settings(dagster_postgres=url))


def test_without_dagster_postgres_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dagster_postgres", None)
    with pytest.raises(Fatal, match=r"needs headrace\[postgres\]"):
        described("postgresql://u:p@127.0.0.1:1/absent")
