"""The process that measures: started by a scrape, waited for a moment at most, and started again after it died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from builders import eventually
from headrace.config.settings import load_settings
from headrace.telemetry import beside
from headrace.telemetry.beside import AGE, Beside
from telemetry import process


@pytest.fixture
def made() -> Iterator[Any]:
    """``made(work)``: a page from a process that does this."""
    found: list[Beside] = []

    def make(work: beside.Work) -> Beside:
        found.append(Beside(load_settings(), work))
        return found[-1]

    yield make
    for one in found:
        one.close()


def test_the_first_scrape_begins_and_the_next_ones_are_answered(made: Any) -> None:
    page = made(process.answers)
    assert page.pid is None, "nobody has asked"
    assert b"measuring has begun" in page.text(0.0)
    text = eventually(
        lambda: (found := page.text(0.1)).startswith(b"pid") and found, 60, "an answer"
    ).decode()
    assert text.splitlines()[0] == f"pid {page.pid}"
    assert float(text.splitlines()[-1].removeprefix(AGE)) < 60


def test_a_process_that_is_slow_is_waited_for_a_moment_and_the_page_of_before_is_told(made: Any) -> None:
    page = made(process.slow)
    eventually(lambda: page.text(0.1).startswith(b"page 0"), 60, "the first answer")
    began = time.monotonic()
    assert page.text(0.05).startswith(b"page 0")
    assert time.monotonic() - began < 0.9, "less than the process takes"
    eventually(lambda: page.text(0.1).startswith(b"page 1"), 60, "the second answer")


def test_a_process_that_hangs_or_died_tells_nothing_old(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = made(process.answers)
    eventually(lambda: page.text(0.1).startswith(b"pid"), 60, "an answer")
    before = page.pid
    os.kill(before, signal.SIGKILL)
    eventually(
        lambda: not psutil.pid_exists(before) or psutil.Process(before).status() == "zombie", 10, "its end"
    )
    assert page.text(0.1).startswith(b"pid"), "of a moment ago"
    monkeypatch.setattr(beside, "OLDEST_SECONDS", 0.0)
    assert page.text(0.0).startswith(b"# nothing was measured of late")
    monkeypatch.undo()
    monkeypatch.setattr(beside, "_AGAIN_SECONDS", 0.0)
    eventually(
        lambda: page.text(0.1).startswith(b"pid") and page.pid not in (None, before), 60, "another one"
    )


def test_one_that_never_answers_is_ended_all_the_same(made: Any) -> None:
    page = made(process.hangs)
    assert b"measuring has begun" in page.text(0.0)
    pid = page.pid
    page.close()
    assert not psutil.pid_exists(pid)


def test_the_server_imports_no_driver_for_it() -> None:
    heavy = "{'polars', 'kafka', 'boto3', 'deltalake', 'clickhouse_connect', 'prometheus_client'}"
    code = f"import sys, headrace.telemetry.beside; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
