"""``headrace metrics`` as a person types it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from commands import run_text


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and a warehouse that does not answer."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HEADRACE_HOME": str(tmp_path / "home"),
        "HEADRACE_CLICKHOUSE_PORT": "1",
    }


def test_list_says_what_there_is(environment: dict[str, str]) -> None:
    done = run_text("metrics", "list", "--json", env=environment)
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert found["retention_rate"]["windows"] == ["day"]
    assert found["events"]["dimensions"][:2] == ["event_type", "channel"]
    people = run_text("metrics", "list", env=environment)
    assert "unique_users  Users; minute to all" in people.stdout


def test_a_file_that_is_wrong_is_one_line_with_the_nearest_choice(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "headrace.toml").write_text("")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "shop.yml").write_text("{family: shop, stream: orders, modls: {}}")
    done = run_text("metrics", "list", env={**environment, "HEADRACE_PROJECT_DIR": str(tmp_path)})
    assert done.returncode == 1
    assert "shop.yml: modls: there is no such key; did you mean models?" in done.stderr


def test_exposures_are_up_to_date(environment: dict[str, str]) -> None:
    done = run_text("metrics", "exposures", env=environment)
    assert done.returncode == 0 and "exposures.yml: up to date" in done.stdout
