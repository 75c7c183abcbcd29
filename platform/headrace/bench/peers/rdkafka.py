"""Measure librdkafka through confluent-kafka: how fast the broker delivers messages, which are discarded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, TopicPartition

from headrace.bench.measure import Run, Stopwatch
from headrace.core.errors import Fatal

_AT_ONCE = 10_000
_WAIT_SECONDS = 5.0


def ingest(servers: str, topic: str, messages: int, folder: Path) -> Run:
    """Consume and write nothing; see ``Peer.module``."""
    watch = Stopwatch()
    count = sum(map(len, consumed(servers, topic, messages)))
    return watch.read(count)


def consumed(servers: str, topic: str, messages: int) -> Iterator[list[Any]]:
    """Consume ``messages`` messages in chunks.

    Raises:
        Fatal: The topic has fewer.
    """
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"bench-{uuid4().hex[:8]}", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=_WAIT_SECONDS).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        count = 0
        while count < messages:
            found = consumer.consume(min(_AT_ONCE, messages - count), _WAIT_SECONDS)
            if not found:
                raise Fatal(f"topic {topic!r} gave {count:,} of {messages:,} messages and then nothing")
            for message in found:
                if message.error() is not None:
                    raise KafkaException(message.error())
            count += len(found)
            yield found
    finally:
        consumer.close()
