"""Measure a long backfill, launched as from the Dagster UI, beside live ingestion; verify every count afterwards."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import psutil
from rich.console import Console

from headrace.bench.load import SESSION_EVENTS, seed_day, send
from headrace.config.settings import Settings
from headrace.core.days import days_between
from headrace.core.errors import Fatal, Retriable
from headrace.health.parity import parity
from headrace.local.dagster_api import DagsterApi
from headrace.local.platform import backing_services, dagster_beside
from headrace.models import project as models
from headrace.streams.stream import Stream, streams
from headrace.warehouse.ddl import quoted

_FIRST = date(2025, 3, 1)
#: Sensors do not rebuild touched days meanwhile, so that only the backfill is measured.
_TUNING = {"HEADRACE_REFRESH_COOLDOWN_SECONDS": "86400", "HEADRACE_REFRESH_MAX_WAIT_SECONDS": "86400"}
_LOOK_SECONDS = 2.0
_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """Duration and outcome of a backfill.

    Attributes:
        days: Number of days.
        events: Events per day.
        seconds: From the launch to its success.
        live_sent: Live events sent meanwhile.
        live_landed: Of those, events in the lake afterwards.
        live_published: Of those, events in the warehouse afterwards.
        behind: Most live events at any look that were sent and not yet published.
        memory_bytes: Peak memory of the ClickHouse endpoint.
        wrong: Differences from the expected counts, a line each.
    """

    days: int
    events: int
    seconds: float
    live_sent: int
    live_landed: int
    live_published: int
    behind: int
    memory_bytes: int
    wrong: tuple[str, ...]


def backfill(home: Path, console: Console, *, days: int, events: int, rate: float) -> BackfillResult:
    """Seed history, start a platform of its own, run the backfill beside live events, and verify the counts.

    Raises:
        Fatal: The platform does not become ready, or the backfill fails.
    """
    span = days_between(_FIRST, _FIRST + timedelta(days=days - 1))
    with ExitStack() as stack:
        with console.status("starting broker, queue and warehouse"):
            services, settings = stack.enter_context(backing_services(home, _TUNING))
            manifest = models.manifest(settings)
            stream = streams(settings)["events"]
            stack.callback(stream.close)
        for day in span:
            with console.status(f"seeding {day}"):
                seed_day(stream, day, events)
                stream.publish()
        with console.status("starting Dagster"):
            platform = stack.enter_context(dagster_beside(services, settings))
            platform.dagster.start()
            api = DagsterApi(platform.ui)
            _deployed(api)
        stop = threading.Event()
        stack.callback(stop.set)
        live = stack.enter_context(ThreadPoolExecutor(1)).submit(send, settings, rate, _DAY, stop)
        began = time.monotonic()
        launched = api.launch_backfill(_assets(manifest), [day.isoformat() for day in span])
        behind, memory = 0, 0
        with console.status("the backfill runs") as status:
            while (state := api.backfill(launched)) not in ("COMPLETED", "COMPLETED_SUCCESS"):
                if state in ("FAILED", "CANCELED", "COMPLETED_FAILED") or live.done():
                    raise Fatal(f"backfill {launched} is {state}; see {platform.ui}/runs and {home / 'logs'}")
                behind = max(behind, stream.backlog("kafka/analytics_events").waiting)
                memory = max(memory, _memory(home))
                status.update(f"the backfill runs, {time.monotonic() - began:,.0f} s")
                stop.wait(_LOOK_SECONDS)
        seconds = time.monotonic() - began
        stop.set()
        sent = live.result()[-1][1]
        with console.status("waiting for the last live events"):
            landed, published = _live(stream, span, sent)
        wrong = _differences(stream, settings, span, events)
        return BackfillResult(days, events, seconds, sent, landed, published, behind, memory, wrong)


def _deployed(api: DagsterApi) -> None:
    """Wait until the views that the marts read are deployed."""
    deadline, never = time.monotonic() + 300, threading.Event()
    while True:
        try:
            if any(run.job == "deploy_views" and run.status == "SUCCESS" for run in api.runs()):
                return
        except Retriable:
            pass  # the UI is still starting
        if time.monotonic() > deadline:
            raise Fatal("the views are not deployed after 300 s")
        never.wait(1)


def _assets(manifest: Path) -> list[list[str]]:
    nodes = models.read(manifest)["nodes"].values()
    daily = {"daily", "events"}
    marts = [n["name"] for n in nodes if n["resource_type"] == "model" and daily <= {*n["tags"]}]
    return [["warehouse", "events"], *(["marts", name] for name in sorted(marts))]


def _memory(home: Path) -> int:
    said = str(home / "clickhouse")
    found = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if said in (process.info["cmdline"] or []) and process.info["memory_info"]:
            found = max(found, process.info["memory_info"].rss)
    return found


def _live(stream: Stream, span: list[date], sent: int) -> tuple[int, int]:
    deadline, never = time.monotonic() + 120, threading.Event()
    while True:
        counts = stream.lake.good.counts_by_day(), stream.warehouse_counts()
        landed, published = (sum(n for day, n in found.items() if day not in span) for found in counts)
        if (landed, published) == (sent, sent) or time.monotonic() > deadline:
            return landed, published
        never.wait(1)


def _differences(stream: Stream, settings: Settings, span: list[date], events: int) -> tuple[str, ...]:
    """Compare the counts of every day with the generated ones, without asking the lake."""
    wrong = []
    marts, query = quoted(settings.dbt_schema), stream.warehouse.query
    expected = {
        f"{quoted(settings.raw_database)}.events": ("event_date", "count()", events),
        f"{marts}.events_history": ("event_date", "count()", events),
        f"{marts}.event_metrics": ("event_date", "sum(events)", events),
        f"{marts}.performance_metrics": ("event_date", "sum(events)", events),
        f"{marts}.session_metrics": ("session_date", "sum(events)", events),
        f"(SELECT session_date, session_id FROM {marts}.session_metrics)": (
            "session_date",
            "uniqExact(session_id)",
            -(-events // SESSION_EVENTS),
        ),
    }
    for table, (day, counted, each) in expected.items():
        rows = query(
            f"SELECT {day}, {counted} FROM {table} WHERE {day} BETWEEN {{first:Date}} AND {{last:Date}} GROUP BY {day}",
            first=span[0],
            last=span[-1],
        )
        found = {one: int(n) for one, n in rows}
        wrong += [
            f"{table} {one}: {found.get(one, 0):,} instead of {each:,}"
            for one in span
            if found.get(one, 0) != each
        ]
    wrong += [
        f"{one}: lake {pair[0]:,}, warehouse {pair[1]:,}" for one, pair in parity(stream).different.items()
    ]
    return tuple(wrong)
