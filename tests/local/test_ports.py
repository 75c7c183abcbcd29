"""Ports that somebody else binds between the look and the service's own bind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.core.errors import Fatal
from headrace.local import dagster
from headrace.local.dagster import Dagster
from headrace.local.free_ports import start_on_free_ports
from headrace.local.processes import pick_port
from headrace.local.service import Service, ServiceFailed, State
from headrace.local.supervisor import Supervisor

Script = Callable[..., list[str]]

SERVER = """
import signal, socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
signal.pause()
"""
FAILS = "raise SystemExit('no such database')"


@pytest.fixture
def rival() -> Iterator[int]:
    """A port that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def server(script: Script, tmp_path: Path) -> Callable[..., Service]:
    def make(port: int, name: str = "web", source: str = SERVER) -> Service:
        log = tmp_path / f"{name}.log"
        argv = tuple(script(source, str(port)))
        return Service(
            name=name,
            argv=argv,
            env={},
            log=log,
            ready=lambda: True,
            port=port,
            stop_grace=0.4,
            ready_within=30,
        )

    return make


def test_a_service_whose_port_was_lost_gets_another(rival: int, server: Callable[..., Service]) -> None:
    told: list[str] = []
    tried: list[int] = []

    def make(lost: Collection[int]) -> Supervisor:
        tried.append(rival if not lost else pick_port(rival, lost))
        return Supervisor([server(tried[-1])])

    supervisor = start_on_free_ports(make, (), told.append)
    try:
        assert [status.state for status in supervisor.status()] == [State.RUNNING]
    finally:
        supervisor.stop()
    assert told == [f"port {rival} was taken meanwhile; trying another one for the web"]
    assert len(tried) == 2


def test_a_port_that_was_asked_for_is_named(rival: int, server: Callable[..., Service]) -> None:
    with pytest.raises(Fatal, match=rf"port {rival} for the web is taken by .*ask for another port"):
        start_on_free_ports(lambda _: Supervisor([server(rival)]), {"web"}, print)


def test_ports_that_never_stay_free_end_in_one_line(rival: int, server: Callable[..., Service]) -> None:
    """One start for each of five lost ports, not for ever."""
    told: list[str] = []
    with ExitStack() as held:
        others = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        waiting = iter([rival, *(other.getsockname()[1] for other in others)])
        with pytest.raises(Fatal, match="no port stays free for the web; try again"):
            start_on_free_ports(lambda _: Supervisor([server(next(waiting))]), (), told.append)
    assert len(told) == 4


def test_another_failure_is_not_taken_for_a_lost_port(server: Callable[..., Service]) -> None:
    told: list[str] = []
    with pytest.raises(ServiceFailed, match="no such database"):
        start_on_free_ports(lambda _: Supervisor([server(pick_port(3000), source=FAILS)]), (), told.append)
    assert told == []


def test_the_code_locations_of_two_installations_that_start_at_once_have_ports_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either listens; gRPC would let both bind the same port."""
    codes: list[int] = []

    def services(home: Path, environment: object, web: int, code: int, *, reloadable: bool) -> list[Service]:
        codes.append(code)
        return []

    monkeypatch.setattr(dagster, "_services", services)
    for _ in range(3):
        Dagster(tmp_path, {})._on_ports(())
    assert len({*codes}) > 1


@pytest.mark.parametrize("which", ["webserver", "code location"])
def test_dagster_starts_on_other_ports_and_says_where_its_ui_is(
    which: str,
    rival: int,
    server: Callable[..., Service],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[tuple[int, int]] = []

    def services(home: Path, environment: object, web: int, code: int, *, reloadable: bool) -> list[Service]:
        started.append((web, code))
        return [server(code, "code location"), server(web, "webserver")]

    def pick(usual: int | None, avoid: Collection[int] = ()) -> int:
        lost = rival not in avoid and usual == (3000 if which == "webserver" else None)
        return rival if lost else pick_port(usual, avoid)

    monkeypatch.setattr(dagster, "_services", services)
    monkeypatch.setattr(dagster, "pick_port", pick)
    told: list[str] = []
    running = Dagster(tmp_path, {}, report=told.append)
    running.start()
    try:
        assert told == [f"port {rival} was taken meanwhile; trying another one for the {which}"]
        assert len(started) == 2
        assert running.ui == f"http://127.0.0.1:{started[1][0]}"
        assert {status.state for status in running.status()} == {State.RUNNING}
    finally:
        running.stop()
