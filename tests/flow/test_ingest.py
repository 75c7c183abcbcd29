"""Exactly once into the lake: crashes, races, redeliveries; and a property test over all of them."""

from __future__ import annotations

import copy
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from headrace.contracts import EVENTS, Limits, check_batch, unknown
from headrace.core.batch import MicroBatch, Position
from headrace.core.errors import Conflict, Retriable
from headrace.flow.commit import Landed, StreamLake, land
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable, MemorySnapshot
from headrace.sources.memory import MemoryLog, MemoryQueue

QUICK = Pace(batch_messages=3, idle_seconds=0.001)


class Crash(Exception):
    """The process dies here."""


def memory_lake() -> StreamLake:
    return StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))


def delta_lake(root: Path) -> StreamLake:
    return StreamLake(
        DeltaLakeTable(str(root), EVENTS.table), DeltaLakeTable(str(root), EVENTS.rejected_table)
    )


def drain(source: MemoryLog | MemoryQueue, lake: StreamLake) -> Landed:
    return sum(ingest(source, EVENTS, lake, Limits(), QUICK), Landed())


def payloads(count: int) -> list[bytes | None]:
    """Every fourth is bad, every fifth an array with one bad record."""
    out: list[bytes | None] = []
    for n in range(count):
        if n % 4 == 3:
            out.append(b"bad %d" % n)
        elif n % 5 == 4:
            out.append(b"[" + event(event_id=f"{n}a") + b"," + event(event_id=f"{n}b", channel="?") + b"]")
        else:
            out.append(event(event_id=str(n)))
    return out


def landed(lake: StreamLake) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    found = []
    for table in (lake.good, lake.rejected):
        frame = table.rows() if isinstance(table, MemoryLakeTable) else table.scan().collect()  # type: ignore[attr-defined]
        keys = frame.select("_cursor", "_offset", "_message_id", "_index")
        found.append(sorted(keys.iter_rows(), key=str))
    return found[0], found[1]


def exactly_once(lake: StreamLake, count: int) -> None:
    good, rejected = landed(lake)
    assert len(set(good)) == len(good)
    assert len(set(rejected)) == len(rejected)
    messages = {key[:3] for key in [*good, *rejected]}
    assert len(messages) == count
    arrays = sum(1 for n in range(count) if n % 4 != 3 and n % 5 == 4)
    bad = sum(1 for n in range(count) if n % 4 == 3)
    assert (len(good), len(rejected)) == (count - bad, bad + arrays)


@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("on", ["memory", "delta"])
def test_a_drain_lands_everything_and_a_second_one_nothing(
    kind: type[MemoryLog] | type[MemoryQueue], on: str, tmp_path: Path
) -> None:
    source = kind("events")
    source.publish(payloads(20))  # type: ignore[arg-type]
    lake = memory_lake() if on == "memory" else delta_lake(tmp_path)
    first = drain(source, lake)
    assert (first.messages, first.repeated) == (20, 0)
    exactly_once(lake, 20)
    assert drain(source, lake) == Landed()
    exactly_once(lake, 20)


@pytest.mark.parametrize("window", ["before rejected", "after rejected", "before good", "after good"])
@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
def test_a_crash_in_any_window_repeats_nothing_and_loses_nothing(
    kind: type[MemoryLog] | type[MemoryQueue], window: str
) -> None:
    source = kind("events")
    source.publish(payloads(20))  # type: ignore[arg-type]
    lake = memory_lake()
    table = lake.rejected if window.endswith("rejected") else lake.good
    assert isinstance(table, MemoryLakeTable)
    table.fail_next_append = Crash()
    table.fail_after_commit = window.startswith("after")
    with pytest.raises(Crash):
        drain(source, lake)
    source.close()  # what was in flight is handed out again
    drain(source, lake)
    exactly_once(lake, 20)


