"""The way from the log into the lake: everything once, whatever the topic loses, and removal only of what landed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import eventually
from collector.topics import Topic, entry
from headrace.collector import sender, way
from headrace.collector.dispatch import Dispatcher
from headrace.collector.ids import Ids
from headrace.collector.log import DurableLog, Entry
from headrace.collector.topics import topic_of
from headrace.contracts import EVENTS
from headrace.core.errors import Fatal
from headrace.pipelines import Kafka, Pipeline, Sqs

WITHIN = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {
        "LOOK_SECONDS": 0.01,
        "IDLE_SECONDS": 0.02,
        "QUIET_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(way, name, seconds)
    monkeypatch.setattr(way, "BUCKET", 8)
    monkeypatch.setattr(sender, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sender, "LONGEST_PAUSE", 0.05)


class Place:
    """A log with index and dispatcher, which can be killed and started again."""

    def __init__(self, folder: Path, topic: Topic) -> None:
        self.folder, self.topic = folder, topic
        self.appended = 0
        self.start()

    def start(self, dispatching: bool = True) -> None:
        self.log = DurableLog(self.folder / "log", limit_bytes=1 << 22, segment_bytes=2_048)
        self.ids = Ids(self.folder / "ids", timedelta(days=7))
        self.ids.catch_up(self.log)
        self.dispatcher = Dispatcher(self.log, self.ids, {"events": self.topic})
        if dispatching:
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
        self.topic.ingest()
        return self.dispatcher.landed >= self.log.next

    def expect_all_once(self) -> None:
        eventually(self.all_landed, WITHIN, "landing")
        assert self.topic.landed() == [str(n) for n in range(self.appended)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path, Topic())
    yield found
    found.stop()


def test_entries_land_once_and_leave_the_log(place: Place) -> None:
    place.append(200)
    place.expect_all_once()
    assert place.topic.sent == 200, "nothing was lost, so nothing is sent twice"
    eventually(lambda: len(place.log.segments()) == 1, WITHIN, "removal")
    assert place.dispatcher.in_topic("events", 199)
    assert not place.dispatcher.problems


def test_nothing_leaves_the_log_that_the_lake_does_not_hold(place: Place) -> None:
    """The broker has acknowledged everything, and then forgets it."""
    place.append(100)
    eventually(lambda: place.dispatcher.in_topic("events", 99), WITHIN, "dispatch")
    place.dispatcher.remove_landed()
    assert place.log.oldest == 0
    place.topic.recreate()
    place.expect_all_once()
    assert place.topic.sent > 100


def test_a_collector_that_cuts_at_the_brokers_word_loses_entries(place: Place) -> None:
    """A negative control: the same verdict finds what such a collector loses."""
    place.append(100)
    eventually(lambda: place.dispatcher.in_topic("events", 99), WITHIN, "dispatch")
    place.log.remove(place.log.next)
    place.topic.recreate()
    eventually(place.all_landed, WITHIN, "landing of the rest")
    assert place.topic.landed() != [str(n) for n in range(100)]


def test_what_the_broker_acknowledged_and_lost_is_sent_again(place: Place) -> None:
    place.append(20)
    place.expect_all_once()
    place.topic.losing = True
    place.append(20)
    eventually(lambda: place.dispatcher.in_topic("events", 39), WITHIN, "acknowledgement")
    place.topic.losing = False
    place.append(20)  # these come before those that they follow
    place.expect_all_once()


def test_what_is_lost_at_the_end_is_missed_too(place: Place) -> None:
    place.topic.losing = True
    place.append(20)
    eventually(lambda: place.dispatcher.in_topic("events", 19), WITHIN, "acknowledgement")
    place.topic.losing = False
    place.expect_all_once()


def test_an_outage_keeps_entries_and_is_told(place: Place) -> None:
    place.topic.away = True
    place.append(50)
    eventually(lambda: bool(place.dispatcher.problems), WITHIN, "a problem")
    assert "does not answer" in place.dispatcher.problems[0]
    place.topic.away = False
    place.expect_all_once()
    assert not place.dispatcher.problems


def test_entries_without_an_answer_are_sent_again_after_a_restart(place: Place) -> None:
    place.topic.silent = True
    place.append(30)
    eventually(lambda: place.topic.sent >= 30, WITHIN, "sending")
    assert not place.dispatcher.in_topic("events", 29)
    place.stop()
    place.topic.silent = False
    place.start()
    place.expect_all_once()
    assert place.topic.sent >= 60


def test_entries_of_a_stream_that_is_no_more_stay_and_are_named(place: Place) -> None:
    place.append(30)
    place.log.append([Entry("gone", b"{}")])
    place.appended += 1  # numbers and names stay alike
    for n in range(31, 61):
        place.log.append([entry(str(n))])
    eventually(lambda: place.topic.ingest() or len(place.topic.landed()) == 60, WITHIN, "landing")  # type: ignore[func-returns-value]
    eventually(lambda: bool(place.dispatcher.problems), WITHIN, "a problem")
    assert "stream 'gone' from 30 on" in place.dispatcher.problems[0]
    place.ids.add([(60, b"")])
    place.dispatcher.remove_landed()
    assert next(e.stream for _, e in place.log.read(30)) == "gone"


def test_entries_of_a_stream_that_is_no_more_go_if_they_had_landed(place: Place) -> None:
    """What had not landed when the stream was last seen stays, and is named."""
    former = Topic()
    place.dispatcher.follow("former", former)
    place.log.append([entry(str(n), "former") for n in range(20)])

    def landed() -> bool:
        former.ingest()
        return place.dispatcher.ways["former"].landed >= 20

    eventually(landed, WITHIN, "landing")
    place.log.append([entry("20", "former")])  # comes to the topic, and not into the lake
    place.append(10)
    place.stop()
    place.start()
    eventually(lambda: bool(place.dispatcher.problems), WITHIN, "its name")
    assert "stream 'former' from 20 on" in place.dispatcher.problems[0]
    eventually(lambda: place.all_landed() or place.log.oldest > 0, WITHIN, "removal of what had landed")


def test_a_stream_that_appears_while_it_runs_lands(place: Place) -> None:
    place.append(20)
    orders = Topic()
    place.dispatcher.follow("orders", orders)
    place.log.append([entry(str(n), "orders") for n in range(20)])
    eventually(
        lambda: orders.ingest() or orders.landed() == [str(n) for n in range(20)],  # type: ignore[func-returns-value]
        WITHIN,
        "landing of the new stream",
    )
    place.appended = 20
    place.expect_all_once()
    assert not place.dispatcher.problems


def test_a_stream_that_gets_another_topic_lands_there_from_where_it_was(place: Place) -> None:
    place.append(20)
    place.expect_all_once()
    place.topic.losing = True
    place.append(20)
    eventually(lambda: place.dispatcher.in_topic("events", 39), WITHIN, "acknowledgement")
    other = Topic()
    other.lake = place.topic.lake  # the same lake behind it
    place.dispatcher.follow("events", other)
    place.topic = other
    place.append(20)
    place.expect_all_once()
    eventually(lambda: len(place.log.segments()) == 1, WITHIN, "removal")


def test_a_log_that_is_an_older_copy_is_not_sent(tmp_path: Path) -> None:
    place = Place(tmp_path / "a", Topic())
    place.append(10)
    place.expect_all_once()
    place.stop()
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    place.start()
    place.append(10)
    place.expect_all_once()
    place.stop()
    copy = Place(tmp_path / "copy", place.topic)
    eventually(lambda: bool(copy.dispatcher.problems), WITHIN, "a problem")
    assert "older copy" in copy.dispatcher.problems[0]
    copy.stop()


def test_the_index_is_synced_before_segments_go(place: Place) -> None:
    place.append(100)
    place.expect_all_once()
    eventually(lambda: place.log.oldest > 0, WITHIN, "removal")
    assert place.ids.synced >= place.log.oldest


def test_a_stream_goes_to_its_first_topic_with_json_or_else_to_its_queue() -> None:
    def pipeline(*sources: Kafka | Sqs) -> Pipeline:
        return Pipeline(EVENTS, sources, owner="team:data", description="events")

    assert topic_of(pipeline(Sqs("q"), Kafka("a", format="confluent"), Kafka("b"))) == Kafka("b")
    assert topic_of(pipeline(Kafka("a", format="confluent"), Sqs("q"), Sqs("r"))) == Sqs("q")
    with pytest.raises(Fatal, match="no topic with JSON"):
        topic_of(pipeline(Kafka("a", format="confluent")))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_happens_on_the_way_everything_lands_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    topic = Topic(data.draw(st.integers(1, 4)))
    place = Place(tmp_path_factory.mktemp("place"), topic)
    acts = ["append", "ingest", "restart", "recreate", "lose", "keep", "away", "back", "silent", "remove"]
    try:
        for act in data.draw(st.lists(st.sampled_from(acts), max_size=14)):
            if act == "append":
                place.append(data.draw(st.integers(1, 30)))
            elif act == "ingest":
                topic.ingest()
            elif act == "restart":
                place.stop()
                place.start()
            elif act == "recreate":
                topic.recreate()
            elif act in ("lose", "keep"):
                topic.losing = act == "lose"
            elif act in ("away", "back"):
                topic.away = act == "away"
            elif act == "silent":
                topic.silent = not topic.silent
            else:
                place.dispatcher.remove_landed()
        topic.losing = topic.away = topic.silent = False
        place.stop()
        place.start()
        place.expect_all_once()
    finally:
        place.stop()
