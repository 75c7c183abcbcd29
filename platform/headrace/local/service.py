"""Define a supervised service, its states, and its failure."""

from __future__ import annotations

import enum
import graphlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.errors import Fatal

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process to keep running.

    Attributes:
        name: Name for people and logs.
        argv: Command line.
        env: The whole environment of the process; it inherits nothing.
        log: Receives standard output and error. The log of the previous start is kept beside it as ``.1``.
        ready: Tells whether the service answers. Called every few milliseconds at first, then up to four times a
            second; an ``OSError`` means no.
        prepare: Runs after every start, once ready, to restore the state of a service that keeps none.
        port: Port to listen on. Readiness then also means that *this* process listens there, on loopback alone, and
            not another process that took the port first.
        cwd: Working directory.
        needs: Names of services that must be ready before this one starts.
        ready_within: Longest time until ready, s.
        stop_grace: Time between SIGTERM and SIGKILL, s.
        restarts: How often it may die in a row, each time within a minute, before everything stops.
        hint: Next step in a failure's message, besides reading the log.
        alive: Tells whether it still lives, as ``ready`` does; one that does not for a minute is started again. None
            for a service of which only its end tells.
        awaited: Whether a start waits until it is ready.
        vital: Whether its failure ends the others; if not, it is reported, and the service is started again for ever.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    prepare: Callable[[], object] | None = None
    alive: Callable[[], bool] | None = None
    port: int | None = None
    cwd: Path | None = None
    needs: tuple[str, ...] = ()
    ready_within: float = 60.0
    stop_grace: float = 5.0
    restarts: int = 5
    hint: str = ""
    awaited: bool = True
    vital: bool = True


class State(enum.StrEnum):
    """State of a service."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Status:
    """State of a service now. ``guard`` is the pid of its guard if there is one, ``since`` its start time."""

    name: str
    state: State
    guard: int | None
    since: float | None
    restarts: int


class ServiceFailed(Fatal):
    """A service did not become ready, or died too often.

    Attributes:
        service: Its name.
        port: Its port, if it has one.
        tail: Last lines of its log.
    """

    def __init__(self, service: Service, what: str) -> None:
        self.service, self.port, self.tail = service.name, service.port, log_tail(service.log)
        said = f"; its log ends with: {self.tail}" if self.tail else "; its log is empty"
        hint = f"{service.hint}, or read" if service.hint else "read"
        super().__init__(f"{service.name} {what}{said}. Next: {hint} {service.log}")


def log_tail(path: Path, lines: int = 3) -> str:
    """Join the last lines of a log that are not blank; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    said = [" ".join(line.split()) for line in _ANSI.sub("", text).splitlines()]
    return " | ".join([line[:300] for line in said if line][-lines:])


def levels(services: Sequence[Service]) -> list[tuple[str, ...]]:
    """Group services in starting order. Services of one level do not need each other."""
    known = {service.name for service in services}
    for service in services:
        if missing := set(service.needs) - known:
            raise Fatal(f"service {service.name!r} needs {sorted(missing)}; known are {sorted(known)}")
    sorter = graphlib.TopologicalSorter({service.name: service.needs for service in services})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise Fatal(f"services need each other in a circle: {' -> '.join(error.args[1])}") from error
    levels = []
    while sorter.is_active():
        levels.append(sorter.get_ready())
        sorter.done(*levels[-1])
    return levels
