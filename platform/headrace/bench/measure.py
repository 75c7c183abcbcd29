"""Measure a run: time, core seconds and memory."""

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
        events: Processed events.
        seconds: Elapsed time.
        cpu_seconds: Core seconds of this process with all its threads.
        busy_seconds: Core seconds of the whole machine, including broker, queue and ClickHouse.
        peak_bytes: Peak memory of this process so far.
        wrong: Differences found by the reconciliation, a line each.
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
    """Measure from its creation on."""

    def __init__(self) -> None:
        self._began, self._cpu, self._busy = time.perf_counter(), time.process_time(), _busy()

    def read(self, events: int) -> Run:
        """Return the cost of ``events`` up to now."""
        wall, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        # the machine's time has a resolution of 10 ms
        return Run(events, wall, cpu, max(cpu, _busy() - self._busy), peak_memory())


def _busy() -> float:
    """Return the core seconds that the machine has worked since it started."""
    spent = psutil.cpu_times()
    # guest time is part of user time; stolen time was another machine's
    others = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(spent) - sum(getattr(spent, name, 0.0) for name in others))


def peak_memory() -> int:
    """Return this process's peak memory, bytes.

    On Linux, ``getrusage`` inherits the peak of the parent process. The kernel's own count (``VmHWM``) does not.
    """
    status = Path("/proc/self/status")
    found = _PEAK.search(status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1_024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1_024


def filesystem(path: Path) -> str:
    """Name the type of the file system that holds a path, such as ``ext4``; empty if unknown."""
    whole = path.resolve()
    mounts = {Path(p.mountpoint): p.fstype for p in psutil.disk_partitions(all=True)}
    return next((mounts[above] for above in (whole, *whole.parents) if above in mounts), "")


def in_own_process(task: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run a task in a new process, so that memory and core seconds are its own.

    Raises:
        Exception: The task's own error.
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
        """Core seconds of the whole machine per event, median."""
        return statistics.median(run.busy_seconds / run.events for run in self.runs)

    @property
    def peak_bytes(self) -> int:
        """Highest peak memory of all repetitions."""
        return max(run.peak_bytes for run in self.runs)

    def as_dict(self) -> dict[str, Any]:
        """Return the series as data for JSON."""
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
    """Order the tasks so that each repetition runs all of them, every other time backwards.

    A disturbance of the machine, or a cost that grows with time, then affects all tasks alike.
    """
    return [name for n in range(repetitions) for name in (tasks[::-1] if n % 2 else tasks)]
