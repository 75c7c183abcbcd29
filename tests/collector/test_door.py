"""The door: durable before it answers, once per id, and what a failing disk does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import event, metric
from collector.doubles import STREAMS, MemoryIndex, MemoryLog
from headrace.collector.base import Draft, Event, Reason, Refused, Seen, Taken
from headrace.collector.commit import Committer
from headrace.collector.door import Door
from headrace.collector.log import ID_BYTES, LogFull
from headrace.collector.meters import Meters
from headrace.collector.prepare import targets
from headrace.contracts import EVENTS, Limits
from headrace.core.errors import Fatal, Retriable

NOW = datetime(2026, 1, 2, 4, tzinfo=UTC)


def made(payload: bytes, stream: str = "events", sender: str = "a") -> Event:
    return STREAMS[stream].event(Draft(stream, payload, frozenset({"id"})), Seen(NOW, sender), 0)


def events(*ids: str, **changes: Any) -> list[Event]:
    return [made(event(event_id=one, **changes)) for one in ids]


def with_door(
    body: Callable[[Door, MemoryLog, MemoryIndex], Coroutine[Any, Any, None]], **named: Any
) -> tuple[MemoryLog, MemoryIndex]:
    log, index = MemoryLog(), MemoryIndex()
    meters = Meters()
    door = Door(Committer(log, index, meters), STREAMS, meters, **{"group_seconds": 0.0, **named})
    try:
        asyncio.run(body(door, log, index))
    finally:
        log.gate.set()
        door.close()
    return log, index


async def take(door: Door, events: list[Event]) -> Taken:
    """What became of events, as whoever awaits it hears it."""
    found: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()

    def told(taken: Taken | Refused) -> None:
        if found.done():
            return
        if isinstance(taken, Refused):
            found.set_exception(taken)
        else:
            found.set_result(taken)

    door.take(events, told)
    return await found


def statuses(taken: Taken) -> list[str]:
    return [one.status for one in taken.outcomes]


def test_events_are_taken_once_whenever_they_come_again() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        first = await take(door, events("1", "2", "1"))
        assert statuses(first) == ["accepted", "accepted", "repeated"] and first.numbers == {"events": [0]}
        again = await take(door, events("2", "3"))
        assert statuses(again) == ["repeated", "accepted"] and again.numbers == {"events": [0, 1]}

    log, _ = with_door(body)
    assert [len(msgspec.json.decode(e.payload)) for e in log.entries[:1]] == [2]
    assert all(len(e.ids) % 24 == 0 for e in log.entries)


def test_repeats_within_one_group_are_taken_once() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        log.gate.clear()
        held = asyncio.ensure_future(take(door, events("0")))  # whoever comes meanwhile is one group
        await asyncio.sleep(0.05)
        waiting = [asyncio.ensure_future(take(door, events("1"))) for _ in range(5)]
        await asyncio.sleep(0.05)
        log.gate.set()
        assert statuses(await held) == ["accepted"]
        found = [await one for one in waiting]
        assert sorted(statuses(one)[0] for one in found) == ["accepted"] + ["repeated"] * 4
        assert {tuple(one.numbers["events"]) for one in found} == {(1,)}

    log, _ = with_door(body)
    assert log.appends == [1, 1], "one append for all that waited"


def test_another_body_with_the_same_id_is_not_taken() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        await take(door, events("1"))
        found = await take(door, [*events("1", user_id="u"), *events("2")])
        assert statuses(found) == ["conflict", "accepted"] and found.numbers == {"events": [1]}

    log, _ = with_door(body)
    assert len(log.entries) == 2


def test_keys_and_streams_have_ids_of_their_own() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        one = [made(event(event_id="1")), made(metric(metric_id="1"), "metrics")]
        taken = await take(door, one)
        assert statuses(taken) == ["accepted", "accepted"] and taken.numbers == {
            "events": [0],
            "metrics": [1],
        }
        other = [made(event(event_id="1"), sender="b")]
        assert statuses(await take(door, other)) == ["accepted"]

    log, _ = with_door(body)
    assert [e.stream for e in log.entries] == ["events", "metrics", "events"]


def test_what_the_contract_rejects_is_kept_and_its_reasons_told() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        odd = [made(event(channel="fax")), made(b"5"), made(b"[1]"), *events("2")]
        found = await take(door, odd)
        assert statuses(found) == ["rejected", "rejected", "rejected", "accepted"]
        reasons = [[(r.check.split("(")[0], r.column) for r in one.reasons] for one in found.outcomes]
        assert reasons[0] == [("isin", "channel")] and reasons[1] == [("object", "")] and reasons[3] == []

    log, _ = with_door(body)
    assert msgspec.json.decode(log.entries[0].payload)[1:3] == [5, [1]]


def test_a_single_value_that_is_no_object_stays_one_record() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        await take(door, [made(b"[1]")])

    log, _ = with_door(body)
    assert log.entries[0].payload == b"[[1]]"


def test_long_requests_become_several_messages() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        found = await take(door, events(*map(str, range(100))))
        assert found.numbers == {"events": list(range(len(log.entries)))}

    log, _ = with_door(body, message_bytes=2_000)
    assert 5 < len(log.entries) < 20 and all(len(e.payload) <= 2_100 for e in log.entries)
    found = [one["event_id"] for e in log.entries for one in msgspec.json.decode(e.payload)]
    assert found == [str(n) for n in range(100)]


def test_nothing_is_answered_before_it_is_durable() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        log.gate.clear()
        waiting = asyncio.ensure_future(take(door, events("1")))
        await asyncio.sleep(0.1)
        assert not waiting.done() and not log.entries
        log.gate.set()
        assert statuses(await waiting) == ["accepted"] and len(log.entries) == 1

    with_door(body)


@pytest.mark.parametrize(
    "error, after",
    [(LogFull("full"), 30), (Retriable("disk"), 5), (Fatal("gone"), 5), (ZeroDivisionError("x"), 5)],
)
def test_a_log_that_fails_takes_nothing_and_the_next_request_may_be_taken(
    error: Exception, after: int
) -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        log.fails = error
        with pytest.raises(Refused) as refused:
            await take(door, events("1"))
        assert (refused.value.status, refused.value.retry_after) == (503, after)
        assert bool(door._committer.broken) == (not isinstance(error, LogFull))
        log.fails = None
        assert statuses(await take(door, events("1"))) == ["accepted"]
        assert door._committer.broken == ""

    _, index = with_door(body)
    assert len(index.known) == 1


def test_an_index_that_fails_loses_no_event_and_takes_none_twice() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        index.fails = Retriable("index")
        assert statuses(await take(door, events("1"))) == ["accepted"], "it is durable"
        with pytest.raises(Refused):
            await take(door, events("1"))  # nobody can tell whether it is a repeat
        index.fails = None
        assert statuses(await take(door, events("1"))) == ["repeated"]

    log, _ = with_door(body)
    assert len(log.entries) == 1


def test_who_goes_away_has_sent_all_the_same() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        log.gate.clear()
        gone = asyncio.ensure_future(take(door, events("1")))
        await asyncio.sleep(0.05)
        gone.cancel()
        log.gate.set()
        assert statuses(await take(door, events("1"))) == ["repeated"]

    with_door(body)


def test_a_defect_of_the_judge_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("headrace.collector.door.judge", broken)

    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        with caplog.at_level(logging.ERROR), pytest.raises(Refused, match="defect"):
            await take(door, [made(b"5")])

    log, _ = with_door(body)
    assert not log.entries and "could not be judged" in caplog.text


def test_closing_commits_what_waits(tmp_path: Path) -> None:
    log, index = MemoryLog(), MemoryIndex()
    meters = Meters()
    door = Door(Committer(log, index, meters), STREAMS, meters, group_seconds=0.05)

    async def body() -> None:
        waiting = [asyncio.ensure_future(take(door, events(str(n)))) for n in range(20)]
        waiting.append(asyncio.ensure_future(take(door, [made(b"5")])))
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, door.close)
        assert [statuses(await one)[0] for one in waiting] == ["accepted"] * 20 + ["rejected"]
        door.close()

    asyncio.run(body())
    assert sum(len(entry.ids) for entry in log.entries) == 21 * ID_BYTES


def test_slow_judging_does_not_hold_plain_events_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        await take(door, events("0"))  # teaches the event type
        import threading

        gate = threading.Event()
        monkeypatch.setattr("headrace.collector.door.judge", lambda *_: gate.wait())
        odd = asyncio.ensure_future(take(door, [made(b"5")]))
        plain = events("1")
        assert plain[0].plain
        assert statuses(await asyncio.wait_for(take(door, plain), 10)) == ["accepted"]
        assert not odd.done()
        gate.set()
        await odd

    with_door(body)


def test_an_entry_has_no_more_events_than_a_message_may_have() -> None:
    few = targets({"events": (EVENTS, Limits(max_message_records=3))})

    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        door._targets = few
        found = await take(door, events(*map(str, range(7))))
        assert statuses(found) == ["accepted"] * 7
        assert found.numbers == {"events": [0, 1, 2]}

    log, _ = with_door(body)
    assert [len(entry.ids) // ID_BYTES for entry in log.entries] == [3, 3, 1]


def test_requests_share_an_entry_but_not_with_what_is_rejected() -> None:
    async def body(door: Door, log: MemoryLog, index: MemoryIndex) -> None:
        await take(door, events("0"))
        log.gate.clear()
        held = asyncio.ensure_future(take(door, events("1")))
        await asyncio.sleep(0.05)
        wrong = events("2", channel="fax")
        wrong[0].reasons, wrong[0].plain = [Reason("isin", "channel", "fax")], True  # as if it were judged
        waiting = [asyncio.ensure_future(take(door, some)) for some in (events("3"), wrong, events("4", "5"))]
        await asyncio.sleep(0.05)
        log.gate.set()
        await held
        told = [await one for one in waiting]
        assert [statuses(one) for one in told] == [["accepted"], ["rejected"], ["accepted", "accepted"]]
        assert [one.numbers["events"] for one in told] == [[2], [3], [2]]

    log, _ = with_door(body)
    assert [len(entry.ids) // ID_BYTES for entry in log.entries] == [1, 1, 3, 1]
