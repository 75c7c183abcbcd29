"""What happens to topics in the course of time: every broker that can do it must leave nothing out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka import KafkaProducer as Client

from builders import event, eventually
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import Gap, Position
from headrace.core.errors import Fatal, HeadraceError
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest, position_of
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.sources.kafka.source import KafkaSource

from . import servers
from .servers import Broker

servers.asked_for(servers.KAFKA)

PACE = Pace(batch_messages=40, idle_seconds=1.5)
WITHIN = 30.0

Lake = StreamLake[DeltaLakeTable]


@dataclass(frozen=True)
class Topic:
    """A topic that no other test uses, and the client that administers it."""

    name: str
    broker: Broker
    admin: KafkaAdminClient
    source: KafkaSource

    def create(self, partitions: int, configs: Mapping[str, str] | None = None) -> None:
        """Create the topic and wait until it can be written to."""
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
        self.admin.create_topics({self.name: wanted}, wait_for_metadata=True)

    @contextmanager
    def client(self, **options: object) -> Iterator[Client]:
        """kafka-python's own producer."""
        client = Client(bootstrap_servers=self.broker.servers, acks="all", **options)
        try:
            yield client
        finally:
            client.close(timeout=5)

    def send(self, ids: range, partition: int = 0, **options: object) -> None:
        """One good event per id into one partition."""
        with self.client(**options) as client:
            for n in ids:
                client.send(self.name, event(event_id=str(n)), key=b"%d" % n, partition=partition)
            client.flush()

    def at(self, partition: int = 0) -> TopicPartition:
        return TopicPartition(self.name, partition)


@pytest.fixture
def topic(broker: Broker) -> Iterator[Topic]:
    """Not created yet."""
    name = f"t-{uuid.uuid4().hex}"
    admin = KafkaAdminClient(bootstrap_servers=broker.servers)
    source = KafkaSource(name, broker.servers, group=name)
    yield Topic(name, broker, admin, source)
    source.close()
    admin.close()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    root = str(tmp_path / "lake")
    return StreamLake(DeltaLakeTable(root, EVENTS.table), DeltaLakeTable(root, EVENTS.rejected_table))


def drain(source: KafkaSource, lake: Lake) -> Landed:
    """Ingest until idle."""
    return sum(ingest(source, EVENTS, lake, Limits(), PACE), Landed())


def ids(lake: Lake) -> list[int]:
    return sorted(int(n) for n in lake.good.scan().select("event_id").collect().to_series())


def landed_by_cursor(lake: Lake) -> dict[str, int]:
    return dict(lake.good.scan().collect().group_by("_cursor").len().iter_rows())


def is_read_to_the_end(source: KafkaSource, lake: Lake) -> bool:
    """The lake's position is the broker's end offset of every partition, and nothing waits."""
    position = position_of(source, lake)
    ends = {cursor: end for cursor, (_, end) in source.offsets().items()}
    return dict(position) == ends and source.backlog(position).waiting == 0


def test_partitions_of_unequal_length_land_whole(topic: Topic, lake: Lake) -> None:
    topic.create(5)
    sizes = (90, 1, 30, 0, 7)
    for partition, size in enumerate(sizes):
        topic.send(range(partition * 1000, partition * 1000 + size), partition)
    landed = drain(topic.source, lake)
    assert (landed.messages, landed.good, landed.repeated) == (sum(sizes),) * 2 + (0,)
    assert len(set(ids(lake))) == sum(sizes)
    cursors = topic.source.cursors()
    assert landed_by_cursor(lake) == {c: n for c, n in zip(cursors, sizes, strict=True) if n}
    assert topic.source.backlog(position_of(topic.source, lake)).waiting == 0


