"""Measure the cost of an installation under little traffic: runs, core seconds, and the growth of Dagster's storage.

The platform runs as under ``headrace up``, with the same simulated traffic. The measurement begins once the views are
deployed and the history has been ingested.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from headrace.bench.core_seconds import CoreSeconds, running
from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError
from headrace.local import stack_files
from headrace.local.dagster_api import DagsterApi, Run
from headrace.local.platform import Platform, backing_services, dagster_beside
from headrace.models import project as models
from headrace.pipelines import Kafka, Sqs
from headrace.producers.base import Keys, Payloads
from headrace.producers.traffic import run_traffic
from headrace.streams.adapters import producer
from headrace.streams.stream import Stream, streams
from headrace.warehouse.ddl import quoted

#: History sent at the start, so that there are days, sessions and windows to rebuild.
_HISTORY = timedelta(hours=1)
_LOOK_SECONDS = 0.5
_READY_SECONDS = 600.0
#: Parts of Dagster's storage and of the logs, by their displayed name: folder, and a test of the file name.
_KEPT: dict[str, tuple[str, Callable[[str], bool]]] = {
    "events by run": ("dagster/history/runs", lambda name: not name.startswith("index")),
    "events of assets": ("dagster/history/runs", lambda name: name.startswith("index")),
    "runs": ("dagster/history", lambda name: name.startswith("runs.db")),
    "ticks": ("dagster/schedules", lambda _: True),
    "what runs wrote": ("dagster/storage", lambda _: True),
    "logs": ("logs", lambda _: True),
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency from a source to the warehouse, s."""

    messages: int
    p50: float
    p95: float
    worst: float


