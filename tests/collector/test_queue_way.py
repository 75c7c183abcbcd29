"""The way from the log through a queue into the lake: everything once, whatever the queue does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event, eventually
from collector.topics import entry
from headrace.collector import queue_way, sender
from headrace.collector.dispatch import Dispatcher
from headrace.collector.ids import Ids
from headrace.collector.log import DurableLog, Entry
from headrace.collector.queue_way import Bundle, Outlet
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Position
from headrace.core.errors import Retriable
from headrace.flow.commit import StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryQueue

WITHIN = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"LOOK_SECONDS": 0.01, "IDLE_SECONDS": 0.02, "QUIET_SECONDS": 0.1}.items():
        monkeypatch.setattr(queue_way, name, seconds)
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sender, "LONGEST_PAUSE", 0.05)


class Crash(Exception):
    """The ingestion dies here."""


class Queue:
    """A queue and a lake in memory, as the far end of a way.

    Attributes:
        away: Whether the queue answers nothing.
        silent: Whether it takes messages and answers with an error.
        losing: Whether it acknowledges messages and keeps none.
        doubling: Whether it keeps each twice.
        sent: Bundles that were sent, with their events.
    """

    records = 1_000

    def __init__(self, longest: int = 200_000) -> None:
        self.longest = longest
        self.queue = MemoryQueue("events")
        self.lake = StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))
        self.away = self.silent = self.losing = self.doubling = False
        self.sent: list[Bundle] = []
        self.lock, self._random = threading.Lock(), Random(1)

    def outlet(self) -> Outlet:
        if self.away:
            raise Retriable("the queue does not answer")
        return self

    def post(self, bundles: Sequence[Bundle]) -> None:
        if self.away:
            raise Retriable("the queue does not answer")
        with self.lock:
            self.sent += bundles
            kept = [] if self.losing else [*bundles] * (2 if self.doubling else 1)
            self._random.shuffle(kept)
            self.queue.publish([one.payload for one in kept], [one.headers for one in kept])
        if self.silent:
            raise Retriable("the queue's answer is lost")

    def look(self, lanes: list[str]) -> Position:
        with self.lock:
            return self.lake.good.open().position(lanes)

    def judged(self, lanes: list[str]) -> Position:
        with self.lock:
            return self.lake.rejected.open().position(lanes)

    def depth(self) -> int:
        with self.lock:
            found = self.queue.backlog(Position())
            return found.waiting + found.in_flight

    def close(self) -> None:
        pass

    def ingest(self, dying: bool = False) -> None:
        """Land what the queue holds; dying, between the two commits."""
        with self.lock:
            self.queue.expire()
            self.lake.good.fail_next_append = Crash() if dying else None
            try:
                for _ in ingest(
                    self.queue, EVENTS, self.lake, Limits(), Pace(batch_messages=7, idle_seconds=0.001)
                ):
                    pass
            except Crash:
                pass
            self.lake.good.fail_next_append = None

    def landed(self) -> list[str]:
        """Names of the entries that landed, rows of both tables, sorted as numbers."""
        good = self.lake.good.rows()["event_id"].to_list()
        bad = self.lake.rejected.rows()["payload"].cast(pl.String).str.extract(r'"odd": "(\d+)"')
        return sorted([*good, *bad.to_list()], key=int)


class Place:
    """A log with index and dispatcher, which can be killed and started again."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        self.folder, self.queue = folder, queue
        self.appended = 0
        self.start()

    def start(self) -> None:
        self.log = DurableLog(self.folder / "log", limit_bytes=1 << 22, segment_bytes=2_048)
        self.ids = Ids(self.folder / "ids", timedelta(days=7))
        self.ids.catch_up(self.log)
        self.dispatcher = Dispatcher(self.log, self.ids, {"events": self.queue})
        self.dispatcher.start()

    def append(self, count: int) -> None:
        for _ in range(count):
            (number,) = self.log.append([entry(str(self.appended))])
            self.ids.add([(number, b"")])
            self.appended += 1

    def stop(self) -> None:
        self.dispatcher.stop()
        self.ids.close()
        self.log.close()

    def all_landed(self) -> bool:
        self.queue.ingest()
        return self.dispatcher.landed >= self.log.next

    def expect_all_once(self) -> None:
        eventually(self.all_landed, WITHIN, "landing")
        assert self.queue.landed() == [str(n) for n in range(self.appended)]

    def all_sent(self) -> bool:
        return all(self.dispatcher.in_topic("events", n) for n in range(self.appended))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path, Queue())
    yield found
    found.stop()


def test_entries_land_once_in_few_messages_and_leave_the_log(place: Place) -> None:
    place.append(300)
    place.expect_all_once()
    assert len(place.queue.sent) < 150, "a message holds many entries"
    eventually(lambda: len(place.log.segments()) == 1, WITHIN, "removal")
    assert place.dispatcher.in_topic("events", 299)
    assert not place.dispatcher.problems