def test_partitions_that_are_added_are_read_by_the_run_that_goes_on(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("partitions to add")
    topic.create(2)
    topic.send(range(30), 0)
    topic.send(range(30, 60), 1)
    run = ingest(topic.source, EVENTS, lake, Limits(), Pace(batch_messages=40, idle_seconds=3.0))
    first = next(run)
    before = topic.source.cursors()
    topic.admin.create_partitions({topic.name: 4})
    eventually(lambda: len(topic.source.cursors()) == 4, WITHIN, "the two new partitions")
    topic.send(range(60, 80), 2)
    topic.send(range(80, 100), 3)
    landed = sum(run, first)
    assert topic.source.cursors()[:2] == before
    assert ids(lake) == list(range(100))
    assert landed.repeated == 0
    assert is_read_to_the_end(topic.source, lake)


def recreate(topic: Topic, partitions: int) -> None:
    """Delete, wait until the broker has forgotten, create."""
    topic.admin.delete_topics([topic.name])
    eventually(lambda: topic.name not in topic.admin.list_topics(), WITHIN, "the deletion")
    topic.create(partitions)


@pytest.mark.parametrize("after", [5, 60], ids=["shorter than before", "longer than before"])
def test_a_recreated_topic_starts_anew_in_the_run_that_goes_on(topic: Topic, lake: Lake, after: int) -> None:
    topic.create(1)
    topic.send(range(50))
    run = ingest(topic.source, EVENTS, lake, Limits(), Pace(batch_messages=100, idle_seconds=3.0))
    first = next(run)
    [old] = topic.source.cursors()
    assert first.good == 50
    recreate(topic, 1)
    topic.send(range(1000, 1000 + after))
    assert sum(run, first).good == 50 + after
    [new] = topic.source.cursors()
    assert new != old
    assert landed_by_cursor(lake) == {old: 50, new: after}
    assert ids(lake) == [*range(50), *range(1000, 1000 + after)]
    assert is_read_to_the_end(topic.source, lake)


def test_a_recreated_topic_starts_anew_for_the_next_run(topic: Topic, lake: Lake) -> None:
    topic.create(1)
    topic.send(range(50))
    assert drain(topic.source, lake).good == 50
    topic.source.close()
    recreate(topic, 1)
    topic.send(range(1000, 1050))
    assert drain(topic.source, lake).good == 50
    assert ids(lake) == [*range(50), *range(1000, 1050)]


def test_a_read_gives_the_old_cursor_nothing_of_the_new_topic(topic: Topic) -> None:
    """Between ``cursors`` and the end of ``read``: offsets 50 on exist again, and are other messages."""
    topic.create(1)
    topic.send(range(50))
    first = topic.source.read(Position(), 100, 2.0)
    assert len(first) == 50
    recreate(topic, 1)
    topic.send(range(1000, 1100))
    with suppress(HeadraceError):
        assert topic.source.read(first.after, 100, 1.0).records["payload"].to_list() == []


def test_a_deleted_topic_is_an_error_that_names_it(topic: Topic, lake: Lake) -> None:
    topic.create(1)
    topic.send(range(5))
    run = ingest(topic.source, EVENTS, lake, Limits(), PACE)
    assert next(run).good == 5
    topic.admin.delete_topics([topic.name])
    eventually(lambda: topic.name not in topic.admin.list_topics(), WITHIN, "the deletion")
    with pytest.raises(Fatal, match=rf"topic '{topic.name}' does not exist"):
        next(run)


def test_offsets_lost_to_retention_are_reported_with_their_range(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("records to delete")
    topic.create(2)
    for partition in (0, 1):
        topic.send(range(100 * partition, 100 * partition + 10), partition)
    drain(topic.source, lake)
    topic.source.close()  # what it has under way would be delivered, and be no gap
    for partition in (0, 1):
        topic.send(range(100 * partition + 10, 100 * partition + 50), partition)
    topic.admin.delete_records({topic.at(0): 30})
    landed = drain(topic.source, lake)
    assert landed.gaps == (Gap(topic.source.cursors()[0], 10, 30),)
    assert ids(lake) == [*range(10), *range(30, 50), *range(100, 150)]
    assert is_read_to_the_end(topic.source, lake)
    assert drain(topic.source, lake).gaps == ()


def test_offsets_lost_while_they_were_read_ahead_are_delivered_or_reported(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("records to delete")
    topic.create(1)
    topic.send(range(500))
    run = ingest(topic.source, EVENTS, lake, Limits(), Pace(batch_messages=10, idle_seconds=1.5))
    first = next(run)
    topic.admin.delete_records({topic.at(): 300})
    landed = sum(run, first)
    lost = sum(gap.end - gap.first for gap in landed.gaps)
    assert landed.good + lost == 500
    assert len(set(ids(lake))) == len(ids(lake)) == landed.good
    assert is_read_to_the_end(topic.source, lake)


def test_a_log_that_was_emptied_by_retention_is_reported(topic: Topic) -> None:
    topic.broker.needs_kafka("records to delete")
    topic.create(1)
    topic.send(range(20))
    topic.admin.delete_records({topic.at(): 20})
    [cursor] = topic.source.cursors()
    batch = topic.source.read(Position({cursor: 5}), 10, 1.0)
    assert batch.gaps == (Gap(cursor, 5, 20),)
    assert (len(batch), batch.after[cursor]) == (0, 20)


def survivors(topic: Topic) -> list[int]:
    """Offsets that a plain consumer finds in partition 0."""
    consumer = KafkaConsumer(bootstrap_servers=topic.broker.servers, auto_offset_reset="earliest")
    try:
        consumer.assign([topic.at()])
        end = consumer.end_offsets([topic.at()])[topic.at()]
        found: list[int] = []
        while consumer.position(topic.at()) < end:
            found += [r.offset for records in consumer.poll(500).values() for r in records]
        return found
    finally:
        consumer.close()


def test_gaps_of_compaction_are_stepped_over(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("compaction")
    topic.create(
        1,
        {
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.001",
            "max.compaction.lag.ms": "100",
        },
    )
    sent = 0

    def compacted() -> bool:
        """One more message closes the segment before it; all but the last of each key then go."""
        nonlocal sent
        with topic.client() as client:
            for _ in range(30):
                client.send(topic.name, event(event_id=str(sent)), key=b"%d" % (sent % 7), partition=0)
                sent += 1
            client.flush()
        return len(survivors(topic)) < sent - 60

    eventually(compacted, WITHIN, "compaction")
    landed = drain(topic.source, lake)
    left = survivors(topic)
    assert len(left) < sent
    assert set(left) <= set(ids(lake)), "the cleaner may have removed more since, never less"
    assert landed.gaps == ()
    assert landed.good == landed.messages == len(ids(lake)) == len(set(ids(lake))) < sent
    assert is_read_to_the_end(topic.source, lake)


@contextmanager
def transactional(topic: Topic) -> Iterator[Client]:
    with topic.client(transactional_id=topic.name, enable_idempotence=True, max_block_ms=20_000) as client:
        client.init_transactions()
        yield client


def test_transactions_land_if_committed_and_their_markers_never(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("transactions that hold back what is not committed")
    topic.create(2)
    with transactional(topic) as client:
        for start, commits in ((0, True), (100, False), (200, True), (300, False)):
            client.begin_transaction()
            for n in range(start, start + 25):
                client.send(topic.name, event(event_id=str(n)), partition=n % 2)
            client.flush()
            if commits:
                client.commit_transaction()
            else:
                client.abort_transaction()
    assert len(survivors(topic)) == 4 * 13, "a client that does not ask for committed messages sees all"
    landed = drain(topic.source, lake)
    assert ids(lake) == [*range(25), *range(200, 225)]
    assert (landed.messages, landed.rejected, landed.repeated, landed.gaps) == (50, 0, 0, ())
    assert is_read_to_the_end(topic.source, lake), "the last thing in the log is a marker"
    topic.send(range(400, 410))
    assert drain(topic.source, lake).good == 10


def test_an_open_transaction_holds_back_what_follows_and_loses_nothing(topic: Topic, lake: Lake) -> None:
    topic.broker.needs_kafka("transactions that hold back what is not committed")
    topic.create(1)
    topic.send(range(10))
    with transactional(topic) as client:
        client.begin_transaction()
        for n in range(10, 20):
            client.send(topic.name, event(event_id=str(n)), partition=0)
        client.flush()
        topic.send(range(20, 30))
        assert drain(topic.source, lake).good == 10
        assert ids(lake) == [*range(10)]
        assert topic.source.backlog(position_of(topic.source, lake)).waiting > 0
        assert drain(topic.source, lake) == Landed()
        client.commit_transaction()
    assert drain(topic.source, lake).good == 20
    assert ids(lake) == [*range(30)]
    assert is_read_to_the_end(topic.source, lake)


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_reads_alike(topic: Topic, lake: Lake, codec: str | None) -> None:
    topic.create(1)
    topic.send(range(300), compression_type=codec, linger_ms=50)
    batch = topic.source.read(Position(), 1000, 2.0)
    assert batch.records["payload"].to_list() == [event(event_id=str(n)) for n in range(300)]
    assert batch.records["key"].to_list() == [b"%d" % n for n in range(300)]
    assert drain(topic.source, lake).good == 300


def test_a_message_longer_than_a_fetch_does_not_block_its_partition(topic: Topic, lake: Lake) -> None:
    topic.create(1, {"max.message.bytes": "8000000"} if topic.broker.name == "kafka" else None)
    long = event(event_id="1", page_url="https://example.com/" + "x" * 3_000_000)
    with topic.client(max_request_size=8_000_000) as client:
        for payload in (event(event_id="0"), long, event(event_id="2")):
            client.send(topic.name, payload, partition=0)
        client.flush()
    landed = drain(topic.source, lake)
    assert (landed.messages, landed.good + landed.rejected) == (3, 3)
    assert topic.source.backlog(position_of(topic.source, lake)).waiting == 0


def test_lag_is_seen_by_ordinary_tools(topic: Topic, lake: Lake) -> None:
    topic.create(2)
    topic.send(range(60), 0)
    topic.send(range(60, 75), 1)
    first = next(iter(ingest(topic.source, EVENTS, lake, Limits(), PACE)))

    def committed() -> int:
        offsets = topic.admin.list_group_offsets({topic.name: None})[topic.name]
        return sum(offset.offset for offset in offsets.values())

    assert committed() == first.messages, "after one batch of several, some lag is left"
    drain(topic.source, lake)
    offsets = topic.admin.list_group_offsets({topic.name: None})[topic.name]
    assert {at.partition: offset.offset for at, offset in offsets.items()} == {0: 60, 1: 15}
