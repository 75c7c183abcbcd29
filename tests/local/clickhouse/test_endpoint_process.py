"""The process: how it starts, refuses to start, stops, and what survives when it is killed."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest


def test_ready_line_and_graceful_stop(start: Any, tmp_path: Path) -> None:
    server = start(tmp_path / "data")
    assert server.ready["event"] == "ready" and server.ready["host"] == "127.0.0.1"
    assert server.ready["version"] == server.run("SELECT version()")
    assert server.stop() == 0


def test_sigint_stops_it_too_and_data_stays(start: Any, tmp_path: Path) -> None:
    server = start(tmp_path)
    server.run("CREATE TABLE t (a UInt8) ORDER BY a")
    server.run("INSERT INTO t VALUES (1), (2)")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(60) == 0
    assert start(tmp_path).run("SELECT sum(a) FROM t") == "3"


def test_stop_kills_running_queries_and_waits_for_idle_connections(
    start: Any, tmp_path: Path, eventually: Any
) -> None:
    server = start(tmp_path)
    idle = server.connection()
    idle.request("GET", "/ping")
    idle.getresponse().read()
    outcomes: list[Any] = []

    def ask(sql: str) -> None:
        try:
            outcomes.append(server.request(sql).code)
        except (OSError, http.client.HTTPException) as error:
            outcomes.append(error)

    slow = [
        "SELECT sum(sipHash64(number)) FROM numbers_mt(1000000000000)",
        "INSERT INTO FUNCTION null('n UInt64') SELECT number FROM numbers(1000000000000)",
    ]
    threads = [threading.Thread(target=ask, args=(sql,)) for sql in slow]
    for thread in threads:
        thread.start()
    eventually(
        lambda: server.run("SELECT count() FROM system.processes WHERE query LIKE '%1000000000000%'") >= "2"
    )
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2 and 0 not in outcomes
    idle.close()


def test_a_second_server_on_the_same_folder(endpoint: Any, failing: Any) -> None:
    status, said = failing(endpoint.directory, "--port", "0")
    assert status == 1
    assert said.splitlines() == [
        f"another server already uses {endpoint.directory}; stop it or choose another folder with --path"
    ]
    assert endpoint.run("SELECT 1") == "1"


def test_a_taken_port(failing: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = failing(tmp_path, "--port", str(port))
    assert (status, said) == (1, f"port {port} on 127.0.0.1 is taken; choose another with --port\n")


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ([], {"HEADRACE_CLICKHOUSE_PASSWORD": None}, "HEADRACE_CLICKHOUSE_PASSWORD is not set"),
        (["--database", "default"], {}, "--database default cannot be used"),
        (["--database", "a b"], {}, "--database a b cannot be used"),
        (["--host", "host.invalid"], {}, "--host"),
    ],
)
def test_wrong_options(failing: Any, tmp_path: Path, arguments: list[str], variables: Any, said: str) -> None:
    status, error = failing(tmp_path, "--port", "0", *arguments, **variables)
    assert status == 1 and said in error and len(error.splitlines()) == 1


def test_the_password_is_not_on_the_command_line_nor_on_disk(endpoint: Any) -> None:
    assert endpoint.password not in " ".join(psutil.Process(endpoint.process.pid).cmdline())
    for path in endpoint.directory.rglob("*.xml"):
        assert endpoint.password not in path.read_text()


def test_another_working_database(start: Any, tmp_path: Path) -> None:
    server = start(tmp_path, "--database", "raw", "--user", "somebody")
    server.user = "somebody"
    assert server.run("SELECT currentDatabase()") == "raw"


def test_acknowledged_rows_survive_kill_9(start: Any, tmp_path: Path) -> None:
    """Three rounds: insert until killed; each acknowledged batch is there, and every batch is whole."""
    acknowledged: set[int] = set()
    batch, rows = 0, 2_000
    for _ in range(3):
        server = start(tmp_path)
        server.run("CREATE TABLE IF NOT EXISTS t (batch UInt32, n UInt32) ORDER BY batch")
        found = server.run("SELECT batch, count() FROM t GROUP BY batch").splitlines()
        counts = {int(line.split("\t")[0]): int(line.split("\t")[1]) for line in found}
        assert acknowledged <= counts.keys()
        assert set(counts.values()) <= {rows}
        killer = threading.Timer(0.7, server.process.kill)
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                batch += 1
                lines = "".join(f"{batch},{n}\n" for n in range(rows))
                if server.request("INSERT INTO t FORMAT CSV", body=lines.encode()).status == 200:
                    acknowledged.add(batch)
        killer.join()
        assert server.process.wait(60) == -signal.SIGKILL
    assert len(acknowledged) > 3
    server = start(tmp_path)
    assert int(server.run("SELECT uniqExact(batch) FROM t")) >= len(acknowledged)
    assert server.run("CHECK TABLE t SETTINGS check_query_single_value_result = 1") == "1"


def test_a_signal_that_another_thread_is_given_stops_it_too() -> None:
    """The kernel may choose any thread; Python's own waiting would not notice."""
    code = """
import os, signal, threading
from headrace.local.clickhouse.server import Signals

def asleep():
    with open(f"/proc/self/task/{os.getpid()}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"

def give():
    while not asleep():
        pass
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

signals = Signals(signal.SIGTERM)
threading.Thread(target=give).start()
signals.wait()
print("woken")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.returncode) == ("woken\n", 0), ended.stderr
