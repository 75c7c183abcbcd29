"""``headrace dbt sources``, as a person and as CI type it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import run_text
from pipelines.test_modules import project


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment that points at a project with one stream."""
    project(tmp_path / "shop")
    return {**os.environ, "HEADRACE_PROJECT_DIR": str(tmp_path / "shop"), "COLUMNS": "80"}


def test_check_tells_ci_what_is_stale_and_the_command_mends_it(env: dict[str, str]) -> None:
    stale = run_text("dbt", "sources", "--check", env=env)
    assert stale.returncode == 1
    assert "models/sources/orders.yml is missing" in stale.stdout
    assert stale.stdout.splitlines()[-1] == "bring them up to date with: headrace dbt sources"
    mended = run_text("dbt", "sources", env=env)
    assert (mended.returncode, mended.stdout.endswith("models/sources/orders.yml written\n")) == (0, True)
    well = run_text("dbt", "sources", "--check", env=env)
    assert (well.returncode, well.stdout) == (0, "the sources of orders are as their contracts\n")
    assert json.loads(run_text("dbt", "sources", "--check", "--json", env=env).stdout) == {
        "stale": [], "models": [], "broken": {}
    }  # fmt: skip


def test_a_broken_pipeline_is_named_and_fails_both_ways(env: dict[str, str], tmp_path: Path) -> None:
    run_text("dbt", "sources", env=env)
    (tmp_path / "shop" / "contracts" / "orders.py").write_text("x = (\n")
    for options in ([], ["--check"]):
        done = run_text("dbt", "sources", *options, env=env)
        assert done.returncode == 1
        assert done.stdout.startswith("orders_pipeline.py: contracts/orders.py line 1: SyntaxError")


def test_without_a_stream_the_next_step_is_said(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "shop" / "pipelines" / "orders_pipeline.py").unlink()
    done = run_text("dbt", "sources", env=env)
    assert done.returncode == 0
    assert done.stdout == "there is no stream of your own yet; make one with: headrace contracts infer FILE\n"