def test_a_writer_that_lost_the_race_starts_over_from_the_table() -> None:
    source = MemoryLog("events")
    source.publish(payloads(8))
    lake = memory_lake()
    tables = lake.rejected.open(), lake.good.open()
    batch = source.read(tables[1].position(source.cursors()), 8, 0)
    first = land(batch, EVENTS, lake, Limits(), tables)
    zombie = land(batch, EVENTS, lake, Limits(), tables)  # the same snapshots, frozen meanwhile
    assert (first.good, first.repeated) == (6, 0)
    assert (zombie.good, zombie.rejected, zombie.repeated) == (0, 0, 8)
    exactly_once(lake, 8)


class Counted(MemoryLakeTable):
    opened = 0

    def open(self) -> MemorySnapshot:
        self.opened += 1
        return super().open()


@pytest.mark.parametrize(("kind", "opened"), [(MemoryLog, 1), (MemoryQueue, 4)])
def test_tables_are_opened_for_each_batch_of_a_queue_and_once_for_a_log(
    kind: type[MemoryLog] | type[MemoryQueue], opened: int
) -> None:
    source = kind("events")
    source.publish([event(event_id=str(n)) for n in range(12)])
    lake = StreamLake(Counted(EVENTS.table), Counted(EVENTS.rejected_table))
    pace = Pace(batch_messages=3, idle_seconds=60, commit_batches=1)
    run = ingest(source, EVENTS, lake, Limits(), pace)
    assert sum(next(run).good for _ in range(4)) == 12
    assert isinstance(lake.good, Counted)
    assert lake.good.opened == opened + 1, "one to see what the source has lost"


@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("on", ["memory", "delta"])
def test_another_run_between_two_batches_doubles_nothing(
    kind: type[MemoryLog] | type[MemoryQueue], on: str, tmp_path: Path
) -> None:
    source = kind("events")
    source.publish(payloads(9))  # type: ignore[arg-type]
    lake = memory_lake() if on == "memory" else delta_lake(tmp_path)
    run = ingest(source, EVENTS, lake, Limits(), QUICK)
    done = next(run)
    other = copy.deepcopy(source) if kind is MemoryLog else source
    drain(other, lake)
    source.publish(payloads(20)[9:])  # type: ignore[arg-type]
    done = sum(run, done)
    # what had been read ahead of a log is forgotten, and read again from where the other has got to
    assert (done.messages, done.repeated) == (14, 0)
    exactly_once(lake, 20)


