"""``headrace bench throughput``: small, on the embedded stack; what it says of speed is not looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import polars as pl
import pytest
from rich.console import Console
from typer.testing import CliRunner

from conftest import Stack
from headrace.bench import throughput as bench
from headrace.bench.load import Seeded, live
from headrace.bench.measure import Run, Series, in_own_process, interleaved, peak_memory
from headrace.bench.peers import PEERS
from headrace.bench.tasks import draining, landing
from headrace.bench.throughput import MALFORMED, NAMES, ThroughputResult, measure, seed_queue, seed_topic
from headrace.cli import app
from headrace.contracts import EVENTS
from headrace.core.batch import CheckedBatch
from headrace.local.queue import create_queues
from headrace.pipelines import Sqs

EVERY = 50


def here(task: Callable[..., dict[str, Run]], *arguments: object) -> dict[str, Run]:
    """In this process, where a new one would only cost time."""
    return task(*arguments)


@pytest.fixture(scope="module")
def seeded(stack: Stack) -> Seeded:
    return seed_topic(stack.settings, 1_000, EVERY, "lz4")


def test_live_events_are_good_and_as_long_as_they_say(judge: Callable[..., CheckedBatch]) -> None:
    now = datetime.now(UTC)
    made = live(1_990, 2_010, now)
    checked = judge(EVENTS, made["payload"], now=now)
    assert checked.rejected.height == 0
    assert checked.good["event_id"].n_unique() == 20
    assert checked.good["occurred_at"].is_sorted()
    assert checked.good["duration_ms"].to_list()[8:12] == [1_998.0, 1_999.0, 0.0, 1.0]
    assert made["key"].cast(pl.String).to_list() == checked.good["session_id"].to_list()
    first = msgspec.json.decode(made["payload"][0])
    assert len(first) == 12
    assert 380 <= len(made["payload"][0]) <= 420


@pytest.mark.long
def test_every_measurement_is_there_and_reconciles(stack: Stack) -> None:
    found = measure(
        stack.settings,
        Console(quiet=True),
        events=2_000,
        messages=100,
        repetitions=1,
        codec=None,
        run=here,
    )
    shown = json.loads(json.dumps(found.as_dict()))
    assert shown["wrong"] == []
    assert shown["reconciles"] is True
    assert set(shown["series"]) == set(NAMES) - {"rdkafka", *PEERS}
    assert {name: one["events"] for name, one in shown["series"].items() if name.startswith("delta")} == {
        "delta": 2_000,
        "delta_clickhouse": 2_000,
        **dict.fromkeys(MALFORMED, 2_000),
    }
    assert shown["series"]["sqs"]["events"] == shown["series"]["sqs_bare"]["events"] == 100
    for one in shown["series"].values():
        assert 0 < one["lowest"] <= one["events_per_second"] <= one["highest"]
        assert one["peak_bytes"] > 0
        assert one["busy_seconds_per_million"] > 0
    assert set(shown["of_slowest_step"]) == {"delta", "delta_clickhouse", "sqs"}
    steps = sum(shown["series"][step]["busy_seconds_per_million"] for step in ("fetch", "parse", "write"))
    cores = os.cpu_count() or 1
    assert shown["of_all_cores"]["delta"]["events_per_second"] == pytest.approx(cores / steps * 1e6, rel=0.01)
    assert shown["to_poll"]["delta"] == pytest.approx(
        shown["series"]["delta"]["events_per_second"] / shown["series"]["poll"]["events_per_second"], abs=0.02
    )
    assert shown["message_bytes"] == pytest.approx(400, abs=20)


def test_malformed_messages_are_told_from_good_ones(stack: Stack, seeded: Seeded) -> None:
    assert (seeded.acknowledged, seeded.malformed) == (1_000, 1_000 // EVERY)
    assert landing(stack.settings, seeded, "delta")["delta"].wrong == ()


@pytest.mark.long
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"acknowledged": 999}, "messages landed + rejected"),
        ({"malformed": 19}, "rows rejected"),
        ({"duration_ms": 1.0}, "milliseconds in the warehouse"),
    ],
)
def test_a_wrong_count_is_found(stack: Stack, seeded: Seeded, changed: dict[str, float], told: str) -> None:
    run = draining(stack.settings, replace(seeded, **changed), "delta")["delta"]  # type: ignore[arg-type]
    assert told in "\n".join(run.wrong)


def test_a_message_that_a_queue_lost_is_found(stack: Stack) -> None:
    queue = Sqs("bench_lost")
    create_queues(stack.settings.sqs_endpoint_url or "", [queue.queue])
    sent = seed_queue(stack.settings, queue, 20)
    run = draining(stack.settings, replace(sent, acknowledged=21), "sqs")["sqs"]
    assert "messages landed + rejected: 20 instead of 21" in run.wrong


@pytest.mark.parametrize(("wrong", "status"), [((), 0), (("rows in the lake: 1 instead of 2",), 1)])
def test_the_command_fails_when_a_run_does_not_reconcile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, wrong: tuple[str, ...], status: int
) -> None:
    found = ThroughputResult(2, "lz4", 400.0, {name: Series([Run(2, 1.0, 1.0, 1.5, 1)]) for name in NAMES})
    found.series["delta"].runs.append(Run(2, 3.0, 1.0, 1.5, 1, wrong))
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "throughput", lambda *_, **__: found)
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["bench", "throughput", *options])
        assert done.exit_code == status, done.output
        assert all(line in done.output for line in wrong)
    assert json.loads(done.stdout)["reconciles"] is (status == 0)
    assert json.loads(done.stdout)["series"]["delta"]["events_per_second"] == round((2 + 2 / 3) / 2)


def test_a_task_alone_has_its_own_memory() -> None:
    held = b"x" * 300_000_000
    assert 0 < in_own_process(peak_memory) < len(held)


def test_repetitions_go_back_and_forth() -> None:
    assert interleaved(3, ["a", "b"]) == ["a", "b", "b", "a", "a", "b"]
