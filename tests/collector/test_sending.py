"""Killed with -9 on the way from the log into the lake, through a real broker: nothing is lost, nothing doubled."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import polars as pl
import pytest
from kafka import KafkaAdminClient

from collector.sending import stream_of
from conftest import Stack
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.health.audit import audit, skipped
from headrace.local.broker import create_topics
from headrace.streams.stream import Stream

SENDING = Path(__file__).with_name("sending.py")
ROOT = Path(__file__).parents[2]
WITHIN = 120.0


@dataclass
class Run:
    """A collector's log with its topic and lake."""

    home: Path
    servers: str
    topic: str
    stream: Stream
    sent: int = 0
    durable: list[int] = field(default_factory=list)

    def send(self, count: int, window: str = "none", nth: int = 1, *, landing: bool = True) -> int:
        """Run the process until it ends; returns its status. Lands what comes meanwhile."""
        arguments = [str(self.home), self.servers, self.topic, window, str(nth), str(self.sent), str(count)]
        self.sent += count
        process = subprocess.Popen(
            [sys.executable, str(SENDING), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT / 'platform'}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        )
        try:
            deadline = time.monotonic() + WITHIN
            while process.poll() is None:
                assert time.monotonic() < deadline, "the process neither ends nor lands what it has"
                if landing:
                    self.land()
                else:
                    process.wait(WITHIN)
            assert process.stdout is not None
            self.durable += [int(line) for line in process.stdout.read().split() if line.isdigit()]
            return process.returncode
        finally:
            process.kill()
            process.wait()

    def land(self) -> None:
        source = self.stream.source(f"kafka/{self.topic}")
        for _ in ingest(
            source, self.stream.contract, self.stream.lake, self.stream.limits, Pace(idle_seconds=0.2)
        ):
            pass

    def recreate(self) -> None:
        """Have the broker forget everything."""
        admin = KafkaAdminClient(bootstrap_servers=self.servers)
        admin.delete_topics([self.topic])
        admin.close()
        create_topics(self.servers, {self.topic: 3})

    def landed(self) -> Counter[int]:
        good = self.stream.lake.good.scan().select("event_id").collect()["event_id"].to_list()
        payloads = self.stream.lake.rejected.scan().select("payload").collect()["payload"].to_list()
        return Counter([int(i) for i in good] + [int(msgspec.json.decode(p)["event_id"]) for p in payloads])

    def verdict(self) -> list[str]:
        """What is wrong with the lake."""
        found = self.landed()
        audited = audit(self.stream.lake)
        lost = skipped(self.stream.kafka(f"kafka/{self.topic}"), audited.missing, audited.absent)
        return [
            *(f"{n} was durable and is lost" for n in self.durable if not found[n]),
            *(f"{n} landed {times} times" for n, times in sorted(found.items()) if times > 1),
            *(f"{cursor} {ranges} was skipped" for cursor, ranges in lost.ranges.items()),
            *([f"{audited.doubled} rows are doubled"] if audited.doubled else []),
        ]


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Iterator[Run]:
    servers, topic = str(stack.settings.kafka_bootstrap_servers), f"t-{uuid.uuid4().hex}"
    create_topics(servers, {topic: 3})
    stream = stream_of(tmp_path, servers, topic)
    yield Run(tmp_path, servers, topic, stream)
    stream.close()


@pytest.mark.parametrize(
    ("window", "nth"),
    [
        ("before_dispatch", 30),
        ("after_dispatch", 10),
        ("before_look", 2),
        ("before_index_sync", 1),
        ("before_removal", 1),
        ("in_removal", 1),
    ],
)
def test_a_kill_on_the_way_loses_and_doubles_nothing(run: Run, window: str, nth: int) -> None:
    assert run.send(60, window, nth) == -9
    assert run.send(40) == 0
    assert len(run.durable) >= 40
    assert run.verdict() == []
    assert set(run.landed()) >= set(run.durable)
    assert isinstance(run.stream.lake.good.scan(), pl.LazyFrame)


def test_a_broker_that_forgets_what_it_acknowledged_is_sent_it_again(run: Run) -> None:
    assert run.send(60, "after_dispatch", 60, landing=False) == -9
    run.recreate()
    assert run.send(20) == 0
    assert run.verdict() == []


def test_a_collector_that_cuts_at_the_brokers_word_is_found_out(run: Run) -> None:
    """The control: the same verdict finds what it loses."""
    assert run.send(60, "cuts_at_the_broker", landing=False) == 0
    run.recreate()
    run.send(20)
    assert any("is lost" in line for line in run.verdict())
