"""Messages that their sender numbers land once, in their order, however often and by whatever way they come."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import MicroBatch, Position
from headrace.core.lanes import cursor_of, headers, message_id, numbered, spread
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.health.audit import audit, skipped
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog

LOG = "0123456789abcdef"
LIMITS = Limits()


class Crash(Exception):
    """The process dies here."""


def memory_lake() -> StreamLake[MemoryLakeTable]:
    return StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))


def drain(source: MemoryLog, lake: StreamLake[Any], messages: int = 3) -> Landed:
    pace = Pace(batch_messages=messages, idle_seconds=0.001)
    return sum(ingest(source, EVENTS, lake, LIMITS, pace), Landed())


def payload(number: int) -> bytes:
    """Every third has one bad record beside a good one, every fourth is bad."""
    if number % 4 == 3:
        return b"bad %d" % number
    if number % 3 == 2:
        return b"[" + event(event_id=f"{number}a") + b"," + event(event_id=f"{number}b", channel="?") + b"]"
    return event(event_id=str(number))


def records(number: int) -> int:
    return 2 if number % 4 != 3 and number % 3 == 2 else 1


def send(topic: MemoryLog, *numbers: tuple[int, int], lane: int = 0, log: str = LOG) -> None:
    """Send messages, each as (number from which on it follows, its own number)."""
    topic.publish(
        [payload(number) for _, number in numbers],
        headers=[headers(log, lane, follows, number) for follows, number in numbers],
    )


def in_order(*numbers: int, follows: int = 0) -> list[tuple[int, int]]:
    found = []
    for number in numbers:
        found.append((follows, number))
        follows = number + 1
    return found


def landed(lake: StreamLake[Any]) -> Counter[str]:
    """Rows by message id, of both tables."""
    found: Counter[str] = Counter()
    for table in (lake.good, lake.rejected):
        frame = table.rows() if isinstance(table, MemoryLakeTable) else table.scan().collect()
        found.update(frame["_message_id"].to_list())
    return found


def once(lake: StreamLake[Any], *numbers: int, lane: int = 0, log: str = LOG) -> None:
    expected = Counter({message_id(log, lane, n): records(n) for n in numbers})
    found = Counter({i: n for i, n in landed(lake).items() if i and i.startswith(f"{cursor_of(log, lane)}/")})
    assert found == expected


def position(lake: StreamLake[Any], lane: int = 0) -> int:
    cursor = cursor_of(LOG, lane)
    return int(lake.good.open().position([cursor]).get(cursor, 0))


def test_what_is_sent_again_lands_once_and_is_counted() -> None:
    lake, topic = memory_lake(), MemoryLog("events")
    send(topic, *in_order(0, 2, 3, 7), *in_order(2, 3, 7, 8, follows=1))
    got = drain(topic, lake)
    once(lake, 0, 2, 3, 7, 8)
    assert (got.messages, got.repeated) == (8, 3)
    assert lake.good.open().sent_again("memory/events/0") == 3
    send(topic, *in_order(0, 2, 3, 7, 8))
    drain(topic, lake)
    once(lake, 0, 2, 3, 7, 8)
    assert position(lake) == 9
    assert lake.good.open().sent_again("memory/events/0") == 8


def test_a_message_waits_for_those_that_it_follows(caplog: pytest.LogCaptureFixture) -> None:
    """The broker lost number 2: what follows it is left out, and lands when it is sent again."""
    lake, topic = memory_lake(), MemoryLog("events")
    send(topic, (0, 0), (3, 3), (4, 7))
    drain(topic, lake)
    once(lake, 0)
    assert position(lake) == 1
    assert "2 messages came before one that they follow" in caplog.text
    send(topic, *in_order(2, 3, 7, follows=1))
    drain(topic, lake)
    once(lake, 0, 2, 3, 7)


def test_lanes_and_logs_have_positions_of_their_own_and_others_messages_land_beside() -> None:
    lake, topic = memory_lake(), MemoryLog("events")
    other = "f" * 16
    send(topic, *in_order(0, 2), lane=0)
    topic.publish([payload(100)])
    send(topic, *in_order(1, 3), lane=1)
    send(topic, *in_order(0, 1), lane=0, log=other)
    send(topic, *in_order(0, 2), lane=0)
    assert drain(topic, lake).repeated == 2
    once(lake, 0, 2)
    once(lake, 1, 3, lane=1)
    once(lake, 0, 1, log=other)
    assert landed(lake)[None] == 1  # type: ignore[index]


def test_a_broker_that_forgot_everything_is_sent_it_again() -> None:
    lake, first, second = memory_lake(), MemoryLog("events"), MemoryLog("events anew")
    send(first, *in_order(0, 1, 2))
    drain(first, lake)
    send(second, *in_order(1, 2, 3, follows=0), *in_order(3, 4, follows=3))
    drain(second, lake)
    once(lake, 0, 1, 2, 3, 4)


def test_rows_that_were_rejected_before_a_crash_are_not_rejected_again_when_another_broker_has_them() -> None:
    """The crash is between the two commits, and the offsets of the first are gone with the broker."""
    lake, first, second = memory_lake(), MemoryLog("events"), MemoryLog("events anew")
    send(first, *in_order(0, 1, 2, 3, 4, 5))
    lake.good.fail_next_append = Crash()
    with pytest.raises(Crash):
        drain(first, lake, messages=10)
    assert landed(lake), "the test wants rows in the rejected table"
    assert position(lake) == 0
    send(second, *in_order(0, 1, 2, 3, 4, 5, 6))
    drain(second, lake, messages=10)
    once(lake, *range(7))


@pytest.mark.parametrize("table", ["good", "rejected"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_either_commit_loses_and_doubles_nothing(table: str, after: bool) -> None:
    lake, topic = memory_lake(), MemoryLog("events")
    send(topic, *in_order(0, 1, 2, 3), *in_order(1, 2, 3, 4, 5, follows=1))
    failing = getattr(lake, table)
    failing.fail_next_append, failing.fail_after_commit = Crash(), after
    with pytest.raises(Crash):
        drain(topic, lake, messages=7)
    drain(topic, lake, messages=2)
    once(lake, *range(6))
    assert lake.good.open().sent_again("memory/events/0") == 3


def test_without_the_numbers_the_same_messages_land_twice() -> None:
    """A negative control of this file's verdict."""
    lake, topic = memory_lake(), MemoryLog("events")
    topic.publish([payload(0), payload(1), payload(0)])
    drain(topic, lake)
    assert landed(lake)[None] == 3  # type: ignore[index]
    send(topic, (0, 0), (0, 5))
    drain(topic, lake)
    with pytest.raises(AssertionError):
        once(lake, 0, 1, 5)


