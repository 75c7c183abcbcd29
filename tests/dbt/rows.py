"""Generated rows with everything that makes the marts hard, and the marts computed from them in Polars."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from headrace.contracts.base import Contract
from headrace.contracts.events import CHANNELS, EVENTS
from headrace.contracts.metrics import METRICS

FIRST_DAY = date(2024, 2, 26)  # the days reach over a leap day
DAYS = 6
#: Days before the first with one row each: more partitions than ClickHouse takes in an insert by default.
TRICKLE_DAYS = 101
LANDED_AT = datetime(2024, 5, 1, tzinfo=UTC)
ORDER_OF_ARRIVAL = ["_ingested_at", "_cursor", "_offset", "_message_id", "_index"]
CONVERSIONS = ("purchase", "signup", "order")


def days() -> list[date]:
    """The days that hold most rows."""
    return [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]


def midnight(day: date) -> datetime:
    """Start of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def frame(contract: Contract, rows: Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Rows in the landed schema; partition and origin are filled in, in order of arrival."""
    landed = []
    for n, row in enumerate(rows):
        origin: dict[str, Any] = {
            "_source": "kafka/analytics_events",
            "_cursor": f"kafka/{n % 3}",
            "_offset": n // 3,
            "_message_id": None,
            "_index": 0,
            "_ingested_at": LANDED_AT + timedelta(milliseconds=n // 50),
            "_batch_id": f"batch-{n // 50}",
        }
        nothing = dict.fromkeys(contract.landed_schema)
        day = row["occurred_at"].date()
        landed.append({**nothing, **origin, "schema_version": 1, contract.partition: day, **row})
    return pl.DataFrame(landed, schema=contract.landed_schema)


def events(seed: int = 7) -> pl.DataFrame:
    """Sessions of all shapes; one event in eight came twice, in either order, with other content."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []

    def add(session: str, at: datetime) -> None:
        channel = chance.choice(CHANNELS)
        made.append(
            {
                "event_id": f"e{chance.getrandbits(40):010x}",
                "event_type": chance.choice(["page_view", "click", *CONVERSIONS]),
                "occurred_at": at,
                "session_id": session,
                "user_id": chance.choice([None, "ann", "bob", "ünal"]),
                "channel": channel,
                "page_url": chance.choice(
                    [None, "https://x.example/a?q=1", "https://x.example/a", "https://x.example/b#c"]
                ),
                "screen_name": chance.choice([None, "home"]),
                "duration_ms": chance.choice([None, 0.0, 2_500.0, chance.uniform(0, 9_000)]),
            }
        )

    for n in range(60):  # sessions that go on for days, pause for days, or cross a midnight
        active = sorted(chance.sample(range(DAYS), chance.choice([1, 2, 3, DAYS])))
        for day in active:
            for _ in range(chance.randint(1, 4)):
                minute = chance.choice([0, 1, 2, 30, 720, 1_439])
                add(
                    f"s{n}",
                    midnight(days()[day])
                    + timedelta(minutes=minute, microseconds=chance.choice([0, 999_999])),
                )
    for n in range(40):
        late = midnight(chance.choice(days()[1:])) - timedelta(microseconds=1)
        add(f"night{n}", late)
        add(f"night{n}", late + timedelta(microseconds=chance.choice([0, 1, 2])))
    for n in range(1, TRICKLE_DAYS + 1):
        add(f"trickle{n // 2}", midnight(FIRST_DAY - timedelta(days=n + 3)) + timedelta(hours=5))
    for row in chance.sample(made, len(made) // 8):
        made.append(
            {**row, "event_type": "repeated", "user_id": "again", "channel": "other", "duration_ms": 1.0}
        )
    chance.shuffle(made)
    return frame(EVENTS, made)


def metrics(seed: int = 7) -> pl.DataFrame:
    """Counters that start again, gauges and histograms; one measurement in eight came twice."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    series = [
        ("requests", "counter", "1", [("host", "a"), ("zone", "x")]),
        ("requests", "counter", "1", [("host", "b")]),
        ("temperature", "gauge", None, []),
        ("temperature", "gauge", "C", []),
        ("latency", "histogram", "ms", [("host", "a")]),
    ]

    def add(
        name: str, kind: str, unit: str | None, labels: list[tuple[str, str]], at: datetime, value: float
    ) -> None:
        sent = [{"key": k, "value": v} for k, v in chance.sample(labels, len(labels))]  # in any order
        made.append(
            {
                "metric_id": f"m{chance.getrandbits(40):010x}",
                "name": name,
                "kind": kind,
                "value": value,
                "unit": unit,
                "source": "probe",
                "dimensions": sent,
                "occurred_at": at,
            }
        )

    for name, kind, unit, labels in series:
        value = 0.0
        for day in days():
            if chance.random() < 0.2:
                continue  # a silent day: the next reading has no yesterday
            for minute in sorted(chance.choices([0, 1, 2, 600, 601, 1_438, 1_439], k=8)):
                value = (
                    0.1 * chance.randint(0, 9)
                    if chance.random() < 0.2
                    else value + 0.1 * chance.randint(0, 99)
                )
                at = midnight(day) + timedelta(minutes=minute, seconds=chance.choice([0, 0, 59.5]))
                add(name, kind, unit, labels, at, value)
    for n in range(1, TRICKLE_DAYS + 1):
        add("uptime", "counter", "s", [], midnight(FIRST_DAY - timedelta(days=n + 3)), 1_000.0 - n)
    for row in chance.sample(made, len(made) // 8):
        made.append({**row, "value": -1.0})
    chance.shuffle(made)
    return frame(METRICS, made)


def first_of_day(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """The first arrival of each id and day."""
    return rows.sort(ORDER_OF_ARRIVAL, nulls_last=True).unique(
        [contract.partition, contract.key], keep="first", maintain_order=True
    )


def _with_page(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(page=pl.coalesce(pl.col("page_url").str.replace(r"[?#].*$", ""), "screen_name"))


def _windowed(rows: pl.DataFrame, seconds: int) -> pl.DataFrame:
    return rows.with_columns(
        window_start=pl.col("occurred_at").dt.truncate(f"{seconds}s").dt.cast_time_unit("ms"),
        window_seconds=pl.lit(seconds, pl.UInt32),
    )


def event_metrics(raw: pl.DataFrame, seconds: int = 60) -> pl.DataFrame:
    """The mart of this name."""
    keys = ["event_date", "window_start", "window_seconds", "event_type", "channel"]
    return (
        _windowed(first_of_day(raw, EVENTS), seconds)
        .group_by(keys)
        .agg(
            events=pl.len(),
            unique_users=pl.col("user_id").drop_nulls().n_unique(),
            unique_sessions=pl.col("session_id").n_unique(),
        )
    )


def performance_metrics(raw: pl.DataFrame, seconds: int = 60, slow_ms: float = 2_500) -> pl.DataFrame:
    """The mart of this name."""
    took = pl.col("duration_ms")
    rows = _with_page(_windowed(first_of_day(raw, EVENTS), seconds)).filter(took.is_not_null())
    keys = ["event_date", "window_start", "window_seconds", "page", "channel"]
    return (
        rows.with_columns(pl.col("page").fill_null(""))
        .group_by(keys)
        .agg(
            events=pl.len(),
            **{f"p{p}_ms": took.quantile(p / 100, interpolation="linear") for p in (50, 75, 95, 99)},
            max_ms=took.max(),
            slow_ms=pl.lit(float(slow_ms)),
            slow_events=(took > slow_ms).sum(),
            slow_share=(took > slow_ms).mean(),
        )
    )


def session_metrics(raw: pl.DataFrame, lookaround: int = 1) -> pl.DataFrame:
    """The mart of this name, event by event."""
    rows: dict[tuple[date, str], list[dict[str, Any]]] = {}
    start: dict[str, date] = {}
    before: dict[str, date] = {}
    for event in _with_page(first_of_day(raw, EVENTS)).sort("occurred_at", "event_id").iter_rows(named=True):
        session, day = event["session_id"], event["event_date"]
        if session not in before or (day - before[session]).days > lookaround:
            start[session] = day
        before[session] = day
        filed = start[session] if (day - start[session]).days <= lookaround else day
        rows.setdefault((filed, session), []).append(event)
    return pl.DataFrame([_session(*key, its) for key, its in rows.items()])


def _session(day: date, session: str, its: list[dict[str, Any]]) -> dict[str, Any]:
    pages = [e["page"] for e in its if e["page"] is not None]
    users = [e["user_id"] for e in its if e["user_id"] is not None]
    lasted = its[-1]["occurred_at"] - its[0]["occurred_at"]
    return {
        "session_date": day,
        "session_id": session,
        "started_at": its[0]["occurred_at"],
        "ended_at": its[-1]["occurred_at"],
        "duration_seconds": lasted / timedelta(microseconds=1) / 1e6,
        "channel": its[0]["channel"],
        "user_id": users[-1] if users else None,
        "events": len(its),
        "pages": len(set(pages)),
        "entry_page": pages[0] if pages else None,
        "exit_page": pages[-1] if pages else None,
        "is_bounce": len(its) == 1,
        "conversions": sum(e["event_type"] in CONVERSIONS for e in its),
    }


def metric_windows(raw: pl.DataFrame, seconds: int = 60, lookaround: int = 1) -> pl.DataFrame:
    """The mart of this name, reading by reading; dimensions as text."""
    rows: dict[tuple[Any, ...], list[tuple[dict[str, Any], dict[str, Any] | None]]] = {}
    before: dict[tuple[Any, ...], tuple[datetime, dict[str, Any]]] = {}
    ordered = _windowed(first_of_day(raw, METRICS), seconds).sort("occurred_at", "metric_id")
    for reading in ordered.iter_rows(named=True):
        labels = ",".join(sorted(f"{d['key']}={d['value']}" for d in reading["dimensions"]))
        series = (reading["name"], reading["kind"], reading["unit"] or "", reading["source"], labels)
        window, earlier = reading["window_start"], before.get(series)
        far = earlier is not None and (reading["metric_date"] - earlier[1]["metric_date"]).days > lookaround
        rows.setdefault((reading["metric_date"], window, *series), []).append(
            (reading, None if earlier is None or far else earlier[1])
        )
        before[series] = (window, reading)
    return pl.DataFrame(
        [_metric_window(key, its, seconds) for key, its in rows.items()], infer_schema_length=None
    )


def _metric_window(
    key: tuple[Any, ...], its: list[tuple[dict[str, Any], dict[str, Any] | None]], seconds: int
) -> dict[str, Any]:
    day, window, name, kind, unit, source, labels = key
    values = [reading["value"] for reading, _ in its]
    total, increase = 0.0, None
    for value in values:
        total += value
    if kind == "counter":
        for reading, earlier in its:
            if earlier is not None:
                restarted = reading["value"] < earlier["value"]
                step = reading["value"] if restarted else reading["value"] - earlier["value"]
                increase = (increase or 0.0) + step
    since = (its[0][1] or its[0][0])["occurred_at"]
    elapsed = (its[-1][0]["occurred_at"] - since) / timedelta(seconds=1)
    return {
        "metric_date": day,
        "window_start": window,
        "window_seconds": seconds,
        "metric_name": name,
        "kind": kind,
        "unit": unit,
        "source": source,
        "dimensions": labels,
        "measurements": len(values),
        "sum_value": total,
        "min_value": min(values),
        "max_value": max(values),
        "avg_value": total / len(values),
        "last_value": values[-1],
        "increase": increase,
        "rate_per_second": increase / elapsed if increase is not None and elapsed > 0 else None,
    }
