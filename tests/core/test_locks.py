"""Locks between processes: taking turns, waiting within bounds, and saying for whom."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from builders import eventually
from headrace.core import locks
from headrace.core.errors import Busy, Fatal
from headrace.core.locks import Patience, file_lock, holder, try_lock

HOLDER = """
import sys, threading
from pathlib import Path
from headrace.core.locks import Patience, file_lock, introduce
introduce("a publisher")
with file_lock(Path(sys.argv[1]), "testing", Patience(9, 9)):
    print("held", flush=True)
    sys.stdin.read()
"""
SHORT, LONG = Patience(0.3, 60), Patience(60, 60)


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its standard input ends, or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def stopped(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 10, "the stop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "one.lock"


def test_whoever_waits_in_vain_is_told_and_may_go_on(path: Path) -> None:
    with file_lock(path, "testing", LONG), try_lock(path, 0.2) as alone:
        assert not alone
    with try_lock(path, 0.2) as alone:
        assert alone
        with try_lock(path, 0.1) as other:
            assert not other


def test_a_stopped_holder_is_waited_for_within_bounds_and_named(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_TELL_AFTER_SECONDS", 0.1)
    with held(path) as process:
        stopped(process)
        with (
            caplog.at_level(logging.WARNING),
            pytest.raises(Busy) as refused,
            file_lock(path, "publishing events", SHORT),
        ):
            pytest.fail("nobody may publish beside the holder")
        said = str(refused.value)
        assert f"publishing events waits for 'a publisher' (pid {process.pid}), which began at " in said
        assert "and is stopped" in said
        assert f"'kill -CONT {process.pid}' lets it go on" in said
        # threads of other tests' drivers may warn meanwhile
        [told] = [one.getMessage() for one in caplog.records if one.name == locks.log.name]
        assert told.startswith(f"publishing events waits for 'a publisher' (pid {process.pid})")
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        with file_lock(path, "publishing events", LONG):
            assert holder(path).pid == os.getpid()
    assert holder(path).pid == 0, "whoever has gone says nothing"


def test_one_that_works_is_waited_for_longer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_BEAT_SECONDS", 0.05)
    released = threading.Event()

    def work() -> None:
        with file_lock(path, "working", LONG):
            working.set()
            released.wait(60)

    working = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    working.wait(60)
    try:
        began = time.monotonic()
        # ten times the silence that a stopped one is allowed; beats come every 50 ms
        with pytest.raises(Busy, match="it still works: try again later, or raise HEADRACE_LOCK_MAX"):  # noqa: SIM117
            with file_lock(path, "waiting", Patience(30, 1.5)):
                pytest.fail("the lock is held")
        assert time.monotonic() - began >= 1.5
    finally:
        released.set()
        thread.join()


def test_a_killed_holder_is_followed_at_once(path: Path) -> None:
    with held(path) as process:
        process.kill()
        process.wait()
        with file_lock(path, "testing", LONG):
            pass


def test_one_that_takes_it_again_and_again_leaves_the_others_a_moment(path: Path) -> None:
    stop, rounds = threading.Event(), [0]

    def again_and_again() -> None:
        while not stop.is_set():
            with file_lock(path, "rebuilding", LONG):
                rounds[0] += 1
                stop.wait(0.02)

    thread = threading.Thread(target=again_and_again)
    thread.start()
    try:
        eventually(lambda: rounds[0] > 0, 10, "the first round")
        for _ in range(5):
            before = rounds[0]
            with file_lock(path, "publishing", LONG):
                pass
            # polling beside it gets a moment of its own once in hundreds of rounds
            assert rounds[0] - before < 60
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1e999}', "\x00" * 50, "[" * 9_000]
)
def test_what_stands_in_a_lock_file_is_a_hint_alone(path: Path, content: str) -> None:
    with file_lock(path, "testing", LONG):
        path.write_text(content)
        assert holder(path).pid == 0
        with pytest.raises(Busy, match="a process that does not say who it is"):  # noqa: SIM117
            with file_lock(path, "waiting", Patience(0.1, 0.1)):
                pytest.fail("the lock is held")


def test_a_lock_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file where the folder is to be")
    with pytest.raises(Fatal, match=r"one\.lock cannot be made: .*choose another HEADRACE_HOME"):  # noqa: SIM117
        with file_lock(tmp_path / "locks" / "one.lock", "testing", SHORT):
            pytest.fail("there is no lock")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/x/headrace", "publish", "events"], "headrace publish events"),
        (["/x/headrace", "erase", "--user-id", "anna@example.com"], "headrace erase"),
        (["/x/dagster", "api", "execute_run", "{secret}"], "dagster api execute_run"),
        (["-c"], "-c"),
        ([""], "python"),
    ],
)
def test_who_holds_it_is_said_without_options(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Callable[[], str] = locks._own_command
    monkeypatch.setattr(sys, "argv", arguments)
    assert own() == said
