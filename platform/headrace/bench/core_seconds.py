"""Count the core seconds of supervised services, including those of processes that end meanwhile.

When a parent collects an ended process, the system adds the process's time to that of the parent's ended children. So
the counter looks regularly, keeps the last value of every process, and finds its remaining time in the parent. A code
location that reloads, a service that restarts and a run that ends all keep their seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import psutil

#: The service whose processes are split into its servers and its runs.
CODE_LOCATION = "code location"
#: Row of the code location's own processes. They spend nearly all their time on sensors.
SENSORS = "sensors"
#: Row of the run workers, including the dbt processes that they start.
RUNS = "runs"

_FORK_SERVER = "multiprocessing.forkserver"
_SPAWNED = "multiprocessing.spawn"


#: Pid and start time. The system reuses pids.
_Identity = tuple[int, float]


class Sample(NamedTuple):
    """One process at one look.

    Attributes:
        pid: Number of the process.
        created: Start time, seconds since 1970.
        parent: Pid of the parent.
        command: Command line. A forked process has that of its parent.
        own: Core seconds of the process itself.
        ended: Core seconds of its children that ended and that it has collected.
    """

    pid: int
    created: float
    parent: int
    command: tuple[str, ...]
    own: float
    ended: float

    @property
    def identity(self) -> _Identity:
        """Pid and start time."""
        return self.pid, self.created


class Kind(StrEnum):
    """Role of a process in the code location."""

    GUARD = "guard"
    PROXY = "proxy"
    SERVER_FORKER = "forks servers"
    SERVER = "server"
    RUN_FORKER = "forks runs"
    RUN = "run"
    HELPER = "helper"


@dataclass(slots=True)
class _Seen:
    """A process as the last look found it.

    Attributes:
        sample: Its values.
        kind: Its role.
        guard: Identity of its service's guard.
        row: Row of its own time.
        children: Row of children that ended unseen.
    """

    sample: Sample
    kind: Kind
    guard: _Identity
    row: str
    children: str


class CoreSeconds:
    """Counter of core seconds by service. The first look is the zero point.

    Attributes:
        spent: Core seconds since the first look, by row. The code location has two rows, ``SENSORS`` and ``RUNS``.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._seen: dict[_Identity, _Seen] | None = None
        #: Counted seconds of ended processes that no parent has collected yet, by guard.
        self._uncollected: dict[_Identity, float] = {}

    def look(self, guards: Mapping[str, int], samples: Iterable[Sample]) -> None:
        """Add the core seconds used since the last look.

        A process that ends between two looks counts to its end. Its time since the last look is lost only where
        no parent collects it.

        Args:
            guards: Pid of each service's guard, by name of the service.
            samples: The processes at and below the guards.
        """
        before = self._seen
        self._seen = _found(guards, samples, before or {})
        for seen in self._seen.values():
            self.spent.setdefault(seen.row, 0.0)
        if before is not None:
            self._add_own(before, self._seen)
            self._add_ended(before, self._seen)

    def _add_own(self, before: Mapping[_Identity, _Seen], now: Mapping[_Identity, _Seen]) -> None:
        for key, seen in now.items():
            self.spent[seen.row] += seen.sample.own - (before[key].sample.own if key in before else 0.0)

    def _add_ended(self, before: Mapping[_Identity, _Seen], now: Mapping[_Identity, _Seen]) -> None:
        """Add the time that ended processes used after the last look.

        Parents collect a process's whole time, most of which is counted already. The balance is kept per guard, because
        the guard collects a process whose parent has ended, too.
        """
        gone = {key: seen for key, seen in before.items() if key not in now}
        left: dict[_Identity, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        ended = _by_ancestor(gone, before)
        for key, seen in now.items():
            collected = seen.sample.ended - (before[key].sample.ended if key in before else 0.0)
            rows = [one.row for one in ended[key]]
            left[seen.guard][rows[0] if rows else seen.children] += collected
        for seen in gone.values():
            if seen.guard in left:
                left[seen.guard][seen.row] -= seen.sample.own + seen.sample.ended
        uncollected, self._uncollected = self._uncollected, {}
        for guard, by_row in left.items():
            new = sum(by_row.values()) - uncollected.get(guard, 0.0)
            self._uncollected[guard] = max(0.0, -new)
            more = {row: seconds for row, seconds in by_row.items() if seconds > 0}
            for row, seconds in more.items():
                self.spent[row] = self.spent.get(row, 0.0) + max(0.0, new) * seconds / sum(more.values())


def _found(
    guards: Mapping[str, int], samples: Iterable[Sample], before: Mapping[_Identity, _Seen]
) -> dict[_Identity, _Seen]:
    """Find every process of the services, parents first."""
    by_pid = {sample.pid: sample for sample in samples}
    children: dict[int, list[Sample]] = defaultdict(list)
    for sample in by_pid.values():
        children[sample.parent].append(sample)
    found: dict[_Identity, _Seen] = {}
    for service, pid in guards.items():
        if pid not in by_pid:
            continue
        guard = by_pid[pid]
        queue: list[tuple[Sample, _Seen | None]] = [(guard, None)]
        while queue:
            sample, parent = queue.pop()
            if known := before.get(sample.identity):
                kind = known.kind
            else:
                kind = kind_of(sample, parent.sample, parent.kind) if parent else Kind.GUARD
            row = _row(service, kind)
            unseen = _row(service, Kind.RUN) if kind is Kind.RUN_FORKER else row
            seen = found[sample.identity] = _Seen(sample, kind, guard.identity, row, unseen)
            queue += [(child, seen) for child in children[sample.pid]]
    return found


def _by_ancestor(
    gone: Mapping[_Identity, _Seen], before: Mapping[_Identity, _Seen]
) -> dict[_Identity, list[_Seen]]:
    """Group ended processes by their nearest ancestor that still runs."""
    identities = {key[0]: key for key in before}
    found: dict[_Identity, list[_Seen]] = defaultdict(list)
    for seen in gone.values():
        key = identities.get(seen.sample.parent)
        while key is not None and key in gone:
            key = identities.get(gone[key].sample.parent)
        if key is not None:
            found[key].append(seen)
    return found


def kind_of(process: Sample, parent: Sample, parent_kind: Kind) -> Kind:
    """Tell the role of a process, from its command line and its parent's role.

    A forked process has its parent's command line. So only the place in the tree tells a fork server from its run
    workers.
    """
    command = " ".join(process.command)
    forks = process.command == parent.command or _FORK_SERVER in command
    match parent_kind:
        case Kind.RUN | Kind.RUN_FORKER:
            return Kind.RUN
        case Kind.SERVER_FORKER:
            return Kind.SERVER
        case Kind.SERVER if _SPAWNED in command:
            return Kind.RUN
        case Kind.SERVER:
            return Kind.RUN_FORKER if forks else Kind.HELPER
        case Kind.PROXY if forks:
            return Kind.SERVER_FORKER
        case Kind.PROXY:
            return Kind.SERVER if "grpc" in process.command else Kind.HELPER
        case Kind.HELPER:
            return Kind.HELPER
    if any(word.endswith("guard.py") for word in process.command):
        return Kind.GUARD
    if not {"--reloadable", "code-server"}.isdisjoint(process.command):
        return Kind.PROXY
    if "grpc" in process.command or "code_server" in command:
        return Kind.SERVER
    return Kind.RUN  # a worker that the guard inherited from an ended server


def running(guards: Iterable[int]) -> list[Sample]:
    """Sample the processes at and below the guards, including ended ones that are not yet collected."""
    by_pid, children = {}, defaultdict(list)
    for process in psutil.process_iter():
        try:
            by_pid[process.pid] = process
            children[process.ppid()].append(process.pid)
        except psutil.Error:
            continue
    found, queue = [], list(guards)
    while queue:
        pid = queue.pop()
        with suppress(KeyError, psutil.Error):  # it has ended: its children get another parent
            found.append(_sample(by_pid[pid]))
        queue += children[pid]
    return found


def _sample(process: psutil.Process) -> Sample:
    with process.oneshot():
        times = process.cpu_times()
        own, ended = times.user + times.system, times.children_user + times.children_system
        return Sample(process.pid, process.create_time(), process.ppid(), _command(process), own, ended)


def _command(process: psutil.Process) -> tuple[str, ...]:
    try:
        return tuple(process.cmdline())
    except psutil.ZombieProcess:
        return ()


def _row(service: str, kind: Kind) -> str:
    if service != CODE_LOCATION:
        return service
    return RUNS if kind is Kind.RUN else SENSORS
