"""Reconcile source, lake, warehouse and marts with numbers computed from the input files alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace.config.settings import Settings
from headrace.demo import over_http
from headrace.demo.feed import Feed
from headrace.health.audit import Audit, audit
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.stream import Stream
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.ddl import quoted

MARTS = ("event_metrics", "session_metrics", "performance_metrics", "metric_windows")
#: Columns of the sample rows: the most telling ones that fit a terminal.
_SHOWN = {
    "event_metrics": ("window_start", "event_type", "channel", "events", "unique_sessions"),
    "session_metrics": ("session_id", "started_at", "duration_seconds", "events", "pages"),
    "performance_metrics": ("window_start", "page", "events", "p50_ms", "p95_ms", "max_ms"),
    "metric_windows": ("window_start", "metric_name", "source", "avg_value", "unit"),
}
#: Column by which the sample rows are the largest.
_BUSIEST = {
    "event_metrics": "events",
    "session_metrics": "events",
    "performance_metrics": "p95_ms",
    "metric_windows": "avg_value",
}

#: Columns of a sample row of any other mart.
_MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Mart:
    """A mart's row count and two sample rows."""

    name: str
    rows: int
    columns: tuple[str, ...]
    samples: tuple[tuple[Any, ...], ...]


def sample(warehouse: ClickHouse, schema: str, name: str) -> Mart:
    """Count a mart's rows and pick two: the most telling ones of a mart that is known here, else the last ones."""
    table = f"{quoted(schema)}.{quoted(name)}"
    columns = _SHOWN.get(name) or tuple(
        column
        for (column,) in warehouse.query(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}"
            " ORDER BY position LIMIT {most:UInt8}",
            database=schema, table=name, most=_MOST_SHOWN,
        )
    )  # fmt: skip
    [(rows,)] = warehouse.query(f"SELECT count() FROM {table}")
    picked = ", ".join(map(quoted, columns))
    busiest = _BUSIEST.get(name, quoted(columns[0]))
    found = warehouse.query(f"SELECT {picked} FROM {table} ORDER BY {busiest} DESC, {picked} LIMIT 2")
    return Mart(name, int(rows), columns, tuple(found))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of an expected and a found number."""

    what: str
    expected: int
    found: int

    @property
    def agrees(self) -> bool:
        """Whether the two are equal."""
        return self.expected == self.found


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Reconciliation of one stream.

    Attributes:
        stream: Name of the stream.
        produced: Messages that the broker acknowledged to the producer, and events that the collector did.
        landed: Those of which any record is in the lake table.
        rejected: Those of which all are in the rejected table.
        audit: Counts of the lake by origin.
        warehouse: Rows of the raw warehouse table.
        lines: Every comparison.
        http: What was sent over HTTP, and what of it is in the lake; None if nothing was.
    """

    stream: str
    produced: int
    landed: int
    rejected: int
    audit: Audit
    warehouse: int
    lines: tuple[Comparison, ...]
    http: tuple[over_http.OverHttp, over_http.Landed] | None = None

    @property
    def agrees(self) -> bool:
        """Whether every comparison agrees."""
        return all(line.agrees for line in self.lines)


def reconcile(feed: Feed, stream: Stream, settings: Settings) -> Reconciled:
    """Compare a stream's numbers from source to mart."""
    audited = audit(stream.lake)
    warehouse = sum(stream.warehouse.counts_by_day(stream.contract.table).values())
    rejected = sum(stream.warehouse.counts_by_day(stream.contract.rejected_table).values())
    over = over_http.landed(stream)
    # a message of the collector holds the events of a request, and each of them counts
    refused = audited.messages_rejected - over.messages_rejected + over.rejected
    landed = (
        audited.messages - audited.messages_rejected - (over.messages - over.messages_rejected) + over.good
    )
    lines = (
        Comparison("messages acknowledged by broker and collector, or in files", feed.total, feed.produced),
        Comparison("messages the source still holds for us", 0, stream.backlog(feed.source).waiting),
        *_offsets(feed, stream, over.messages + sum(audited.again.values())),
        *_of_http(feed.http, over),
        Comparison("messages landed + rejected", feed.produced, landed + refused),
        Comparison("rows in the lake", feed.rows, audited.good),
        Comparison("rows rejected", feed.rejects, audited.rejected),
        Comparison("rows doubled", 0, audited.doubled),
        Comparison("rows in the warehouse", audited.good, warehouse),
        Comparison("rejected rows in the warehouse", audited.rejected, rejected),
        *(_of_marts(feed, stream, settings) if feed.expected is not None else ()),
    )
    http = (feed.http, over) if feed.http else None
    return Reconciled(feed.stream, feed.produced, landed, refused, audited, warehouse, lines, http)


