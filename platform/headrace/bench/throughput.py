"""Measure the events per second of each step and of the whole. Every measured run of the whole is reconciled."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from headrace.bench.load import Seeded, seed
from headrace.bench.measure import Run, Series, in_own_process, interleaved
from headrace.bench.peers import PEERS, RDKAFKA, measure_peer, require
from headrace.bench.tasks import draining, fetching, landing, polling, receiving, stages
from headrace.config.settings import Settings
from headrace.local.broker import create_topics
from headrace.local.platform import backing_services
from headrace.local.queue import create_queues
from headrace.pipelines import Kafka, Sqs
from headrace.producers.kafka import KafkaProducer
from headrace.streams.adapters import producer

PARTITIONS = 4
#: One message in so many is malformed, by the name of the measurement.
MALFORMED = {"delta_malformed_1_in_100000": 100_000, "delta_malformed_1_in_100": 100}
#: Unavoidable steps of each whole.
UNAVOIDABLE = {
    "delta": ("fetch", "parse", "write"),
    "delta_clickhouse": ("fetch", "parse", "write", "insert"),
    "sqs": ("sqs_bare",),
}
#: Descriptions of the measurements, in their order.
NAMES = {
    "fetch": "kafka-python alone, record batches left whole",
    "poll": "kafka-python alone, as everybody uses it",
    "frame": "record batches to columns, in memory",
    "parse": "JSON parser alone (Polars), in memory",
    "check": "decode and check, in memory",
    "write": "Delta writer alone (delta-rs), commits of our size",
    "insert": "ClickHouse insert alone (Arrow), inserts of our size",
    "publish": "publish: lake to ClickHouse",
    "delta": "Kafka to Delta, full checks",
    "delta_clickhouse": "Kafka to Delta and ClickHouse, full checks",
    **{name: f"Kafka to Delta, 1 malformed in {every:,}" for name, every in MALFORMED.items()},
    "sqs_bare": "boto3 alone, receive and delete",
    "sqs": "SQS to Delta and ClickHouse, full checks",
    "rdkafka": RDKAFKA.said,
    **{name: peer.said for name, peer in PEERS.items()},
}


@dataclass(slots=True)
class ThroughputResult:
    """Measurements and their comparison.

    Attributes:
        events: Messages of each topic.
        codec: Codec of their record batches; None for none.
        message_bytes: Mean size of a message.
        series: Repetitions by measurement.
    """

    events: int
    codec: str | None
    message_bytes: float
    series: dict[str, Series] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """Differences found by the reconciliations, a line each."""
        return [
            f"{name}: {line}" for name, one in self.series.items() for run in one.runs for line in run.wrong
        ]

    def limits(self) -> dict[str, tuple[str, float]]:
        """Find each whole's slowest unavoidable step, and the share of that step's rate that the whole reaches."""
        found = {}
        for whole, steps in UNAVOIDABLE.items():
            slowest = min(steps, key=lambda name: self.series[name].rate)
            found[whole] = slowest, self.ratio(whole, slowest)
        return found

    def bounds(self) -> dict[str, tuple[float, float]]:
        """Compute the rate at which each whole's bare drivers in sequence would fill all cores, and the share reached.

        The bound excludes merges of ClickHouse after the last insert, so it is too high for that whole.
        """
        cores = os.cpu_count() or 1
        found = {
            whole: cores / sum(self.series[step].busy for step in UNAVOIDABLE[whole])
            for whole in ("delta", "delta_clickhouse")
        }
        return {whole: (bound, self.series[whole].rate / bound) for whole, bound in found.items()}

    def ratio(self, one: str, to: str) -> float:
        """Return the rate of one measurement divided by that of another."""
        return self.series[one].rate / self.series[to].rate

    def as_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        limits = self.limits().items()
        malformed = MALFORMED.items()
        return {
            "events": self.events,
            "codec": self.codec or "none",
            "message_bytes": round(self.message_bytes),
            "series": {name: self.series[name].as_dict() for name in NAMES if name in self.series},
            "of_slowest_step": {
                whole: {"step": step, "share": round(share, 3)} for whole, (step, share) in limits
            },
            "of_all_cores": {
                whole: {"events_per_second": round(bound), "share": round(share, 3)}
                for whole, (bound, share) in self.bounds().items()
            },
            "to_poll": {
                whole: round(self.ratio(whole, "poll"), 2) for whole in ("delta", "delta_clickhouse")
            },
            "to_clean": {f"1 in {every}": round(self.ratio(name, "delta"), 3) for name, every in malformed},
            "to_peers": {name: round(self.ratio("delta", name), 2) for name in PEERS if name in self.series},
            "wrong": self.wrong,
            "reconciles": not self.wrong,
        }


def throughput(
    home: Path,
    console: Console,
    *,
    events: int,
    messages: int,
    repetitions: int,
    codec: str | None,
    peers: bool,
) -> ThroughputResult:
    """Start broker, queue and warehouse of its own, seed them, measure, and stop them.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: As in ``measure``.
        events: As in ``measure``.
        messages: As in ``measure``.
        repetitions: As in ``measure``.
        codec: As in ``measure``.
        peers: As in ``measure``.

    Raises:
        Fatal: Peers are requested and not installed.
    """
    if peers:
        require()
    with backing_services(home) as (_, settings):
        return measure(
            settings,
            console,
            events=events,
            messages=messages,
            repetitions=repetitions,
            codec=codec,
            peers=peers,
        )


def measure(
    settings: Settings,
    console: Console,
    *,
    events: int,
    messages: int,
    repetitions: int,
    codec: str | None,
    peers: bool = False,
    run: Callable[..., dict[str, Run]] = in_own_process,
) -> ThroughputResult:
    """Seed the services that ``settings`` name, and measure.

    Args:
        settings: Addresses of the services.
        console: Terminal that shows the progress.
        events: Messages of each topic.
        messages: Messages through the queue, each time.
        repetitions: Repetitions of each measurement.
        codec: Codec of the record batches.
        peers: Measure other ways to Delta, too.
        run: Calls a task with its arguments, by default in a process of its own.
    """
    topics: dict[str, Seeded] = {}
    for name, every in {"delta": 0, **MALFORMED}.items():
        with console.status(f"seeding {events:,} events ({NAMES[name]})"):
            topics[name] = seed_topic(settings, events, every, codec)
    clean = topics["delta"]
    queue = Sqs(f"bench_{uuid4().hex[:8]}")
    create_queues(settings.sqs_endpoint_url or "", [queue.queue])

    def queued(task: Callable[..., dict[str, Run]], *arguments: str) -> dict[str, Run]:
        return run(task, settings, seed_queue(settings, queue, messages), *arguments)

    tasks: dict[str, Callable[[], dict[str, Run]]] = {
        "fetch": lambda: run(fetching, settings, clean),
        "poll": lambda: run(polling, settings, clean),
        "stages": lambda: run(stages, settings, clean),
        "delta": lambda: run(landing, settings, clean, "delta"),
        "delta_clickhouse": lambda: run(draining, settings, clean, "delta_clickhouse"),
        **{name: lambda name=name: run(landing, settings, topics[name], name) for name in MALFORMED},  # type: ignore[misc]
        "sqs_bare": lambda: queued(receiving),
        "sqs": lambda: queued(draining, "sqs"),
    }
    if peers:
        for name in ("rdkafka", *PEERS):
            tasks[name] = lambda name=name: run(measure_peer, settings, clean, name)  # type: ignore[misc]
    done = ThroughputResult(events, codec, clean.payload_bytes / clean.acknowledged)
    order = interleaved(repetitions, list(tasks))
    for number, name in enumerate(order, 1):
        with console.status(f"measuring {number} of {len(order)}: {NAMES.get(name, name)}"):
            for measured, found in tasks[name]().items():
                done.series.setdefault(measured, Series()).runs.append(found)
    return done


def seed_topic(settings: Settings, events: int, malformed_every: int, codec: str | None) -> Seeded:
    """Create a topic with live events. ``malformed_every`` is as in ``load.seed``."""
    place = Kafka(f"bench_{uuid4().hex[:8]}")
    create_topics(settings.kafka_bootstrap_servers, {place.topic: PARTITIONS})
    to = KafkaProducer(settings.kafka_bootstrap_servers, place.topic, settings.kafka_security, codec=codec)
    try:
        return seed(to, place, events, malformed_every)
    finally:
        to.close()


def seed_queue(settings: Settings, place: Sqs, messages: int) -> Seeded:
    """Send live events to an empty queue."""
    to = producer(settings, place)
    try:
        return seed(to, place, messages)
    finally:
        to.close()
