"""Killed with -9 on the way from the log into the lake, through a real queue: nothing is lost, nothing doubled."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.sending import stream_of
from collector.test_sending import Run as TopicRun
from conftest import Stack
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.health.audit import audit
from headrace.local.queue import create_queues, sqs_client


class Run(TopicRun):
    """A collector's log with its queue and lake."""

    def land(self) -> None:
        source = self.stream.source(f"sqs/{self.topic}")
        pace = Pace(idle_seconds=0.2)
        for _ in ingest(source, self.stream.contract, self.stream.lake, self.stream.limits, pace):
            pass

    def recreate(self) -> None:
        """Lose the queue with all that it holds."""
        client = sqs_client(self.servers)
        client.delete_queue(QueueUrl=client.get_queue_url(QueueName=self.topic)["QueueUrl"])
        client.close()
        create_queues(self.servers, [self.topic])

    def verdict(self) -> list[str]:
        found = self.landed()
        return [
            *(f"{n} was durable and is lost" for n in self.durable if not found[n]),
            *(f"{n} landed {times} times" for n, times in sorted(found.items()) if times > 1),
            *(["rows are doubled"] if audit(self.stream.lake).doubled else []),
        ]


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Iterator[Run]:
    url, queue = str(stack.settings.sqs_endpoint_url), f"q-{uuid.uuid4().hex}"
    create_queues(url, [queue])
    stream = stream_of(tmp_path, url, queue)
    yield Run(tmp_path, url, queue, stream)
    stream.close()


@pytest.mark.long
@pytest.mark.parametrize(
    ("window", "nth"),
    [("before_post", 2), ("after_post", 2), ("before_note", 2), ("before_removal", 1), ("in_removal", 1)],
)
def test_a_kill_on_the_way_loses_and_doubles_nothing(run: Run, window: str, nth: int) -> None:
    assert run.send(60, window, nth) == -9
    assert run.send(40) == 0
    assert len(run.durable) >= 40
    assert run.verdict() == []
    assert set(run.landed()) >= set(run.durable)


def test_a_queue_that_is_lost_is_sent_everything_again(run: Run) -> None:
    assert run.send(60, "after_post", 2, landing=False) == -9
    run.recreate()
    assert run.send(20) == 0
    assert run.verdict() == []


def test_a_collector_that_cuts_at_the_queues_word_is_found_out(run: Run) -> None:
    """The control: the same verdict finds what it loses."""
    assert run.send(60, "cuts_at_the_queue", landing=False) == 0
    run.recreate()
    run.send(20)
    assert any("is lost" in line for line in run.verdict())
