"""Keys and headers are kept down to the warehouse; messages in work stay hidden."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import kafka
import pytest

from builders import eventually
from conftest import Stack
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Position
from headrace.flow.commit import StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.publish import publish
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.local.broker import create_topics
from headrace.local.queue import create_queues, sqs_client
from headrace.sources import Source
from headrace.sources.kafka.source import KafkaSource
from headrace.sources.sqs import SqsSource
from headrace.warehouse.clickhouse import ClickHouse

GOOD = (
    b'{"event_id": "%s", "event_type": "view", "occurred_at": "2026-01-02T12:00:00Z",'
    b' "session_id": "s", "channel": "web"}'
)


def lake(folder: Path) -> StreamLake[DeltaLakeTable]:
    tables = EVENTS.table, EVENTS.rejected_table
    return StreamLake(*(DeltaLakeTable(str(folder / "a lake"), table) for table in tables))


def land(source: Source, into: StreamLake[DeltaLakeTable]) -> None:
    for _ in ingest(source, EVENTS, into, Limits(), Pace(100, 0.5)):
        pass
    source.close()


def origins(into: StreamLake[DeltaLakeTable]) -> dict[object, object]:
    good = into.good.scan().select("event_id", "_key", "_headers").collect()
    [(key, headers)] = into.rejected.scan().select("_key", "_headers").collect().iter_rows()
    found = {event: (key, pairs) for event, key, pairs in good.iter_rows()}
    return {**found, "rejected": (key, headers)}


def test_kafka_keys_and_headers_are_kept(stack: Stack, tmp_path: Path) -> None:
    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 1})
    producer = kafka.KafkaProducer(bootstrap_servers=servers)
    trace = [("trace", b"\xff1"), ("trace", b"2")]
    producer.send(name, GOOD % b"with", key=b"k\xff", headers=trace)
    producer.send(name, GOOD % b"without")
    producer.send(name, b"bad", key=b"b", headers=[("h", b"")])
    producer.flush()
    producer.close()
    into = lake(tmp_path)
    land(KafkaSource(name, servers, group=name), into)
    pairs = [{"key": "trace", "value": b"\xff1"}, {"key": "trace", "value": b"2"}]
    assert origins(into) == {
        "with": (b"k\xff", pairs),
        "without": (None, []),
        "rejected": (b"b", [{"key": "h", "value": b""}]),
    }
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex}"})
    warehouse = ClickHouse(config)
    publish(into.good, warehouse)
    publish(into.rejected, warehouse)
    values = "arrayMap(v -> hex(v), _headers.value)"
    query = f"SELECT event_id, hex(_key), {values}, _headers.key FROM {{db:Identifier}}.events"
    found = {row[0]: row[1:] for row in warehouse.query(query, db=config.raw_database)}
    assert found == {"with": ("6BFF", ["FF31", "32"], ["trace", "trace"]), "without": (None, [], [])}
    warehouse.close()


@pytest.fixture
def queue(stack: Stack) -> Iterator[tuple[str, object]]:
    assert stack.settings.sqs_endpoint_url
    name = f"t-{uuid.uuid4().hex}"
    create_queues(stack.settings.sqs_endpoint_url, [name])
    yield name, sqs_client(stack.settings.sqs_endpoint_url)


def test_sqs_attributes_are_kept_as_headers(queue: tuple[str, object], tmp_path: Path) -> None:
    name, client = queue
    url = client.get_queue_url(QueueName=name)["QueueUrl"]  # type: ignore[attr-defined]
    attributes = {
        "trace": {"DataType": "String", "StringValue": "é"},
        "n": {"DataType": "Number", "StringValue": "7"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\xff"},
    }
    for body, more in ((GOOD % b"with", attributes), (GOOD % b"without", {}), (b"bad", {})):
        client.send_message(QueueUrl=url, MessageBody=body.decode(), MessageAttributes=more)  # type: ignore[attr-defined]
    into = lake(tmp_path)
    land(SqsSource(name, client, receivers=2), into)
    pairs = [
        {"key": "n", "value": b"7"},
        {"key": "raw", "value": b"\xff"},
        {"key": "trace", "value": "é".encode()},
    ]
    assert origins(into) == {"with": (None, pairs), "without": (None, []), "rejected": (None, [])}


@pytest.mark.long
@pytest.mark.parametrize("kept", [True, False])
def test_messages_in_work_stay_hidden(
    queue: tuple[str, object], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the thread that extends their visibility, another receiver gets them: the negative control."""
    name, client = queue
    if not kept:
        monkeypatch.setattr(SqsSource, "_keep", lambda self: None)
    url = client.get_queue_url(QueueName=name)["QueueUrl"]  # type: ignore[attr-defined]
    client.send_message(QueueUrl=url, MessageBody="{}")  # type: ignore[attr-defined]
    holder = SqsSource(name, client, receivers=1, visibility_seconds=2)
    other = SqsSource(name, client, receivers=1)
    batch = holder.read(Position(), 10, 1)
    assert len(batch) == 1
    taken = [len(other.read(Position(), 10, 1)) for _ in range(5)]  # long polls: five seconds in all
    assert sum(taken) == (0 if kept else 1)
    holder.close()
    if kept:
        eventually(lambda: len(other.read(Position(), 10, 1)) == 1, 10, "the message, once handed back,")
    other.close()