def test_an_audit_of_a_real_lake_finds_nothing_amiss_and_a_lost_message(tmp_path: Path) -> None:
    lake = StreamLake(
        DeltaLakeTable(str(tmp_path), EVENTS.table), DeltaLakeTable(str(tmp_path), EVENTS.rejected_table)
    )
    topic = MemoryLog("events")
    send(topic, *in_order(0, 1, 2, 3), *in_order(1, 2, 3, 4, follows=1), (9, 9))
    drain(topic, lake)
    once(lake, *range(5))
    found = audit(lake)
    assert found.doubled == 0
    assert found.again == {"memory/events/0": 4}
    assert found.missing == {"memory/events/0": [(4, 7), (8, 9)]}

    class Asked:
        def offsets(self) -> dict[str, tuple[int, int]]:
            return {"memory/events/0": (0, 9)}

        def count(self, cursor: str, first: int, end: int, most: int, /) -> int:
            return min(most, end - first)

    assert not skipped(Asked(), found.missing, found.absent).ranges
    assert skipped(Asked(), found.missing, {}).ranges, "without the count it would be named"


def test_only_headers_that_are_numbers_of_ours_count() -> None:
    good = headers(LOG, 3, 6, 7)
    odd = [
        [],
        [("x", b"\xff")],
        [good[0]],
        [good[1]],
        [("headrace-log", b"\xff\xfe"), good[1]],
        [("headrace-log", b"short/1"), good[1]],
        [good[0], ("headrace-sequence", b"1-")],
        [good[0], ("headrace-sequence", b"9" * 30 + b"-1")],
        [good[0], ("headrace-sequence", b"")],
    ]
    topic = MemoryLog("events")
    topic.publish([b"{}"] * len(odd), headers=odd)
    assert topic.read(Position(), 100, 0).lanes is None
    topic.publish([b"{}", b"{}"], headers=[good, [*good, *headers(LOG, 4, 0, 1), ("x", b"\xff")]])
    found = topic.read(Position(), 100, 0)
    assert found.lanes is not None
    assert found.lanes.drop_nulls().rows() == [(cursor_of(LOG, 3), 6, 7, False)] * 2
    assert found.records["message_id"].drop_nulls().to_list() == [message_id(LOG, 3, 7)] * 2
    plain = MicroBatch.of("x", [b"{}"], cursor="c", offset=[0]).records
    assert numbered(plain)[1] is None


def test_lanes_are_used_alike_by_entries_that_alternate_between_streams() -> None:
    for step in (1, 2, 3, 16):
        counts = Counter(spread(n, 16) for n in range(0, 16_000 * step, step))
        assert min(counts.values()) > 700, (step, counts)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_broker_loses_and_a_sender_repeats_everything_lands_once(data: st.DataObject) -> None:
    """A sender goes back to the lake's position whenever it likes; the broker loses what it likes."""
    lake, topic = memory_lake(), MemoryLog("events")
    lanes = {lane: sorted(data.draw(st.sets(st.integers(0, 12), min_size=1))) for lane in (0, 1)}
    for _ in range(data.draw(st.integers(0, 4))):
        for lane, numbers in lanes.items():
            begin = position(lake, lane)
            sent = in_order(*(n for n in numbers if n >= begin), follows=begin)
            kept = [one for one in sent if data.draw(st.integers(0, 3))]
            send(topic, *kept[: data.draw(st.integers(0, len(kept)))], lane=lane)
        if data.draw(st.booleans()):
            drain(topic, lake, messages=data.draw(st.integers(1, 20)))
    for (
        lane,
        numbers,
    ) in lanes.items():  # what is landed by now is not overtaken by what is still in the topic
        drain(topic, lake)
        begin = position(lake, lane)
        send(topic, *in_order(*(n for n in numbers if n >= begin), follows=begin), lane=lane)
    drain(topic, lake, messages=5)
    for lane, numbers in lanes.items():
        once(lake, *numbers, lane=lane)
    assert isinstance(lake.good.rows(), pl.DataFrame)
