"""One suite for every source: what must hold for the lake to make of it exactly once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from builders import event
from conftest import Stack
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import RECORD_SCHEMA, MicroBatch, Position
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.formats import FileReader
from headrace.lake.delta import DeltaLakeTable
from headrace.local.broker import create_topics
from headrace.local.queue import create_queues, sqs_client
from headrace.producers.kafka import KafkaProducer
from headrace.producers.sqs import SqsProducer
from headrace.sources import Source
from headrace.sources.files.archive import Archive
from headrace.sources.files.source import FilesSource
from headrace.sources.guarded import GuardedSource
from headrace.sources.kafka.source import KafkaSource
from headrace.sources.memory import MemoryLog, MemoryQueue
from headrace.sources.sqs import SqsSource

WAIT = 1.0


@dataclass(frozen=True)
class Case:
    """A source, a way to fill it, and a second client of the same topic or queue."""

    source: Source
    publish: Callable[[list[bytes]], None]
    again: Callable[[], Source]
    ordered: bool


def file_case(archive: Archive, write: Callable[[str, bytes], None], index: Path) -> Case:
    """A folder of the archive; every message is a file, because a file is counted when it has been looked through."""
    numbers = count()

    def publish(payloads: list[bytes]) -> None:
        for payload in payloads:
            write(f"events/{next(numbers):05}.ndjson", payload)

    def source() -> FilesSource:
        return FilesSource("events", archive, FileReader(EVENTS), index, quiet_seconds=0)

    return Case(source(), publish, source, True)


def write_below(root: Path) -> Callable[[str, bytes], None]:
    """``write(name, content)``: files of a local archive."""

    def write(name: str, content: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


@pytest.fixture(params=["kafka", "sqs", "files", "memory log", "memory queue"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    name = f"t-{uuid.uuid4().hex}"
    if request.param == "files":
        root = tmp_path / "an archive"
        yield file_case(Archive(str(root)), write_below(root), tmp_path / "index.json")
        return
    if request.param == "memory log":
        log = MemoryLog(name)
        yield Case(log, log.publish, lambda: log, True)
        return
    if request.param == "memory queue":
        queue = MemoryQueue(name)
        yield Case(queue, queue.publish, lambda: queue, False)
        return
    stack: Stack = request.getfixturevalue("stack")
    opened: list[Source] = []

    def keep(source: Source) -> Source:
        opened.append(source)
        return source

    if request.param == "kafka":
        servers = stack.settings.kafka_bootstrap_servers
        create_topics(servers, {name: 3})
        producer = KafkaProducer(servers, name)

        def publish(payloads: list[bytes]) -> None:
            producer.send(payloads, [b"%d" % n for n in range(len(payloads))])
            producer.flush()

        yield Case(keep(KafkaSource(name, servers, group=name)), publish,
                   lambda: keep(KafkaSource(name, servers, group=name)), True)  # fmt: skip
        producer.close()
    else:
        url = stack.settings.sqs_endpoint_url
        assert url
        create_queues(url, [name])
        sender = SqsProducer(name, endpoint_url=url, access_key_id="headrace", secret_access_key="headrace")

        def post(payloads: list[bytes]) -> None:
            sender.send(payloads)
            sender.flush()

        client = sqs_client(url)
        yield Case(keep(SqsSource(name, client, receivers=2)), post,
                   lambda: keep(SqsSource(name, client, receivers=2)), False)  # fmt: skip
        sender.close()
    for source in opened:
        source.close()


def read_all(source: Source, after: Position, limit: int = 1000) -> list[MicroBatch]:
    """Batches until one is empty."""
    batches = []
    while len(batch := source.read(after, limit, WAIT)):
        batches.append(batch)
        after = after.advanced(batch.after)
    return batches


def payloads(batches: list[MicroBatch]) -> list[bytes]:
    return sorted(p for b in batches for p in b.records["payload"])


MESSAGES = [b'{"n": %d}' % n for n in range(57)]


def test_every_message_is_read_with_its_origin(case: Case) -> None:
    case.publish(MESSAGES)
    batches = read_all(case.source, Position())
    assert payloads(batches) == sorted(MESSAGES)
    for batch in batches:
        assert batch.records.schema == RECORD_SCHEMA
        assert batch.source == case.source.name
        assert set(batch.records["cursor"]) <= set(case.source.cursors())
        known = batch.records["offset"] if case.ordered else batch.records["message_id"]
        assert known.null_count() == 0
        assert batch.records["timestamp"].null_count() == 0


def test_a_read_takes_at_most_what_was_asked_for_and_goes_on_from_there(case: Case) -> None:
    case.publish(MESSAGES)
    first = case.source.read(Position(), 10, WAIT)
    assert 0 < len(first) <= 10
    case.source.acknowledge(first)
    rest = read_all(case.source, first.after)
    assert payloads([first, *rest]) == sorted(MESSAGES)


def test_what_was_not_acknowledged_is_handed_out_again(case: Case) -> None:
    case.publish(MESSAGES)
    first = read_all(case.source, Position())
    case.source.close()
    again = read_all(case.again(), Position())
    assert payloads(again) == payloads(first) == sorted(MESSAGES)
    if not case.ordered:
        assert all(b.records["redelivered"].all() for b in again)


def test_a_replayable_source_gives_the_same_messages_again_from_the_same_position(case: Case) -> None:
    case.publish(MESSAGES)
    first = read_all(case.source, Position())
    assert payloads(first) == sorted(MESSAGES)
    for batch in first:
        case.source.acknowledge(batch)
    again = read_all(case.source, Position())
    assert payloads(again) == (sorted(MESSAGES) if case.source.replayable else [])


@pytest.mark.parametrize("source", [MemoryLog("a"), MemoryQueue("a")])
def test_a_guarded_source_passes_the_guarantee_on(source: Source) -> None:
    guarded = GuardedSource(source, lambda call: call())  # type: ignore[arg-type]
    assert guarded.replayable is source.replayable


def test_an_idle_source_gives_an_empty_batch_that_moves_nothing(case: Case) -> None:
    batch = case.source.read(Position(), 10, 0.1)
    assert len(batch) == 0
    assert batch.after == batch.before


def test_the_backlog_is_what_waits_beyond_the_position(case: Case) -> None:
    assert case.source.backlog(Position()).waiting == 0
    case.publish(MESSAGES)
    assert case.source.backlog(Position()).waiting == len(MESSAGES)
    assert case.source.backlog(Position()).waiting == len(MESSAGES), "looking must not consume"
    batches = read_all(case.source, Position())
    after = Position()
    for batch in batches:
        case.source.acknowledge(batch)
        after = after.advanced(batch.after)
    assert case.source.backlog(after).waiting == 0


def test_a_stream_lands_from_it_exactly_once(case: Case, tmp_path: Path) -> None:
    lake = StreamLake(
        DeltaLakeTable(str(tmp_path), EVENTS.table), DeltaLakeTable(str(tmp_path), EVENTS.rejected_table)
    )
    pace = Pace(batch_messages=20, idle_seconds=0.5)
    case.publish([event(event_id=str(n)) for n in range(40)] + [b"bad"])
    first = next(iter(ingest(case.source, EVENTS, lake, Limits(), pace)))
    assert first.messages
    case.source.close()
    case.publish([event(event_id=str(n)) for n in range(40, 50)])
    second = case.again()
    rest = sum(ingest(second, EVENTS, lake, Limits(), pace), Landed())
    assert first.messages + rest.messages - rest.repeated == 51
    ids = lake.good.scan().collect()["event_id"].to_list()
    assert sorted(ids) == sorted(str(n) for n in range(50))
    assert lake.rejected.scan().collect().height == 1


def test_a_missing_topic_names_the_nearest_one(stack: Stack) -> None:
    source = KafkaSource("analytics_event", stack.settings.kafka_bootstrap_servers, group="g")
    with pytest.raises(Fatal, match=r"'analytics_event' does not exist .* did you mean 'analytics_events'\?"):
        source.cursors()
    source.close()


def test_a_missing_queue_names_the_nearest_one(stack: Stack) -> None:
    assert stack.settings.sqs_endpoint_url
    source = SqsSource("metric", sqs_client(stack.settings.sqs_endpoint_url))
    with pytest.raises(Fatal, match=r"'metric' does not exist; did you mean 'metrics'\?"):
        source.cursors()


def test_a_broker_that_is_away_is_retriable() -> None:
    with pytest.raises(Retriable, match=r"127\.0\.0\.1:1"):
        KafkaSource("x", "127.0.0.1:1", group="g").cursors()


def test_a_recreated_topic_starts_anew_instead_of_being_skipped(stack: Stack) -> None:
    from kafka import KafkaAdminClient

    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 1})
    old = KafkaSource(name, servers, group=name)
    [cursor] = old.cursors()
    old.close()
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.delete_topics([name])
    admin.close()
    create_topics(servers, {name: 1})
    producer = KafkaProducer(servers, name)
    producer.send([b"{}"])
    producer.flush()
    producer.close()
    new = KafkaSource(name, servers, group=name)
    assert new.cursors() != [cursor]
    assert len(new.read(Position({cursor: 100}), 10, WAIT)) == 1
    new.close()


def test_a_position_beyond_the_end_is_an_error_and_not_an_idle_topic(stack: Stack) -> None:
    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 1})
    producer = KafkaProducer(servers, name)
    producer.send([b"{}", b"{}"])
    producer.flush()
    producer.close()
    source = KafkaSource(name, servers, group=name)
    [cursor] = source.cursors()
    with pytest.raises(HeadraceError, match=r"ends at 2|out of range"):
        source.read(Position({cursor: 7}), 10, WAIT)
    source.close()


def test_offsets_count_what_the_broker_holds(stack: Stack) -> None:
    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 3})
    producer = KafkaProducer(servers, name)
    for chunk in range(5):
        producer.send([b"%d" % n for n in range(101)], [b"%d" % (n + chunk) for n in range(101)])
        producer.flush()
    producer.close()
    source = KafkaSource(name, servers, group=name)
    assert sum(end - begin for begin, end in source.offsets().values()) == producer.acknowledged == 505
    source.close()
