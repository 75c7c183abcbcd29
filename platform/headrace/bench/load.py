"""Events to measure with: at a steady rate through Kafka, and history by the million straight into the lake."""

from __future__ import annotations

import threading
import time
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import polars as pl

from headrace.batch import HEADERS, UTC_MICROS
from headrace.contracts import EVENTS
from headrace.errors import Fatal
from headrace.pipelines import Kafka
from headrace.settings import Settings
from headrace.stream import Stream, producer

#: Events of a session, one after the other.
SESSION_EVENTS = 10
_TOPIC = Kafka("analytics_events")
_CHUNKS_PER_SECOND = 10
_TYPES = ("page_view", "click", "page_load", "purchase")
_CHANNELS = ("web", "mobile", "chat")


def send(
    settings: Settings, rate: float, seconds: float, stop: threading.Event | None = None
) -> list[tuple[float, int]]:
    """Send live events of about 400 bytes; returns when how many had been handed over, chunk by chunk.

    Args:
        settings: Where the broker is.
        rate: Events per second.
        seconds: How long.
        stop: Ends it earlier.

    Raises:
        Fatal: The broker did not acknowledge all of them.
    """
    handed: list[tuple[float, int]] = []
    to, stop = producer(settings, _TOPIC), stop or threading.Event()
    began, number = time.monotonic(), 0
    try:
        for chunk in range(int(seconds * _CHUNKS_PER_SECOND)):
            if stop.wait(max(0.0, began + chunk / _CHUNKS_PER_SECOND - time.monotonic())):
                break
            upto = int((chunk + 1) * rate / _CHUNKS_PER_SECOND)
            handed.append((time.monotonic(), upto))
            to.send(*_live(number, upto))
            number = upto
        to.flush()
        if to.acknowledged != number:
            raise Fatal(f"the broker acknowledged {to.acknowledged:,} of {number:,} events")
    finally:
        to.close()
    return handed


def _live(first: int, end: int) -> tuple[list[bytes | None], list[bytes | None]]:
    now = datetime.now(UTC).isoformat()
    payloads: list[bytes | None] = []
    keys: list[bytes | None] = []
    for n in range(first, end):
        visit = n // SESSION_EVENTS
        session = f"session-{visit:012d}"
        keys.append(session.encode())
        payloads.append(
            msgspec.json.encode(
                {
                    "event_id": f"event-{n:016d}",
                    "event_type": "page_view",
                    "occurred_at": now,
                    "session_id": session,
                    "user_id": f"user-{visit % 5_000:08d}",
                    "device_id": f"device-{visit % 9_000:08d}",
                    "channel": _CHANNELS[visit % 3],
                    "page_url": f"https://shop.example/products/{n % 400}?from=bench",
                    "duration_ms": float(n % 2_000),
                    "properties": {
                        "referrer": "https://search.example/",
                        "experiment": "b",
                        "position": n % 40,
                    },
                    "schema_version": 1,
                }
            )
        )
    return payloads, keys


def seed_day(stream: Stream, day: date, events: int) -> None:
    """Land a day of history as one commit: as many events, in sessions of ten, spread over the day."""
    stream.lake.good.open().append(_history(day, events), {f"bench/{day}": events}, f"bench-{day}")


def _history(day: date, events: int) -> pl.DataFrame:
    n = pl.int_range(events, dtype=pl.Int64, eager=True)
    visit = n // SESSION_EVENTS
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    step = 86_400_000_000 // max(1, events)

    def of(texts: tuple[str, ...], by: pl.Series) -> pl.Series:
        return pl.Series(texts)[by % len(texts)]

    values: dict[str, Any] = {
        "event_id": pl.format("{}-{}", pl.lit(day.isoformat()), n),
        "event_type": of(_TYPES, n),
        "occurred_at": (pl.lit(start).dt.epoch("us") + n * step).cast(UTC_MICROS),
        "session_id": pl.format("{}-{}", pl.lit(day.isoformat()), visit),
        "user_id": pl.format("user-{}", visit % 50_000),
        "channel": of(_CHANNELS, visit),
        "page_url": pl.format("https://shop.example/products/{}", n % 400),
        "duration_ms": (n % 2_000).cast(pl.Float64),
        "schema_version": pl.lit(1),
        EVENTS.partition: pl.lit(day),
        "_source": pl.lit("bench"),
        "_cursor": pl.lit(f"bench/{day}"),
        "_offset": n,
        "_index": pl.lit(0),
        "_headers": pl.lit([], dtype=HEADERS),
        "_ingested_at": pl.lit(datetime.now(UTC)),
        "_batch_id": pl.lit(f"bench-{day}"),
    }
    frame = pl.select(n.alias("n")).lazy()
    columns = [
        pl.lit(value).alias(name) if isinstance(value, pl.Series) else value.alias(name)
        for name, value in values.items()
    ]
    rest = [pl.lit(None, dtype).alias(c) for c, dtype in EVENTS.landed_schema.items() if c not in values]
    made = frame.with_columns(*columns, *rest).select(EVENTS.landed_schema.names()).collect()
    return made.cast(EVENTS.landed_schema)  # type: ignore[arg-type]
