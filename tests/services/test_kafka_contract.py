"""The source suite on every broker, in the same words."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource
from sources import test_sources
from sources.test_sources import Case

from . import servers
from .servers import Broker
from .suites import suite

servers.asked_for(servers.KAFKA)

globals().update(suite(test_sources, "case", "stack"))
del globals()["test_a_missing_queue_names_the_nearest_one"]


@pytest.fixture
def case(broker: Broker) -> Iterator[Case]:
    """A topic of three partitions."""
    name = f"t-{uuid.uuid4().hex}"
    create_topics(broker.servers, {name: 3})
    producer = KafkaProducer(broker.servers, name)
    opened = []

    def source() -> KafkaSource:
        opened.append(KafkaSource(name, broker.servers, group=name))
        return opened[-1]

    def publish(payloads: list[bytes]) -> None:
        producer.send(payloads, [b"%d" % n for n in range(len(payloads))])
        producer.flush()

    yield Case(source(), publish, source, ordered=True)
    producer.close()
    for each in opened:
        each.close()
