"""How soon an event can be seen in the speed layer, with the whole platform running as ``headrace up`` runs it.

A producer sends at a steady rate and notes when each chunk went out; a reader counts, several times a second, what the
speed layer shows. An event counts as visible at the first look that finds as many events as had been sent up to and
with it: never too early, and late by at most the time between two looks.
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
class Freshness:
    """Latencies from sending to being visible, s.

    Attributes:
        rate: Events per second that were asked for.
        sent: Events that the broker acknowledged.
        visible: Events that the speed layer showed in the end.
        seconds: How long they were sent.
        p50: Half of them were visible within.
        p95: 95 of 100.
        p99: 99 of 100.
        worst: All of them.
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
        """Whether every event is everywhere once."""
        return self.sent == self.visible == self.lake_rows == self.warehouse_rows


class _Looks:
    """When how many events were visible; taken in the background."""

    def __init__(self, stream: Stream, settings: Settings) -> None:
        self._warehouse = stream.warehouse
        speed = f"{quoted(f'{settings.dbt_schema}_speed')}.`event_metrics_speed`"
        self._query = f"SELECT sum(events) FROM {speed} WHERE window_seconds = {{width:UInt32}}"
        self._width = settings.window_seconds
        self.seen: list[tuple[float, int]] = []

    def look(self) -> int:
        """Events that are visible now."""
        [(count,)] = self._warehouse.query(self._query, width=self._width)
        found = int(count or 0)
        self.seen.append((time.monotonic(), found))
        return found

    def until(self, stop: threading.Event) -> None:
        """Look again and again."""
        while not stop.wait(_LOOK_SECONDS):
            self.look()


def freshness(home: Path, console: Console, *, rate: float, seconds: float) -> Freshness:
    """Start a platform of its own, send, watch, reconcile, and stop it.

    Args:
        home: State and logs; what is there of an earlier run must be gone.
        console: Where to tell.
        rate: Events per second.
        seconds: How long to send; longer than ``HEADRACE_INGEST_MAX_SECONDS`` to have a hand-over in it.

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
            looks = _Looks(events, settings)
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
        latencies = _latencies(sent, looks.seen)
        return Freshness(
            rate,
            total,
            looks.look(),
            seconds,
            _quantile(latencies, 0.5),
            _quantile(latencies, 0.95),
            _quantile(latencies, 0.99),
            latencies[-1],
            len(runs),
            sum(events.lake.good.counts_by_day().values()),
            sum(events.warehouse_counts().values()),
        )


def _await_views(looks: _Looks) -> None:
    """Until the speed layer is deployed."""
    deadline, never = time.monotonic() + _READY_SECONDS, threading.Event()
    while True:
        try:
            looks.look()
            return
        except HeadraceError as error:  # its tables are not there yet
            if time.monotonic() > deadline:
                raise Fatal(
                    f"the speed layer is not deployed after {_READY_SECONDS:,.0f} s: {error}"
                ) from error
            never.wait(1)


def _await(looks: _Looks, total: int) -> None:
    deadline, never = time.monotonic() + _CATCH_UP_SECONDS, threading.Event()
    while not looks.seen or looks.seen[-1][1] < total:
        if time.monotonic() > deadline:
            shown = looks.seen[-1][1] if looks.seen else 0
            raise Fatal(
                f"{shown:,} of {total:,} events are visible {_CATCH_UP_SECONDS:,.0f} s after the last was sent"
            )
        never.wait(_LOOK_SECONDS)


def _latencies(sent: Sequence[tuple[float, int]], seen: Sequence[tuple[float, int]]) -> list[float]:
    """Seconds from handing over to being visible for every chunk, in order of size: chunks are all as large."""
    found, at = [], 0
    for when, upto in sent:
        while at < len(seen) - 1 and (seen[at][1] < upto or seen[at][0] < when):
            at += 1
        found.append(seen[at][0] - when)
    return sorted(found)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
