"""Measure how soon an event is visible in the speed layer, with the platform running as under ``headrace up``.

A producer sends at a steady rate and records when it sent each chunk. A reader counts the speed layer's events several
times a second. An event counts as visible at the first look that finds all events sent up to it. So the latency is
never too low, and too high by at most the time between two looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from headrace.bench.load import send
from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError
from headrace.local.dagster_api import DagsterApi
from headrace.local.platform import backing_services, dagster_beside
from headrace.models import project as models
from headrace.streams.stream import Stream, streams
from headrace.warehouse.ddl import quoted

_LOOK_SECONDS = 0.25
_READY_SECONDS = 300.0
_CATCH_UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class FreshnessResult:
    """Latencies from sending to visibility, s.

    Attributes:
        rate: Requested events per second.
        sent: Events that the broker acknowledged.
        visible: Events that the speed layer showed in the end.
        seconds: How long events were sent.
        p50: Median latency.
        p95: 95th percentile.
        p99: 99th percentile.
        worst: Highest latency.
        runs: Ingest runs that took turns.
        lake_rows: Rows in the lake afterwards.
        warehouse_rows: Rows of the raw table afterwards.
    """

    rate: float
    sent: int
    visible: int
    seconds: float
    p50: float
    p95: float
    p99: float
    worst: float
    runs: int
    lake_rows: int
    warehouse_rows: int

    @property
    def reconciles(self) -> bool:
        """Whether every event is in every store once."""
        return self.sent == self.visible == self.lake_rows == self.warehouse_rows


class _Visibility:
    """Visible events over time, counted in the background."""

    def __init__(self, stream: Stream, settings: Settings) -> None:
        self._warehouse = stream.warehouse
        speed = f"{quoted(f'{settings.dbt_schema}_speed')}.`event_metrics_speed`"
        self._query = f"SELECT sum(events) FROM {speed} WHERE window_seconds = {{width:UInt32}}"
        self._width = settings.window_seconds
        self.seen: list[tuple[float, int]] = []

    def look(self) -> int:
        """Count the visible events now."""
        [(count,)] = self._warehouse.query(self._query, width=self._width)
        found = int(count or 0)
        self.seen.append((time.monotonic(), found))
        return found

    def until(self, stop: threading.Event) -> None:
        """Count repeatedly until ``stop`` is set."""
        while not stop.wait(_LOOK_SECONDS):
            self.look()


def freshness(home: Path, console: Console, *, rate: float, seconds: float) -> FreshnessResult:
    """Start a platform of its own, send, watch, reconcile, and stop it.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        rate: Events per second.
        seconds: How long to send. Exceed ``HEADRACE_INGEST_MAX_SECONDS`` to include a hand-over between runs.

    Raises:
        Fatal: The platform does not become ready, or events do not become visible.
    """
    with ExitStack() as stack:
        with console.status("starting the platform"):
            services, settings = stack.enter_context(backing_services(home))
            models.manifest(settings)
            platform = stack.enter_context(dagster_beside(services, settings, reloadable=True))
            platform.dagster.start()
            events = streams(settings)["events"]
            stack.callback(events.close)
            looks = _Visibility(events, settings)
            _await_views(looks)
        stop = threading.Event()
        watcher = threading.Thread(target=looks.until, args=(stop,), daemon=True)
        stack.callback(stop.set)
        watcher.start()
        with console.status(f"sending {rate:,.0f} events/s for {seconds:,.0f} s"):
            sent = send(settings, rate, seconds)
        total = sent[-1][1]
        with console.status("waiting for the last of them"):
            _await(looks, total)
        stop.set()
        watcher.join()
        runs = [r for r in DagsterApi(platform.ui).runs(500) if r.job == "ingest_events"]
        found = latencies(sent, looks.seen)
        return FreshnessResult(
            rate,
            total,
            looks.look(),
            seconds,
            quantile(found, 0.5),
            quantile(found, 0.95),
            quantile(found, 0.99),
            found[-1],
            len(runs),
            sum(events.lake.good.counts_by_day().values()),
            sum(events.warehouse_counts().values()),
        )


def _await_views(looks: _Visibility) -> None:
    """Wait until the speed layer is deployed."""
    deadline, never = time.monotonic() + _READY_SECONDS, threading.Event()
    while True:
        try:
            looks.look()
            return
        except HeadraceError as error:  # its tables do not exist yet
            if time.monotonic() > deadline:
                raise Fatal(
                    f"the speed layer is not deployed after {_READY_SECONDS:,.0f} s: {error}"
                ) from error
            never.wait(1)


def _await(looks: _Visibility, total: int) -> None:
    deadline, never = time.monotonic() + _CATCH_UP_SECONDS, threading.Event()
    while not looks.seen or looks.seen[-1][1] < total:
        if time.monotonic() > deadline:
            shown = looks.seen[-1][1] if looks.seen else 0
            raise Fatal(
                f"{shown:,} of {total:,} events are visible {_CATCH_UP_SECONDS:,.0f} s after the last was sent"
            )
        never.wait(_LOOK_SECONDS)


def latencies(sent: Sequence[tuple[float, int]], seen: Sequence[tuple[float, int]]) -> list[float]:
    """Return the latency of every chunk, in ascending order, s. All chunks have the same size."""
    found, at = [], 0
    for when, upto in sent:
        while at < len(seen) - 1 and (seen[at][1] < upto or seen[at][0] < when):
            at += 1
        found.append(seen[at][0] - when)
    return sorted(found)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return what this share of ascending values does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
