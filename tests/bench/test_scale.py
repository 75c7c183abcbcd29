"""``headrace bench scale``, small."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from conftest import Stack
from headrace.bench import scale as bench
from headrace.bench.scale import (
    Checkpoint,
    CommitCost,
    DrainResult,
    ScaleResult,
    backlogs,
    committing,
    draining,
)
from headrace.bench.throughput import seed_topic
from headrace.cli import app


@pytest.mark.long
@pytest.mark.parametrize("backlog", [300, 600, 1_234])
def test_a_topic_that_is_repeated_lands_once_in_full(stack: Stack, backlog: int) -> None:
    found = draining(stack.settings, seed_topic(stack.settings, 300, 0, None), backlog)
    assert found.wrong == ()
    assert found.end.events == backlog
    assert found.end.peak_bytes >= found.end.held_bytes > 0


def test_a_row_too_many_is_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = bench._differences
    monkeypatch.setattr(
        bench, "_differences", lambda stream, ends: differences(stream, {c: n - 1 for c, n in ends.items()})
    )
    found = draining(stack.settings, seed_topic(stack.settings, 300, 0, None), 600)
    assert {line.split(",")[0] for line in found.wrong} == {"lake", "warehouse"}


def test_commits_are_counted_and_maintained(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_WINDOW", 4)
    made, took, daily = committing(stack.settings, 8)
    assert [one.commits for one in made] == [4, 8]
    assert min(one.milliseconds for one in made) > 0 and min(one.cpu_milliseconds for one in made) > 0
    assert took > 0
    assert daily == 8, "of eight commits some days apart; today goes on"


def test_backlogs_grow() -> None:
    assert backlogs(2_000) == [2_000]
    assert backlogs(50_000_000) == [1_000_000, 5_000_000, 50_000_000]


@pytest.mark.parametrize(("wrong", "status"), [((), 0), (("lake, kafka/x: None instead of 1",), 1)])
def test_the_command_fails_when_rows_are_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, wrong: tuple[str, ...], status: int
) -> None:
    one = DrainResult(1_000_000, (Checkpoint(1_000_000, 4.0, 6.0, 1, 2),), ())
    ten = replace(one, backlog=10_000_000, marks=(Checkpoint(10_000_000, 44.0, 6.0, 1, 2),), wrong=wrong)
    commits = (CommitCost(500, 9.0, 10.0), CommitCost(1_000, 30.0, 12.0), CommitCost(1_500, 90.0, 11.0))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "scale", lambda *_, **__: ScaleResult((one, ten), commits, 1.0))
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["bench", "scale", *options])
        assert done.exit_code == status, done.output
        assert all(line in done.output for line in wrong)
    shown = json.loads(done.stdout)
    assert shown["reconciles"] is (status == 0)
    assert shown["cost_to_smallest"] == 1.1
    assert shown["last_to_first_commit"] == 1.1
