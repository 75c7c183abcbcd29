"""A real broker and a real queue, started when the first test of a process asks for them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from headrace.local import broker, processes, queue
from headrace.local.supervisor import Supervisor


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
