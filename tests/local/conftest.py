"""Processes for the tests of the embedded stack, and ways to wait for them without sleeping blindly."""

from __future__ import annotations

import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from headrace.local import processes

PAUSE = threading.Event()  # never set: a wait that looks again


def eventually(holds: Callable[[], object], within: float = 15.0, what: str = "it") -> None:
    """Poll until true; fails the test after ``within`` seconds."""
    pause, waited = 0.01, 0.0
    while not holds():
        assert waited < within, f"{what} did not happen within {within} s"
        PAUSE.wait(pause)
        waited += pause
        pause = min(pause * 1.5, 0.1)


class Marked:
    """Finds processes by a word on their command line that nobody else uses."""

    def __init__(self) -> None:
        self.word = f"mark-{uuid.uuid4().hex}"

    def alive(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            a_service = self.word in words and "guard.py" not in " ".join(words)
            if a_service and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def gone(self) -> bool:
        return not self.alive()


@pytest.fixture
def mark() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    for process in marked.alive():
        process.kill()


@pytest.fixture
def free_port() -> int:
    return processes.pick_port(0, avoid={0})


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., list[str]]:
    """``script(source, *args)``: the command of a small Python program."""

    def write(source: str, *args: str) -> list[str]:
        path = tmp_path / f"{uuid.uuid4().hex}.py"
        path.write_text(source)
        return [sys.executable, "-I", "-S", str(path), *args]

    return write
