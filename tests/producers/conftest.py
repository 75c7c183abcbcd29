"""A real broker and a real queue, started when the first test of a process asks for them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from headrace.batch import RECORD_SCHEMA, Checked, MicroBatch, Position
from headrace.contracts import Contract, Limits, check
from headrace.local import broker, processes, queue
from headrace.local.supervisor import Supervisor

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("broker"), processes.pick_port(0, avoid={0})
    (home / "logs").mkdir()
    with Supervisor([broker.broker_service(home, port, dict(os.environ))]):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def sqs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home, port = tmp_path_factory.mktemp("queue"), processes.pick_port(0, avoid={0})
    (home / "logs").mkdir()
    with Supervisor([queue.queue_service(home, port, dict(os.environ))]):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def topic(bootstrap: str) -> str:
    """A topic of four partitions that no other test uses."""
    name = f"events-{uuid.uuid4().hex}"
    broker.create_topics(bootstrap, {name: 4})
    return name


@pytest.fixture
def queue_name(sqs_url: str) -> str:
    name = f"metrics-{uuid.uuid4().hex}"
    queue.create_queues(sqs_url, [name])
    return name


@pytest.fixture
def judge() -> Callable[..., Checked]:
    """``judge(contract, payloads)``: what the contract makes of messages; offsets are their places."""

    def judged(contract: Contract, payloads: list[bytes | None] | pl.Series, now: datetime = NOW) -> Checked:
        count = len(payloads)
        records = pl.DataFrame(
            {
                "payload": payloads,
                "key": [None] * count,
                "headers": [None] * count,
                "timestamp": [None] * count,
                "cursor": ["test/0"] * count,
                "offset": range(count),
                "message_id": [None] * count,
                "redelivered": [False] * count,
            },
            schema=RECORD_SCHEMA,
        )
        batch = MicroBatch("test", records, Position(), Position({"test/0": count}))
        return check(contract, batch, batch_id="test", now=now, limits=Limits())

    return judged


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """``write(name, content)``: a file."""

    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return written
