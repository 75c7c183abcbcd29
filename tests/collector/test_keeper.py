"""Whoever watches the process with the log starts it again if it hangs or is killed, and else ends as it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from builders import eventually

PATIENCE = 60.0
#: Each start writes its process id as a line, beats, and does what the word for this start says.
SCRIPT = """
import os, signal, sys, time
from headrace.collector.workers import keeper

keeper.SILENT_LOOKS, keeper._LOOK_SECONDS = 20, 0.05
alive = keeper.watched()
with open(sys.argv[1], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
what = sys.argv[2:][len(open(sys.argv[1]).readlines()) - 1]
if what == "slow":
    time.sleep(3 * keeper.SILENT_LOOKS * keeper._LOOK_SECONDS)
alive()
if what == "hangs":
    signal.pause()
if what == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "serves":
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    while alive() and not stopped:
        time.sleep(0.05)
sys.exit(3)
"""


def start(folder: Path, *whats: str) -> subprocess.Popen[bytes]:
    (folder / "starts").touch()
    (folder / "kept.py").write_text(SCRIPT)
    return subprocess.Popen([sys.executable, str(folder / "kept.py"), str(folder / "starts"), *whats])


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().splitlines()]


@pytest.mark.parametrize(
    ("whats", "starts"),
    [(["ends"], 1), (["hangs", "ends"], 2), (["dies", "dies", "ends"], 3), (["slow", "ends"], 1)],
)
def test_it_is_started_again_unless_it_ends_by_itself(tmp_path: Path, whats: list[str], starts: int) -> None:
    assert start(tmp_path, *whats).wait(PATIENCE) == 3
    assert len(pids(tmp_path)) == starts
    assert not any(map(psutil.pid_exists, pids(tmp_path)))


def test_a_stop_is_handed_on_and_starts_nothing(tmp_path: Path) -> None:
    keeper = start(tmp_path, "serves", "serves")
    eventually(lambda: pids(tmp_path), PATIENCE, "a start")
    keeper.terminate()
    assert keeper.wait(PATIENCE) in (3, 128 + signal.SIGTERM)  # by itself, or before it had its handler
    assert len(pids(tmp_path)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_dies_with_who_watches_it(tmp_path: Path) -> None:
    keeper = start(tmp_path, "hangs")
    eventually(lambda: pids(tmp_path), PATIENCE, "a start")
    os.kill(keeper.pid, signal.SIGKILL)
    keeper.wait(PATIENCE)
    eventually(lambda: not psutil.pid_exists(pids(tmp_path)[0]), PATIENCE, "its end")
