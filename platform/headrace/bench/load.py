"""Generate events for benchmarks: at a steady rate through Kafka, or history straight into the lake."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl

from headrace.config.settings import Settings
from headrace.contracts import EVENTS
from headrace.core.batch import HEADERS, UTC_MICROS
from headrace.core.errors import Fatal
from headrace.pipelines import Kafka, Sqs
from headrace.producers import Producer
from headrace.producers.malformed import malformed_events
from headrace.streams.adapters import producer
from headrace.streams.stream import Stream

#: Consecutive events of a session.
SESSION_EVENTS = 10
_TOPIC = Kafka("analytics_events")
_CHUNKS_PER_SECOND = 10
_TYPES = ("page_view", "click", "page_load", "purchase")
_CHANNELS = ("web", "mobile", "chat")
_DURATIONS = 2_000
_SEED_CHUNK = 20_000


def send(
    settings: Settings, rate: float, seconds: float, stop: threading.Event | None = None
) -> list[tuple[float, int]]:
    """Send live events of about 400 bytes.

    Args:
        settings: Address of the broker.
        rate: Events per second.
        seconds: How long to send.
        stop: Ends it earlier.

    Returns:
        For each chunk, the time at which it was sent and the number of events sent with it and before it.

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
            events = live(number, upto, datetime.now(UTC))
            to.send(events["payload"].to_list(), events["key"].to_list())
            number = upto
        to.flush()
        if to.acknowledged != number:
            raise Fatal(f"the broker acknowledged {to.acknowledged:,} of {number:,} events")
    finally:
        to.close()
    return handed


def live(first: int, end: int, now: datetime) -> pl.DataFrame:
    """Make the events numbered from ``first`` to below ``end`` as JSON of 12 fields and about 400 bytes.

    They occurred one microsecond apart, the last of them at ``now``.

    Returns:
        Columns ``payload`` and ``key``, both Binary.
    """
    n = pl.col("n")
    visit = n // SESSION_EVENTS
    at = (pl.lit(now).dt.epoch("us") + n - end).cast(UTC_MICROS).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    session = pl.format("session-{}", _padded(visit, 8))
    fields: dict[str, pl.Expr] = {
        "event_id": pl.format("event-{}", _padded(n, 12)),
        "event_type": pl.lit("page_view"),
        "occurred_at": at,
        "received_at": at,
        "session_id": session,
        "user_id": pl.format("user-{}", _padded(visit % 5_000, 8)),
        "device_id": pl.format("device-{}", _padded(visit % 9_000, 8)),
        "channel": (visit % len(_CHANNELS)).replace_strict(dict(enumerate(_CHANNELS))),
        "page_url": pl.format("https://shop.example/products/{}", n % 400),
        "duration_ms": (n % _DURATIONS).cast(pl.Float64),
        "properties": pl.struct(
            pl.lit("https://search.example/").alias("referrer"), (n % 40).alias("position")
        ),
        "schema_version": pl.lit(1),
    }
    numbers = pl.select(pl.int_range(first, end, dtype=pl.Int64).alias("n")).lazy()
    payload = (
        pl.struct([value.alias(name) for name, value in fields.items()]).struct.json_encode().cast(pl.Binary)
    )
    return numbers.select(payload.alias("payload"), session.cast(pl.Binary).alias("key")).collect()


def _padded(number: pl.Expr, width: int) -> pl.Expr:
    return number.cast(pl.String).str.zfill(width)


@dataclass(frozen=True, slots=True)
class Seeded:
    """Content of a seeded topic or queue, by the broker's acknowledgements and by arithmetic.

    Attributes:
        place: The topic or queue.
        acknowledged: Messages that the broker acknowledged.
        malformed: Messages of which no record may land.
        reasons: Reasons of the malformed messages, by check.
        duration_ms: Sum of ``duration_ms`` over the good messages.
        payload_bytes: Size of all messages.
    """

    place: Kafka | Sqs
    acknowledged: int
    malformed: int
    reasons: Counter[str]
    duration_ms: float
    payload_bytes: int

    @property
    def good(self) -> int:
        """Messages that must land."""
        return self.acknowledged - self.malformed


def seed(to: Producer, place: Kafka | Sqs, events: int, malformed_every: int = 0) -> Seeded:
    """Send live events as fast as the broker accepts them.

    Args:
        to: Producer for ``place``.
        place: An empty topic or queue.
        events: Number of messages.
        malformed_every: One message in so many is malformed, in the middle of them; 0 for none.

    Raises:
        Fatal: The broker did not acknowledge all of them.
    """
    wrong = [
        m for m in malformed_events() if m.payload and m.rejected == 1 and len(m.payload) < 1_000 and m.sqs
    ]
    reasons: Counter[str] = Counter()
    duration, malformed, size = 0.0, 0, 0
    for first in range(0, events, _SEED_CHUNK):
        end = min(events, first + _SEED_CHUNK)
        chunk = live(first, end, datetime.now(UTC))
        payloads: list[bytes | None] = chunk["payload"].to_list()
        durations = np.arange(first, end) % _DURATIONS
        if malformed_every:
            offset = (malformed_every // 2 - first) % malformed_every
            for at in range(offset, end - first, malformed_every):
                bad = wrong[malformed % len(wrong)]
                payloads[at], durations[at] = bad.payload, 0
                reasons.update(check for check, _ in bad.reasons[0])
                malformed += 1
        duration += float(durations.sum())
        size += sum(len(payload or b"") for payload in payloads)
        to.send(payloads, chunk["key"].to_list())
    to.flush()
    if to.acknowledged != events:
        raise Fatal(f"{to.name} acknowledged {to.acknowledged:,} of {events:,} messages")
    return Seeded(place, events, malformed, reasons, duration, size)


def seed_day(stream: Stream, day: date, events: int) -> None:
    """Land a day of history as one commit: events in sessions of ten, spread over the day."""
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
