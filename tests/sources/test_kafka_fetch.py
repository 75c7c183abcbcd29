"""Both ways through kafka-python give the same: batches that stay whole, and one record after the other."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import kafka
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords, MemoryRecordsBuilder

from conftest import Stack
from headrace.core.batch import Position
from headrace.core.errors import Fatal
from headrace.local.broker import create_topics
from headrace.sources.kafka import fetch as kafka_fetch
from headrace.sources.kafka.batch import CorruptBatch
from headrace.sources.kafka.fetch import columns, pieces, whole_batches
from headrace.sources.kafka.source import KafkaSource

from .record_batches import CODECS, Record, batch, marker, records

STOCK = Fetcher.PartitionRecords
WHOLE = kafka_fetch._undecoding(STOCK)
FEW: list[Record] = [(n, n, b"k", b"%d" % n, []) for n in range(5)]


def columns_of(found: list[Any]) -> pl.DataFrame:
    return columns(pieces(found))


def legacy(base: int, magic: int, codec: int) -> bytes:
    builder = MemoryRecordsBuilder(magic, codec, 1 << 20, offset=base)
    for n in range(4):
        builder.append(n + 1000, b"key", b"old %d" % n)
    builder.close()
    return bytes(builder.buffer())


def fetched(kind: Any, log: bytes, at: int = 0, aborted: Any = ()) -> Any:
    """What the fetcher makes of a response that holds ``log``."""
    return kind(
        at, TopicPartition("t", 0), MemoryRecords(log), isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
    )  # fmt: skip


def drained(part: Any, n: int) -> pl.DataFrame:
    """All of it, ``n`` messages at a time."""
    frames = []
    while part:
        taken = part.take(n)
        frames.append(columns_of(list(taken)))
    return kafka_fetch.concat(kafka_fetch.BATCH_SCHEMA, frames)


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, list[Any]]:
    """Batches of all formats and codecs, transactions that end either way, and what compaction left of a batch."""
    log, aborted, at = b"", [], draw(st.integers(0, 5))
    for kind in draw(
        st.lists(st.sampled_from(["plain", "old", "transaction", "emptied"]), min_size=1, max_size=6)
    ):
        codec = draw(st.sampled_from(list(CODECS.values())))
        if kind == "old":
            log += legacy(at, draw(st.integers(0, 1)), min(codec, 2))
            at += 4
            continue
        found = draw(records())
        producer = draw(st.integers(1, 2)) if kind == "transaction" else -1
        spare = draw(st.integers(0, 2))
        last = found[-1][0] + spare
        made = batch([] if kind == "emptied" else found, at, codec, producer=producer, last_delta=last)
        log += made
        if kind == "transaction":
            commit = draw(st.booleans())
            if not commit:
                aborted.append(SimpleNamespace(first_offset=at, producer_id=producer))
            log += marker(at + last + 1, producer, commit)
            last += 1
        at += last + 1
    cut = draw(st.integers(0, 40))  # a response may end within a batch
    return log + bytes(batch(FEW, at))[:cut], aborted


@settings(deadline=None)
@given(logs(), st.integers(0, 20), st.integers(1, 30))
def test_any_log_reads_alike(made: tuple[bytes, list[Any]], at: int, n: int) -> None:
    log, aborted = made
    stock, whole = fetched(STOCK, log, at, aborted), fetched(WHOLE, log, at, aborted)
    assert drained(whole, n).equals(drained(stock, n))
    assert whole.next_fetch_offset == stock.next_fetch_offset
    assert bool(whole.bytes_read) == bool(stock.bytes_read)


def test_a_take_counts_messages_and_ends_with_a_batch() -> None:
    part = fetched(WHOLE, b"".join(batch(FEW, base) for base in range(0, 50, 5)))
    assert [len(part.take(n)) for n in (1, 5, 6, 12)] == [5, 5, 10, 15]
    assert part.next_fetch_offset == 35


@pytest.mark.parametrize("kind", [WHOLE, STOCK], ids=["whole", "stock"])
def test_a_wrong_crc_is_an_error_after_what_is_right(kind: Any) -> None:
    broken = batch(FEW, 5)
    broken[-1] ^= 1
    part = fetched(kind, bytes(batch(FEW) + broken + batch(FEW, 10)))
    assert columns_of(list(part.take(100)))["offset"].to_list() == [0, 1, 2, 3, 4]
    with pytest.raises(CorruptRecordError, match="offset 5 failed crc"):
        part.take(100)
    assert part.next_fetch_offset == 5
    if kind is WHOLE:
        assert not part, "or the fetcher asks it for ever"


def test_what_cannot_be_decompressed_is_an_error() -> None:
    made = batch(FEW, 5, attributes=CODECS["lz4"])  # says so, and is not
    with pytest.raises(CorruptBatch, match="batch at offset 5 cannot be decompressed"):
        columns_of(fetched(WHOLE, bytes(made)).take())


class Otherwise(STOCK):  # type: ignore[misc,valid-type]
    """Of another version, which decodes but not in the same steps."""

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Any:
        return (record for record in list(super()._unpack_records(tp, records._records, *deserializers)))


@pytest.mark.parametrize("kind", [Otherwise, object, None])
def test_another_kafka_python_is_left_as_it_is(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    consumer: Any = SimpleNamespace(_fetcher=SimpleNamespace(PartitionRecords=kind) if kind else None)
    with caplog.at_level(logging.WARNING, "headrace"):
        assert not whole_batches(consumer)
    assert kind is None or consumer._fetcher.PartitionRecords is kind
    [line] = caplog.messages
    assert line.startswith("kafka-python decodes each message by itself")


@pytest.fixture
def stocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[KafkaSource], KafkaSource]]:
    """Makes a source read one record after the other."""
    consumers = []

    def build(source: KafkaSource) -> KafkaSource:
        source.cursors()
        monkeypatch.setattr(source, "_tried", True)
        consumers.append(source._connected())
        return source

    yield build
    assert all(consumer._fetcher.PartitionRecords is STOCK for consumer in consumers)


def read(source: KafkaSource, limit: int) -> pl.DataFrame:
    """Everything, each read going on where the last one ended."""
    at, frames = Position(), []
    source.cursors()
    end = sum(end for _, end in source.offsets().values())
    while sum(at.values()) < end:
        found = source.read(at, limit, 1.0)
        assert 0 < len(found) <= limit
        assert found.records.equals(found.records.sort("cursor", "offset"))
        at = found.after
        frames.append(found.records)
    assert sum(at.values()) == end
    assert not len(source.read(at, limit, 0.0))
    source.close()
    return pl.concat(frames).sort("cursor", "offset")


@pytest.mark.long
@pytest.mark.parametrize("codec", CODECS)
def test_both_ways_read_the_broker_alike(
    stack: Stack, codec: str, stocked: Callable[[KafkaSource], KafkaSource]
) -> None:
    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 3})
    compression = None if codec == "none" else codec
    producer = kafka.KafkaProducer(bootstrap_servers=servers, compression_type=compression, linger_ms=50)
    for n in range(500):
        value = [b"{}", b"", None, b"\n" * n, b"long" * n][n % 5]
        headers = [("trace", b"%d" % n), ("trace", b"\xff"), ("", b"")][: n % 4]
        producer.send(name, value, key=b"%d" % n if n % 5 < 3 else None, headers=headers, partition=n % 3)
    producer.flush()
    producer.close()

    def source() -> KafkaSource:
        return KafkaSource(name, servers, group=name)

    whole = source()
    whole.cursors()
    assert whole._connected()._fetcher.PartitionRecords is STOCK, "only looked at"
    whole.read(Position(), 1, 0.0)
    assert whole._connected()._fetcher.PartitionRecords is WHOLE, "this kafka-python is no longer understood"
    expected = read(stocked(source()), 1000)
    assert expected.height == 500
    assert read(whole, 1000).equals(expected)
    assert read(source(), 7).equals(expected), "reads that end within batches"
    again = source()
    [first, *_] = again.cursors()
    for offset in (1, 50, 165):
        records = again.read(Position({first: offset}), 1000, 1.0).records
        assert records.equals(expected.filter((pl.col("cursor") != first) | (pl.col("offset") >= offset)))
    again.close()


def test_what_is_no_record_batch_ends_the_read_and_is_read_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, name = stack.settings.kafka_bootstrap_servers, f"t-{uuid.uuid4().hex}"
    create_topics(servers, {name: 1})
    producer = kafka.KafkaProducer(bootstrap_servers=servers)
    producer.send(name, b"{}")
    producer.flush()
    producer.close()
    source = KafkaSource(name, servers, group=name)
    source.cursors()
    source._tried = whole_batches(source._connected())
    assert source._tried
    with monkeypatch.context() as patch:
        patch.setattr(kafka_fetch.RawBatch, "__len__", lambda self: 3)
        for _ in range(2):
            with pytest.raises(
                Fatal, match=rf"partition 0 of '{name}' .* record batch of 1 at offset 0: 3 bytes"
            ):
                source.read(Position(), 10, 1.0)
    assert source.read(Position(), 10, 1.0).records["payload"].to_list() == [b"{}"]
    source.close()
