"""Checks beside a writer and publishers that never pause: none is red while data is exact, and every fault is found.

``make busy-hour`` is the long form, with the whole platform and a load beside it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from builders import event, eventually
from busy import faults
from conftest import Stack
from headrace.config.settings import Settings
from headrace.contracts import EVENTS
from headrace.core.batch import Table
from headrace.core.errors import Retriable
from headrace.flow.reads import Pace
from headrace.health import verdicts
from headrace.health.checks import HealthCheck, health_checks
from headrace.health.freshness import freshness
from headrace.health.parity import parity
from headrace.local.broker import create_topics
from headrace.pipelines import Kafka, Pipeline
from headrace.producers.kafka import KafkaProducer
from headrace.streams.drain import drain
from headrace.streams.stream import Stream
from headrace.warehouse import Publication

pytestmark = pytest.mark.timeout(1_800)

ROUNDS = 200
#: Rounds go on no longer than this, s, so that a slow machine ends, too.
SECONDS = 20.0
#: Each round evaluates these,
QUICK = ("every_message_once", "offsets_reconcile", "parity_with_lake")
#: and some of them these, too.
SLOW = ("contract_holds", "lag", "freshness")
_PACE = Pace(batch_messages=200, idle_seconds=60, batch_seconds=0.0, commit_batches=2)
DAYS = [date(2026, 1, 2), date(2026, 1, 3), date(2026, 1, 4)]


@dataclass(frozen=True)
class Traffic:
    """A stream of its own, and who works on it.

    Attributes:
        pipeline: Its declaration.
        settings: Where it is.
        stop: Ends everybody.
        elsewhere: The publisher of another machine holds it while it publishes: rebuilding days is not safe beside it.
    """

    pipeline: Pipeline
    settings: Settings
    stop: threading.Event
    elsewhere: threading.Lock

    def open(self) -> Stream:
        return Stream(self.pipeline, self.settings, retry=False)

    def send(self) -> None:
        """Messages without pause, one in eight of which is rejected."""
        producer = KafkaProducer(self.settings.kafka_bootstrap_servers, self.pipeline.sources[0].name[6:])
        for n in count():
            if self.stop.wait(0.02):
                break
            made = [
                event(event_id=f"{n}-{k}", occurred_at=f"{DAYS[k % 3]}T10:00:00Z")
                if k % 8
                else event(channel="?")
                for k in range(16)
            ]
            producer.send(made, [b"%d" % k for k in range(16)])
            producer.flush()
        producer.close()

    def land(self) -> None:
        """An ingest run after the other, each of which publishes beside landing."""
        stream = self.open()
        while not self.stop.is_set():
            for _ in drain(stream, self.pipeline.sources[0].name, _PACE, stopping=self.stop.is_set):
                pass
        stream.close()

    def publish(self) -> None:
        """A publisher of another machine: it knows no lock of this one."""
        other = self.settings.model_copy(update={"home": self.settings.home / "another machine"})
        stream = Stream(self.pipeline, other, retry=False)
        while not self.stop.is_set():
            with self.elsewhere:
                stream.publish()
            self.stop.wait(0.01)  # a lock is not fair: whoever else wants it must have its turn
        stream.close()


@pytest.fixture
def traffic(stack: Stack, tmp_path: Path) -> Iterator[Traffic]:
    """Somebody who sends, somebody who lands and publishes, and somebody who publishes, until the test ends."""
    topic = f"busy-{uuid.uuid4().hex[:8]}"
    create_topics(stack.settings.kafka_bootstrap_servers, {topic: 2})
    settings = stack.settings.model_copy(
        update={
            "home": tmp_path / "home",
            "lake_uri": str(tmp_path / "a lake"),
            "raw_database": f"raw_{uuid.uuid4().hex[:8]}",
        }
    )
    pipeline = Pipeline(EVENTS, (Kafka(topic),), owner="team:data", description="busy")
    made = Traffic(pipeline, settings, threading.Event(), threading.Lock())
    first = made.open()
    first.prepare()
    for table in (first.lake.good, first.lake.rejected):
        table.open()
    first.close()
    with ExitStack() as ends, ThreadPoolExecutor(3) as threads:
        running = [threads.submit(work) for work in (made.send, made.land, made.publish)]
        ends.callback(made.stop.set)
        yield made
        made.stop.set()
        for one in running:
            one.result(60)


def judges(traffic: Traffic) -> dict[str, HealthCheck]:
    found = health_checks(traffic.pipeline, traffic.settings)
    return {check.name: check for check in found if check.name in (*QUICK, *SLOW)}


def _is_red(check: HealthCheck, stream: Stream) -> bool:
    return not check.measure(stream, None).passed


@pytest.mark.long
def test_no_check_is_red_beside_those_who_never_pause_and_every_fault_is_found(traffic: Traffic) -> None:
    looking, named = traffic.open(), judges(traffic)
    assert set(named) == {*QUICK, *SLOW}
    eventually(lambda: looking.published_version() > 0, 60, "a first publication")
    alarms: list[str] = []
    rounds = moved = 0
    until = time.monotonic() + SECONDS
    while rounds < ROUNDS and time.monotonic() < until:
        days = None if rounds % 2 else DAYS
        before = looking.published_version()
        for name in (*QUICK, *(SLOW if rounds % 20 == 0 else ())):
            found = named[name].measure(looking, days)
            if not found.passed or (name == "parity_with_lake" and found.metadata["inconclusive"]):
                alarms.append(f"round {rounds}: {name}: {found.description}")
        moved += looking.published_version() > before
        rounds += 1
    assert alarms == []
    assert moved > rounds / 4, "somebody published while checks were evaluated, or this shows nothing"
    for fault in faults.FAULTS:
        fault.plant(looking)
        check = named[fault.check]
        eventually(partial(_is_red, check, looking), 240, f"the check for: {fault.name}")
        with traffic.elsewhere:
            fault.mend(looking)
        assert named["parity_with_lake"].measure(looking, None).passed
    looking.close()


def test_a_version_that_stays_half_published_is_red_before_long(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landing goes on, and no publisher gets past a version: parity is of the last whole one, freshness is late."""
    topic = f"busy-{uuid.uuid4().hex[:8]}"
    create_topics(stack.settings.kafka_bootstrap_servers, {topic: 1})
    settings = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    pipeline = Pipeline(EVENTS, (Kafka(topic),), owner="team:data", description="busy")
    stream = Stream(pipeline, settings, retry=False)
    producer = KafkaProducer(settings.kafka_bootstrap_servers, topic)

    def lands(number: int) -> None:
        producer.send([event(event_id=f"{number}-{k}") for k in range(5)])
        producer.flush()
        for _ in drain(stream, f"kafka/{topic}", Pace(idle_seconds=0.5)):
            pass

    lands(1)
    behind = timedelta(minutes=15)
    assert verdicts.freshness(freshness(stream), behind, datetime.now(UTC) + behind).passed

    record = stream.warehouse.record

    def refused(table: Table, publication: Publication, /) -> None:
        if table.name == stream.contract.table.name:
            raise Retriable("the warehouse is overloaded")
        record(table, publication)

    monkeypatch.setattr(stream.warehouse, "record", refused)
    for number in (2, 3):
        with pytest.raises(Retriable):
            lands(number)
    found = parity(stream, within=0)
    assert (dict(found.different), found.inconclusive, found.later) == ({}, "", 5)
    assert verdicts.freshness(freshness(stream), behind, datetime.now(UTC)).passed
    late = verdicts.freshness(freshness(stream), behind, datetime.now(UTC) + behind * 2)
    assert not late.passed
    assert "not published: what landed since" in late.description
    producer.close()
    stream.close()
