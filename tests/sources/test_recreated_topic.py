"""A topic that is deleted and created again is never silently skipped, and never taken for the old one."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from builders import event
from conftest import Stack
from headrace.contracts import EVENTS, Limits
from headrace.core.errors import Retriable
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.buffer import PartitionBuffers
from headrace.sources.kafka.source import KafkaSource

Lake = StreamLake[DeltaLakeTable]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return StreamLake(
        *(DeltaLakeTable(str(tmp_path / "a lake"), t) for t in (EVENTS.table, EVENTS.rejected_table))
    )


@pytest.fixture
def topic(stack: Stack) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex}"
    create_topics(stack.settings.kafka_bootstrap_servers, {name: 1})
    yield name


def send(servers: str, topic: str, *ids: str) -> None:
    producer = KafkaProducer(servers, topic)
    producer.send([event(event_id=i) for i in ids])
    producer.flush()
    producer.close()


def recreate(servers: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.delete_topics([topic])
    admin.close()
    create_topics(servers, {topic: 1})


def drain(servers: str, topic: str, lake: Lake) -> Landed:
    source = KafkaSource(topic, servers, group=topic)
    landed = sum(ingest(source, EVENTS, lake, Limits(), Pace(100, 0.5)), Landed())
    source.close()
    return landed


def test_what_went_with_the_old_one_is_said_until_the_new_one_has_landed(
    stack: Stack, lake: Lake, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    servers = stack.settings.kafka_bootstrap_servers
    send(servers, topic, "a", "b")
    assert drain(servers, topic, lake).gaps == ()
    recreate(servers, topic)
    with caplog.at_level(logging.ERROR, "headrace"):
        [gap] = drain(servers, topic, lake).gaps
    assert (gap.first, gap.end) == (2, None)
    assert "created again" in caplog.text
    send(servers, topic, "c", "d", "e")
    landed = drain(servers, topic, lake)
    assert (landed.good, len(landed.gaps)) == (3, 1)
    assert drain(servers, topic, lake).gaps == ()
    assert sorted(lake.good.scan().collect()["event_id"]) == ["a", "b", "c", "d", "e"]


def test_a_batch_during_which_it_happens_is_thrown_away(
    stack: Stack, lake: Lake, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = stack.settings.kafka_bootstrap_servers
    send(servers, topic, "a", "b")
    fill = PartitionBuffers.fill

    def meanwhile(self: PartitionBuffers, *arguments: Any) -> None:
        fill(self, *arguments)
        monkeypatch.setattr(PartitionBuffers, "fill", fill)
        recreate(servers, topic)
        send(servers, topic, "c")

    monkeypatch.setattr(PartitionBuffers, "fill", meanwhile)
    with pytest.raises(Retriable, match="created again while it was read"):
        drain(servers, topic, lake)
    assert lake.good.counts_by_day() == {}
    drain(servers, topic, lake)
    assert lake.good.scan().collect()["event_id"].to_list() == ["c"]
