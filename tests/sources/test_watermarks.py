"""Where a topic ends, by a broker that is slow to say it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from builders import event
from conftest import Stack
from headrace.core.batch import Position
from headrace.core.errors import Fatal, Inconclusive
from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka import source as kafka
from headrace.sources.kafka.source import KafkaSource

COUNT = 300


@pytest.fixture
def source(stack: Stack) -> Iterator[KafkaSource]:
    """A partition of 300 messages, most of them in one record batch."""
    name, servers = f"t-{uuid.uuid4().hex}", stack.settings.kafka_bootstrap_servers
    create_topics(servers, {name: 1})
    producer = KafkaProducer(servers, name)
    producer.send([event(event_id=str(n)) for n in range(COUNT)])
    producer.flush()
    producer.close()
    source = KafkaSource(name, servers, group=name)
    yield source
    source.close()


def test_an_end_that_no_response_has_said_is_not_guessed(
    source: KafkaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(cursor, found)] = source.offsets().items()
    assert found == (0, COUNT)
    monkeypatch.setattr(kafka, "_OFFSETS_SECONDS", 0.2)
    monkeypatch.setattr(source._connected(), "highwater", lambda _: None)
    with pytest.raises(Inconclusive, match=r"did not say within 0 s where t-\w+/0 ends"):
        source.offsets()
    monkeypatch.setattr(kafka, "_WATERMARK_SECONDS", 0.2)
    assert 0 <= source.backlog(Position({cursor: 0})).waiting <= COUNT, "what the broker lists, at least"


@pytest.mark.parametrize("said", [True, False])
def test_a_position_beyond_the_end_is_refused_once_the_end_is_known(
    source: KafkaSource, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    [cursor] = source.cursors()
    source.read(Position({cursor: 0}), 10, 5.0)  # the consumer knows an end
    if not said:
        monkeypatch.setattr(KafkaSource, "_watermarks", lambda *_: {})
        assert not len(source.read(Position({cursor: COUNT + 5}), 10, 0.5))
        return
    with pytest.raises(Fatal, match=f"up to offset {COUNT + 5}, but the topic ends at {COUNT}"):
        source.read(Position({cursor: COUNT + 5}), 10, 0.5)
