"""Dagster's runs, schedules and events in a real Postgres: the fetched one, or the system's."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest
from dagster import (
    AssetCheckResult,
    AssetKey,
    DagsterInstance,
    Definitions,
    asset,
    asset_check,
    build_sensor_context,
    materialize,
)

from builders import eventually
from headrace.clients.postgres import described
from headrace.config.settings import load_settings, settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.core.errors import Fatal
from headrace.orchestration.alerts import alerts_sensor
from headrace.orchestration.runtime.retention import Keep, forget

from . import servers
from .fetch import Missing

PASSWORD = "s3cret/@:# %"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database that asks for a password with every character that a URL minds."""
    try:
        programs = servers.postgres_programs()
    except Missing as why:
        pytest.skip(str(why))
    with servers.postgres(programs, PASSWORD) as address:
        yield address


@pytest.fixture
def home(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster home with the checkout's ``dagster.yaml``, and the database by setting alone."""
    shutil.copy(shipped(DAGSTER), tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "headrace"))
    monkeypatch.setenv("HEADRACE_DAGSTER_POSTGRES", url)
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    finally:
        connection.close()


def test_runs_events_and_checks_are_in_postgres_and_nothing_is_in_sqlite(home: Path, url: str) -> None:
    @asset
    def landed() -> None:
        pass

    @asset_check(asset=landed)
    def red() -> AssetCheckResult:
        return AssetCheckResult(passed=False, description="as asked")

    with DagsterInstance.get() as instance:
        done = materialize([landed, red], instance=instance)
        assert instance.get_run_by_id(done.run_id)
        assert instance.get_latest_materialization_event(AssetKey("landed"))
    assert rows(url, f"SELECT status FROM runs WHERE run_id = '{done.run_id}'") == [("SUCCESS",)]
    kinds = {
        kind
        for (kind,) in rows(url, f"SELECT dagster_event_type FROM event_logs WHERE run_id = '{done.run_id}'")
    }
    assert {"PIPELINE_SUCCESS", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION"} <= kinds
    assert rows(url, "SELECT check_name, execution_status FROM asset_check_executions") == [("red", "FAILED")]
    assert not list(home.rglob("*.db"))


@pytest.mark.long
def test_a_run_of_dagsters_own_command_is_there_too(home: Path, url: str) -> None:
    (home / "code.py").write_text("from dagster import asset\n\n\n@asset\ndef told_by_command():\n    pass\n")
    dagster = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [dagster, "asset", "materialize", "-f", home / "code.py", "--select", "told_by_command"],
        env=dict(os.environ), cwd=home, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows(url, "SELECT count(*) FROM event_logs WHERE asset_key LIKE '%told_by_command%'"
                      " AND dagster_event_type = 'ASSET_MATERIALIZATION'")  # fmt: skip
    assert found == [(1,)]
    assert PASSWORD not in done.stdout + done.stderr
    assert quote(PASSWORD, safe="") not in done.stdout + done.stderr


def test_alerts_see_checks_and_runs_there(home: Path) -> None:
    fate = {"passed": False, "error": ""}

    @asset
    def watched() -> None:
        if fate["error"]:
            raise RuntimeError(fate["error"])

    @asset_check(asset=watched)
    def red() -> AssetCheckResult:
        return AssetCheckResult(passed=bool(fate["passed"]))

    sensor = alerts_sensor({}, None, load_settings(home=home))  # type: ignore[arg-type]
    defs = Definitions([watched], asset_checks=[red], sensors=[sensor])
    repository = defs.get_repository_def()
    with DagsterInstance.get() as instance:

        def tick() -> str:
            with build_sensor_context(instance=instance, repository_def=repository) as context:
                return str(sensor.evaluate_tick(context).skip_message)

        said = [tick()]
        materialize([watched, red], instance=instance)
        said.append(tick())
        fate |= {"error": "disk full", "passed": True}
        materialize([watched, red], instance=instance, raise_on_error=False)
        said.append(tick())
        fate["error"] = ""
        materialize([watched, red], instance=instance)
        said.append(tick())
    assert said == ["all is well", "1 open", "2 open", "all is well"]


@pytest.mark.usefixtures("home")
def test_two_homes_share_what_is_in_postgres(tmp_path_factory: pytest.TempPathFactory, url: str) -> None:
    @asset
    def shared() -> None:
        pass

    with DagsterInstance.get() as instance:
        run = materialize([shared], instance=instance).run_id
        # what upkeep removes later on is not what the catalogue is made of
        soon = datetime.now(UTC) + timedelta(minutes=1)
        assert forget(instance, Keep(since=soon, runs=50, listed=500, history=10)).logs >= 1
        assert instance.get_latest_materialization_event(AssetKey("shared"))
    assert rows(url, f"SELECT count(*) FROM event_logs WHERE run_id = '{run}' AND asset_key IS NULL") == [
        (0,)
    ]
    code = (
        "import sys, json; from dagster import DagsterInstance\n"
        f"with DagsterInstance.get() as i: print(json.dumps(i.has_run('{run}')))"
    )
    other = tmp_path_factory.mktemp("other")
    shutil.copy(shipped(DAGSTER), other)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "DAGSTER_HOME": str(other)},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout) is True


def test_a_wrong_password_or_database_is_one_clear_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(url).endswith("/postgres")
    wrong = {
        url.replace(quote(PASSWORD, safe=""), "wr0ng"): "password authentication failed",
        url.replace("/postgres", "/nothing"): 'database "nothing" does not exist',
        "postgresql://u:wr0ng@127.0.0.1:1/x": "127.0.0.1:1/x as u",
    }
    for address, why in wrong.items():
        with pytest.raises(Fatal, match="HEADRACE_DAGSTER_POSTGRES: no connection to") as raised:
            described(address)
        said = str(raised.value)
        assert why in said
        assert "check address and password" in said
        assert "wr0ng" not in said and PASSWORD not in said and "\n" not in said


#: A daemon's process with another program in the daemon's place.
DAEMON = """
import sys
from headrace.config.settings import load_settings
from headrace.orchestration.runtime import one_daemon
from headrace.orchestration.runtime.one_line import said_in_one_line
one_daemon._WAIT_SECONDS = one_daemon._LOOK_SECONDS = 0.2
with said_in_one_line():
    sys.exit(one_daemon.run(load_settings(), [sys.executable, "-c", sys.argv[1]]))
"""
#: Says its pid, and stays.
STAYS = "import os, signal; print(os.getpid(), flush=True); signal.pause()"


def daemon() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DAEMON, STAYS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip


@pytest.mark.usefixtures("home")
def test_a_second_daemon_is_refused_while_the_first_one_lives(url: str) -> None:
    with daemon() as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        with daemon() as second:
            said = second.communicate(timeout=60)[1]
        assert second.returncode == 1
        assert "this installation has a daemon already: 'headrace daemon on" in said and said.count("\n") == 1
        first.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists(), 30, "the end of its daemon, too")
    with daemon() as third:
        assert third.stdout is not None and int(third.stdout.readline()) > 0
        third.terminate()
        assert third.wait(60) == 0


@pytest.mark.usefixtures("home")
def test_a_daemon_whose_lock_is_gone_is_ended_and_asks_again(url: str) -> None:
    with daemon() as one:
        assert one.stdout is not None
        before = int(one.stdout.readline())
        ended = rows(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'headrace daemon%'",
        )
        assert ended == [(True,)]
        again = int(one.stdout.readline())
        assert again != before
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        one.terminate()
        assert one.wait(60) == 0
