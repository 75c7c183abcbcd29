"""Topics whose schemas are in a real registry, written by Confluent's own serializers, on every broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Stack
from headrace.contracts import EVENTS
from headrace.core.errors import Retriable
from headrace.local.broker import create_topics
from headrace.local.supervisor import Supervisor
from headrace.pipelines import Kafka, Pipeline
from headrace.streams.stream import Stream
from registered import AT, by_confluent
from registry_double import framed
from streams.test_registry_topics import land, rejected, send

from . import servers

servers.asked_for(servers.REGISTRY)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    service, url = servers.registry_service(
        servers.fetched(servers.REGISTRY), tmp_path_factory.mktemp("registry")
    )
    with Supervisor([service]):
        yield url


def streaming(stack: Stack, topic: str, url: str, folder: Path) -> Stream:
    config = stack.settings.model_copy(
        update={"lake_uri": str(folder / "a lake"), "schema_registry_url": url, "retry_attempts": 1}
    )
    return Stream(
        Pipeline(EVENTS, (Kafka(topic, format="confluent"),), owner="team:a", description=""), config
    )


def test_all_formats_land_and_what_is_unknown_is_rejected(
    stack: Stack, registry: str, tmp_path: Path
) -> None:
    topic = f"registered-{uuid.uuid4().hex[:8]}"
    create_topics(stack.settings.kafka_bootstrap_servers, {topic: 1})
    good = by_confluent(registry, topic)
    unknown = framed(2_000_000_000, b"x")
    send(stack, topic, [*good.values(), unknown])
    away = streaming(stack, topic, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(Retriable, match="does not answer"):
        land(away, topic)
    away.close()
    stream = streaming(stack, topic, registry, tmp_path)
    done = land(stream, topic)
    rows = stream.lake.good.scan().collect()
    assert (done.messages, done.good, done.rejected) == (4, 3, 1), rejected(stream)
    assert sorted(rows["event_id"]) == sorted(good)
    assert rows["occurred_at"].unique().to_list() == [AT]
    assert rows["channel"].unique().to_list() == ["web"]
    assert rejected(stream) == {unknown: ("registry_schema(2000000000)", "")}
    stream.close()
