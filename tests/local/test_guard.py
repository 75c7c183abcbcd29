"""No process outlives whoever started it, however that one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from headrace.local.supervisor import GUARD

from .conftest import Marked, eventually

Script = Callable[..., list[str]]

GRACE = 0.4
GUARD_COMMAND = [sys.executable, "-I", "-S", str(GUARD), "--grace", str(GRACE)]

STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True: signal.pause()
"""

# Starts a child, a child in a new session, and a daemon (its parent ends, so that it is nobody's child).
FAMILY = """
import os, signal, sys
def sleeper(name):
    waits = [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]
    os.execv(sys.executable, [*waits, name, sys.argv[1]])
if not os.fork(): sleeper("child")
if not os.fork(): os.setsid(); sleeper("session")
if not os.fork():
    os.setsid()
    if os.fork(): os._exit(0)
    sleeper("daemon")
print("up", flush=True)
signal.pause()
"""

PARENT = """
import signal, subprocess, sys
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
signal.pause()
"""


def guarded(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*GUARD_COMMAND, "--", *command], stdin=subprocess.PIPE, **options)  # type: ignore


def end(guard: subprocess.Popen[bytes]) -> int:
    assert guard.stdin
    guard.stdin.close()
    return guard.wait(20)


def test_exit_status_is_the_services(script: Script) -> None:
    assert guarded(script("raise SystemExit(0)")).wait(20) == 0
    assert guarded(script("raise SystemExit(7)")).wait(20) == 7
    by_signal = script("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert guarded(by_signal).wait(20) == -signal.SIGSEGV


def test_missing_command_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert guarded(["/nowhere/broker"]).wait(20) == 127
    assert "cannot start /nowhere/broker: No such file" in capfd.readouterr().err


def test_usage_error_is_no_service() -> None:
    done = subprocess.run([*GUARD_COMMAND, "--colour", "red"], input=b"", capture_output=True)
    assert done.returncode == 1
    assert b"usage:" in done.stderr


def test_closed_lifeline_asks_the_service_to_end(script: Script, tmp_path: Path) -> None:
    last_words = tmp_path / "last words"
    polite = """
import pathlib, signal, sys
def bye(*_):
    pathlib.Path(sys.argv[1]).write_text("bye")
    raise SystemExit(3)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
while True: signal.pause()
"""
    guard = guarded(script(polite, str(last_words)), stdout=subprocess.PIPE)
    assert guard.stdout and guard.stdout.readline() == b"up\n"
    assert end(guard) == 3
    assert last_words.read_text() == "bye"


def test_service_that_ignores_sigterm_is_killed(script: Script, mark: Marked) -> None:
    guard = guarded(script(STUBBORN, mark.word), stdout=subprocess.PIPE)
    assert guard.stdout and guard.stdout.readline() == b"up\n"
    assert end(guard) == -signal.SIGKILL
    assert mark.gone()


def test_grandchildren_in_new_sessions_end_too(script: Script, mark: Marked) -> None:
    guard = guarded(script(FAMILY, mark.word))
    eventually(lambda: len(mark.alive()) == 4, what="the whole family")
    end(guard)
    assert mark.gone()


def test_daemons_end_with_a_service_that_ends_by_itself(script: Script, mark: Marked) -> None:
    guard = guarded(script(FAMILY.replace("signal.pause()\n", "sys.exit(5)\n"), mark.word))
    assert guard.wait(20) == 5
    assert mark.gone()


def test_kill_9_of_the_parent(script: Script, mark: Marked) -> None:
    service = script(FAMILY, mark.word)
    parent = subprocess.Popen(script(PARENT, *GUARD_COMMAND, "--", *service))
    eventually(lambda: len(mark.alive()) >= 4, what="the whole family")
    parent.kill()
    parent.wait()
    eventually(mark.gone, what="the end of the family")


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and subreapers")
@pytest.mark.parametrize("which", ["outer", "inner"])
def test_kill_9_of_either_guard(script: Script, mark: Marked, which: str) -> None:
    guard = guarded(script(FAMILY, mark.word))
    eventually(lambda: len(mark.alive()) == 4, what="the whole family")
    outer = psutil.Process(guard.pid)
    (inner,) = outer.children()
    (outer if which == "outer" else inner).kill()
    guard.wait(20)
    eventually(mark.gone, what="the end of the family")
    eventually(lambda: not inner.is_running(), what="the end of the inner guard")


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_kill_9_of_both_guards_takes_the_service(script: Script, mark: Marked) -> None:
    guard = guarded(script(STUBBORN, mark.word), stdout=subprocess.PIPE)
    assert guard.stdout and guard.stdout.readline() == b"up\n"
    (inner,) = psutil.Process(guard.pid).children()
    guard.send_signal(signal.SIGSTOP)  # so that the outer one cannot act in between
    inner.kill()
    guard.kill()
    guard.wait()
    eventually(mark.gone)


def test_a_lifeline_held_open_by_a_stranger_does_not_matter(script: Script, mark: Marked) -> None:
    """A parent that forks without exec leaks the pipe's end; the guard watches its parent too."""
    leaking = """
import os, signal, subprocess, sys
guard = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
if os.fork() == 0:
    print(os.getpid(), flush=True)
signal.pause()
"""
    service = script(STUBBORN, mark.word)
    parent = subprocess.Popen(script(leaking, *GUARD_COMMAND, "--", *service), stdout=subprocess.PIPE)
    assert parent.stdout
    lines = {parent.stdout.readline(), parent.stdout.readline()} - {b"up\n"}
    stranger = int(lines.pop())
    try:
        parent.kill()
        parent.wait()
        eventually(mark.gone)
    finally:
        os.kill(stranger, signal.SIGKILL)


def test_log_is_cut_to_its_newest_half(script: Script, tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    chatty = """
import signal
for number in range(5000): print("line", number, flush=True)
signal.pause()
"""
    with log.open("ab") as out:
        command = [*GUARD_COMMAND, "--log", str(log), "--log-bytes", "10000", "--", *script(chatty)]
        guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)
    eventually(lambda: log.read_bytes().startswith(b"[older lines were cut]"), what="the cut")
    assert log.read_bytes().endswith(b"line 4999\n")
    assert len(log.read_bytes()) < 10_000
    end(guard)
