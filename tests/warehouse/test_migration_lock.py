"""The lock of the migrations: one holder at a time, between processes, and a dead one is not waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from builders import eventually
from conftest import Stack
from headrace.config.settings import Settings
from headrace.core.errors import Retriable
from headrace.warehouse import lock as lock_module
from headrace.warehouse.lock import MigrationLock, Owner
from headrace.warehouse.migrations.files import Migration
from headrace.warehouse.migrations.runner import Migrations
from headrace.warehouse.server import Server

#: In a process of its own: announces itself, waits for a line, then migrates with a slow statement on the way.
PROCESS = """
import sys
from headrace.config.settings import settings
from headrace.warehouse.lock import MigrationLock
from headrace.warehouse.migrations.runner import Migrations
from headrace.warehouse.migrations.files import Migration
from headrace.warehouse.server import Server
server, raw = Server(settings()), settings().raw_database
server.query("SELECT 1")
lock = MigrationLock(server, raw, beat_seconds=0.2)
print("ready", flush=True)
sys.stdin.readline()
file = Migration(1, "0001_slow.sql", sys.argv[1])
print(len(Migrations(server, raw, [file], lock).up()), flush=True)
"""
QUICK = "CREATE TABLE IF NOT EXISTS {{raw}}.a (b Int8) ENGINE = Memory; SELECT sleep(1);"
FOR_EVER = "SELECT sleepEachRow(1) FROM numbers(100) SETTINGS max_block_size = 1;"

Lock = Callable[..., MigrationLock]
Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def server(raw: Settings) -> Server:
    found = Server(raw)
    found.command(f"CREATE DATABASE {raw.raw_database}")
    return found


@pytest.fixture
def lock(server: Server, raw: Settings) -> Lock:
    return lambda **times: MigrationLock(Server(raw), raw.raw_database, **times)


@pytest.fixture
def start(stack: Stack, raw: Settings) -> Iterator[Start]:
    """``start(sql)``: a process that is ready to migrate and waits for a line."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    running: list[subprocess.Popen[str]] = []

    def begin(sql: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, sql],
            env={**clean, **stack.environment, "HEADRACE_RAW_DATABASE": raw.raw_database},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def _is_ready(process: subprocess.Popen[str]) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "ready\n"


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_start_at_once_apply_each_migration_once(
    server: Server, raw: Settings, start: Start
) -> None:
    both = [start(QUICK) for _ in range(3)]
    assert all(_is_ready(one) for one in both)
    for one in both:
        _go(one)
    ran = [int(one.communicate(timeout=120)[0]) for one in both]
    assert sorted(ran) == [0, 0, 1]
    assert server.query(f"SELECT count(), any(state) FROM {raw.raw_database}._migrations FINAL") == [
        (1, "applied")
    ]
    assert (
        server.query(
            "SELECT name FROM system.tables WHERE database = {d:String} AND name LIKE '%lock%'",
            d=raw.raw_database,
        )
        == []
    )


def test_a_holder_that_was_killed_is_taken_over(
    server: Server, raw: Settings, start: Start, lock: Lock
) -> None:
    victim = start(FOR_EVER)
    assert _is_ready(victim)
    _go(victim)
    state = f"SELECT count() FROM {raw.raw_database}._migrations WHERE state = 'started'"

    def is_in_it() -> bool:
        with suppress(Exception):  # the table may not be there yet
            return server.query(state) == [(1,)]
        return False

    eventually(is_in_it, 60, "the migration's start")
    holder = lock().holder()
    assert holder is not None
    assert (holder.pid, lock().beats(holder)) == (victim.pid, True)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    file = Migration(1, "0001_slow.sql", "SELECT 1;")
    mine = Migrations(Server(raw), raw.raw_database, [file], lock(stale_seconds=2, wait_seconds=120))
    assert [one.state for one in mine.status()] == ["interrupted"]
    assert [one.version for one in mine.up()] == [1]
    assert [one.state for one in mine.status()] == ["applied"]
    assert lock().holder() is None


def test_who_died_on_this_machine_is_taken_over_at_once_and_a_stranger_is_not(lock: Lock) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead, stranger, next_one = lock(), lock(), lock(wait_seconds=5)
    dead.owner = replace(dead.owner, pid=ended.pid)
    assert dead._created()
    with next_one.held() as still_mine:  # it was silent for less than `STALE_SECONDS`
        still_mine()
    stranger.owner = replace(dead.owner, machine="another boot pid:[1]")
    assert stranger._created()
    with pytest.raises(Retriable, match=f"pid {ended.pid}"), lock(wait_seconds=1).held():
        raise AssertionError("the pid is another machine's")


def test_a_holder_that_is_alive_is_waited_for_and_then_named(lock: Lock) -> None:
    waiter = lock(stale_seconds=4, wait_seconds=6)
    with lock(beat_seconds=0.2).held() as still_mine:
        with pytest.raises(Retriable) as raised, waiter.held():
            raise AssertionError("two holders")
        still_mine()
    for part in (f"pid {os.getpid()}", "'headrace migrate unlock'"):
        assert part in str(raised.value)
    with waiter.held():
        pass


def test_one_that_does_not_beat_is_dead(lock: Lock) -> None:
    """Negative control of the one before: it is the beats that keep the others out."""
    with (
        lock(beat_seconds=1_000).held() as still_mine,
        lock(stale_seconds=1, wait_seconds=60).held() as others,
    ):
        others()
        with pytest.raises(Retriable, match="lost the lock of the migrations"):
            still_mine()


def test_of_two_that_see_the_same_dead_lock_one_takes_it_over(lock: Lock) -> None:
    """The second must not take the new lock of the first for the dead one."""
    dead, first, second = lock(), lock(), lock()
    assert dead._created()
    seen = dead.holder()
    assert seen is not None
    first._set_aside(seen)
    assert first._created()
    second._set_aside(seen)
    holder = second.holder()
    assert holder is not None
    assert holder.token == first.owner.token


def test_one_that_was_frozen_while_it_gave_the_lock_back_leaves_that_of_its_successor(
    lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, successor = lock(beat_seconds=1_000), lock(stale_seconds=0.5, wait_seconds=60)
    assert frozen._created()
    set_aside = frozen._set_aside

    def late(holder: Owner) -> bool:
        successor._acquire()
        return set_aside(holder)

    monkeypatch.setattr(frozen, "_set_aside", late)
    frozen._release()
    holder = lock().holder()
    assert holder is not None
    assert holder.token == successor.owner.token
    successor._release()
    assert lock().holder() is None


def test_a_creation_that_is_made_again_meets_its_own_lock(lock: Lock) -> None:
    one, other = lock(), lock()
    assert one._created()
    assert one._created()
    assert not other._created()


def test_a_lock_is_removed_whoever_holds_it(lock: Lock) -> None:
    one = lock()
    assert one._created()
    lock().clear()
    assert one.holder() is None
    with pytest.raises(Retriable, match="to nobody"):
        one._still_mine()


def test_an_exception_releases_the_lock(lock: Lock) -> None:
    class Crash(Exception):
        pass

    one = lock()
    with pytest.raises(Crash), one.held():
        raise Crash
    assert one.holder() is None


def test_the_times_leave_room() -> None:
    """A dead owner is noticed before a waiter gives up, and a few lost beats are no death."""
    assert 5 * lock_module.BEAT_SECONDS <= lock_module.STALE_SECONDS < lock_module.WAIT_SECONDS
    assert "pid 7" in str(Owner("t", "h", 7, 3.0))
