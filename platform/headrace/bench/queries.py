"""Measure dashboard queries on a month of events, and the rebuild of a touched day's marts.

ClickHouse itself fills the raw table. dbt deploys and builds the models as the platform does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.console import Console

from headrace.bench.bare import clickhouse
from headrace.bench.load import SESSION_EVENTS
from headrace.config.settings import Settings
from headrace.contracts import EVENTS
from headrace.core.days import days_between, portions, ranges
from headrace.local.platform import backing_services
from headrace.models import project as models
from headrace.streams.stream import Stream, streams
from headrace.warehouse import Publication
from headrace.warehouse.ddl import quoted
from headrace.warehouse.server import Server

DAYS = 30
_USERS_PER_MILLION = 8_000
_PAGES = 400
#: Rows of one INSERT SELECT.
_CHUNK = 1_000_000
#: Age of the touched day, days.
_TOUCHED = 10

#: Dashboard queries by their purpose in words; ``{marts}`` is the database.
QUESTIONS = {
    "the last hour by minute": """
        SELECT window_start, sum(events) AS events, sum(unique_sessions) AS sessions
        FROM {marts}.event_metrics_live
        WHERE event_date >= toDate(now('UTC') - INTERVAL 1 HOUR) AND window_start >= now('UTC') - INTERVAL 1 HOUR
        GROUP BY window_start ORDER BY window_start""",
    "top pages today": """
        SELECT page, sum(events) AS events, max(p95_ms) AS p95_ms, sum(slow_events) AS slow_events
        FROM {marts}.performance_metrics_live
        WHERE event_date = toDate(now('UTC'))
        GROUP BY page ORDER BY events DESC LIMIT 20""",
    "retention of 30 days": """
        SELECT cohort_date, days_since, cohort_users, retained_users, retained_share
        FROM {marts}.user_retention
        ORDER BY cohort_date, days_since""",
    "active users by day": """
        SELECT activity_date, active_users, new_users, returning_users
        FROM {marts}.daily_active_users
        ORDER BY activity_date""",
    "events by hour and type, 7 days": """
        SELECT window_start, event_type, sum(events) AS events
        FROM {marts}.event_metrics_rollups
        WHERE window_seconds = 3600 AND event_date > toDate(now('UTC')) - 7
        GROUP BY window_start, event_type ORDER BY window_start, event_type""",
}


@dataclass(frozen=True, slots=True)
class QueryLatency:
    """Latencies of one query, from the client's call to the last row, ms.

    Attributes:
        question: The query's purpose, in words.
        rows: Rows of the answer.
        runs: Number of repetitions.
        p50: Median latency.
        p95: 95th percentile.
        worst: Highest latency.
    """

    question: str
    rows: int
    runs: int
    p50: float
    p95: float
    worst: float


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Latencies of all queries, and durations of the builds.

    Attributes:
        events: Events in the raw table.
        days: Days over which they are spread.
        day_events: Events of the touched day.
        answers: Latency of each query.
        build_seconds: Time to build and test all marts of all days.
        refresh_seconds: Time to rebuild and test the marts of the touched day and of the days that change with it.
        refresh_events: Raw rows of these days.
        wrong: Days and marts that differ from the generated events, a line each.
    """

    events: int
    days: int
    day_events: int
    answers: tuple[QueryLatency, ...]
    build_seconds: float
    refresh_seconds: float
    refresh_events: int
    wrong: tuple[str, ...]


def queries(home: Path, console: Console, *, events: int, day_events: int, runs: int) -> QueryResult:
    """Start backing services of its own, fill the warehouse, build the models, run the queries, and stop the services.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        events: Events in the raw table.
        day_events: Of these, events on the touched day.
        runs: Repetitions of each query.
    """
    with backing_services(home) as (_, settings):
        stream = streams(settings)["events"]
        try:
            return _queries(stream, console, events=events, day_events=day_events, runs=runs)
        finally:
            stream.close()


def _queries(stream: Stream, console: Console, *, events: int, day_events: int, runs: int) -> QueryResult:
    settings = stream.settings
    touched, sizes, built = filled(stream, console, events, day_events)
    days = list(sizes)
    wrong = _differences(stream, sizes)
    with console.status(f"refreshing {touched}, {sizes[touched]:,} events"):
        reach = models.reach(models.manifest(settings), stream.pipeline)
        [(first, last)] = ranges([touched], settings.event_time_min.date(), *reach)
        around = days_between(first, last)
        refreshed = _build(stream, around, sizes)
    wrong += _differences(stream, sizes)
    answers = _answers(settings, console, runs)
    return QueryResult(
        events,
        len(days),
        sizes[touched],
        answers,
        built,
        refreshed,
        sum(sizes[day] for day in around),
        tuple(wrong),
    )