@pytest.mark.parametrize(("kind", "commits"), [(MemoryLog, [3, 12, 12, 3]), (MemoryQueue, [3] * 10)])
def test_what_is_read_ahead_is_committed_together(
    kind: type[MemoryLog] | type[MemoryQueue], commits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.flow.reads._COMMIT_SECONDS", 60.0)  # however slow the machine
    source = kind("events")
    source.publish([event(event_id=str(n)) for n in range(30)])
    lake = memory_lake()
    pace = Pace(batch_messages=3, idle_seconds=0.001, commit_batches=4)
    done = list(ingest(source, EVENTS, lake, Limits(), pace))
    assert [one.messages for one in done] == commits
    assert isinstance(lake.good, MemoryLakeTable) and isinstance(lake.rejected, MemoryLakeTable)
    assert [rows.height for rows, _ in lake.good.commits[1:]] == commits
    assert len(lake.rejected.commits) == len(lake.good.commits)
    assert lake.good.rows()["event_id"].to_list() == [str(n) for n in range(30)]
    assert lake.good.rows()["_batch_id"].n_unique() == 10
    if isinstance(source, MemoryLog):
        assert dict(source.acknowledged) == {source.cursors()[0]: 30}
    else:
        assert source.backlog(Position()).waiting == 0


def test_a_stop_ends_a_commit_that_could_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.flow.reads._COMMIT_SECONDS", 60.0)
    stop = threading.Event()

    class Stopping(MemoryLog):
        reads = 0

        def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
            self.reads += 1
            if self.reads == 4:
                stop.set()
            return super().read(after, max_messages, wait_seconds)

    source = Stopping("events")
    source.publish([event(event_id=str(n)) for n in range(60)])
    lake = memory_lake()
    pace = Pace(batch_messages=3, idle_seconds=60, commit_batches=100)
    done = sum(ingest(source, EVENTS, lake, Limits(), pace, stopping=stop.is_set), Landed())
    assert 3 <= done.messages <= 15, "of a commit that could take all 57 that are left"
    good, _ = landed(lake)
    assert len(set(good)) == len(good) == done.messages == source.acknowledged[source.cursors()[0]]


def test_what_was_read_before_the_source_went_away_is_landed_first() -> None:
    class Failing(MemoryLog):
        reads = 0

        def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
            self.reads += 1
            if self.reads == 5:
                raise Retriable("the broker is away")
            return super().read(after, max_messages, wait_seconds)

    source = Failing("events")
    source.publish(payloads(24))
    lake, done = memory_lake(), Landed()
    with pytest.raises(Retriable, match="the broker is away"):
        for one in ingest(source, EVENTS, lake, Limits(), QUICK):
            done += one
    assert done.messages == 12
    exactly_once(lake, 12)
    drain(source, lake)
    exactly_once(lake, 24)


def test_a_zombie_that_holds_messages_of_a_queue_cannot_land_them_again() -> None:
    source = MemoryQueue("events")
    source.publish([p or b"" for p in payloads(6)])
    lake = memory_lake()
    zombie_tables = lake.rejected.open(), lake.good.open()
    zombie_batch = source.read(zombie_tables[1].position(source.cursors()), 6, 0)
    source.expire()
    drain(source, lake)
    land(zombie_batch, EVENTS, lake, Limits(), zombie_tables)
    exactly_once(lake, 6)


def test_without_the_guard_the_doubling_would_be_seen(batch_of: Callable[..., MicroBatch]) -> None:
    """Negative control: rows appended past the protocol make ``exactly_once`` fail."""
    source = MemoryLog("events")
    source.publish(payloads(8))
    lake = memory_lake()
    drain(source, lake)
    assert isinstance(lake.good, MemoryLakeTable)
    lake.good.open().append(lake.good.rows().head(1), {}, "b")
    with pytest.raises(AssertionError):
        exactly_once(lake, 8)


def test_messages_lost_to_retention_are_reported_with_their_range() -> None:
    source = MemoryLog("events")
    source.publish(payloads(4))
    lake = memory_lake()
    drain(source, lake)
    source.publish(payloads(10))
    source.trim(9)
    done = drain(source, lake)
    assert [str(gap) for gap in done.gaps] == ["memory/events/0 [4, 9)"]
    assert done.messages == 5


def test_a_source_that_is_away_is_retriable_and_nothing_is_lost() -> None:
    source = MemoryLog("events")
    source.publish(payloads(4))
    lake = memory_lake()
    assert isinstance(lake.good, MemoryLakeTable)
    lake.good.fail_next_append = Retriable("away")
    with pytest.raises(Retriable):
        drain(source, lake)
    drain(source, lake)
    exactly_once(lake, 4)


@pytest.mark.long
@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from([MemoryLog, MemoryQueue]),
    count=st.integers(1, 25),
    size=st.integers(1, 9),
    together=st.integers(1, 4),
    faults=st.lists(
        st.tuples(st.sampled_from(["good", "rejected"]), st.booleans(), st.booleans(), st.booleans()),
        max_size=6,
    ),
)
def test_any_history_of_crashes_lands_every_message_once(
    kind: type[MemoryLog] | type[MemoryQueue],
    count: int,
    size: int,
    together: int,
    faults: list[tuple[str, bool, bool, bool]],
) -> None:
    source = kind("events")
    source.publish(payloads(count))  # type: ignore[arg-type]
    lake = memory_lake()
    pace = Pace(batch_messages=size, idle_seconds=0.001, commit_batches=together)
    for name, after, conflict, late in faults:
        table = getattr(lake, name)
        fault = Conflict("raced") if conflict and not after else Crash()
        table.fail_next_append, table.fail_after_commit = None if late else fault, after
        try:
            for n, _ in enumerate(ingest(source, EVENTS, lake, Limits(), pace)):
                if n == 1 and late:
                    table.fail_next_append = fault
                    table.fail_after_commit = after
                if n == 3:
                    break
        except Crash:
            source.close()
        table.fail_next_append = None
    source.close()
    for _ in ingest(source, EVENTS, lake, Limits(), pace):
        pass
    exactly_once(lake, count)


