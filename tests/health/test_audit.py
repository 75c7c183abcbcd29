"""The lake counted by origin, as of one pair of snapshots, with a writer between any two steps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import event
from conftest import Stack
from headrace.core.batch import MicroBatch, Position
from headrace.core.errors import HistoryGone
from headrace.flow.commit import StreamLake, land
from headrace.flow.validate import validate
from headrace.health import verdicts
from headrace.health.audit import MOST_ASKED, Audit, Skipped, audit, messages_beyond, missing_ranges, skipped
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.snapshot import DeltaSnapshot
from headrace.local.broker import create_topics
from headrace.producers.kafka import KafkaProducer
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.stream import Stream, streams

Batch = Callable[..., MicroBatch]
CURSOR = "test/0"


@pytest.fixture
def stream(stack: Stack, tmp_path: Path) -> Iterator[Stream]:
    one = streams(stack.settings.model_copy(update={"lake_uri": str(tmp_path / "a lake")}))["events"]
    yield one
    one.close()


@pytest.fixture
def lands(stream: Stream, batch_of: Batch) -> Callable[[], None]:
    """A version of each table: two good messages, and two that are rejected."""
    landed = 0

    def once() -> None:
        nonlocal landed
        made = [
            event(event_id=f"e-{landed}"),
            event(channel="?"),
            event(channel="?"),
            event(event_id=f"f-{landed}"),
        ]
        land(batch_of(made, start=landed), stream.contract, stream.lake, stream.limits)
        landed += 4

    return once


STEPS = {
    (DeltaLakeTable, "open"),
    (DeltaSnapshot, "rows"),
    (DeltaSnapshot, "position"),
    (DeltaSnapshot, "erased"),
}


@pytest.mark.long
@pytest.mark.parametrize(("of", "step"), sorted(STEPS, key=str))
def test_a_writer_between_any_two_steps_changes_nothing(
    stream: Stream, lands: Callable[[], None], monkeypatch: pytest.MonkeyPatch, of: type, step: str
) -> None:
    lands()
    real, inside = getattr(of, step), False

    def between(self: Any, *arguments: Any) -> Any:
        """Land before and after the step; the writer's own steps are left alone."""
        nonlocal inside
        if inside:
            return real(self, *arguments)
        inside = True
        lands()
        inside = False
        found = real(self, *arguments)
        inside = True
        lands()
        inside = False
        return found

    monkeypatch.setattr(of, step, between)
    for _ in range(3):
        found = audit(stream.lake, cursors=[CURSOR])
        assert (found.doubled, found.beyond, found.missing) == (0, {}, {})
        assert verdicts.every_message_once(found).passed


def test_rejected_rows_that_are_ahead_are_on_their_way(stream: Stream, batch_of: Batch) -> None:
    """A writer that is between its two commits."""
    rows = stream.lake.rejected.open()
    batch = batch_of([event(channel="?"), event()])
    checked = validate(batch, stream.contract, stream.limits)
    rows.append(checked.rejected, {CURSOR: 2}, "b")
    found = audit(stream.lake, cursors=[CURSOR])
    assert (found.rejected, found.good, found.beyond, found.missing) == (1, 0, {}, {})


def test_faults_are_found(stream: Stream, batch_of: Batch, lands: Callable[[], None]) -> None:
    lands()
    good = stream.lake.good.scan().collect()
    snapshot = stream.lake.good.open()
    snapshot.append(pl.DataFrame(schema=good.schema), {CURSOR: 7}, "skips 4 to 6")
    found = audit(stream.lake)
    assert found.missing == {CURSOR: [(4, 7)]}
    assert audit(stream.lake, []).missing == {}, "not all was counted"
    beyond = good.head(1).with_columns(_offset=pl.lit(9, pl.Int64))
    stream.lake.good.open().append(beyond, {}, "beyond")
    found = audit(stream.lake)
    assert found.beyond == {CURSOR: 1}
    verdict = verdicts.every_message_once(found)
    assert not verdict.passed
    assert "test/0: 1 messages beyond the position" in verdict.description
    stream.lake.good.open().append(good.head(1), {}, "again")
    found = audit(stream.lake)
    assert found.doubled == 1
    assert "1 rows are doubled" in verdicts.every_message_once(found).description


def test_a_cursor_of_which_everything_was_skipped_is_looked_at(stream: Stream) -> None:
    rows = stream.lake.good.open()
    rows.append(stream.lake.good.scan().collect(), {CURSOR: 3}, "b")
    assert audit(stream.lake, cursors=[CURSOR]).missing == {CURSOR: [(0, 3)]}


@given(
    st.dictionaries(st.sampled_from("ab"), st.sets(st.integers(0, 30)), min_size=1),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 30), min_size=1),
)
def test_what_is_missing_or_beyond_is_so_one_by_one(
    there: dict[str, set[int]], position: dict[str, int]
) -> None:
    rows = [(cursor, offset, None) for cursor, offsets in there.items() for offset in offsets]
    schema = {"_cursor": pl.String, "_offset": pl.Int64, "_message_id": pl.String}
    messages = pl.DataFrame(rows, schema=schema, orient="row")
    ranges = missing_ranges(messages, Position(position))
    named = {(c, n) for c, gaps in ranges.items() for first, end in gaps for n in range(first, end)}
    assert named == {
        (c, n) for c, end in position.items() for n in range(end) if n not in there.get(c, set())
    }
    assert all(a < b for gaps in ranges.values() for a, b in gaps)
    limits = {c: position.get(c, 0) for c in there}
    beyond = {c: sum(n >= limits[c] for n in offsets) for c, offsets in there.items()}
    assert messages_beyond(messages, limits) == {c: n for c, n in beyond.items() if n}


