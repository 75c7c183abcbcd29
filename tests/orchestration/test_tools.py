"""Dagster's own tools find Headrace where Dagster users look for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Stack
from headrace.producers.kafka import KafkaProducer

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def run(stack: Stack, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs a tool with the project's ``dagster.yaml``, against the embedded stack."""
    home = tmp_path / "dagster home"
    home.mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home)
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "DBT_"))}
    env = {**clean, **stack.environment, "DAGSTER_HOME": str(home)}

    def done(*command: str, cwd: Path = ROOT) -> str:
        found = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env=env, cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-3000:]
        return found.stdout

    return done


@pytest.mark.long
def test_dg_checks_and_lists_the_definitions(run) -> None:  # type: ignore[no-untyped-def]
    assert "All definitions loaded successfully" in run("dg", "check", "defs", cwd=ROOT / "platform")
    listed = json.dumps(json.loads(run("dg", "list", "defs", "--json", cwd=ROOT / "platform")))
    assert "lake/events" in listed and "hourly_upkeep" in listed


@pytest.mark.long
def test_dagster_materialises_an_asset_of_the_workspace(run, stack: Stack) -> None:  # type: ignore[no-untyped-def]
    producer = KafkaProducer(stack.settings.kafka_bootstrap_servers, "metrics")
    producer.send([b"not a metric"])
    producer.flush()
    producer.close()
    module = ("-m", "headrace.orchestration.definitions")
    run("dagster", "asset", "materialize", "--select", "lake/metrics", *module)
    listed = run("dagster", "asset", "list", "--select", "key:lake/*", *module)
    assert listed.split() == ["lake/events", "lake/metrics"]
    schedules = run("dagster", "schedule", "list", "-w", "workspace.yaml")
    assert "hourly_upkeep" in schedules
