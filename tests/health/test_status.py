"""The screen of ``headrace status``, and what it reads of Dagster's tables, held against Dagster itself."""

# no `from __future__ import annotations`: Dagster reads the annotations of assets as objects

import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    asset,
    asset_check,
    materialize,
)
from rich.console import Console

from commands import run_text
from conftest import Stack
from headrace import alerts
from headrace.alerts import Findings, Problem
from headrace.cli.inspect import show
from headrace.config.settings import load_settings, settings
from headrace.config.shipped import DAGSTER, shipped
from headrace.core.errors import Fatal
from headrace.core.guard import Circuit
from headrace.health.check_history import Evaluation, last_evaluations
from headrace.health.status import Health, StreamStatus, examine, inspect, lines
from headrace.streams.stream import streams
from headrace.warehouse.server import Server

NOW = datetime.now(UTC)
STREAM = StreamStatus(
    stream="events",
    sources={"kafka/analytics_events": 0, "sqs/analytics_events": 12, "files/events": 0},
    lake_version=42,
    lake_rows=1_234_567,
    rejected_rows=123,
    last_landed=NOW - timedelta(minutes=2),
    warehouse_rows=1_234_567,
    unpublished_versions=0,
    touched_days=2,
    touched_since=NOW - timedelta(minutes=3),
)
CHECK = Evaluation("lake/events", "reject_rate", True, "warning", "0 of 10 rows rejected", NOW)
CIRCUIT = Circuit("kafka", "closed", 0, None)
WELL = Health([STREAM, replace(STREAM, stream="metrics")], [CIRCUIT], [CHECK], [])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Dagster home below a folder with a space, where an installation has it."""
    folder = tmp_path / "a home" / "dagster"
    folder.mkdir(parents=True)
    shutil.copy(shipped(DAGSTER), folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("HEADRACE_HOME", str(folder.parent))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


def test_checks_are_read_as_dagster_wrote_them(home: Path) -> None:
    fate = {"warns": False, "errs": False, "holds": True}

    @asset(key=["lake", "events"])
    def lake() -> None:
        pass

    def check(name: str, severity: AssetCheckSeverity) -> object:
        @asset_check(asset=lake, name=name)
        def checked() -> AssetCheckResult:
            return AssetCheckResult(passed=fate[name], severity=severity, description=f"{name}\nas asked")

        return checked

    defs = [
        lake,
        *(check(n, AssetCheckSeverity.WARN if n == "warns" else AssetCheckSeverity.ERROR) for n in fate),
    ]
    config = load_settings()
    assert last_evaluations(config) is None, "Dagster has not run"
    with DagsterInstance.get() as instance:
        before = datetime.now(UTC)
        for wanted in (fate, dict.fromkeys(fate, True) | {"errs": False}):
            fate |= wanted
            materialize(defs, instance=instance)  # type: ignore[arg-type]
            found = {one.name: one for one in last_evaluations(config) or []}
            assert {name: one.passed for name, one in found.items()} == fate
    assert (found["warns"].severity, found["errs"].severity) == ("warning", "error")
    assert (found["errs"].asset, found["errs"].said) == ("lake/events", "errs as asked")
    assert before <= found["errs"].at <= datetime.now(UTC)
    monkey = load_settings(home=home.parent / "nowhere", dagster_home=None)
    assert last_evaluations(monkey) is None


def test_a_check_that_the_code_no_longer_has_is_left_out(home: Path) -> None:
    @asset(key=["lake", "events"])
    def lake() -> None:
        pass

    @asset_check(asset=lake)
    def former() -> AssetCheckResult:
        return AssetCheckResult(passed=False)

    with DagsterInstance.get() as instance:
        materialize([lake, former], instance=instance)
        assert instance.get_latest_materialization_event(AssetKey(["lake", "events"]))
    config = load_settings()
    assert [check.name for check in examine([], config).failed] == ["former"]

    def look(book: alerts.AlertState) -> Findings:
        book.checks = ["check/lake/events:other"]
        return Findings()

    alerts.notifier(config).update(look)
    assert examine([], config).failed == []


def test_tables_that_cannot_be_read_are_a_problem_and_no_exception(home: Path) -> None:
    file = home / "history" / "runs" / "index.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 1000)
    with pytest.raises(Fatal, match="Dagster's tables cannot be read"):
        last_evaluations(load_settings())
    health = examine([], load_settings())
    assert not health.healthy
    assert "cannot be read" in health.problems[0]


def test_what_is_well_is_healthy_and_every_trouble_is_not() -> None:
    failed = replace(CHECK, passed=False)
    alert = Problem("run/x", "run", "run of x failed", "disk full", "error", ("a",), "http://x", NOW)
    assert WELL.healthy
    assert replace(WELL, checks=None).healthy
    assert replace(WELL, checks=[failed]).healthy, "a warning needs nobody at once"
    assert replace(WELL, services=[replace(CIRCUIT, failures=2)]).healthy
    assert not replace(WELL, checks=[replace(failed, severity="error")]).healthy
    assert not replace(WELL, services=[replace(CIRCUIT, state="open", failures=5)]).healthy
    assert not replace(WELL, streams=[replace(STREAM, problems=("refused",))]).healthy
    assert not replace(WELL, alerts=[alert]).healthy
    assert replace(WELL, alerts=[replace(alert, severity="warning")]).healthy
    assert not replace(WELL, problems=["x"]).healthy


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30)])
def test_two_streams_fit_one_screen_even_when_much_is_wrong(width: int, height: int) -> None:
    bad = [
        replace(CHECK, name=f"check_number_{n}", passed=False, severity="error" if n < 4 else "warning")
        for n in range(8)
    ]
    alert = Problem(
        "run/x", "run", "run of ingest_events failed", "disk full\nsecond", "error", ("a",), "http://x", NOW
    )
    console = Console(width=width, record=True, file=io.StringIO())
    show(
        replace(
            WELL, checks=[CHECK, *bad], alerts=[alert], services=[replace(CIRCUIT, state="open", failures=5)]
        ),
        NOW,
        to=console,
    )
    text = console.export_text()
    shown = text.splitlines()
    assert len(shown) <= height - 2, "room for the prompt"
    assert all(len(line) <= width for line in shown)
    for said in ("1,234,567 rows, 123 rejected, landed 2 min", "2 days to refresh, the oldest waits for 3 min",
                 "1 passed, 8 failed", "check_number_0 of lake/events", "and 3 more", "run of ingest_events failed",
                 "kafka: circuit open, 5 failures"):  # fmt: skip
        assert said in text
    assert "second" not in text


def headrace(*words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "DAGSTER_"))
    }
    return run_text(*words, env={**kept, **env}, timeout=120)


@pytest.mark.long
def test_a_failed_check_turns_the_exit_status(stack: Stack, home: Path) -> None:
    @asset(key=["lake", "events"])
    def lake() -> None:
        pass

    fate = {"passed": False}

    @asset_check(asset=lake)
    def every_message_once() -> AssetCheckResult:
        return AssetCheckResult(passed=fate["passed"], description="3 rows are doubled")

    env = {**stack.environment, "HEADRACE_RAW_DATABASE": "raw_status", "DAGSTER_HOME": str(home)}
    env["HEADRACE_LAKE_URI"] = str(home.parent / "lake")
    with DagsterInstance.get() as instance:
        materialize([lake, every_message_once], instance=instance)
        red = headrace("status", env=env)
        assert red.returncode == 1, red.stderr
        assert "every_message_once of lake/events" in red.stdout
        assert "3 rows are doubled" in red.stdout
        assert headrace("status", "metrics", env=env).returncode == 0, "it is another stream's"
        fate["passed"] = True
        materialize([lake, every_message_once], instance=instance)
    green = headrace("status", "--json", env=env)
    assert green.returncode == 0, green.stdout
    said = json.loads(green.stdout)
    assert (said["healthy"], [one["passed"] for one in said["checks"]]) == (True, [True])
    assert {one["stream"]: one["lake_version"] for one in said["streams"]} == {"events": 0, "metrics": 0}
    away = headrace("status", "--json", env={**env, "HEADRACE_CLICKHOUSE_PORT": "1"})
    assert away.returncode == 1
    assert json.loads(away.stdout)["streams"][0]["warehouse_rows"] is None
    assert headrace("status", "--jsno", env=env).returncode == 2


def test_a_column_of_another_type_is_wrong_and_not_away(stack: Stack, home: Path) -> None:
    config = stack.settings.model_copy(
        update={
            "home": home.parent,
            "lake_uri": str(home.parent / "lake"),
            "raw_database": "raw_status_lacking",
        }
    )
    whole = streams(config, retry=False)["events"]
    whole.publish()
    whole.close()
    server = Server(config)
    server.command("ALTER TABLE raw_status_lacking.events MODIFY COLUMN duration_ms Nullable(String)")
    server.close()
    stream = streams(config, retry=False)["events"]
    found = inspect(stream)
    stream.close()
    assert found.unread == {"warehouse": "wrong"}
    [why] = [one for one in found.problems if "does not come by itself" in one]
    assert "column 'duration_ms' of raw table events is Nullable(String)" in why
    assert "ALTER TABLE `raw_status_lacking`.`events` MODIFY COLUMN `duration_ms` Nullable(Float64)" in why
    shown = [said for _, _, said in lines(Health([found], [], [], []))]
    assert "warehouse  wrong, see below" in shown
    stream = streams(config.model_copy(update={"clickhouse_port": 1}), retry=False)["events"]
    assert inspect(stream).unread == {"warehouse": "away"}
    stream.close()