def test_a_lane_has_one_message_on_its_way(place: Place) -> None:
    for _ in range(5):
        place.append(40)
        eventually(lambda: len(place.queue.sent) >= place.log.lanes, WITHIN, "sending")
    assert len(place.queue.sent) == place.log.lanes
    place.expect_all_once()


def test_nothing_leaves_the_log_that_the_lake_does_not_hold_when_the_queue_is_lost(place: Place) -> None:
    place.append(60)
    eventually(lambda: len(place.queue.sent) >= place.log.lanes, WITHIN, "sending")
    place.dispatcher.remove_landed()
    assert place.log.oldest == 0
    with place.queue.lock:
        place.queue.queue.purge()
    place.expect_all_once()
    assert len(place.queue.sent) > place.log.lanes


def test_a_collector_that_cuts_at_the_queues_word_loses_entries(place: Place) -> None:
    """The control: the same verdict finds what such a collector loses."""
    place.append(60)
    eventually(lambda: len(place.queue.sent) >= place.log.lanes, WITHIN, "sending")
    place.stop()
    with place.queue.lock:
        place.queue.queue.purge()
    log = DurableLog(place.folder / "log", limit_bytes=1 << 22, segment_bytes=2_048)
    log.remove(log.next)
    log.close()
    place.start()
    eventually(place.all_landed, WITHIN, "landing of the rest")
    assert place.queue.landed() != [str(n) for n in range(60)]


def test_what_the_queue_acknowledged_and_lost_is_sent_again(place: Place) -> None:
    place.queue.losing = True
    place.append(40)
    eventually(lambda: len(place.queue.sent) >= place.log.lanes, WITHIN, "sending")
    place.queue.losing = False
    place.append(10)
    place.expect_all_once()


def test_what_is_lost_among_others_messages_is_sent_again_after_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's message keeps the queue from being empty."""
    monkeypatch.setattr(queue_way, "AGAIN_SECONDS", 0.3)
    place.stop()
    place.start()
    monkeypatch.setattr(place.queue, "depth", lambda: 1)
    place.queue.losing = True
    place.append(20)
    eventually(lambda: len(place.queue.sent) >= 10, WITHIN, "sending")
    place.queue.losing = False
    place.expect_all_once()


def test_an_answer_that_is_lost_doubles_nothing(place: Place) -> None:
    place.queue.silent = place.queue.doubling = True
    place.append(50)
    eventually(lambda: len(place.queue.sent) > 2 * place.log.lanes, WITHIN, "sending")
    assert "answer is lost" in place.dispatcher.problems[0]
    place.append(50)
    place.queue.ingest()
    place.queue.silent = False
    place.expect_all_once()
    assert not place.dispatcher.problems


def test_an_ingestion_that_died_between_its_commits_doubles_nothing(place: Place) -> None:
    place.append(60)
    eventually(lambda: len(place.queue.sent) >= place.log.lanes, WITHIN, "sending")
    place.queue.ingest(dying=True)
    assert place.queue.lake.rejected.rows().height, "the test wants rejected rows of the dead run"
    place.stop()
    place.queue.queue.purge()  # its messages are gone, and the collector begins anew, with more to send
    place.start()
    place.append(60)
    place.expect_all_once()


def test_bundles_are_as_long_as_the_queue_takes(tmp_path: Path) -> None:
    queue = Queue(longest=1_000)
    place = Place(tmp_path, queue)
    queue.records = 3
    place.append(200)
    place.expect_all_once()
    assert max(len(one.payload) for one in queue.sent) <= 1_000
    assert max(one.payload.count(b'"event_id"') for one in queue.sent) <= 3
    place.log.append([Entry("events", event(event_id="900", properties={"a": "x" * 1_000}))])
    eventually(lambda: bool(place.dispatcher.problems), WITHIN, "a problem")
    assert "more than the queue takes (1,000)" in place.dispatcher.problems[0]
    place.stop()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_happens_on_the_way_everything_lands_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    queue = Queue()
    place = Place(tmp_path_factory.mktemp("place"), queue)
    acts = ["append", "ingest", "restart", "purge", "lose", "keep", "away", "back", "silent", "double", "die"]
    try:
        for act in data.draw(st.lists(st.sampled_from(acts), max_size=14)):
            if act == "append":
                place.append(data.draw(st.integers(1, 30)))
            elif act in ("ingest", "die"):
                queue.ingest(dying=act == "die")
            elif act == "restart":
                place.stop()
                place.start()
            elif act == "purge":
                with queue.lock:
                    queue.queue.purge()
            elif act in ("lose", "keep"):
                queue.losing = act == "lose"
            elif act in ("away", "back"):
                queue.away = act == "away"
            elif act == "silent":
                queue.silent = not queue.silent
            else:
                queue.doubling = not queue.doubling
        queue.losing = queue.away = queue.silent = False
        place.expect_all_once()
    finally:
        place.stop()
