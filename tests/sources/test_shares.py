"""A topic's partitions divided among runs, rightly and by mistake."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from builders import event
from conftest import Stack
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Position
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource

COUNT = 600


@pytest.fixture
def topic(stack: Stack) -> Iterator[str]:
    """Five partitions with messages in each."""
    name, servers = f"t-{uuid.uuid4().hex}", stack.settings.kafka_bootstrap_servers
    create_topics(servers, {name: 5})
    producer = KafkaProducer(servers, name)
    producer.send([event(event_id=str(n)) for n in range(COUNT)], [b"%d" % n for n in range(COUNT)])
    producer.flush()
    producer.close()
    yield name


def drain(servers: str, topic: str, folder: Path, share: tuple[int, int]) -> Landed:
    tables = (DeltaLakeTable(str(folder), t) for t in (EVENTS.table, EVENTS.rejected_table))
    source = KafkaSource(topic, servers, group=topic, share=share)
    landed = sum(ingest(source, EVENTS, StreamLake(*tables), Limits(), Pace(50, 1.0)), Landed())
    source.close()
    return landed


@pytest.mark.parametrize("shares", [[(0, 2), (1, 2)], [(0, 1), (0, 1)], [(0, 2), (0, 1)]])
def test_runs_beside_each_other_land_every_message_once(
    stack: Stack, topic: str, tmp_path: Path, shares: list[tuple[int, int]]
) -> None:
    """Divided rightly, both taking everything, and one taking what the other has too."""
    folder, servers = tmp_path / "a lake", stack.settings.kafka_bootstrap_servers
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda share: drain(servers, topic, folder, share), shares))
    rows = DeltaLakeTable(str(folder), EVENTS.table).scan().collect()
    assert sorted(rows["event_id"], key=int) == [str(n) for n in range(COUNT)]
    assert sum(one.good for one in done) == COUNT
    if shares == [(0, 2), (1, 2)]:
        assert all(one.good for one in done)
        assert sum(one.repeated for one in done) == 0
        assert not any(one.gaps for one in done), "the other run's partitions are no lost ones"


def test_the_shares_are_the_topic(stack: Stack, topic: str) -> None:
    servers = stack.settings.kafka_bootstrap_servers
    cursors = [KafkaSource(topic, servers, group=topic, share=(n, 7)).cursors() for n in range(7)]
    assert [len(c) for c in cursors] == [1, 1, 1, 1, 1, 0, 0]
    assert sorted(c for share in cursors for c in share) == sorted(
        KafkaSource(topic, servers, group=topic).cursors()
    )
    idle = KafkaSource(topic, servers, group=topic, share=(6, 7)).read(Position(), 10, 0.1)
    assert (len(idle), idle.after) == (0, Position())
    assert idle.records.select(pl.len()).item() == 0
