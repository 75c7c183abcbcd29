"""Bundles of a queue land once, in whatever order, however often and with whatever end they come."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from flow.test_lanes import LIMITS, LOG, Crash, memory_lake, position
from headrace.contracts import EVENTS
from headrace.core.lanes import cursor_of, headers
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.health.audit import audit
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog, MemoryQueue

Lake = StreamLake[MemoryLakeTable]


def drain(source: MemoryQueue | MemoryLog, lake: StreamLake[Any], messages: int = 10) -> Landed:
    pace = Pace(batch_messages=messages, idle_seconds=0.001)
    return sum(ingest(source, EVENTS, lake, LIMITS, pace), Landed())


def bundle(lane: int, first: int, last: int) -> bytes:
    """Entries of a lane; every third is rejected."""
    entries = [
        event(event_id=f"{lane}.{n}", channel="fax" if n % 3 == 2 else "web") for n in range(first, last + 1)
    ]
    return b"[" + b",".join(entries) + b"]"


def send(queue: MemoryQueue, first: int, last: int, lane: int = 0) -> None:
    queue.publish([bundle(lane, first, last)], [headers(LOG, lane, first, last, bundle=True)])


def judged(lake: Lake, lane: int = 0) -> int:
    return int(lake.rejected.open().position([cursor_of(LOG, lane)]).get(cursor_of(LOG, lane), 0))


def landed(lake: Lake) -> Counter[str]:
    """Rows of both tables by id of the event."""
    good = lake.good.rows()["event_id"].to_list()
    bad = lake.rejected.rows()["payload"].cast(str).str.extract(r'"event_id": "([0-9.]+)"').to_list()
    return Counter([*good, *bad])


def once(lake: Lake, **counts: int) -> None:
    """Fails unless so many entries of each lane (``lane0=5``) are there, once each."""
    ends = {int(name.removeprefix("lane")): count for name, count in counts.items()}
    assert landed(lake) == Counter(f"{lane}.{n}" for lane, end in ends.items() for n in range(end))
    assert [position(lake, lane) for lane in ends] == [*ends.values()]


def test_bundles_land_and_repeats_do_not() -> None:
    lake, queue = memory_lake(), MemoryQueue("events")
    send(queue, 0, 4)
    send(queue, 0, 2, lane=1)
    send(queue, 0, 4)
    drain(queue, lake)
    once(lake, lane0=5, lane1=3)
    send(queue, 0, 4)
    send(queue, 5, 6)
    got = drain(queue, lake)
    once(lake, lane0=7, lane1=3)
    assert got.messages - got.repeated == 1
    assert not queue.backlog(queue_position()).waiting, "what is left out is acknowledged, too"


def queue_position() -> Any:
    from headrace.core.batch import Position

    return Position()


@pytest.mark.parametrize("ends", [(3, 6), (6, 3)])
def test_a_bundle_that_came_with_another_end_is_left_out(ends: tuple[int, int]) -> None:
    """The sender died after the first, and began anew with what its log held by then."""
    lake, queue = memory_lake(), MemoryQueue("events")
    for end in ends:
        send(queue, 0, end)
    drain(queue, lake, messages=1)
    once(lake, lane0=ends[0] + 1)
    if position(lake) < 7:
        send(queue, position(lake), 6)
        drain(queue, lake)
        once(lake, lane0=7)


def test_a_single_message_of_a_topic_and_a_bundle_of_a_queue_land_once() -> None:
    """A stream that got a queue instead of its topic, while messages were on their way in both."""
    lake, queue, topic = memory_lake(), MemoryQueue("events"), MemoryLog("events")
    one = [(event(event_id=f"0.{n}"), headers(LOG, 0, n, n)) for n in range(2)]
    topic.publish([body for body, _ in one], headers=[head for _, head in one])
    send(queue, 0, 4)
    drain(topic, lake)
    drain(queue, lake)
    once(lake, lane0=2)
    send(queue, 2, 4)
    drain(queue, lake)
    topic.publish([body for body, _ in one], headers=[head for _, head in one])
    drain(topic, lake)
    once(lake, lane0=5)


@pytest.mark.parametrize("table", ["good", "rejected"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_either_commit_loses_and_doubles_nothing(table: str, after: bool) -> None:
    lake, queue = memory_lake(), MemoryQueue("events")
    send(queue, 0, 5)
    send(queue, 0, 3, lane=1)
    failing = getattr(lake, table)
    failing.fail_next_append, failing.fail_after_commit = Crash(), after
    with pytest.raises(Crash):
        drain(queue, lake)
    queue.expire()
    drain(queue, lake)
    once(lake, lane0=6, lane1=4)


def test_after_a_crash_between_the_commits_only_the_same_bundle_lands() -> None:
    lake, queue = memory_lake(), MemoryQueue("events")
    send(queue, 0, 5)
    lake.good.fail_next_append = Crash()
    with pytest.raises(Crash):
        drain(queue, lake)
    assert (position(lake), judged(lake)) == (0, 6)
    queue.purge()
    send(queue, 0, 8)  # the sender did not know
    send(queue, 0, 3)
    drain(queue, lake)
    assert position(lake) == 0
    send(queue, 0, judged(lake) - 1)
    drain(queue, lake)
    once(lake, lane0=6)


def test_without_the_rule_a_bundle_with_another_end_is_doubled() -> None:
    """The control: as plain numbered messages, whose positions may be beyond what they follow."""
    lake, queue = memory_lake(), MemoryQueue("events")
    for end in (3, 6):
        queue.publish([bundle(0, 0, end)], [headers(LOG, 0, 0, end)])
    drain(queue, lake, messages=1)
    with pytest.raises(AssertionError):
        once(lake, lane0=7)


def test_a_real_lake_and_its_audit(tmp_path: Path) -> None:
    lake = StreamLake(
        DeltaLakeTable(str(tmp_path), EVENTS.table), DeltaLakeTable(str(tmp_path), EVENTS.rejected_table)
    )
    queue = MemoryQueue("events")
    for first, last in ((0, 4), (0, 4), (0, 7), (5, 6)):
        send(queue, first, last)
    drain(queue, lake, messages=2)
    assert position(lake) == 7
    found = audit(lake)
    assert (found.good + found.rejected, found.doubled, found.messages) == (7, 0, 2)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_queue_does_and_a_sender_repeats_everything_lands_once(data: st.DataObject) -> None:
    """Copies with any end, in any order, lost, received again, over crashes of both sides."""
    lake, ends = memory_lake(), {0: data.draw(st.integers(1, 9)), 1: data.draw(st.integers(1, 9))}
    queue = MemoryQueue("events")
    held: list[tuple[int, int, int]] = []

    def flush() -> None:
        for first, last, lane in data.draw(st.permutations(held)):
            send(queue, first, last, lane)
        held.clear()

    def sends(lane: int, whole: bool) -> None:
        begin, ahead = position(lake, lane), judged(lake, lane)
        if begin < ends[lane]:
            last = ends[lane] - 1 if whole else data.draw(st.integers(begin, ends[lane] - 1))
            held.append((begin, ahead - 1 if ahead > begin else last, lane))

    for act in data.draw(
        st.lists(st.sampled_from(["send", "again", "lose", "crash", "drain", "expire"]), max_size=12)
    ):
        if act == "send":
            sends(data.draw(st.integers(0, 1)), whole=False)
        elif act == "again":
            held.extend(held[:1])
        elif act == "lose":
            queue.purge()
        elif act == "expire":
            queue.expire()
        else:
            flush()
            if act == "crash":
                table = getattr(lake, data.draw(st.sampled_from(["good", "rejected"])))
                table.fail_next_append, table.fail_after_commit = Crash(), data.draw(st.booleans())
            with contextlib.suppress(Crash):
                drain(queue, lake, messages=data.draw(st.integers(1, 4)))
            lake.good.fail_next_append = lake.rejected.fail_next_append = None
    flush()
    for _ in range(3):  # what was on its way, what a crash holds, and the rest
        queue.expire()
        drain(queue, lake)
        for lane in ends:
            sends(lane, whole=True)
        flush()
    drain(queue, lake)
    once(lake, lane0=ends[0], lane1=ends[1])