def test_messages_of_a_queue_have_no_offsets_to_miss(stream: Stream, batch_of: Batch) -> None:
    batch = batch_of([event()], cursor="sqs/q")
    records = batch.records.with_columns(offset=pl.lit(None, pl.Int64), message_id=pl.lit("m"))
    queue = MicroBatch(batch.source, records, batch.before, batch.after)
    land(queue, stream.contract, stream.lake, stream.limits)
    found = audit(stream.lake)
    assert (found.messages, found.missing, found.beyond) == (1, {}, {})


def test_files_that_an_erasure_removes_meanwhile_are_no_end_of_it(
    stream: Stream, lands: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lands()
    real = stream.lake.good.open
    gone = [HistoryGone("a file")] * 2

    def open_table() -> Any:
        if gone:
            raise gone.pop()
        return real()

    monkeypatch.setattr(stream.lake.good, "open", open_table)
    assert audit(stream.lake).good == 2
    gone += [HistoryGone("a file")] * 3
    with pytest.raises(HistoryGone):
        audit(stream.lake)


def test_a_file_that_is_gone_is_history(stream: Stream, lands: Callable[[], None]) -> None:
    lands()
    snapshot = stream.lake.good.open()
    for file in Path(stream.lake.good.uri).rglob("*.parquet"):
        file.unlink()
    with pytest.raises(HistoryGone, match="was rewritten while it was read"):
        snapshot.rows(["_cursor"])


class Broker:
    """Holds offsets 5 to 99 of one partition; those of a transaction's markers hold no message."""

    def __init__(self, markers: set[int]) -> None:
        self.markers, self.asked = markers, 0

    def offsets(self) -> dict[str, tuple[int, int]]:
        return {CURSOR: (5, 100)}

    def count(self, _: str, first: int, end: int, most: int, /) -> int:
        self.asked += 1
        return min(most, sum(n not in self.markers for n in range(first, end)))


def test_a_gap_is_a_loss_only_where_the_broker_still_has_the_message() -> None:
    assert skipped(Broker({10, 20}), {CURSOR: [(0, 5), (10, 11), (20, 21)]}, {}) == Skipped({}, 2, 0)
    lost = skipped(Broker({10}), {CURSOR: [(3, 8), (10, 11)], "test/of-old": [(0, 9)]}, {})
    assert lost == Skipped({CURSOR: [(5, 8)]}, 2, 0)
    verdict = verdicts.every_message_once(audit_of({CURSOR: [(3, 8), (10, 11)]}), lost)
    assert not verdict.passed
    assert "test/0: the broker has messages of offsets 5 to 7, which were skipped" in verdict.description


def test_what_erasures_named_may_be_missing_and_no_more() -> None:
    gaps = {CURSOR: [(10, 12), (20, 21)]}
    assert skipped(Broker(set()), gaps, {CURSOR: 3}).ranges == {}
    assert skipped(Broker({11}), gaps, {CURSOR: 2}).ranges == {}
    assert skipped(Broker(set()), gaps, {CURSOR: 2}).ranges == gaps


def test_of_many_gaps_the_newest_are_asked_for_and_others_by_chance() -> None:
    markers = set(range(6, 99))
    gaps = [(n, n + 1) for n in sorted(markers)] * 3
    broker = Broker(markers)
    found = skipped(broker, {CURSOR: gaps}, {})
    assert (found.ranges, found.asked, broker.asked) == ({}, MOST_ASKED, MOST_ASKED)
    assert found.left == len(gaps) - MOST_ASKED
    newest = skipped(Broker(markers - {98}), {CURSOR: gaps}, {})
    assert newest.ranges, "the newest is always among them"


def audit_of(missing: dict[str, list[tuple[int, int]]]) -> Audit:
    return Audit(0, 0, 0, 0, 0, {}, {}, missing=missing)


def test_a_broker_is_asked_for_offsets(stack: Stack) -> None:
    name, servers = f"t-{uuid.uuid4().hex}", stack.settings.kafka_bootstrap_servers
    create_topics(servers, {name: 1})
    producer = KafkaProducer(servers, name)
    producer.send([event(event_id=str(n)) for n in range(10)])
    producer.flush()
    producer.close()
    source = KafkaSource(name, servers, group=name)
    [cursor] = source.cursors()
    assert source.count(cursor, 3, 7, 100) == 4
    assert source.count(cursor, 3, 7, 2) == 2
    assert source.count(cursor, 0, 10, 100) == 10
    batch = source.read(source.read(Position({cursor: 0}), 4, 5.0).after, 100, 5.0)
    assert len(batch) == 6, "reading goes on where it was"
    source.close()


def test_erasures_say_how_many_messages_they_named(stream: Stream, lands: Callable[[], None]) -> None:
    lands()
    lands()
    origins = stream.lake.good.scan().select(pl.col("_cursor"), "_offset", "_message_id", "_index").collect()
    stream.lake.good.erase(origins.head(1))
    assert audit(stream.lake).erased == {CURSOR: 1}
    stream.lake.good.erase(origins.tail(2))
    found = audit(stream.lake)
    assert found.erased == {CURSOR: 3}
    assert sum(end - first for first, end in found.missing[CURSOR]) == 3
    assert StreamLake(stream.lake.good, stream.lake.rejected).good.open().erased("another") == 0
