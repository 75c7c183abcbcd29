"""The page of figures, and what the profile is summarised to."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from headrace.bench import profile, report
from headrace.bench.collector import CollectorResult, Cost, Memory
from headrace.bench.measure import Run, Series, filesystem
from headrace.bench.peers import PEERS
from headrace.bench.profile import Stage, summarised
from headrace.bench.recovery import Recovery
from headrace.bench.scale import Checkpoint, CommitCost, DrainResult, ScaleResult
from headrace.bench.throughput import NAMES, ThroughputResult
from headrace.cli import app
from headrace.core.errors import Fatal


@pytest.fixture
def figures() -> dict[str, Any]:
    rates = {name: 1_000_000.0 - 1_000 * n for n, name in enumerate(NAMES)}
    rates |= {"write": 400_000.0, "delta": 300_000.0, "dlt": 20_000.0}
    series = {
        name: Series([Run(1_000, 1_000 / rate, 0.002, 0.004, 900_000_000)]) for name, rate in rates.items()
    }
    marks = tuple(Checkpoint(n * 1_000_000, 4.0 * n, 6.0 * n, 700_000_000, 800_000_000) for n in (1, 2, 3))
    drained = DrainResult(1_000_000, marks[:1], ()), DrainResult(3_000_000, marks, ())
    commits = tuple(CommitCost(500 * n, 10.0 + n, 8.0 + n) for n in range(1, 22))
    answer = {"question": "top pages today", "rows": 20, "runs": 60, "p50": 8.2, "p95": 21.7, "worst": 30.0}
    return {
        "throughput": {**ThroughputResult(1_000, "lz4", 403.0, series).as_dict(), "filesystem": "ext4"},
        "profile": {"stages": [{"name": "decode JSON", "leading": 0.25, "others": 0.5}], "reconciles": True},
        "scale": ScaleResult(drained, commits, 2.0).as_dict(),
        "collector": _collected().as_dict(),
        "queries": {
            "events": 50_000_000, "days": 30, "day_events": 10_000_000, "answers": [answer], "build_seconds": 600.4,
            "refresh_seconds": 90.6, "refresh_events": 14_000_000, "wrong": [], "reconciles": True,
        },
    }  # fmt: skip


def _collected() -> CollectorResult:
    def costs(micros: float, p99: float, events: int = 1) -> list[Cost]:
        return [Cost(1_000, 1_000 * events, 1.0, micros * events / 1_000, 0.004, p99, 30.0)]

    found = CollectorResult(memory=[Memory(100_000, 448_000_000), Memory(1_000_000, 476_000_000)])
    for name, times in (("headrace", 1), ("fastapi", 3)):
        found.single[name] = costs(200 * times, 0.018)
        found.half[name] = costs(200 * times, 0.017)
        found.batch[name] = costs(28 * times, 0.1, events=100)
    found.load = 0.5, 2.25
    found.recovery = Recovery(1_000_000, 1_000_000, 4.5, 5.25)
    return found


def test_the_page_says_what_was_measured(figures: dict[str, Any]) -> None:
    page = report.page(json.loads(json.dumps(figures)))
    assert f"| **{NAMES['delta']}** | 300,000 | 0% | 2.00 | 4.00 | 0.90 |" in page
    assert f"- {NAMES['delta']}: **75%** of its slowest unavoidable step alone ({NAMES['write']})." in page
    bound = (os.cpu_count() or 1) / (3 * 4.0) * 1e6
    assert f"- {NAMES['delta']}: **{300_000 / bound:.0%}** of {bound:,.0f}/s, which bare drivers" in page
    assert f"| {PEERS['dlt'].said} | 20,000 | 1,000 | 0.90 | 15.0 times |" in page
    assert page.count("state was on ext4") == 1, "it is not known of the others"
    assert "| decode JSON | 25% | 50% |" in page
    assert "An event of the largest backlog costs **1.00** of one of the smallest." in page
    assert "| top pages today | 20 | 8 | 22 | 30 |" in page
    assert "| 10,500 | 31.0 | 29.0 |" in page, "after maintenance"
    assert "| headrace collect | 200 | 5,000 | 1,000 | 4.0 | 17.0 | 28.0 | 35,714 | 30, 30 |" in page
    assert (
        "The peer takes **3.0 times** the core time for a single event, and **3.0 times** in batches." in page
    )
    assert "load of the machine was 0.5 before and 2.2 after" in page
    assert "448 MB after 100,000 events, 476 MB after 1,000,000." in page
    assert (
        "1,000,000 undelivered entries whose index is lost opens in 4.5 s (5.2 core s); 1,000,000 are" in page
    )
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4, 5, 6, 7, 10}
    assert report.page({}).count("\n#") == 0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has /proc")
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    assert filesystem(Path("/proc/self")) == "proc"
    assert filesystem(tmp_path / "is" / "not" / "there") == filesystem(tmp_path) != "proc"


def test_a_part_may_be_missing(figures: dict[str, Any]) -> None:
    del figures["scale"], figures["profile"]
    figures["throughput"]["to_peers"] = {}
    page = report.page(figures)
    assert "backlog grows" in page
    assert "## As the backlog" not in page
    assert "### Beside others" not in page


def test_parts_are_chosen_by_name() -> None:
    assert report.select_parts([]) == report.PARTS
    assert report.select_parts(["scale", "throughput"]) == ("throughput", "scale")
    with pytest.raises(Fatal, match="no part 'sped'; it has throughput"):
        report.select_parts(["sped"])


def test_the_profile_tells_stages_and_threads_apart() -> None:
    lead = "thread (1): MainThread;<module> (x.py:1);drain (headrace/streams/drain.py:242);"
    other = "thread (2): publish_0;Thread._bootstrap (threading.py:1);"
    stacks = [
        "thread (1): MainThread;<module> (x.py:1);_find (<frozen importlib>:9) 500",
        lead + "check (headrace/contracts/check.py:48);decode (headrace/contracts/wire/decode.py:3) 50",
        lead + "ingest (headrace/flow/ingest.py:1);Event.wait (threading.py:629) 20",
        lead + "ingest (headrace/flow/ingest.py:1);poll (kafka/consumer/group.py:7);Event.wait (threading.py:629) 30",
        other + "publish (headrace/flow/publish.py:1);insert (headrace/warehouse/server.py:3);read (socket.py:7) 40",
        other + "_worker (concurrent/futures/thread.py:81) 900",
        "thread (3): kafka-io;Thread._bootstrap (threading.py:1);select (selectors.py:468) 900",
    ]  # fmt: skip
    assert summarised(stacks) == (
        Stage("decode JSON", 0.5, 0.0),
        Stage("publish: insert into ClickHouse", 0.0, 0.4),
        Stage("fetch: network, CRC, decompression", 0.3, 0.0),
        Stage("waiting for another thread, or for the next batch", 0.2, 0.0),
    )
    with pytest.raises(Fatal, match="nothing of the run"):
        summarised(stacks[:1])


def test_the_profile_names_files_and_functions_that_exist() -> None:
    named = [file for files in profile.STAGES.values() for file in files if file.startswith("headrace/")]
    function, file = profile._RUN.split(" (")
    platform = Path(profile.__file__).parents[2]
    assert all((platform / one).is_file() for one in [*named, file])
    assert f"def {function}(" in (platform / file).read_text()


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="the dependency group 'bench' is not installed")
def test_the_command_draws_what_is_there(tmp_path: Path, figures: dict[str, Any]) -> None:
    (tmp_path / report.DATA).write_text(json.dumps(figures))
    options = ["bench", "report", "--draw-only", "--into", str(tmp_path)]
    assert CliRunner().invoke(app, options).exit_code == 0
    drawn = (tmp_path / report.PLOT).read_bytes()
    ElementTree.fromstring(drawn)
    assert (tmp_path / report.PAGE).read_text() == report.page(figures)
    assert CliRunner().invoke(app, options).exit_code == 0
    assert (tmp_path / report.PLOT).read_bytes() == drawn, "the same figures make the same picture"


@pytest.mark.parametrize(("agrees", "status"), [(True, 0), (False, 1)])
def test_the_command_fails_when_a_part_does_not_reconcile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, figures: dict[str, Any], agrees: bool, status: int
) -> None:
    made = {**figures["throughput"], "reconciles": agrees}
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(report, "require_plots", lambda: None)
    monkeypatch.setattr(report, "measure_part", lambda *_: made)
    monkeypatch.setattr(
        report, "write", lambda docs, found: (docs / report.DATA).write_text(json.dumps(found))
    )
    done = CliRunner().invoke(app, ["bench", "report", "throughput", "--into", str(tmp_path)])
    assert done.exit_code == status, done.output
    assert json.loads((tmp_path / report.DATA).read_text())["throughput"]["reconciles"] is agrees
