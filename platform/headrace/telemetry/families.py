"""Declare every measurement: its name, its kind, its labels and what it says.

A name says its unit. Times are Unix times in seconds, whose age is ``time() - <name>`` in a query: so a measurement
that is a little old is not wrong. Labels have few values: streams, partitions, tables, jobs, states; never a person,
a key or a message. None is ``job`` or ``instance``, which are Prometheus' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

#: Series of one family at most; more are left out, and counted.
MOST_SERIES = 2_000


@dataclass(frozen=True, slots=True)
class Family:
    """A measurement.

    Attributes:
        name: Its name; that of a counter ends with ``_total``.
        kind: A counter only grows, until its process starts anew.
        said: What it says, for ``# HELP``.
        labels: Names of its labels.
    """

    name: str
    kind: Literal["gauge", "counter"]
    said: str
    labels: tuple[str, ...] = ()

    def __call__(self, value: float | datetime, *labels: str) -> Reading:
        """Measure it; a time becomes seconds since 1970."""
        number = value.timestamp() if isinstance(value, datetime) else float(value)
        return Reading(self, number, labels)

    def metric(self, readings: Iterable[Reading]) -> Metric:
        """Render readings of this family as the client library has it."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        made = kind(self.name, self.said, labels=self.labels)
        for one in readings:
            made.add_metric(one.labels, one.value)
        return made


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a family.

    Attributes:
        family: What was measured.
        value: The number.
        labels: Values of the labels, in the family's order.
    """

    family: Family
    value: float
    labels: tuple[str, ...] = ()


FAMILIES: list[Family] = []


def _declare(kind: Literal["gauge", "counter"], name: str, said: str, labels: Iterable[str]) -> Family:
    family = Family(name, kind, said, tuple(labels))
    FAMILIES.append(family)
    return family


def _gauge(name: str, said: str, *labels: str) -> Family:
    return _declare("gauge", name, said, labels)


def _counter(name: str, said: str, *labels: str) -> Family:
    return _declare("counter", name, said, labels)


# what waits; the first three have the names of kafka_exporter
_PARTITION = ("consumergroup", "topic", "partition")
LAG = _gauge("kafka_consumergroup_lag", "Messages of a partition that have not landed.", *_PARTITION)
LAG_SUM = _gauge(
    "kafka_consumergroup_lag_sum", "Messages of a topic that have not landed.", "consumergroup", "topic"
)
OFFSET = _gauge(
    "kafka_consumergroup_current_offset", "Next offset to land, by the lake's own log.", *_PARTITION
)
_SOURCE = ("stream", "source", "kind")
WAITING = _gauge("headrace_source_waiting_messages", "Messages of a source that have not landed.", *_SOURCE)
IN_FLIGHT = _gauge(
    "headrace_source_in_flight_messages",
    "Messages of a queue that were delivered and not deleted yet.",
    *_SOURCE,
)
SOURCE_PROBLEMS = _gauge(
    "headrace_source_problems", "Parts of a source that cannot be read, such as broken files.", *_SOURCE
)

# the lake; ``kind`` is good or rejected
_TABLE = ("stream", "table", "kind")
LANDED = _counter(
    "headrace_landed_rows_total",
    "Rows that came into a lake table since this process began to look; an erasure meanwhile takes from it.",
    *_TABLE,
)
LAKE_ROWS = _gauge("headrace_lake_rows", "Rows of a lake table.", *_TABLE)
LAKE_BYTES = _gauge("headrace_lake_bytes", "Bytes of the newest version's files of a lake table.", *_TABLE)
LAKE_FILES = _gauge("headrace_lake_files", "Files of the newest version of a lake table.", *_TABLE)
LAKE_VERSION = _gauge("headrace_lake_version", "Newest version of a lake table.", *_TABLE)
LAKE_COMMIT = _gauge(
    "headrace_lake_last_commit_timestamp_seconds", "Time of the last commit to a lake table.", *_TABLE
)
LAST_LANDED = _gauge(
    "headrace_last_landed_timestamp_seconds",
    "Time at which anything last landed, good or rejected.",
    "stream",
)
ARRIVED = _gauge(
    "headrace_arrived_rows",
    "Rows that were ingested within a window before now: good, rejected, or rejected and repaired since.",
    "stream", "window", "kind",
)  # fmt: skip

# the warehouse
UNPUBLISHED = _gauge(
    "headrace_unpublished_versions", "Lake versions that are not in the warehouse yet.", "stream"
)
UNPUBLISHED_SINCE = _gauge(
    "headrace_unpublished_since_timestamp_seconds",
    "Time of the first commit with rows that the warehouse lacks.",
    "stream",
)
PUBLISHED_VERSION = _gauge(
    "headrace_published_version", "Last lake version that is wholly in the warehouse; -1 for none.", "stream"
)
WAREHOUSE_ROWS = _gauge("headrace_warehouse_rows", "Rows of a raw table.", "stream", "table")
STALE_DAYS = _gauge("headrace_stale_days", "Days whose models are older than their rows.", "stream")
STALE_SINCE = _gauge(
    "headrace_stale_since_timestamp_seconds",
    "Time since which the oldest stale day waits.",
    "stream",
)
BUILDS = _gauge("headrace_model_builds", "Builds of models that the warehouse has recorded.", "stream")
BUILT_DAYS = _gauge("headrace_built_days", "Days whose models were built at least once.", "stream")
LAST_BUILD = _gauge("headrace_last_build_timestamp_seconds", "Time of the last build of models.", "stream")

# ClickHouse, by its own tables
_CH_TABLE = ("database", "table")
PARTS = _gauge("headrace_clickhouse_parts", "Active parts of a table.", *_CH_TABLE)
PART_BYTES = _gauge("headrace_clickhouse_bytes", "Bytes of a table's active parts on disk.", *_CH_TABLE)
PART_ROWS = _gauge("headrace_clickhouse_rows", "Rows of a table's active parts.", *_CH_TABLE)
PARTITION_PARTS = _gauge(
    "headrace_clickhouse_partition_parts", "Active parts of the partition that has most of them.", *_CH_TABLE
)
RUNNING = _gauge("headrace_clickhouse_running_queries", "Queries that run at the moment.")
QUERIES = _counter("headrace_clickhouse_queries_total", "Queries since the server started, by kind.", "kind")
FAILED_QUERIES = _counter(
    "headrace_clickhouse_failed_queries_total",
    "Queries that failed since the server started, by kind.",
    "kind",
)
ERRORS = _counter("headrace_clickhouse_errors_total", "Errors since the server started, by name.", "error")
UPTIME = _gauge("headrace_clickhouse_uptime_seconds", "Seconds since the server started.")

# Dagster
RUNS = _gauge("headrace_runs", "Runs that Dagster lists, by job and state.", "job_name", "state")
QUEUED_SINCE = _gauge(
    "headrace_runs_oldest_queued_timestamp_seconds",
    "Time at which the oldest queued run was made; absent without one.",
)
HEARTBEAT = _gauge(
    "headrace_daemon_heartbeat_timestamp_seconds", "Time of the last sign of life of a daemon.", "daemon"
)
JOB_FAILURES = _gauge(
    "headrace_job_failures",
    "Failures in a row of a job that sensors launch; absent for one that is well.",
    "job_name",
)
CHECKS = _gauge(
    "headrace_checks", "Asset checks by the outcome of their last evaluation.", "outcome", "severity"
)
CHECK_FAILED = _gauge(
    "headrace_check_failed",
    "1 for a check whose last evaluation failed.",
    "asset",
    "check",
    "severity",
)
CHECK_LATEST = _gauge("headrace_checks_latest_timestamp_seconds", "Time of the last evaluation of any check.")
ALERTS = _gauge("headrace_alerts", "Open alerts.", "severity")

# services and the collector
CIRCUIT_OPEN = _gauge("headrace_circuit_open", "1 while a service is left alone after failures.", "service")
CIRCUIT_FAILURES = _gauge("headrace_circuit_failures", "Failures in a row of a service.", "service")
COLLECTOR_UP = _gauge("headrace_collector_up", "1 if the collector takes events; absent where there is none.")
HELD = _gauge(
    "headrace_collector_held_requests",
    "Acknowledged entries of the collector's log that the lake lacks.",
    "stream",
)
HELD_BYTES = _gauge("headrace_collector_held_bytes", "Bytes of them.", "stream")
HELD_SINCE = _gauge(
    "headrace_collector_held_since_timestamp_seconds",
    "Time of the oldest of them; absent without one.",
    "stream",
)

# what pipelines and settings allow, so that rules need no numbers of their own
LIMIT_LAG = _gauge("headrace_limit_lag_messages", "Messages that may wait in a source of a stream.", "stream")
LIMIT_BEHIND = _gauge(
    "headrace_limit_behind_seconds", "Age after which what waits is late, for a stream.", "stream"
)
LIMIT_REJECTS = _gauge(
    "headrace_limit_reject_ratio",
    "Share of rejected rows above which a stream's check fails.",
    "stream",
    "severity",
)
INFO = _gauge("headrace_info", "Always 1; says the version.", "version")

# the exporter itself
_PART = ("part", "stream", "source")
PART_UP = _gauge(
    "headrace_exporter_part_up",
    "1 if a part was measured within its deadline; 0 leaves its measurements out.",
    *_PART,
)
PART_AGE = _gauge(
    "headrace_exporter_part_age_seconds", "Age of a part's measurements; absent without any.", *_PART
)
PART_SECONDS = _gauge("headrace_exporter_part_seconds", "Seconds that the last look at a part took.", *_PART)
PART_FAILURES = _counter("headrace_exporter_part_failures_total", "Looks at a part that failed.", *_PART)
#: Told by ``beside``, which imports nothing of this.
PAGE_AGE = _gauge("headrace_exporter_page_age_seconds", "Age of this page.")
SERIES_LEFT_OUT = _gauge(
    "headrace_exporter_series_left_out", "Series beyond the bound of their family, which are not told."
)


#: Lines of a scrape by family and series: what is told of each.
Lines = dict[str, dict[str, str]]


def metrics(readings: Iterable[Reading]) -> Iterator[Metric]:
    """Group readings by family; a repeated series keeps its last value."""
    found: dict[Family, dict[tuple[str, ...], Reading]] = {}
    for one in readings:
        found.setdefault(one.family, {})[one.labels] = one
    yield from (family.metric(series.values()) for family, series in found.items())


def lines(readings: Iterable[Reading]) -> Lines:
    """Render readings once, when they are measured: rendering is most of what a scrape would cost."""
    found: Lines = {}
    for metric in metrics(readings):
        text = generate_latest(_Only(metric)).decode()
        told = [line for line in text.splitlines() if line and not line.startswith("#")]
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        found[name] = {line.rpartition(" ")[0]: line for line in told}
    return found


def page(parts: Iterable[Lines]) -> str:
    """Put the lines of all parts together, as one page in Prometheus' text format, with bounds."""
    every, out, left_out = list(parts), [], 0
    for family in FAMILIES:
        told: dict[str, str] = {}
        for one in every:
            told.update(one.get(family.name, {}))
        if not told:
            continue
        left_out += max(0, len(told) - MOST_SERIES)
        out += [f"# HELP {family.name} {family.said}", f"# TYPE {family.name} {family.kind}"]
        out += list(told.values())[:MOST_SERIES]
    for line in lines([SERIES_LEFT_OUT(left_out)])[SERIES_LEFT_OUT.name].values():
        out += [f"# HELP {SERIES_LEFT_OUT.name} {SERIES_LEFT_OUT.said}"]
        out += [f"# TYPE {SERIES_LEFT_OUT.name} {SERIES_LEFT_OUT.kind}", line]
    return "\n".join(out) + "\n"


class _Only(CollectorRegistry):
    """A registry of one metric."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric
