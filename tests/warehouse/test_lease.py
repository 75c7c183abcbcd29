"""The lease on a raw table: one holder, a fence at the statement, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from builders import eventually
from conftest import Stack
from headrace.config.settings import Settings
from headrace.core.errors import Busy
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.lease import DEAD, DOOR, WISH, LeaseLost, Leases, Mark, NoDoors
from headrace.warehouse.lock import BEAT_SECONDS, STALE_SECONDS
from headrace.warehouse.server import UNKNOWN_TABLE, Refused, Server

#: In a process of its own: takes the lease, says so, waits for a line, and inserts through its door.
PROCESS = """
import sys
from headrace.config.settings import settings
from headrace.warehouse.lease import LeaseLost, Leases
from headrace.warehouse.server import Server
server, raw = Server(settings()), settings().raw_database
leases = Leases(server, raw, max_seconds=60, beat_seconds=0.2)
try:
    with leases.held("things") as door:
        print("holds", flush=True)
        sys.stdin.readline()
        with leases.through(door, "things"):
            server.command(f"INSERT INTO {raw}.`{door}` VALUES (1)")
    print("inserted", flush=True)
except LeaseLost:
    print("lost", flush=True)
"""

Make = Callable[..., Leases]


@pytest.fixture
def server(raw: Settings) -> Server:
    found = Server(raw)
    found.command(f"CREATE DATABASE {raw.raw_database}")
    found.command(f"CREATE TABLE {raw.raw_database}.things (a UInt8) ENGINE = MergeTree ORDER BY a")
    return found


@pytest.fixture
def leases(server: Server, raw: Settings) -> Make:
    """``leases(**times)``: those of another process."""

    def make(**times: Any) -> Leases:
        return Leases(Server(raw), raw.raw_database, **{"max_seconds": 60, **times})

    return make


@pytest.fixture
def start(stack: Stack, raw: Settings, server: Server) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """``start()``: a process that holds the lease and waits for a line."""
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "AWS_"))}
    running: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={**clean, **stack.environment, "HEADRACE_RAW_DATABASE": raw.raw_database},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def marks(server: Server, raw: Settings) -> list[str]:
    found = server.query(
        "SELECT name FROM system.tables WHERE database = {d:String} AND startsWith(name, '_lease')"
        " AND name != '_lease_beats'",
        d=raw.raw_database,
    )
    return [str(name) for (name,) in found]


def rows(server: Server, raw: Settings) -> int:
    [(count,)] = server.query(f"SELECT count() FROM {raw.raw_database}.things")
    return int(count)


def test_one_holds_it_at_a_time(leases: Make, server: Server, raw: Settings) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def hold(_: int) -> None:
        nonlocal at_once, most
        own = leases()
        for _ in range(3):
            with own.held("things"):
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                with lock:
                    at_once -= 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(hold, range(3)))
    assert most == 1
    assert marks(server, raw) == []


def test_leases_of_two_tables_are_two(leases: Make, server: Server, raw: Settings) -> None:
    server.command(f"CREATE TABLE {raw.raw_database}.things_rejected AS {raw.raw_database}.things")
    with leases(max_seconds=5).held("things"), leases(max_seconds=5).held("things_rejected"):
        assert len(marks(server, raw)) == 2


def test_a_holder_that_lives_is_waited_for_and_then_named(leases: Make) -> None:
    with (
        leases(beat_seconds=0.1).held("things"),
        pytest.raises(
            Busy, match=f"things waits for its lease.* pid {os.getpid()} on .* shows that it lives"
        ),
        leases(stale_seconds=2, max_seconds=4).held("things"),
    ):
        raise AssertionError("two holders")


def test_one_without_a_sign_of_life_is_taken_over_and_can_do_nothing(
    leases: Make, server: Server, raw: Settings
) -> None:
    """Negative control of the one before: it is the signs of life that keep the others out."""
    frozen = leases(beat_seconds=1_000)
    with pytest.raises(LeaseLost, match="things"), frozen.held("things") as door:
        with leases(stale_seconds=0.2).held("things") as other:
            server.command(f"INSERT INTO {raw.raw_database}.`{other}` VALUES (2)")
        with frozen.through(door, "things"):
            server.command(f"INSERT INTO {raw.raw_database}.`{door}` VALUES (1)")
    assert rows(server, raw) == 1
    assert marks(server, raw) == []


def test_a_process_that_was_killed_is_taken_over_at_once(
    start: Callable[[], subprocess.Popen[str]], leases: Make, server: Server, raw: Settings
) -> None:
    victim = start()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    with leases(stale_seconds=1_000).held("things"):
        assert len(marks(server, raw)) == 1
    assert marks(server, raw) == []


def test_a_process_that_was_stopped_is_taken_over_and_finds_its_door_closed(
    start: Callable[[], subprocess.Popen[str]], leases: Make, server: Server, raw: Settings
) -> None:
    stopped, untouched = start(), marks(server, raw)
    stopped.send_signal(signal.SIGSTOP)
    with leases(stale_seconds=1).held("things"):
        assert not {*marks(server, raw)} & {*untouched}
        stopped.send_signal(signal.SIGCONT)
        out, _ = stopped.communicate("go\n", timeout=60)
        assert out == "lost\n"
    assert rows(server, raw) == 0
    going = start()
    assert going.communicate("go\n", timeout=60)[0] == "inserted\n"
    assert rows(server, raw) == 1


def test_statements_that_are_under_way_are_waited_for(leases: Make, server: Server, raw: Settings) -> None:
    """One that resolved the door before it was closed ends before anybody else begins."""
    raw_table = f"{raw.raw_database}.things"

    def slowly(door: str) -> None:
        Server(raw).command(
            f"INSERT INTO {raw.raw_database}.`{door}` SELECT sleepEachRow(0.5) FROM numbers(8)"
            " SETTINGS max_block_size = 1, min_insert_block_size_rows = 1000"
        )

    under_way = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO%sleepEachRow%'"
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError), leases().held("things") as door:
        inserting = pool.submit(slowly, door)
        eventually(lambda: server.query(under_way) == [(1,)], 30, "a slow insert")
        with leases(stale_seconds=0.1).held("things"):
            assert server.query(f"SELECT count() FROM {raw_table}") == [(8,)]
            inserting.result(0)
        raise RuntimeError


def test_who_waits_is_let_in_by_one_that_comes_back_again_and_again(leases: Make) -> None:
    got, busy = threading.Event(), leases()

    def wait() -> None:
        with leases().held("things"):
            got.set()

    with ThreadPoolExecutor(1) as pool:
        with busy.held("things"):
            waiting = pool.submit(wait)
            eventually(lambda: any(one.kind == WISH for one in busy._marks("things")), 30, "a wish")
        with busy.held("things"):
            assert got.is_set()
        waiting.result(60)


def test_the_wish_of_one_that_died_is_not_waited_for_twice(
    leases: Make, server: Server, raw: Settings
) -> None:
    own = leases()
    own._made(Mark.new(WISH, "things"))
    with own.held("things"):
        assert [name.startswith(f"{DOOR}~") for name in marks(server, raw)] == [True]


def test_an_exception_gives_it_back(leases: Make, server: Server, raw: Settings) -> None:
    class Crash(Exception):
        pass

    with pytest.raises(Crash), leases().held("things"):
        raise Crash
    assert marks(server, raw) == []


def test_a_server_without_the_engine_is_named_and_used_without_leases(
    raw: Settings, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from headrace.contracts import EVENTS

    warehouse = ClickHouse(raw)

    def refused(sql: str) -> None:
        raise Refused("Unknown table engine Alias", 56)

    monkeypatch.setattr(warehouse._server, "once", refused)
    for _ in range(2):
        with warehouse.lease(EVENTS.table, "lake") as last:
            assert last is None
    assert [record.message for record in caplog.records].count(
        "publishers on several machines are not kept apart: Unknown table engine Alias"
    ) == 1
    with pytest.raises(NoDoors), warehouse._leases.held("things"):
        raise AssertionError("there is no door")
    warehouse.close()


def test_a_mark_says_in_its_name_whose_it_is() -> None:
    mine = Mark.new(DOOR, "things")
    assert Mark.read(mine.name()) == mine
    assert Mark.read(mine.name(DEAD)) == Mark(DEAD, *list(_values(mine))[1:])
    assert not mine.is_gone
    assert str(os.getpid()) in str(mine)
    for other in ("_lease_beats", "things", "_lease~a~b~c~d~e"):
        assert Mark.read(other) is None


def _values(mark: Mark) -> Iterator[Any]:
    for name in Mark.__dataclass_fields__:
        yield getattr(mark, name)


def test_the_times_leave_room() -> None:
    """A few lost signs of life are no death."""
    assert 5 * BEAT_SECONDS <= STALE_SECONDS
    assert UNKNOWN_TABLE == 60
