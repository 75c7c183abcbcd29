"""Generated raw rows of the last days, of which some came twice."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from headrace.contracts import Contract
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from marts import rows

DAYS = 12
#: Lands after everything else, so that it is the repeat.
LATER = {"_ingested_at": datetime(2100, 1, 1, tzinfo=UTC)}
EVENTS_A_DAY = 250
TYPES = ("page_view", "click", "add_to_cart", "purchase", "signup")


def events(now: datetime, seed: int = 11) -> pl.DataFrame:
    """Visits over the last days up to now: of users who come back, on pages, some timed; one in ten came twice."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    for n in range(DAYS * EVENTS_A_DAY):
        at = now - timedelta(seconds=chance.randrange(1, DAYS * 86_400), microseconds=chance.randrange(10**6))
        visit = chance.randrange(DAYS * 40)
        made.append(
            {
                "event_id": f"e{n}",
                "event_type": chance.choice(TYPES),
                "occurred_at": at,
                "session_id": f"s{visit}-{at.date()}",
                "user_id": chance.choice([None, f"u{visit % 37}"]),
                "channel": chance.choice(["web", "mobile", "chat"]),
                "page_url": chance.choice([None, *(f"https://x.example/{page}?q={n}" for page in "abcd")]),
                "duration_ms": chance.choice([None, 2_500.0, chance.uniform(0, 9_000)]),
            }
        )
    for row in made:
        row["_ingested_at"] = min(now, row["occurred_at"] + timedelta(seconds=chance.choice([0.5, 3, 900])))
    for row in chance.sample(made, len(made) // 10):
        made.append({**row, **LATER, "event_type": "repeated", "channel": "other", "user_id": "again"})
    return rows.frame(EVENTS, made)


def metrics(now: datetime, seed: int = 11) -> pl.DataFrame:
    """Counters, gauges and histograms of two hosts over the last days; one reading in ten came twice."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    for name, kind in (("requests", "counter"), ("heat", "gauge"), ("wait", "histogram")):
        for host in "ab":
            value = 0.0
            times = sorted(chance.randrange(1, DAYS * 86_400) for _ in range(400))
            for place, ago in enumerate(reversed(times)):
                value = (
                    float(chance.randrange(100)) if chance.random() < 0.1 else value + chance.randrange(50)
                )
                made.append(
                    {
                        "metric_id": f"{name}{host}{place}",
                        "name": name,
                        "kind": kind,
                        "value": value,
                        "unit": "ms" if kind == "histogram" else None,
                        "source": "probe" if place % 3 else "other",
                        "dimensions": [{"key": "host", "value": host}],
                        "occurred_at": now - timedelta(seconds=ago),
                    }
                )
    for row in made:
        row["_ingested_at"] = row["occurred_at"] + timedelta(seconds=chance.choice([0.5, 3, 900]))
    for row in chance.sample(made, len(made) // 10):
        made.append({**row, **LATER, "value": -1.0})
    return rows.frame(METRICS, made)


def rejected(contract: Contract, now: datetime) -> pl.DataFrame:
    """Records that the contract refused on the last days, of which some failed two checks."""
    chance = random.Random(contract.name)
    table, made = contract.rejected_table, []
    for n in range(60):
        at = now - timedelta(days=chance.randrange(DAYS), seconds=1)
        checks = chance.sample(["isin", "json", "length"], chance.choice([1, 2]))
        made.append(
            {
                **dict.fromkeys(table.schema),
                "payload": b"{",
                "reasons": [{"check": one, "column": "channel", "value": "mail"} for one in checks],
                "contract": contract.name,
                "contract_version": 1,
                "rejected_date": at.date(),
                "_source": "kafka/analytics_events",
                "_cursor": "kafka/0",
                "_offset": n,
                "_index": 0,
                "_ingested_at": at,
                "_batch_id": "batch",
            }
        )
    return pl.DataFrame(made, schema=table.schema)