@dataclass(frozen=True, slots=True)
class IdleResult:
    """Runs, core seconds and storage of the measured period.

    Attributes:
        seconds: Length of the period.
        runs: Started runs by job.
        failed: Failed runs among them, by job.
        core_seconds: Core seconds by service. All runs are one row, which includes their dbt processes.
        kept: Bytes at the beginning and at the end, by part of Dagster's storage.
        events: Rows added to Dagster's event log and their bytes, by type.
        latency: Latency by source.
    """

    seconds: float
    runs: dict[str, int]
    failed: dict[str, int]
    core_seconds: dict[str, float]
    kept: dict[str, tuple[int, int]]
    events: dict[str, tuple[int, int]] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)

    @property
    def runs_per_hour(self) -> dict[str, float]:
        """Runs an hour by job, the most first."""
        hour = 3_600 / self.seconds
        return {job: n * hour for job, n in Counter(self.runs).most_common()}

    @property
    def cores(self) -> dict[str, float]:
        """Core seconds an hour by service, the most first."""
        hour = 3_600 / self.seconds
        ordered = sorted(self.core_seconds.items(), key=lambda one: -one[1])
        return {name: spent * hour for name, spent in ordered}

    @property
    def bytes_per_day(self) -> dict[str, float]:
        """Growth of the storage by part, extrapolated to a day."""
        day = 86_400 / self.seconds
        return {name: (after - before) * day for name, (before, after) in self.kept.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {
            "seconds": round(self.seconds),
            "runs_per_hour": {name: round(n, 1) for name, n in self.runs_per_hour.items()},
            "failed_runs": self.failed,
            "core_seconds_per_hour": {name: round(n, 1) for name, n in self.cores.items()},
            "bytes": {name: after for name, (_, after) in self.kept.items()},
            "bytes_per_day": {name: round(n) for name, n in self.bytes_per_day.items()},
            "events": {
                name: {"rows": rows, "bytes": size} for name, (rows, size) in sorted(self.events.items())
            },
            "latency": {
                name: {"messages": one.messages, "p50": one.p50, "p95": one.p95, "worst": one.worst}
                for name, one in self.latency.items()
            },
        }


def idle(home: Path, console: Console, *, minutes: float, rate: float) -> IdleResult:
    """Start a platform of its own with live traffic, wait until it is steady, measure, and stop it.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        minutes: How long to measure.
        rate: Simulated events per second, on average over the day.

    Raises:
        Fatal: The platform does not become steady.
    """
    with ExitStack() as stack:
        with console.status("starting the platform"):
            services, settings = stack.enter_context(backing_services(home))
            models.manifest(settings)
            platform = stack.enter_context(dagster_beside(services, settings, reloadable=True))
            platform.dagster.start()
        with console.status("catching up with an hour of traffic"):
            open_streams = streams(settings)
            for one in open_streams.values():
                stack.callback(one.close)
            watches = [
                _Watch(Kafka("analytics_events"), open_streams["events"], settings),
                _Watch(Sqs("metrics"), open_streams["metrics"], settings),
            ]
            stop = threading.Event()
            traffic = threading.Thread(
                target=run_traffic, args=(*watches, rate, stop, _HISTORY), name="traffic", daemon=True
            )
            stack.callback(stop.set)
            traffic.start()
            api = DagsterApi(platform.ui)
            _await_steady(api, watches)
        with console.status(f"measuring for {minutes:,.0f} min"):
            found = _measured(platform, api, watches, minutes * 60)
        stop.set()
        traffic.join()
        return found


def _measured(platform: Platform, api: DagsterApi, watches: Sequence[_Watch], seconds: float) -> IdleResult:
    began, since = time.monotonic(), time.time()
    kept, events = _kept(platform.settings.home), _events(platform.settings.home)
    cores = CoreSeconds()
    _count(cores, platform)
    for watch in watches:
        watch.begin()
    never = threading.Event()
    while time.monotonic() - began < seconds:
        for watch in watches:
            watch.look()
        _count(cores, platform)
        never.wait(_LOOK_SECONDS)
    took = time.monotonic() - began
    _count(cores, platform)
    runs = [run for run in api.runs(5_000) if run.start is not None and run.start >= since]
    kept_after, events_after = _kept(platform.settings.home), _events(platform.settings.home)
    return IdleResult(
        took,
        dict(Counter(run.job for run in runs)),
        dict(Counter(run.job for run in runs if run.status == "FAILURE")),
        dict(cores.spent),
        {name: (kept[name], kept_after[name]) for name in kept},
        {
            name: (rows - events.get(name, (0, 0))[0], size - events.get(name, (0, 0))[1])
            for name, (rows, size) in events_after.items()
        },
        {watch.name: found for watch in watches if (found := watch.latency()) is not None},
    )


def _await_steady(api: DagsterApi, watches: Sequence[_Watch]) -> None:
    """Wait until the history has landed and every job that builds models has succeeded once."""
    deadline, never = time.monotonic() + _READY_SECONDS, threading.Event()
    due = {"refresh_events", "refresh_metrics"}
    while True:
        runs: list[Run] = api.runs(500)
        built = {run.job for run in runs if run.status == "SUCCESS"}
        if due <= built and all(watch.caught_up() for watch in watches):
            return
        if time.monotonic() > deadline:
            raise Fatal(f"after {_READY_SECONDS:,.0f} s of traffic there was no run of {due - built}")
        never.wait(1)


class _Watch:
    """Producer that records the messages it sent over time, and counts those in the warehouse.

    A message is in the warehouse with its rows, good or rejected. It counts from the first look that finds all
    messages sent up to it. So the latency is never too low, and too high by at most the time between two looks.
    """

    def __init__(self, place: Kafka | Sqs, stream: Stream, settings: Settings) -> None:
        self.name = place.name
        self._inner = producer(settings, place)
        self._warehouse = stream.warehouse
        tables = [f"{quoted(settings.raw_database)}.{quoted(table.name)}" for table in stream.pipeline.tables]
        source = self.name.replace("'", "")
        self._query = "SELECT uniqExact((_cursor, _offset, _message_id)) FROM (" + " UNION ALL ".join(
            f"SELECT _cursor, _offset, _message_id FROM {table} WHERE startsWith(_cursor, '{source}')"
            for table in tables
        ) + ")"  # fmt: skip
        self._sent: list[tuple[float, int]] = []
        self._seen: list[tuple[float, int]] = []
        self._first = 0

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged."""
        return self._inner.acknowledged

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Send, and record the time."""
        self._inner.send(payloads, keys)
        self._inner.flush()
        self._sent.append((time.monotonic(), self._inner.acknowledged))

    def flush(self) -> None:
        """Wait until all messages are acknowledged."""
        self._inner.flush()

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()

    def look(self) -> int:
        """Count the messages in the warehouse now."""
        try:
            [(count,)] = self._warehouse.query(self._query)
        except HeadraceError:  # its tables do not exist yet
            return 0
        self._seen.append((time.monotonic(), int(count or 0)))
        return int(count or 0)

    def caught_up(self) -> bool:
        """Tell whether the warehouse has all messages that were sent 20 seconds ago or earlier."""
        old = [upto for at, upto in self._sent if at < time.monotonic() - 20]
        return bool(old) and self.look() >= old[-1]

    def begin(self) -> None:
        """Start the measurement: ignore messages sent so far."""
        self._first = len(self._sent)
        self._seen.clear()

    def latency(self) -> Latency | None:
        """Return the latency of the measured messages that have arrived; None if there are none."""
        found, at, before = [], 0, self._sent[self._first - 1][1] if self._first else 0
        for when, upto in self._sent[self._first :]:
            while at < len(self._seen) and (self._seen[at][1] < upto or self._seen[at][0] < when):
                at += 1
            if at == len(self._seen):
                break
            found += [self._seen[at][0] - when] * (upto - before)
            before = upto
        if not found:
            return None
        found.sort()
        shares = [round(found[min(len(found) - 1, int(len(found) * share))], 2) for share in (0.5, 0.95)]
        return Latency(len(found), shares[0], shares[1], round(found[-1], 2))


def _count(cores: CoreSeconds, platform: Platform) -> None:
    guards = _guards(platform)
    cores.look(guards, running(guards.values()))


def _guards(platform: Platform) -> dict[str, int]:
    """Return the guards' pids of all running services, by service."""
    backing = (stack_files.read_info(platform.stack.home) or {}).get("services", [])
    found = [(one["name"], one["guard"]) for one in backing]
    found += [(one.name, one.guard) for one in platform.dagster.status()]
    return {name: guard for name, guard in found if guard is not None}


def _kept(home: Path) -> dict[str, int]:
    """Measure the bytes on disk by part."""
    return {
        name: sum(
            path.stat().st_blocks * 512
            for path in (home / folder).rglob("*")
            if path.is_file() and belongs(path.name)
        )
        for name, (folder, belongs) in _KEPT.items()
    }


def _events(home: Path) -> dict[str, tuple[int, int]]:
    """Count rows and bytes of Dagster's events by type, in all its databases."""
    found: dict[str, tuple[int, int]] = {}
    for path in (home / "dagster" / "history" / "runs").glob("*.db"):
        where = "assets" if path.name.startswith("index") else "run"
        try:
            for kind, rows, size in _counted(path):
                name = f"{where}: {kind or 'log line'}"
                before = found.get(name, (0, 0))
                found[name] = before[0] + rows, before[1] + size
        except sqlite3.Error:  # a run's database that is being created or deleted
            continue
    return found


def _counted(path: Path) -> list[tuple[str | None, int, int]]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)) as connection:
        return connection.execute(
            "SELECT dagster_event_type, count(*), sum(length(event)) FROM event_logs GROUP BY 1"
        ).fetchall()
