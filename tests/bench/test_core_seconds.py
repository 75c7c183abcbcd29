"""Core seconds of services: of processes that end, of code locations that reload, of services started again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping

import pytest

from headrace.bench.core_seconds import CODE_LOCATION, RUNS, SENSORS, CoreSeconds, Sample, running

GUARD = ("python", "-I", "-S", "guard.py", "--", "service")
FORKING = ("python", "-m", "headrace.orchestration.runtime.code_server", "--reloadable", "--port", "4266")
STOCK = ("python", "dagster", "code-server", "start", "--port", "4266")
STOCK_SERVER = ("python", "-m", "dagster", "api", "grpc", "--socket", "s")
STOCK_RUN = ("python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()")
TRACKER = ("python", "-c", "from multiprocessing.resource_tracker import main; main(5)")


def sample(
    pid: int, parent: int, command: tuple[str, ...] = ("x",), own: float = 0.0, ended: float = 0.0
) -> Sample:
    return Sample(pid, float(pid), parent, command, own, ended)


def forking(
    *more: Sample, own: Mapping[int, float] | None = None, ended: Mapping[int, float] | None = None
) -> list[Sample]:
    """A code location that forks: guards 1 and 2, the proxy 3, its fork server 4, a server 5 with fork server 6."""
    own, ended = own or {}, ended or {}
    shape: list[tuple[int, int, tuple[str, ...]]] = [
        (1, 0, GUARD), (2, 1, GUARD), (3, 2, FORKING), (4, 3, FORKING), (5, 4, FORKING), (6, 5, FORKING)
    ]  # fmt: skip
    shape.append((7, 3, TRACKER))
    made = [sample(pid, up, said, own.get(pid, 0.0), ended.get(pid, 0.0)) for pid, up, said in shape]
    return [*made, *more]


def counted(*looks: list[Sample], service: str = CODE_LOCATION, guard: int = 1) -> dict[str, float]:
    cores = CoreSeconds()
    for look in looks:
        cores.look({service: guard}, look)
    return {row: round(seconds, 6) for row, seconds in cores.spent.items()}


def test_the_first_look_is_the_zero_point() -> None:
    before = forking(sample(10, 6, FORKING, own=40.0), own={5: 30.0}, ended={6: 100.0})
    after = forking(sample(10, 6, FORKING, own=42.0), own={5: 31.0}, ended={6: 100.0})
    assert counted(before, after) == {SENSORS: 1.0, RUNS: 2.0}


def test_a_run_that_ends_between_two_looks_counts_to_its_end() -> None:
    looks = (
        forking(),
        forking(sample(10, 6, FORKING, own=2.0)),
        forking(ended={6: 2.5}),  # half a second after the look that saw it last
    )
    assert counted(*looks) == {SENSORS: 0.0, RUNS: 2.5}


def test_a_run_that_no_look_sees_counts() -> None:
    assert counted(forking(), forking(ended={6: 0.2})) == {SENSORS: 0.0, RUNS: 0.2}


def test_dbt_below_a_run_counts_as_the_run() -> None:
    looks = (
        forking(sample(10, 6, FORKING)),
        forking(sample(10, 6, FORKING, own=1.0), sample(11, 10, ("dbt", "build"), own=3.0)),
        forking(sample(10, 6, FORKING, own=1.0, ended=3.5)),
        forking(ended={6: 4.5}),
    )
    assert counted(*looks) == {SENSORS: 0.0, RUNS: 4.5}


@pytest.mark.parametrize("collected_at_once", [True, False])
def test_a_reload_stays_with_the_sensors(collected_at_once: bool) -> None:
    def reloaded(ended: float) -> list[Sample]:
        kept = [one for one in forking(ended={4: ended}) if one.pid not in (5, 6)]
        return [*kept, sample(20, 4, FORKING, own=1.0), sample(21, 20, FORKING)]

    server_ends = [reloaded(6.0)] if collected_at_once else [reloaded(0.0), reloaded(6.0)]
    looks = (forking(own={5: 2.0}), forking(own={5: 5.0}), *server_ends)
    found = counted(*looks)
    assert found == {SENSORS: 5.0}  # 3 and 1 of the old server, 1 of the new one
    again = counted(*looks, [*reloaded(6.0), sample(22, 21, FORKING, own=0.5)])
    assert again[RUNS] == 0.5


def test_a_run_whose_server_ended_stays_a_run() -> None:
    run = sample(10, 6, FORKING, own=1.0)
    orphans = [one for one in forking(ended={4: 2.0}) if one.pid not in (5, 6)]
    looks = (
        forking(run, own={5: 2.0}),
        [*orphans, run._replace(parent=2, own=4.0)],
        [one._replace(ended=4.5) if one.pid == 2 else one for one in orphans],
    )
    assert counted(*looks) == {SENSORS: 0.0, RUNS: 3.5}


def test_what_the_guard_collects_in_the_parents_place_counts_once() -> None:
    """Server, fork server and run end between two looks: each parent is gone before its child."""
    ended = [one for one in forking(ended={2: 3.0, 4: 2.0}) if one.pid not in (5, 6)]
    found = counted(forking(), forking(sample(10, 6, FORKING, own=3.0), own={5: 2.0}), ended)
    assert found == {SENSORS: 2.0, RUNS: 3.0}


def test_servers_and_runs_of_stock_dagster_are_told_apart() -> None:
    shape = [
        sample(1, 0, GUARD),
        sample(2, 1, GUARD),
        sample(3, 2, STOCK),
        sample(4, 3, STOCK_SERVER, own=2.0),
    ]
    looks = ([one._replace(own=0.0) for one in shape], [*shape, sample(5, 4, STOCK_RUN, own=3.0)])
    assert counted(*looks) == {SENSORS: 2.0, RUNS: 3.0}


def test_a_service_that_is_started_again_keeps_its_seconds() -> None:
    cores = CoreSeconds()
    cores.look({"broker": 1}, [sample(1, 0, GUARD), sample(2, 1, own=5.0)])
    cores.look({"broker": 1}, [sample(1, 0, GUARD), sample(2, 1, own=8.0)])
    cores.look({"broker": 30}, [sample(30, 0, GUARD), sample(31, 30, own=1.0)])
    cores.look({"broker": 30}, [sample(30, 0, GUARD), sample(31, 30, own=1.5)])
    assert cores.spent == {"broker": 4.5}


def test_a_pid_that_is_used_again_is_another_process() -> None:
    first, second = sample(2, 1, own=8.0), sample(2, 1, own=1.0)._replace(created=99.0)
    looks = ([sample(1, 0), first], [sample(1, 0, ended=8.0), second])
    assert counted(*looks, service="broker") == {"broker": 1.0}


WORK = """
    import os, sys, time
    def burn(seconds):
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            burn(float(line))
            os._exit(0)
        if line.endswith("5\\n"):
            os.waitpid(pid, 0)
        print("ended", flush=True)
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def test_real_processes_that_end_are_counted_once(parent: subprocess.Popen[str]) -> None:
    assert parent.stdin and parent.stdout
    cores, guards = CoreSeconds(), {"broker": parent.pid}
    cores.look(guards, running(guards.values()))
    for seconds, looks in (("0.25", 1), ("0.35", 40)):
        parent.stdin.write(f"{seconds}\n")
        parent.stdin.flush()
        for _ in range(looks - 1):
            cores.look(guards, running(guards.values()))
        assert parent.stdout.readline() == "ended\n"
        cores.look(guards, running(guards.values()))
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert 0.6 - 4 * tick <= cores.spent["broker"] < 0.9


def test_a_child_that_nobody_has_collected_is_counted_once(parent: subprocess.Popen[str]) -> None:
    assert parent.stdin and parent.stdout
    cores, guards = CoreSeconds(), {"broker": parent.pid}
    cores.look(guards, running(guards.values()))
    parent.stdin.write("0.4\n")  # not waited for: it stays, ended
    parent.stdin.flush()
    deadline = time.monotonic() + 60
    while cores.spent["broker"] < 0.39:
        assert time.monotonic() < deadline
        cores.look(guards, running(guards.values()))
    parent.stdin.write("0.05\n")
    parent.stdin.flush()
    parent.stdout.readline()
    parent.stdout.readline()
    cores.look(guards, running(guards.values()))
    assert cores.spent["broker"] < 0.7