def test_counts_are_of_messages_however_many_records_they_hold() -> None:
    source = MemoryLog("events")
    source.publish([b"[" + event(event_id="a") + b"," + event(event_id="b") + b"]", b"[]"])
    lake = memory_lake()
    done = drain(source, lake)
    assert (done.messages, done.good, done.rejected, done.repeated) == (2, 2, 1, 0)
    assert isinstance(lake.good, MemoryLakeTable)
    assert lake.good.rows()["event_id"].to_list() == ["a", "b"]


def limits(ahead: timedelta) -> Limits:
    return Limits(event_time_ahead=ahead)


def at(moment: datetime, **changes: str) -> bytes:
    return event(occurred_at=moment.isoformat(), **changes)


@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("on", ["memory", "delta"])
@pytest.mark.parametrize("accepted", ["later", "no longer"])
def test_a_judgement_that_changes_between_two_attempts_doubles_and_loses_nothing(
    kind: type[MemoryLog] | type[MemoryQueue], on: str, accepted: str, tmp_path: Path
) -> None:
    """The process dies between the two tables; when it comes back, the clock or a limit judges otherwise."""
    source = kind("events")
    soon = datetime.now(UTC) + timedelta(hours=2)
    source.publish([event(event_id="a"), at(soon, event_id="ahead"), b"bad", event(event_id="b")])
    lake = memory_lake() if on == "memory" else delta_lake(tmp_path)
    narrow, wide = limits(timedelta(hours=1)), limits(timedelta(hours=3))
    first, second = (narrow, wide) if accepted == "later" else (wide, narrow)
    batch = source.read(Position(), 10, 0)
    snapshots = lake.rejected.open(), lake.good.open()
    checked = check_batch(EVENTS, batch, batch_id="dies", now=datetime.now(UTC), limits=first)
    snapshots[0].append(checked.rejected, dict(batch.after), "dies")
    source.close()
    for _ in ingest(source, EVENTS, lake, second, Pace(10, 0.05)):
        pass
    good, rejected = landed(lake)
    assert len(good) + len(rejected) == len({*good, *rejected}) == 4
    # what was rejected stays so; what had not landed is judged as it is judged now
    assert (len(good), len(rejected)) == (2, 2)


def test_a_zombie_that_judged_otherwise_is_refused() -> None:
    """It had read and judged before the other writer, and comes back when that one has landed everything."""
    source, lake = MemoryLog("events"), memory_lake()
    soon = datetime.now(UTC) + timedelta(hours=2)
    source.publish([event(event_id="a"), at(soon, event_id="ahead")])
    before = lake.rejected.open(), lake.good.open()
    batch = source.read(Position(), 10, 0)
    for _ in ingest(source, EVENTS, lake, limits(timedelta(hours=3)), Pace(10, 0.05)):
        pass
    late = land(batch, EVENTS, lake, limits(timedelta(hours=1)), before)
    assert (late.good, late.rejected, late.repeated) == (0, 0, 2)
    good, rejected = landed(lake)
    assert (len(good), len(rejected)) == (2, 0)


def test_a_batch_that_could_not_be_landed_is_handed_back_at_once() -> None:
    queue, lake = MemoryQueue("events"), memory_lake()
    queue.publish([event(event_id="a")])
    lake.good.fail_next_append = Crash()
    with pytest.raises(Crash):
        drain(queue, lake)
    assert len(queue.read(Position(), 10, 0)) == 1


@pytest.mark.parametrize(("size", "pause"), [(100, 0.2), (4, 3_600.0)])
def test_small_batches_are_apart_and_full_ones_follow_each_other(size: int, pause: float) -> None:
    """What arrives in small numbers is landed together; a backlog is not held up (or this would take an hour)."""
    reads: list[float] = []

    class Watched(MemoryLog):
        def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
            reads.append(time.monotonic())
            return super().read(after, max_messages, wait_seconds)

    source, lake, small = Watched("events"), memory_lake(), size == 100
    source.publish(payloads(8))
    run = ingest(source, EVENTS, lake, Limits(), Pace(size, 0.001, batch_seconds=pause))
    batches = 0
    for _ in run:
        batches += 1
        if small and batches == 1:
            source.publish([event(event_id="late")])
    between = [later - earlier for earlier, later in itertools.pairwise(reads)]
    assert batches == 2
    assert not small or between[0] >= pause


