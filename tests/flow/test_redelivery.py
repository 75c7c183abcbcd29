"""Messages of a queue that come again are found, whatever the clocks said when they landed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import MicroBatch, Position, new_batch_id, sent_stamp
from headrace.flow import validate
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.storage import SentSince
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog, MemoryQueue

KEPT = timedelta(days=15)
PACE = Pace(batch_messages=200, idle_seconds=0.0)


@contextmanager
def clock_off_by(off: timedelta) -> Iterator[None]:
    """The clock of the machine that lands is wrong."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + off

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(validate, "datetime", Wrong)
        yield


def lake_of(on: str, folder: Path) -> StreamLake[Any]:
    tables = EVENTS.table, EVENTS.rejected_table
    if on == "memory":
        return StreamLake(*(MemoryLakeTable(table) for table in tables))
    return StreamLake(*(DeltaLakeTable(str(folder), table, sync=False) for table in tables))


def drain(source: MemoryQueue | MemoryLog, lake: StreamLake[Any]) -> Landed:
    return sum(ingest(source, EVENTS, lake, Limits(event_time_ahead=timedelta(days=9_999)), PACE), Landed())


class NeverTold(MemoryQueue):
    """A queue that forgets what was deleted from it: everything comes again."""

    def acknowledge(self, batch: MicroBatch, /) -> None:
        pass


def payloads(count: int, first: int = 0) -> list[bytes]:
    return [b"bad" if n % 5 == 4 else event(event_id=str(n)) for n in range(first, first + count)]


@pytest.mark.long
@pytest.mark.parametrize("on", ["memory", "delta"])
@pytest.mark.parametrize("landing", [-20, 0, 20, 900], ids=lambda days: f"landed {days} days off")
@pytest.mark.parametrize("again", [-30, 0, 30], ids=lambda days: f"again {days} days off")
def test_120_of_120_are_dropped_whatever_the_clocks_say(
    on: str, landing: int, again: int, tmp_path: Path
) -> None:
    source, lake = NeverTold("events", KEPT), lake_of(on, tmp_path)
    source.publish(payloads(120))
    with clock_off_by(timedelta(days=landing)):
        assert drain(source, lake).repeated == 0
    other = MemoryQueue("events", KEPT)  # lands with a clock that is right in between, by another machine
    other._sent = 1_000
    other.publish(payloads(30, 1_000))
    drain(other, lake)
    source.expire()
    with clock_off_by(timedelta(days=again)):
        found = drain(source, lake)
    assert (found.messages, found.repeated, found.good, found.rejected) == (120, 120, 0, 0)


@pytest.mark.long
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-400, 400), st.booleans()), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_clocks_that_jump_both_ways_double_nothing(steps: list[tuple[int, int, bool]]) -> None:
    """New messages, the clock's error in days, and whether all that was ever sent comes again."""
    source, lake = NeverTold("events", KEPT), lake_of("memory", Path())
    for count, days, again in steps:
        source.publish(payloads(count, source._sent))
        if again:
            source.expire()
        with clock_off_by(timedelta(days=days)):
            drain(source, lake)
    rows = pl.concat([t.rows().select("_message_id", "_index") for t in (lake.good, lake.rejected)])
    assert rows.height == rows.unique().height == source._sent


def test_what_was_sent_wholly_before_is_not_read(tmp_path: Path) -> None:
    lake = lake_of("delta", tmp_path)
    source = NeverTold("events", KEPT)
    for n in range(6):
        source.publish(payloads(4, source._sent))
        with clock_off_by(timedelta(days=-7 * n)):
            drain(source, lake)
    log = MemoryLog("events")
    log.publish(payloads(4, 100))
    drain(log, lake)  # rows of a log never come into question
    sent = sorted(source._sent_at.values())
    handle = DeltaTable(lake.good.uri)
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    assert actions.height == 7
    for n in range(6):
        assert SentSince(sent[4 * n], KEPT).prune(actions).height == 6 - n
    handle.optimize.compact()  # what was put together is told by the last of it
    handle = DeltaTable(lake.good.uri)
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    assert SentSince(sent[-1], KEPT).prune(actions).height == 1
    assert SentSince(sent[-1] + timedelta(seconds=1), KEPT).prune(actions).height == 0


def test_files_of_before_go_by_the_clock_at_their_landing() -> None:
    now = datetime.now(UTC)
    days = [1, 10, 14, 16, 40]
    actions = pl.DataFrame(
        {
            "max._ingested_at": [now - timedelta(days=d) for d in days],
            "max._batch_id": [None] * len(days),
        },
        schema={"max._ingested_at": pl.Datetime("us", "UTC"), "max._batch_id": pl.String},
    )
    for known in (actions, actions.drop("max._batch_id")):
        assert (
            SentSince(now, KEPT).prune(known).height == 4
        )  # counted from the newest, should all clocks be behind
        assert SentSince(now, None).prune(known).height == 5


def test_the_log_of_an_older_table_learns_of_batches(tmp_path: Path) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    table.open()
    old = "occurred_at,_ingested_at,_cursor,_offset"
    DeltaTable(table.uri).alter.set_table_properties({"delta.dataSkippingStatsColumns": old})
    table.maintain(timedelta(days=1), timedelta(hours=1))
    said = DeltaTable(table.uri).metadata().configuration["delta.dataSkippingStatsColumns"]
    assert said.split(",")[-1] == "_batch_id"


def test_a_batch_of_messages_without_a_time_may_hold_anything() -> None:
    source = MemoryQueue("events", KEPT)
    source.publish(payloads(3))
    batch = source.read(Position(), 3, 0)
    latest = max(source._sent_at.values())
    assert new_batch_id(batch).startswith(sent_stamp(latest) + "-")
    unknown = batch.records.with_columns(timestamp=pl.lit(None, pl.Datetime("us", "UTC")))
    assert (
        new_batch_id(MicroBatch(batch.source, unknown, batch.before, batch.after, redelivery_window=KEPT))
        > "9"
    )
    log = MemoryLog("events")
    log.publish(payloads(3))
    assert new_batch_id(log.read(Position(), 3, 0)).startswith("0" * 13)