def _offsets(feed: Feed, stream: Stream, collected: int) -> Iterator[Comparison]:
    """Compare with Kafka's own count: the sum of end minus begin offsets.

    Args:
        feed: The input.
        stream: The stream.
        collected: Messages that the collector has sent, also those that it sent again.
    """
    source = stream.source(feed.source)
    if isinstance(source, KafkaSource):
        held = sum(end - begin for begin, end in source.offsets().values())
        yield Comparison("offsets in the topic", feed.acknowledged + collected, held)


def _of_http(sent: over_http.OverHttp | None, there: over_http.Landed) -> Iterator[Comparison]:
    """Compare what the collector acknowledged with what is in the lake of it."""
    if sent is not None:
        yield Comparison("events acknowledged over HTTP, landed + rejected", sent.acknowledged, there.rows)
        yield Comparison("events rejected over HTTP", sum(m.rejected for m in sent.malformed), there.rejected)
        yield Comparison(
            "repeats recognised over HTTP", min(over_http.AGAIN, sent.events.height), sent.repeated
        )


def _of_marts(feed: Feed, stream: Stream, settings: Settings) -> Iterator[Comparison]:
    return (_event_marts if feed.stream == "events" else _metric_marts)(feed, stream, settings)


def _event_marts(feed: Feed, stream: Stream, settings: Settings) -> Iterator[Comparison]:
    expected = feed.expected
    assert expected is not None
    marts, query = quoted(settings.dbt_schema), stream.warehouse.query
    cancelled = expected.by_kind["flight_cancelled"]
    kinds = dict(query(f"SELECT event_type, sum(events) FROM {marts}.event_metrics GROUP BY event_type"))
    yield Comparison("event_metrics: events", feed.rows, sum(map(int, kinds.values())))
    yield Comparison("event_metrics: cancellations", cancelled, int(kinds.get("flight_cancelled", 0)))
    found = query(
        f"SELECT formatDateTime(event_date, '%Y-%m') AS m, sum(events) FROM {marts}.event_metrics GROUP BY m"
    )
    months = {str(month): int(count) for month, count in found}
    different = [m for m in {*months, *expected.by_month} if months.get(m) != expected.by_month.get(m)]
    yield Comparison("event_metrics: months that differ", 0, len(different))
    [(sessions, events)] = query(f"SELECT count(), sum(events) FROM {marts}.session_metrics")
    yield Comparison("session_metrics: sessions", expected.sessions, int(sessions))
    yield Comparison("session_metrics: events", feed.rows, int(events))
    [(timed,)] = query(f"SELECT sum(events) FROM {marts}.performance_metrics")
    yield Comparison("performance_metrics: timed departures", feed.rows - cancelled, int(timed))


def _metric_marts(feed: Feed, stream: Stream, settings: Settings) -> Iterator[Comparison]:
    expected = feed.expected
    assert expected is not None
    marts, query = quoted(settings.dbt_schema), stream.warehouse.query
    found = query(f"SELECT metric_name, sum(measurements) FROM {marts}.metric_windows GROUP BY metric_name")
    names = {str(name): int(count) for name, count in found}
    yield Comparison("metric_windows: measurements", feed.rows, sum(names.values()))
    # the valid records of malformed messages are temperatures
    due = {
        name: n + (feed.rows - expected.rows if name == "temp" else 0) for name, n in expected.by_kind.items()
    }
    yield Comparison("metric_windows: names that differ", 0, len(set(due.items()) ^ set(names.items())))
