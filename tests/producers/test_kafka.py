"""Messages arrive as those of kafka-python's own ``send`` do, and the count tells the truth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka import KafkaProducer as Client
from kafka.admin import NewTopic
from kafka.errors import TopicAuthorizationFailedError

from headrace.clients import kafka as kafka_access
from headrace.clients.kafka import OPTIONS
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


@pytest.mark.parametrize(("limit", "most"), [("5000000", kafka.BATCH_BYTES), ("50000", 45_000)])
def test_a_batch_is_as_large_as_the_topic_takes(
    bootstrap: str, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = f"limited-{limit}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    configs = {"max.message.bytes": limit}
    admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1, topic_configs=configs)])
    admin.close()
    assert kafka._largest_batch(bootstrap, {}, topic) == most

    def refused(*_: Any, **__: Any) -> Any:
        raise TopicAuthorizationFailedError()

    monkeypatch.setattr(KafkaAdminClient, "describe_configs", refused)
    assert kafka._largest_batch(bootstrap, {}, topic) == kafka.BATCH_BYTES, "where it may not ask"


def test_a_refused_message_is_not_counted(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as smaller:
        smaller.setattr(kafka, "MAX_MESSAGE_BYTES", 1_000)
        producer = KafkaProducer(bootstrap, topic)
    with pytest.raises(Fatal, match=f"topic '{topic}' refuses the messages: .*[Mm]essage size too large"):
        producer.send([b"small", b"x" * 2_000], [b"k", b"k"])
    with pytest.raises(Fatal, match="refuses the messages"):
        producer.flush()
    assert producer.acknowledged <= 1
    producer.close()


def test_a_broker_that_ends_is_retriable_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "MAX_MESSAGE_BYTES", 10_000)
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


def test_messages_that_do_not_fit_wait_for_the_broker(
    bootstrap: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "MAX_MESSAGE_BYTES", 10_000)
    monkeypatch.setattr(kafka, "IN_FLIGHT_BYTES", 10_000)
    producer = KafkaProducer(bootstrap, topic)
    producer.send([b"x" * 5_000] * 100, [b"k"] * 100)
    producer.flush()
    assert producer.acknowledged == 100
    producer.close()


def test_partitions_are_those_of_javas_client(bootstrap: str, topic: str) -> None:
    """Values of Kafka's own test of ``Utils.murmur2``
    (https://github.com/apache/kafka/blob/trunk/clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java).
    """
    hashes = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    producer = KafkaProducer(bootstrap, topic)
    producer.send([b"{}"] * len(hashes), list(hashes))
    producer.flush()
    producer.close()
    found = {r.key: r.partition for r in read_topic(bootstrap, topic, len(hashes))}
    assert found == {key: (hashed & 0x7FFFFFFF) % 4 for key, hashed in hashes.items()}


@pytest.mark.parametrize("mechanism", ["AWS_MSK_IAM", "GSSAPI", "OAUTHBEARER"])
def test_a_mechanism_that_only_sources_have_is_named(mechanism: str) -> None:
    with pytest.raises(Fatal, match=f"producers have no sasl_mechanism='{mechanism}'.*PLAIN, SCRAM"):
        kafka._translated_options({"security_protocol": "SASL_SSL", "sasl_mechanism": mechanism})


def test_every_security_option_reaches_librdkafka_or_is_known_not_to() -> None:
    others = {"ssl_check_hostname", "ssl_context", "sasl_oauth_token_provider"}
    others |= {name for name in OPTIONS if name.startswith("sasl_kerberos_")}
    assert set(kafka._SECURITY) | others == set(OPTIONS)
    assert kafka._translated_options({"ssl_check_hostname": False}) == {
        "ssl.endpoint.identification.algorithm": "none"
    }
    assert kafka._translated_options({"ssl_check_hostname": True, "ssl_cafile": "/ca.pem"}) == {
        "ssl.ca.location": "/ca.pem"
    }


def test_wrong_security_options_are_named_but_not_shown(bootstrap: str) -> None:
    with pytest.raises(Fatal, match="HEADRACE_KAFKA_SECURITY has an unknown option 'sasl_pasword'") as caught:
        KafkaProducer(bootstrap, "any", {"sasl_pasword": "hunter2"})
    assert "hunter2" not in str(caught.value)
