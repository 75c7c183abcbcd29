"""What ``headrace bench queries`` asks about is what it says it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import Stack
from headrace.bench import queries as bench
from headrace.bench.queries import QueryLatency, QueryResult, fill
from headrace.cli import app
from headrace.contracts import EVENTS
from headrace.contracts.check import violations
from headrace.streams.stream import Stream, streams
from headrace.warehouse.server import Server

DAY = date(2025, 3, 1)


@pytest.fixture
def stream(stack: Stack) -> Iterator[Stream]:
    own = stack.settings.model_copy(update={"raw_database": "raw_queries", "dbt_schema": "marts_queries"})
    stream = streams(own)["events"]
    stream.prepare()
    yield stream
    stream.close()
    server = Server(own)
    for database in ("raw_queries", "marts_queries"):
        server.command(f"DROP DATABASE IF EXISTS {database} SYNC")
    server.close()


def test_a_day_is_filled_with_good_events_in_sessions_of_ten_minutes(stream: Stream) -> None:
    fill(stream, DAY, 3_000, 200)
    schema = {c.name: c.dtype for c in EVENTS.columns}
    rows = stream.warehouse.query(f"SELECT {', '.join(schema)} FROM raw_queries.events")
    events = pl.DataFrame(rows, schema=schema, orient="row")
    assert violations(EVENTS, events) == {}
    assert events["event_id"].n_unique() == 3_000
    assert set(events["occurred_at"].dt.date()) == {DAY}
    at = pl.col("occurred_at")
    sessions = events.group_by("session_id").agg(
        pl.len(), (at.max() - at.min()).alias("took"), pl.col("user_id", "channel").n_unique()
    )
    assert sessions["len"].max() == 10
    assert sessions["user_id"].max() == sessions["channel"].max() == 1
    took = sessions["took"].max()
    assert isinstance(took, timedelta) and timedelta(minutes=8) < took < timedelta(minutes=12)


def test_today_ends_now(stream: Stream) -> None:
    now = datetime.now(UTC)
    fill(stream, now.date(), 500, 10)
    [(count, last)] = stream.warehouse.query(
        "SELECT count(), toUnixTimestamp(max(occurred_at)) FROM raw_queries.events"
    )
    assert count == 500
    assert now.timestamp() - 600 < last <= datetime.now(UTC).timestamp()


def test_a_mart_that_lacks_events_is_found(stream: Stream) -> None:
    server = Server(stream.settings)
    server.command("CREATE DATABASE marts_queries")
    fill(stream, DAY, 30, 5)
    for table, day, count in (
        ("events_history", "event_date", "1"),
        ("event_metrics", "event_date", "1 AS events"),
        ("session_metrics", "session_date", "1 AS events"),
    ):
        few = " LIMIT 29" if table == "session_metrics" else ""
        server.command(
            f"CREATE VIEW marts_queries.{table} AS SELECT event_date AS {day}, {count} FROM raw_queries.events{few}"
        )
    server.close()
    assert bench._differences(stream, {DAY: 30}) == [
        "`marts_queries`.session_metrics 2025-03-01: 29 instead of 30"
    ]


def test_days_are_as_large_as_asked() -> None:
    days = [DAY + timedelta(days=n) for n in range(4)]
    assert list(bench._sizes(days, days[2], 1_000, 500).values()) == [167, 167, 500, 166]


def test_latencies_are_told_by_hundredths() -> None:
    asked = bench._asked("?", 3, [float(n) for n in range(101)])
    assert (asked.runs, asked.p50, asked.p95, asked.worst) == (101, 50.0, 95.0, 100.0)


@pytest.mark.parametrize(("wrong", "status"), [((), 0), (("`analytics`.x 2025-03-01: 1 instead of 2",), 1)])
def test_the_command_fails_when_a_mart_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, wrong: tuple[str, ...], status: int
) -> None:
    found = QueryResult(9, 30, 3, (QueryLatency("top pages today", 20, 60, 8.0, 9.5, 12.0),), 3.0, 2.0, 5, ())
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "queries", lambda *_, **__: replace(found, wrong=wrong))
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["bench", "queries", *options])
        assert done.exit_code == status, done.output
        assert all(line in done.output for line in wrong)
    assert json.loads(done.stdout)["answers"][0]["p95"] == 9.5
