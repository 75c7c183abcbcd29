"""Measure Avro events by a registered schema, Kafka to Delta, beside fastavro message by message on the same way.

Both ways read the same topic with the same decoder and the same check behind them; only what makes JSON of a message
differs. The registry is left out: it is asked once.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import msgspec
import polars as pl
from rich.console import Console

from headrace.bench.load import live
from headrace.bench.measure import Run, Series, Stopwatch, in_own_process, interleaved
from headrace.config.settings import Settings
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Unwrapped
from headrace.core.errors import Fatal
from headrace.core.schemas import Schema
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.formats.registered import Framing
from headrace.lake.delta import DeltaLakeTable
from headrace.local.broker import create_topics
from headrace.local.platform import backing_services
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource

_TIME = {"type": "long", "logicalType": "timestamp-micros"}
#: The events of ``load.live``.
SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "event_type", "type": {"type": "enum", "name": "Type", "symbols": ["page_view", "click"]}},
        {"name": "occurred_at", "type": _TIME},
        {"name": "received_at", "type": ["null", _TIME]},
        {"name": "session_id", "type": "string"},
        {"name": "user_id", "type": ["null", "string"]},
        {"name": "device_id", "type": ["null", "string"]},
        {"name": "channel", "type": "string"},
        {"name": "page_url", "type": ["null", "string"]},
        {"name": "duration_ms", "type": ["null", "double"]},
        {
            "name": "properties",
            "type": {
                "type": "record",
                "name": "Properties",
                "fields": [{"name": "referrer", "type": "string"}, {"name": "position", "type": "long"}],
            },
        },
        {"name": "schema_version", "type": "int"},
    ],
}
#: Descriptions of the measurements, in their order.
NAMES = {
    "compiled": "Avro from Kafka to Delta, full checks",
    "fastavro": "the same with fastavro, message by message",
}
_ID, _PARTITIONS, _CHUNK, _HEADER = 1, 4, 20_000, 5


@dataclass(slots=True)
class RegistryResult:
    """Measurements and their comparison.

    Attributes:
        events: Messages of the topic.
        message_bytes: Mean size of a message.
        series: Repetitions by measurement.
    """

    events: int
    message_bytes: float
    series: dict[str, Series] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """What does not reconcile."""
        return [line for one in self.series.values() for run in one.runs for line in run.wrong]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {
            "events": self.events,
            "message_bytes": round(self.message_bytes),
            "series": {name: self.series[name].as_dict() for name in NAMES},
            "to_fastavro": round(self.series["compiled"].rate / self.series["fastavro"].rate, 2),
            "reconciles": not self.wrong,
        }


def registry(home: Path, console: Console, *, events: int, repetitions: int) -> RegistryResult:
    """Start a broker of its own, send it Avro events, measure both ways, and stop it."""
    with backing_services(home) as (_, settings):
        return measure(settings, console, events=events, repetitions=repetitions)


def measure(
    settings: Settings, console: Console, *, events: int, repetitions: int, run: Any = in_own_process
) -> RegistryResult:
    """Measure on the broker that ``settings`` name; ``run`` calls a task, by default in a process of its own."""
    with console.status(f"seeding {events:,} events"):
        topic, size = seed(settings, events)
    found = RegistryResult(events, size / events)
    for name in interleaved(repetitions, list(NAMES)):
        with console.status(NAMES[name]):
            found.series.setdefault(name, Series()).runs.append(run(landing, settings, topic, events, name))
    return found


def seed(settings: Settings, events: int) -> tuple[str, int]:
    """Send events to a new topic; return its name and the bytes of all messages.

    Raises:
        Fatal: The broker did not acknowledge all of them.
    """
    import fastavro

    topic = f"bench_{uuid4().hex[:8]}"
    create_topics(settings.kafka_bootstrap_servers, {topic: _PARTITIONS})
    schema, size = fastavro.parse_schema(SCHEMA), 0
    producer = KafkaProducer(settings.kafka_bootstrap_servers, topic, settings.kafka_security, codec="lz4")
    try:
        for first in range(0, events, _CHUNK):
            chunk = live(first, min(events, first + _CHUNK), datetime.now(UTC))
            payloads = [_message(payload, schema) for payload in chunk["payload"]]
            size += sum(map(len, payloads))
            producer.send(payloads, chunk["key"].to_list())
        producer.flush()
        if producer.acknowledged != events:
            raise Fatal(f"the broker acknowledged {producer.acknowledged:,} of {events:,} events")
    finally:
        producer.close()
    return topic, size


def _message(payload: bytes, schema: Any) -> bytes:
    import fastavro

    record = json.loads(payload)
    for name in ("occurred_at", "received_at"):
        record[name] = datetime.fromisoformat(record[name])
    out = io.BytesIO(b"\0" + _ID.to_bytes(4, "big"))
    out.seek(_HEADER)
    fastavro.schemaless_writer(out, schema, record)
    return out.getvalue()


class MessageByMessage:
    """Reads messages with fastavro, one at a time: what one would write first."""

    def __init__(self) -> None:
        """Parse the schema."""
        import fastavro

        self._schema, self._read = fastavro.parse_schema(SCHEMA), fastavro.schemaless_reader

    def __call__(self, payloads: pl.Series) -> Unwrapped:
        """Turn messages into JSON texts."""
        encode = msgspec.json.Encoder().encode
        texts = [encode(self._read(io.BytesIO(one[_HEADER:]), self._schema, None)) for one in payloads]
        return Unwrapped(pl.Series(texts, dtype=pl.Binary))


def landing(settings: Settings, topic: str, events: int, name: str) -> Run:
    """Measure Kafka to Delta with full checks; ``compiled`` is Headrace's way, ``fastavro`` the other one."""
    framing = Framing({_ID: Schema("AVRO", json.dumps(SCHEMA))}.get)
    unwrap = framing if name == "compiled" else MessageByMessage()
    if name == "compiled":  # Numba's code, from its cache
        framing(pl.Series([b"\0" + _ID.to_bytes(4, "big")]))
    source = KafkaSource(
        topic, settings.kafka_servers, group=None, security=settings.kafka_security, unwrap=unwrap
    )
    place = settings.home / "bench" / uuid4().hex
    good, rejected = (DeltaLakeTable(str(place), one) for one in (EVENTS.table, EVENTS.rejected_table))
    landed, enough, watch = Landed(), Event(), Stopwatch()
    pace = Pace(settings.batch_messages, commit_batches=settings.commit_batches)
    try:
        for step in ingest(
            source, EVENTS, StreamLake(good, rejected), Limits(), pace, stopping=enough.is_set
        ):
            landed += step
            if landed.messages >= events:
                enough.set()  # instead of waiting for more
        run = watch.read(landed.messages)
        there = good.scan().select(pl.len()).collect().item()
    finally:
        source.close()
        shutil.rmtree(place, ignore_errors=True)
    wrong = () if landed.good == there == events else (f"{name}: {there:,} rows of {events:,} events landed",)
    return Run(run.events, run.seconds, run.cpu_seconds, run.busy_seconds, run.peak_bytes, wrong)
