"""A measured run: how long, how much of the processors, how much memory."""

from __future__ import annotations

import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psutil

P = ParamSpec("P")
T = TypeVar("T")

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run.

    Attributes:
        events: That went through.
        seconds: By the clock.
        cpu_seconds: Of this process, all its threads together.
        busy_seconds: Of the whole machine's cores, whoever used them: broker, queue and ClickHouse too.
        peak_bytes: Most memory that the process has held so far.
        wrong: What did not reconcile afterwards, a line each.
    """

    events: int
    seconds: float
    cpu_seconds: float
    busy_seconds: float
    peak_bytes: int
    wrong: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


class Stopwatch:
    """Runs from its making on."""

    def __init__(self) -> None:
        self._began, self._cpu, self._busy = time.perf_counter(), time.process_time(), _busy()

    def read(self, events: int) -> Run:
        """What ``events`` have cost up to now."""
        wall, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        # the machine's is counted in hundredths of a second
        return Run(events, wall, cpu, max(cpu, _busy() - self._busy), peak_memory())


def _busy() -> float:
    """Seconds that the machine's cores have worked since it started."""
    spent = psutil.cpu_times()
    # guests count as users, too; stolen time was never ours
    others = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(spent) - sum(getattr(spent, name, 0.0) for name in others))


def peak_memory() -> int:
    """Most memory that this process has held, bytes.

    Linux hands ``getrusage`` of a process the peak of the one that started it; the kernel's own count has it not.
    """
    status = Path("/proc/self/status")
    found = _PEAK.search(status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1_024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1_024


def filesystem(path: Path) -> str:
    """What the system calls the kind of file system that a path is on, as in ``ext4``; empty if it does not say."""
    whole = path.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    return next((mounts[above] for above in (whole, *whole.parents) if above in mounts), "")


def alone(task: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run a task in a new process, so that its memory and its processor time are its own.

    Raises:
        Exception: What the task raised.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments, **named).result()


@dataclass(slots=True)
class Series:
    """Repetitions of one measurement."""

    runs: list[Run] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Events per second, median."""
        return statistics.median(run.rate for run in self.runs)

    @property
    def busy(self) -> float:
        """Core seconds of the whole machine for an event, median."""
        return statistics.median(run.busy_seconds / run.events for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """Most memory of any repetition."""
        return max(run.peak_bytes for run in self.runs)

    def shown(self) -> dict[str, Any]:
        """For machines."""
        cpu = statistics.median(run.cpu_seconds / run.events for run in self.runs)
        return {
            "events_per_second": round(self.rate),
            "lowest": round(min(run.rate for run in self.runs)),
            "highest": round(max(run.rate for run in self.runs)),
            "events": self.runs[0].events,
            "repetitions": len(self.runs),
            "cpu_seconds_per_million": round(cpu * 1e6, 3),
            "busy_seconds_per_million": round(self.busy * 1e6, 3),
            "peak_bytes": self.peak_bytes,
        }


def interleaved(repetitions: int, tasks: Sequence[str]) -> list[str]:
    """Each task as often as asked, one after the other and every other time backwards.

    What disturbs the machine for a while, or grows with the time, then falls on all of them.
    """
    return [name for n in range(repetitions) for name in (tasks[::-1] if n % 2 else tasks)]
