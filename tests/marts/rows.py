"""Generated rows with everything that makes the marts hard."""

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
