"""The encoded batches arrive as those of kafka-python's own ``send``, and the count tells the truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer as Client
from kafka.errors import MessageSizeTooLargeError

from headrace.clients import kafka as kafka_access
from headrace.core.errors import BadData, Fatal, Retriable
from headrace.local import broker, processes
from headrace.local.supervisor import Supervisor
from headrace.producers import kafka
from headrace.producers.kafka import KafkaProducer

from .brokers import read_topic

PAYLOADS: list[bytes | None] = [b'{"n":%d}' % n for n in range(500)]
KEYS: list[bytes | None] = [b"session-%d" % (n % 23) for n in range(500)]


def shape(records: list[Any]) -> list[tuple[Any, ...]]:
    return [(r.partition, r.offset, r.key, r.value, r.headers) for r in records]


def test_same_records_as_the_stock_client(bootstrap: str) -> None:
    payloads = [*PAYLOADS, b"x" * 127, b"x" * 3_000_000, b"", None, b"\xff\x00"]
    keys = [*KEYS, b"x" * 64, b"long", b"", b"gone", "ä".encode()]
    broker.create_topics(bootstrap, {"parity-ours": 4, "parity-stock": 4})
    producer = KafkaProducer(bootstrap, "parity-ours")
    producer.send(payloads, keys)
    producer.flush()
    assert producer.acknowledged == len(payloads)
    producer.close()
    stock = Client(bootstrap_servers=bootstrap, max_request_size=10_000_000)
    for payload, key in zip(payloads, keys, strict=True):
        stock.send("parity-stock", payload, key)
    stock.flush()
    stock.close()
    ours = shape(read_topic(bootstrap, "parity-ours", len(payloads)))
    assert ours == shape(read_topic(bootstrap, "parity-stock", len(payloads)))
    assert len(ours) == len(payloads)


def test_order_is_kept_per_key(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap, topic)
    for start in range(0, 500, 50):
        producer.send(PAYLOADS[start : start + 50], KEYS[start : start + 50])
    producer.flush()
    producer.close()
    records = read_topic(bootstrap, topic, 500)
    for key in set(KEYS):
        arrived = [r.value for r in records if r.key == key]
        assert arrived == [p for p, k in zip(PAYLOADS, KEYS, strict=True) if k == key]


def test_batches_that_the_broker_finds_too_large_are_split(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap, topic)
    sender = producer._client._sender
    create, refused = sender._create_produce_requests, []

    def refusing(collated: dict[int, list[Any]]) -> Any:
        for batches in collated.values():
            for batch in [b for b in batches if b.record_count > 40]:
                batches.remove(batch)
                refused.append(batch)
                sender._complete_batch_with_exception(batch, MessageSizeTooLargeError("too large"))
        return create(collated)

    sender._create_produce_requests = refusing
    producer.send(PAYLOADS, KEYS)
    producer.flush()
    assert refused
    assert producer.acknowledged == 500
    producer.close()
    assert sorted(r.value for r in read_topic(bootstrap, topic, 500)) == sorted(filter(None, PAYLOADS))


def test_a_refused_batch_is_not_counted(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap, topic)
    sender = producer._client._sender

    def refusing(collated: dict[int, list[Any]]) -> dict[int, Any]:
        for batch in [b for batches in collated.values() for b in batches]:
            sender._complete_batch_with_exception(batch, MessageSizeTooLargeError("too large"))
        return {}

    sender._create_produce_requests = refusing
    producer.send([b"alone"], [b"k"])
    with pytest.raises(Fatal, match=f"topic '{topic}' refuses the messages: .*too large"):
        producer.flush()
    assert producer.acknowledged == 0
    producer.close()


def test_a_broker_that_ends_is_retriable_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "IN_FLIGHT_BYTES", 10_000)
    port = processes.pick_port(0, avoid={0})
    (tmp_path / "logs").mkdir()
    with Supervisor([broker.broker_service(tmp_path, port, dict(os.environ))]):
        broker.create_topics(f"127.0.0.1:{port}", {"short": 1})
        producer = KafkaProducer(f"127.0.0.1:{port}", "short", timeout=1.0)
        producer.send(PAYLOADS, KEYS)
        producer.flush()

    def send_more() -> None:
        for _ in range(3):  # the second and third wait for room
            producer.send(PAYLOADS, KEYS)
        producer.flush()

    with pytest.raises(Retriable, match="topic 'short' does not answer"):
        send_more()
    assert producer.acknowledged == 500
    producer.close()


def test_messages_without_keys_use_all_partitions(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap, topic)
    for start in range(0, 500, 50):
        producer.send(PAYLOADS[start : start + 50])
    producer.flush()
    producer.close()
    assert {r.partition for r in read_topic(bootstrap, topic, 500)} == {0, 1, 2, 3}


def test_a_missing_topic_is_named_and_not_created(bootstrap: str, topic: str) -> None:
    for _ in range(2):
        with pytest.raises(Fatal) as caught:
            KafkaProducer(bootstrap, topic[:-1])
        assert str(caught.value).startswith(
            f"topic '{topic[:-1]}' does not exist on {bootstrap}; did you mean '{topic}'? "
            "Create it with 'headrace stack create' on the embedded stack, elsewhere with 'kafka-topics.sh"
        )


def test_no_broker_is_retriable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_access, "_CONNECT_MS", 300)
    port = processes.pick_port(0, avoid={0})
    with pytest.raises(Retriable, match=f"no Kafka broker answers on 127.0.0.1:{port}"):
        KafkaProducer(f"127.0.0.1:{port}", "any")


def test_a_message_beyond_the_limit_is_bad_data(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "MAX_MESSAGE_BYTES", 1_000)
    producer = KafkaProducer(bootstrap, topic)
    with pytest.raises(BadData, match="a message of 1,001 bytes is too long"):
        producer.send([b"ok", b"x" * 1_001])
    producer.flush()
    assert producer.acknowledged == 0
    producer.close()


def test_parts_stay_below_the_batch_size() -> None:
    sizes = [100, 899_000, 10, 5_000_000, 1, 1, 300_000, 300_000, 300_000]
    records = [(None, b"x" * size) for size in sizes]
    parts = [list(part) for part in kafka._split(records)]
    assert [record for part in parts for record in part] == records
    assert all(parts)
    assert all(sum(map(kafka._size, part)) <= kafka.BATCH_BYTES for part in parts if len(part) > 1)
    assert [len(part) for part in parts] == [3, 1, 4, 1]


def test_wrong_security_options_are_named_but_not_shown(bootstrap: str) -> None:
    with pytest.raises(Fatal, match="HEADRACE_KAFKA_SECURITY has an unknown option 'sasl_pasword'") as caught:
        KafkaProducer(bootstrap, "any", {"sasl_pasword": "hunter2"})
    assert "hunter2" not in str(caught.value)
