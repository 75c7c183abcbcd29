"""The main job, end to end, as ``make demo`` runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from builders import event, eventually
from headrace.config.settings import load_settings
from headrace.warehouse.server import Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def taken_ports() -> Iterator[None]:
    """Something else listens on the usual ports."""
    with ExitStack() as stack:
        for port in (8123, 9092, 3000, 4566):
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue  # taken by somebody else: as good
            listener.listen()
        yield


@pytest.mark.long
def test_the_demo_reconciles_and_leaves_nothing_behind(tmp_path: Path, taken_ports: None) -> None:
    home = tmp_path / f"a home with spaces {uuid.uuid4().hex}"
    env = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "AWS_"))}
    archive = tmp_path / "mine"
    (archive / "events").mkdir(parents=True)
    (archive / "events" / "a.ndjson").write_bytes(event())
    make = ["make", "--no-print-directory", "--old-file=install", f"RUN={Path(sys.executable).parent}/"]
    done = subprocess.run(
        [*make, "demo", "DEMO_ARGS=--json"],
        cwd=ROOT,
        env={**env, "HEADRACE_HOME": str(home), "HEADRACE_ARCHIVE": str(archive), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["passed"]
    assert "Every number reconciles" in done.stderr, "the summary that people read"
    events, metrics = result["streams"]["events"], result["streams"]["metrics"]
    assert events["produced"] == events["landed"] + events["rejected"] == 336_816
    assert metrics["produced"] == metrics["landed"] + metrics["rejected"] == 26_150
    assert events["lake_rows"] == events["warehouse_rows"] == 336_776
    assert metrics["lake_rows"] == metrics["warehouse_rows"] == 211_063
    assert events["doubled_rows"] == metrics["doubled_rows"] == 0
    assert (events["rejected_rows"], metrics["rejected_rows"]) == (41, 36)
    assert events["http"] == {"acknowledged": 84_204, "landed": 84_194, "rejected": 10, "repeated": 1_000}
    assert "http" not in metrics
    assert all(line["agrees"] for s in (events, metrics) for line in s["comparisons"])
    assert set(result["marts"]) == {
        "event_metrics",
        "session_metrics",
        "performance_metrics",
        "metric_windows",
    }
    assert result["marts"]["session_metrics"] == 253_923
    ran = {(c["asset"], c["name"]) for c in result["checks"] if c["status"] == "SUCCEEDED"}
    assert {
        ("lake/events", "every_message_once"),
        ("lake/metrics", "every_message_once"),
        ("warehouse/events", "parity_with_lake"),
        ("warehouse/metrics", "parity_with_lake"),
    } <= ran
    left = [
        p.info
        for p in psutil.process_iter(["cmdline"])
        if any(home.name in a for a in p.info["cmdline"] or [])
    ]
    assert not left


@pytest.mark.long
def test_up_lands_live_traffic_until_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / f"up {uuid.uuid4().hex}"
    env = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "AWS_"))}
    lake = tmp_path / "a lake of one's own"
    env |= {"HEADRACE_HOME": str(home), "HEADRACE_LAKE_URI": str(lake), "COLUMNS": "200"}

    monkeypatch.setenv("HEADRACE_HOME", str(home))  # where its settings are

    running = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", "up", "--rate", "20", "--history", "0.1"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        said = next((line for line in running.stdout if "Dagster UI" in line), "")
        assert "http://127.0.0.1:" in said
        server = Server(load_settings())
        filled = (
            "SELECT count() FROM system.tables"
            " WHERE database = 'raw' AND name IN ('events', 'metrics') AND total_rows > 0"
        )
        eventually(lambda: server.query(filled) == [(2,)], 150, "a row of each stream in the warehouse")
        over_http = "SELECT countIf(startsWith(_message_id, 'http/')) > 0 FROM raw.events"
        eventually(lambda: server.query(over_http) == [(1,)], 150, "an event that came over HTTP")
        asked = [sys.executable, "-m", "headrace.cli", "status", "--json"]
        done = subprocess.run(asked, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert all(state["warehouse_rows"] > 0 for state in json.loads(done.stdout)["streams"])
        assert all(state["lake_rows"] > 0 for state in json.loads(done.stdout)["streams"])
        assert (lake / "events").is_dir()
        assert not (home / "lake").exists()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    finally:
        running.kill()
    left = [
        p.info
        for p in psutil.process_iter(["cmdline"])
        if any(home.name in a for a in p.info["cmdline"] or [])
    ]
    assert not left
