"""Generated histories of events and measurements: late, repeated, out of order, and landing in several waves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import polars as pl

from headrace.contracts.base import Contract
from headrace.contracts.events import CHANNELS, EVENTS
from headrace.contracts.metrics import METRICS

FIRST_DAY = date(2024, 12, 29)  # the days reach over a new year
DAYS = 7
WAVES = 3
#: Of the models, in days: less than there are, so that some repeats count.
REPEAT_DAYS = 2
#: When the first wave lands: days later, as a history does; each further wave a day after the one before.
LANDED_AT = datetime(2025, 1, 20, 23, 59, tzinfo=UTC)
_TYPES = ("page_view", "add_to_cart", "purchase", "signup", "search")
_KINDS = ("counter", "gauge", "histogram")
Row = dict[str, Any]


@dataclass(frozen=True)
class Wave:
    """What lands at one time.

    Attributes:
        events, metrics: Rows in the landed schema.
    """

    events: pl.DataFrame
    metrics: pl.DataFrame

    def days(self) -> set[date]:
        """Days that it touches."""
        return {*self.events["event_date"], *self.metrics["metric_date"]}


def waves(seed: int, histories: int) -> list[Wave]:
    """Independent histories side by side: each has its own sessions, users, pages, series and arrival.

    Args:
        seed: Of everything.
        histories: How many.
    """
    chance = random.Random(seed)
    events: list[list[Row]] = [[] for _ in range(WAVES)]
    metrics: list[list[Row]] = [[] for _ in range(WAVES)]
    for number in range(histories):
        name = f"h{seed}x{number}"
        for rows, made in ((events, _events(name, chance)), (metrics, _metrics(name, chance))):
            for row in _arriving(made, chance):
                rows[row.pop("wave")].append(row)
    found = []
    for number in range(WAVES):
        chance.shuffle(events[number])
        chance.shuffle(metrics[number])
        found.append(Wave(_landed(EVENTS, events[number], number), _landed(METRICS, metrics[number], number)))
    return found


def _moment(chance: random.Random) -> datetime:
    day = FIRST_DAY + timedelta(days=chance.randrange(DAYS))
    second = chance.choice([0, 1, 59, 60, 3_599, 86_399, chance.randrange(86_400)])
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(
        seconds=second, microseconds=chance.choice([0, 0, 1, 999_999])
    )


def _events(name: str, chance: random.Random) -> Iterator[Row]:
    sessions = [f"{name}-s{n}" for n in range(chance.randint(1, 4))]
    users = [None, f"{name}-u", "everybody", f"{name}-ü"]
    at = _moment(chance)
    for n in range(chance.randint(2, 14)):
        # mostly one after the other, now and then from somewhere else in time, sometimes at the same microsecond
        step = chance.choice([0, 1, 30, 1_800, 20_000])
        at = _moment(chance) if chance.random() < 0.3 else at + timedelta(seconds=step)
        if at.date() >= FIRST_DAY + timedelta(days=DAYS):
            at = _moment(chance)
        yield {
            "event_id": f"{name}-{n}",
            "event_type": chance.choice([*_TYPES, f"{name}.click"]),
            "occurred_at": at,
            "session_id": chance.choice(sessions),
            "user_id": chance.choice(users),
            "device_id": chance.choice([None, "d"]),
            "channel": chance.choice(CHANNELS),
            "page_url": chance.choice([None, f"https://x.example/{name}?q=1", f"https://x.example/{name}/b"]),
            "screen_name": chance.choice([None, f"{name}-screen"]),
            "duration_ms": chance.choice([None, 0.0, 2_500.0, chance.uniform(0, 9_000)]),
        }


def _metrics(name: str, chance: random.Random) -> Iterator[Row]:
    kind = chance.choice(_KINDS)
    labels = chance.sample([("host", "a"), ("zone", "x"), ("role", "r")], chance.randint(0, 3))
    for n in range(chance.randint(1, 8)):
        sent = [{"key": k, "value": v} for k, v in chance.sample(labels, len(labels))]
        yield {
            "metric_id": f"{name}-{n}",
            "name": chance.choice([f"{name}.hits", "hits"]),
            "kind": kind,
            "value": chance.choice([0.0, 1e9, chance.uniform(-5, 100), float(n)]),
            "unit": chance.choice([None, "ms"]),
            "source": name,
            "dimensions": sent,
            "occurred_at": _moment(chance),
        }


def _arriving(made: Iterator[Row], chance: random.Random) -> Iterator[Row]:
    """In some wave; one in five also again, in the same wave or another, with other content, some on other days."""
    for row in made:
        yield {**row, "wave": chance.choice([0, 0, *range(WAVES)])}
        while chance.random() < 0.2:
            other: Row = {"value": -1.0} if "metric_id" in row else {"channel": "other", "duration_ms": 1.0}
            moved = timedelta(days=chance.choice([0, 0, *range(-REPEAT_DAYS - 2, REPEAT_DAYS + 3)]))
            at = row["occurred_at"] + moved
            yield {**row, **other, "occurred_at": at, "wave": chance.randrange(WAVES)}
            if chance.random() < 0.5:
                row = {**row, "occurred_at": at}  # a chain: the next repeats this one


def _landed(contract: Contract, rows: list[Row], wave: int) -> pl.DataFrame:
    nothing = dict.fromkeys(contract.landed_schema)
    landed = []
    for n, row in enumerate(rows):
        origin = {
            "_source": "kafka/generated",
            "_cursor": f"kafka/generated/{n % 3}",
            "_offset": 10_000 * wave + n // 3,
            "_index": 0,
            "_ingested_at": LANDED_AT + timedelta(days=wave, milliseconds=700 * (n // 40)),
            "_batch_id": f"wave-{wave}",
        }
        day = {contract.partition: row["occurred_at"].date()}
        copies = 2 if n % 97 == 0 else 1  # of one origin: what is published twice counts once
        landed += copies * [{**nothing, "schema_version": 1, **origin, **day, **row}]
    return pl.DataFrame(landed, schema=contract.landed_schema)


def chunks(days: set[date], reach: tuple[int, int], chance: random.Random) -> list[tuple[date, date]]:
    """The touched days and those that change with them, as ranges cut at random, in any order, some twice."""
    back, ahead = reach
    first, last = min(days) - timedelta(days=back), max(days) + timedelta(days=ahead)
    length = (last - first).days
    cuts = sorted(chance.sample(range(1, length), min(length - 1, chance.randint(1, 2))))
    edges = [0, *cuts, length + 1]
    found = [
        (first + timedelta(days=a - back), first + timedelta(days=b - 1 + ahead)) for a, b in pairwise(edges)
    ]
    found.append(chance.choice(found))
    chance.shuffle(found)
    return found