class Slow(MemoryLakeTable):
    """Its first commit waits until the source is asked for more, at most ``patience`` seconds."""

    def __init__(self, asked: threading.Event, patience: float) -> None:
        super().__init__(EVENTS.table)
        self.asked, self.patience = asked, patience
        self.overlapped: bool | None = None

    def commit(self, seen: int, rows: pl.DataFrame, advance: Mapping[str, int], notes: Any = None) -> int:
        if self.overlapped is None:
            self.overlapped = self.asked.wait(self.patience)
        return super().commit(seen, rows, advance, notes)


@pytest.mark.parametrize(("kind", "ahead"), [(MemoryLog, True), (MemoryQueue, False)])
def test_the_next_batch_is_read_while_one_is_written_unless_it_would_be_taken_out_of_a_queue(
    kind: type[MemoryLog] | type[MemoryQueue], ahead: bool
) -> None:
    asked = threading.Event()

    class Watched(kind):  # type: ignore[misc, valid-type]
        reads = 0

        def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
            self.reads += 1
            if self.reads > 1:
                asked.set()
            return super().read(after, max_messages, wait_seconds)  # type: ignore[no-any-return]

    source = Watched("events")
    source.publish(payloads(6))
    good = Slow(asked, 20.0 if ahead else 0.2)
    lake = StreamLake(good, MemoryLakeTable(EVENTS.rejected_table))
    drain(source, lake)
    exactly_once(lake, 6)
    assert good.overlapped is ahead


def log_of(*messages: bytes) -> MemoryLog:
    log = MemoryLog("test")
    log.publish(messages)
    return log


@pytest.mark.parametrize("kind", ["memory", "delta"])
def test_a_commit_notes_the_fields_that_its_contract_does_not_name(tmp_path: Path, kind: str) -> None:
    lake = memory_lake() if kind == "memory" else delta_lake(tmp_path / "a lake")
    log = log_of(event(country="DE"), event(city="Bonn", country="FR"), b"bad", event(), event(x=1))
    landed = drain(log, lake)
    assert (landed.good, landed.rejected) == (4, 1)
    assert landed.unknown == {"country": 2, "city": 1, "x": 1}

    def noted(since: timedelta) -> dict[str, int]:
        found = unknown.seen(lake.good.notes(unknown.NOTE, datetime.now(UTC) - since))
        return {name: one.records for name, one in found.items()}

    assert noted(timedelta(hours=1)) == landed.unknown, "two commits"
    assert noted(timedelta(hours=-1)) == {}
    assert not lake.rejected.notes(unknown.NOTE, datetime.now(UTC) - timedelta(hours=1))
    assert drain(log, lake).unknown == {}


def test_fields_of_a_batch_that_loses_a_race_are_noted_once() -> None:
    lake = memory_lake()
    log = log_of(event(country="DE"))
    lake.good.fail_next_append, lake.good.fail_after_commit = Conflict("somebody was first"), False
    assert drain(log, lake).unknown == {"country": 1}
    [(_, note)] = lake.good.notes(unknown.NOTE, datetime.now(UTC) - timedelta(hours=1))
    assert json.loads(note) == {"country": 1}


def test_kept_fields_land_in_a_column_of_their_own(tmp_path: Path) -> None:
    keeping = replace(EVENTS, unknown="keep")
    lake = StreamLake(*(DeltaLakeTable(str(tmp_path), t) for t in (keeping.table, keeping.rejected_table)))
    log = log_of(event(country="DE"), event())
    landed = sum(ingest(log, keeping, lake, Limits(), QUICK), Landed())
    assert landed.unknown == {"country": 1}
    assert sorted(lake.good.scan().collect()["_extra"].to_list(), key=str) == [None, '{"country":"DE"}']
