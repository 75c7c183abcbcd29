"""Measure what belongs to no stream: Dagster's runs, daemons and checks, circuits, the collector, ClickHouse itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import version

import urllib3

from headrace import alerts
from headrace.config.settings import Settings
from headrace.core.errors import Retriable
from headrace.core.guard import Guard, circuits
from headrace.health import door
from headrace.health.run_history import pauses
from headrace.health.run_states import run_states
from headrace.health.status import present_checks
from headrace.streams.adapters import warehouse as adapter
from headrace.telemetry import families as f
from headrace.telemetry.families import Reading
from headrace.telemetry.parts import Part
from headrace.warehouse.clickhouse import ClickHouse

#: Failed checks, tables and kinds of errors that are told one by one: the worst of them.
MOST_NAMED = 100
_KINDS = {"Select": "select", "Insert": "insert", "": "all"}
_TABLES = """
    SELECT database, table, sum(parts), sum(bytes), sum(rows), max(parts) FROM
    (
        SELECT database, table, partition_id, count() AS parts, sum(bytes_on_disk) AS bytes, sum(rows) AS rows
        FROM system.parts WHERE active AND database IN {databases:Array(String)}
        GROUP BY database, table, partition_id
    )
    GROUP BY database, table ORDER BY sum(parts) DESC LIMIT {most:UInt32}
"""
_EVENTS = "SELECT event, value FROM system.events WHERE match(event, '^(Failed)?(Select|Insert)?Query$')"
_ERRORS = "SELECT name, value FROM system.errors WHERE value > 0 ORDER BY value DESC LIMIT {most:UInt32}"
_NOW = "SELECT uptime(), (SELECT value FROM system.metrics WHERE metric = 'Query')"


def of_platform(settings: Settings) -> Iterator[Part]:
    """Yield the parts that belong to no stream."""
    yield Part("runs", lambda: list(runs(settings)))
    yield Part("checks", lambda: list(checks(settings)), every=2)
    yield Part("circuits", lambda: list(services(settings)))
    yield Part("collector", lambda: list(collector(settings)))
    server = _Server(settings)
    databases = [settings.raw_database, settings.dbt_schema]
    yield Part("clickhouse", lambda: list(clickhouse(server.client, databases)), every=2, close=server.close)


class _Server:
    """The warehouse, made at the first look: where no setting names one, that part alone is down."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def client(self) -> ClickHouse:
        guard = Guard("warehouse", self._settings.retry_policy.without_retries())
        return adapter(self._settings, guard)

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()


def runs(settings: Settings) -> Iterator[Reading]:
    """Measure runs, jobs and daemons; nothing where Dagster has not run."""
    found = run_states(settings)
    if found is None:
        return
    for (job, state), count in found.runs.items():
        yield f.RUNS(count, job, state.lower())
    if found.queued_since is not None:
        yield f.QUEUED_SINCE(found.queued_since)
    for daemon, beat in found.heartbeats.items():
        yield f.HEARTBEAT(beat, daemon.lower())
    worst: dict[str, int] = {}
    for pause in pauses(settings):
        worst[pause.job] = max(pause.failures, worst.get(pause.job, 0))
    for job, failures in worst.items():
        yield f.JOB_FAILURES(failures, job)


def checks(settings: Settings) -> Iterator[Reading]:
    """Measure asset checks and open alerts."""
    book = alerts.notifier(settings).state()
    open_alerts = Counter(one.severity for one in book.open.values())
    for severity in ("error", "warning"):
        yield f.ALERTS(open_alerts[severity], severity)
    found = present_checks(settings, book)
    if found is None:
        return
    passed = sum(one.passed for one in found)
    failed = sorted((one for one in found if not one.passed), key=lambda one: one.at, reverse=True)
    yield f.CHECKS(passed, "passed", "")
    for severity in ("error", "warning"):
        yield f.CHECKS(sum(one.severity == severity for one in failed), "failed", severity)
    for one in failed[:MOST_NAMED]:
        yield f.CHECK_FAILED(1, one.asset, one.name, one.severity)
    if found:
        yield f.CHECK_LATEST(max(one.at for one in found))


def services(settings: Settings) -> Iterator[Reading]:
    """Measure the circuits of the services that were ever called, and say the version."""
    yield f.INFO(1, version("headrace"))
    for one in circuits(settings.retry_policy):
        yield f.CIRCUIT_OPEN(one.state == "open", one.service)
        yield f.CIRCUIT_FAILURES(one.failures, one.service)


def collector(settings: Settings) -> Iterator[Reading]:
    """Ask the collector whether it takes events; nothing where none is to run, and none runs."""
    found = door.look(settings)
    if found is not None and (found.open or found.expected):
        yield f.COLLECTOR_UP(found.open)


def clickhouse(server: ClickHouse, databases: list[str]) -> Iterator[Reading]:
    """Measure the server that the settings name, by its system tables; of a cluster, that one alone.

    Args:
        server: The warehouse.
        databases: Those whose tables are told.
    """
    [(up, running)] = server.query(_NOW)
    yield f.UPTIME(up)
    yield f.RUNNING(max(0, int(running) - 1))  # this one is a query, too
    for database, table, parts, size, rows, most in server.query(
        _TABLES, databases=databases, most=MOST_NAMED
    ):
        where = str(database), str(table)
        yield f.PARTS(parts, *where)
        yield f.PART_BYTES(size, *where)
        yield f.PART_ROWS(rows, *where)
        yield f.PARTITION_PARTS(most, *where)
    counted = {str(event): int(value) for event, value in server.query(_EVENTS)}
    for word, kind in _KINDS.items():  # an event that never happened has no row
        yield f.QUERIES(counted.get(f"{word}Query", 0), kind)
        yield f.FAILED_QUERIES(counted.get(f"Failed{word}Query", 0), kind)
    for name, value in server.query(_ERRORS, most=MOST_NAMED):
        yield f.ERRORS(value, str(name))


def told_by_collector(settings: Settings, seconds: float) -> bytes:
    """Fetch what the collector itself measures, in Prometheus' text format; empty where none is to run.

    Raises:
        Retriable: It does not answer.
    """
    if not settings.collector_url and not (settings.collector_folder / "log").is_dir():
        return b""
    url = f"{door.address(settings)}/metrics"
    try:
        told = urllib3.request("GET", url, timeout=seconds, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise Retriable(f"the collector does not answer on {url}: {error}") from error
    if told.status != 200:
        raise Retriable(f"the collector answers {told.status} on {url}")
    return bytes(told.data)