def filled(
    stream: Stream, console: Console, events: int, day_events: int
) -> tuple[date, dict[date, int], float]:
    """Fill the warehouse and build all marts; return the touched day, events by day, and the seconds of the build."""
    settings, today = stream.settings, datetime.now(UTC).date()
    days = days_between(today - timedelta(days=DAYS - 1), today)
    touched = today - timedelta(days=_TOUCHED)
    sizes = _sizes(days, touched, events, day_events)
    stream.prepare()
    with console.status("deploying views and speed layer"):
        models.build(settings, stream.pipeline, today, today)
    users = max(1, events * _USERS_PER_MILLION // 1_000_000)
    for day, size in sizes.items():
        with console.status(f"{size:,} events of {day}"):
            fill(stream, day, size, users)
    publication = Publication(stream.lake.good.id, 0, events, tuple(days), tuple(days))
    stream.warehouse.record(EVENTS.table, publication)
    with console.status(f"building the models of {events:,} events"):
        built = _build(stream, days, sizes)
    return touched, sizes, built


def _sizes(days: Sequence[date], touched: date, events: int, day_events: int) -> dict[date, int]:
    """Distribute the events over the days: ``day_events`` on the touched one, and equally many on the others."""
    most = min(day_events, events)
    others = [day for day in days if day != touched]
    each, rest = divmod(events - most, len(others))
    sizes = {day: each + (n < rest) for n, day in enumerate(others)}
    return {day: sizes.get(day, most) for day in days}


def fill(stream: Stream, day: date, events: int, users: int, apart: str = "") -> None:
    """Generate one day's events in the raw table: parallel sessions of ten minutes, with unevenly visited pages.

    An unfinished day ends one second ago. With another ``apart``, events of the same day are others.
    """
    raw = f"{quoted(stream.settings.raw_database)}.{quoted(EVENTS.table.name)}"
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = min(start + timedelta(days=1), datetime.now(UTC) - timedelta(seconds=1))
    step = max(1, int((end - start).total_seconds() * 1e6) // max(1, events))
    together = max(1, events // (144 * SESSION_EVENTS))  # parallel sessions of ten minutes
    server = Server(stream.settings)
    for first in range(0, events, _CHUNK):
        server.command(
            f"""
            INSERT INTO {raw} (event_id, event_type, occurred_at, received_at, session_id, user_id, device_id, channel,
                page_url, duration_ms, properties, schema_version, event_date, _source, _cursor, _offset, _index, _key,
                _ingested_at, _batch_id)
            WITH
                toDate('{day}') AS day,
                intDiv(number, {together * SESSION_EVENTS}) * {together} + number % {together} AS visit,
                cityHash64(day, visit) AS visit_hash,
                cityHash64(day, number) AS event_hash,
                concat(toString(day), '-', leftPad(toString(visit), 8, '0')) AS session,
                -- the square prefers small numbers: some come daily, most do not
                toUInt64(pow(visit_hash % 1000003 / 1000003, 2) * {users}) AS person,
                fromUnixTimestamp64Micro({int(start.timestamp() * 1e6)} + toInt64(number) * {step}, 'UTC') AS at
            SELECT
                concat('{apart}', toString(day), '-', leftPad(toString(number), 9, '0')),
                multiIf(event_hash % 100 < 70, 'page_view', event_hash % 100 < 95, 'click',
                    event_hash % 100 < 98, 'add_to_cart', 'purchase'),
                at, at, session, concat('user-', toString(person)), concat('device-', toString(person)),
                ['web', 'mobile', 'chat'][visit_hash % 3 + 1],
                concat('https://shop.example/products/',
                    toString(toUInt64(pow(event_hash % 10007 / 10007, 3) * {_PAGES}))),
                event_hash % 100 < 70 ? toFloat64(event_hash % 3000) : NULL,
                '{{"referrer":"https://search.example/"}}', 1, day, 'bench', 'bench', number, 0, session,
                at + INTERVAL 1 SECOND, 'bench'
            FROM numbers({first}, {min(_CHUNK, events - first)})
            """
        )
    server.close()


def _build(stream: Stream, days: Sequence[date], sizes: dict[date, int]) -> float:
    """Build the marts of these days in parts, as an asset run does; return the seconds it took."""
    began = time.perf_counter()
    for part in portions(days, sizes, stream.settings.build_rows):
        began_at = datetime.now(UTC)
        models.build(stream.settings, stream.pipeline, part[0], part[-1], marts_only=True)
        stream.refreshed(stream.published_version(), part, began_at)
    return time.perf_counter() - began


def _differences(stream: Stream, sizes: dict[date, int]) -> list[str]:
    """Compare the counts of every day with the generated ones."""
    marts, wrong = quoted(stream.settings.dbt_schema), []
    counted = {
        f"{quoted(stream.settings.raw_database)}.events": ("event_date", "count()"),
        f"{marts}.events_history": ("event_date", "count()"),
        f"{marts}.event_metrics": ("event_date", "sum(events)"),
        f"{marts}.session_metrics": ("session_date", "sum(events)"),
    }
    for table, (day, count) in counted.items():
        rows = stream.warehouse.query(f"SELECT {day}, {count} FROM {table} GROUP BY {day}")
        found = {one: int(n) for one, n in rows}
        wrong += [
            f"{table} {one}: {found.get(one, 0):,} instead of {sizes.get(one, 0):,}"
            for one in sorted({*found, *sizes})
            if found.get(one, 0) != sizes.get(one, 0)
        ]
    return wrong


def _answers(settings: Settings, console: Console, runs: int) -> tuple[QueryLatency, ...]:
    """Run the queries in turns, so that no query has the caches to itself."""
    client = clickhouse(settings)
    took: dict[str, list[float]] = {question: [] for question in QUESTIONS}
    rows: dict[str, int] = {}
    marts = quoted(settings.dbt_schema)
    try:
        with console.status(f"asking {len(QUESTIONS)} questions, {runs} times each"):
            for _ in range(runs):
                for question, sql in QUESTIONS.items():
                    began = time.perf_counter()
                    rows[question] = len(client.query(sql.format(marts=marts)).result_rows)
                    took[question].append((time.perf_counter() - began) * 1e3)
    finally:
        client.close()
    return tuple(_asked(question, rows[question], found) for question, found in took.items())


def _asked(question: str, rows: int, took: list[float]) -> QueryLatency:
    hundredths = statistics.quantiles(took, n=100, method="inclusive")
    return QueryLatency(question, rows, len(took), hundredths[49], hundredths[94], max(took))
