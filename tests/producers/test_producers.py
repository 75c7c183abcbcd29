"""What every producer must do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from headrace.core.errors import Fatal
from headrace.producers.base import MemoryProducer, Producer, keys_of
from headrace.producers.kafka import KafkaProducer

from .brokers import read_queue, read_topic, sqs_producer

Arrived = Callable[[int], list[bytes | None]]


@pytest.fixture(params=["memory", "kafka", "sqs"])
def sending(request: pytest.FixtureRequest) -> Iterator[tuple[Producer, Arrived]]:
    """A producer, and a way to read what arrived."""
    made: tuple[Producer, Arrived]
    match request.param:
        case "memory":
            made = _memory()
        case "kafka":
            made = _kafka(request.getfixturevalue("bootstrap"), request.getfixturevalue("topic"))
        case _:
            made = _sqs(request.getfixturevalue("sqs_url"), request.getfixturevalue("queue_name"))
    yield made
    made[0].close()


def _memory() -> tuple[Producer, Arrived]:
    producer = MemoryProducer()
    return producer, lambda _: [payload for _, payload in producer.messages]


def _kafka(bootstrap: str, topic: str) -> tuple[Producer, Arrived]:
    return KafkaProducer(bootstrap, topic), lambda n: [r.value for r in read_topic(bootstrap, topic, n)]


def _sqs(url: str, queue: str) -> tuple[Producer, Arrived]:
    return sqs_producer(url, queue), lambda n: [body.encode() for body in read_queue(url, queue, n)]


def test_what_is_acknowledged_has_arrived(sending: tuple[Producer, Arrived]) -> None:
    producer, arrived = sending
    payloads = [b'{"n":%d,"text":"\xc3\xa4\n"}' % n for n in range(257)]
    assert producer.acknowledged == 0
    producer.send(payloads[:100], [b"k%d" % (n % 7) for n in range(100)])
    producer.send([])
    producer.send(payloads[100:])
    producer.flush()
    assert producer.acknowledged == 257
    assert Counter(arrived(257)) == Counter(payloads)


def test_keys_must_fit_the_payloads(sending: tuple[Producer, Arrived]) -> None:
    producer, _ = sending
    with pytest.raises(ValueError, match="1 keys for 2 payloads"):
        producer.send([b"a", b"b"], [b"k"])
    producer.flush()
    assert producer.acknowledged == 0


def test_closing_twice_is_a_no_op(sending: tuple[Producer, Arrived]) -> None:
    producer, _ = sending
    producer.close()
    producer.close()


def test_a_full_memory_counts_what_it_took() -> None:
    producer = MemoryProducer(capacity=3)
    with pytest.raises(Fatal, match="takes 3 messages"):
        producer.send([b"1", b"2", b"3", b"4"])
    assert producer.acknowledged == 3


def test_messages_without_keys() -> None:
    assert keys_of([b"a", b"b"], None) == [None, None]
