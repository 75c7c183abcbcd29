"""Runs that stay for a trickle: how many there are, what they ask of a source, and that publishing does not wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, Limits
from headrace.core.batch import MicroBatch, Position
from headrace.core.errors import Fatal, Retriable
from headrace.core.locks import Slots
from headrace.flow import reads as ingesting
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.publish import Published, Publishing
from headrace.flow.reads import Pace
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog

HOUR = 3_600.0
DEFAULTS = load_settings()
STAYS = Pace(
    batch_messages=100,
    idle_seconds=DEFAULTS.ingest_idle_seconds,
    max_seconds=DEFAULTS.ingest_max_seconds,
    linger_seconds=DEFAULTS.ingest_linger_seconds,
)


@dataclass
class Clock:
    """A clock that only reading moves."""

    now: float = 1_000.0

    def monotonic(self) -> float:
        return self.now


@contextmanager
def clock() -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        made = Clock()
        patch.setattr(ingesting, "time", made)
        yield made


@dataclass
class Trickle:
    """A topic that gets a message at each of these times, and whose reads wait for them."""

    clock: Clock
    arrivals: list[float]
    log: MemoryLog = field(default_factory=lambda: MemoryLog("events"))
    reads: int = 0
    landed_after: list[float] = field(default_factory=list)
    name: str = "memory/events"
    replayable: bool = True

    def cursors(self) -> list[str]:
        return self.log.cursors()

    def waiting(self) -> bool:
        return bool(self.arrivals) and self.arrivals[0] <= self.clock.now

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        self.reads += 1
        comes = self.arrivals[0] if self.arrivals else float("inf")
        self.clock.now = max(self.clock.now + 0.001, min(comes, self.clock.now + wait_seconds))
        while self.waiting():
            self.landed_after.append(self.clock.now - self.arrivals.pop(0))
            self.log.publish([event(event_id=str(len(self.landed_after)))])
        return self.log.read(after, max_messages, 0)

    def acknowledge(self, batch: MicroBatch, /) -> None:
        self.log.acknowledge(batch)

    def close(self) -> None: ...


def lake() -> StreamLake:
    return StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))


def runs(source: Trickle, pace: Pace, into: StreamLake) -> list[float]:
    """When runs began, as the sensor starts them: when something waits, and as the relief of one that handed over."""
    began: list[float] = []
    relieved = False
    while source.arrivals or relieved:
        if not relieved:
            source.clock.now = max(source.clock.now, source.arrivals[0])
        began.append(source.clock.now)
        for _ in ingest(source, EVENTS, into, Limits(), pace):
            pass
        relieved = source.clock.now - began[-1] >= STAYS.max_seconds  # type: ignore[operator]
    return began


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(min_value=0.5, max_value=400), min_size=1, max_size=60))
def test_no_trickle_makes_more_than_twenty_runs_an_hour(gaps: list[float]) -> None:
    with clock() as now:
        arrivals = [now.now + sum(gaps[: n + 1]) for n in range(len(gaps))]
        source, into = Trickle(now, list(arrivals)), lake()
        began = runs(source, STAYS, into)
    for start in began:
        assert sum(start <= other < start + HOUR for other in began) <= 20
    assert into.good.rows().height == len(arrivals)  # type: ignore[attr-defined]


@pytest.mark.long
def test_a_message_every_ten_seconds_keeps_its_run_which_asks_seldom() -> None:
    with clock() as now:
        source, into = Trickle(now, [now.now + 10 * n for n in range(1, 361)]), lake()
        assert len(runs(source, STAYS, into)) <= 14
    assert into.good.rows().height == 360  # type: ignore[attr-defined]
    assert max(source.landed_after) < 1, "a read returns with the first message, however long it would wait"
    assert source.reads < 2_000, "ten an hour and second would be a busy loop"


@pytest.mark.parametrize("told", [True, False])
def test_a_run_that_is_told_to_end_while_it_waits_leaves_what_comes_to_the_next(told: bool) -> None:
    with clock() as now:
        source, into = Trickle(now, [now.now + 3.0]), lake()

        def after_the_message() -> bool:
            return told and not source.arrivals

        landed = sum(ingest(source, EVENTS, into, Limits(), STAYS, stopping=after_the_message), Landed())
        assert (landed.messages, landed.good) == ((0, 0) if told else (1, 1))
        again = sum(ingest(source, EVENTS, into, Limits(), STAYS), Landed())
        assert landed.messages + again.messages == 1


def test_without_lingering_each_trickle_is_a_run_of_its_own() -> None:
    with clock() as now:
        source = Trickle(now, [now.now + 10 * n for n in range(1, 361)])
        began = runs(source, Pace(batch_messages=100, idle_seconds=2, max_seconds=300), lake())
    assert len(began) == 360, "what this is about"


@pytest.mark.parametrize(("may", "left"), [(False, 2), (True, 180)])
def test_a_run_that_may_not_stay_ends_when_idle(may: bool, left: float) -> None:
    with clock() as now:
        source = Trickle(now, [now.now])
        asked: list[bool] = []

        def may_linger() -> bool:
            asked.append(may)
            return may

        steps = list(ingest(source, EVENTS, lake(), Limits(), STAYS, may_linger=may_linger))
        assert left <= now.now - 1_000 < left + 3
    assert [step.messages for step in steps] == ([1, 0] if may else [1]), "it says when it has caught up"
    assert asked == [may]


def test_a_run_that_stays_hands_over_in_time() -> None:
    with clock() as now:
        source = Trickle(now, [now.now + 50 * n for n in range(20)])
        total = sum(ingest(source, EVENTS, lake(), Limits(), STAYS), Landed())
        assert now.now == pytest.approx(1_000 + 300, abs=2)
    assert total.messages in (6, 7)


def test_slots_are_for_so_many_and_free_with_their_holder(tmp_path: Path) -> None:
    first, second, third = (Slots(tmp_path / "lingering", 2) for _ in range(3))
    assert first.acquire() and second.acquire() and not third.acquire()
    assert first.acquire(), "it has one already"
    first.release()
    first.release()
    assert third.acquire()
    assert not Slots(tmp_path / "none", 0).acquire()


def test_what_landed_last_is_published_although_nothing_follows() -> None:
    """While one publication is under way another batch lands, and the run then waits for minutes."""
    under_way, go_on, all_in = threading.Event(), threading.Event(), threading.Event()
    waiting = 0

    def publish() -> Published:
        nonlocal waiting
        taken, waiting = waiting, 0
        if not under_way.is_set():
            under_way.set()
            assert go_on.wait(10)
        else:
            all_in.set()
        return Published(versions=taken)

    publishing = Publishing(publish)
    waiting += 1
    publishing.more()
    assert under_way.wait(10)
    waiting += 1
    publishing.more()
    go_on.set()
    assert all_in.wait(10)
    publishing.close()
    assert publishing.published.versions == 2


def test_a_warehouse_that_was_away_gets_it_without_another_message() -> None:
    tried, done = [], threading.Event()

    def publish() -> Published:
        tried.append(1)
        if len(tried) < 3:
            raise Retriable("the warehouse is away")
        done.set()
        return Published(versions=1)

    publishing = Publishing(publish, again_seconds=0.01)
    publishing.more()
    assert done.wait(10)
    publishing.close()
    assert len(tried) == 3 and publishing.published.versions == 1


def test_a_warehouse_that_needs_a_person_does_not_end_landing() -> None:
    tried = threading.Event()

    def publish() -> Published:
        tried.set()
        raise Fatal("migration 0009_more.sql failed")

    publishing = Publishing(publish, again_seconds=0.01)
    publishing.more()
    assert tried.wait(10)
    publishing.more()
    publishing.close()
    assert "0009_more.sql" in str(publishing.put_off)


def test_a_defect_ends_publishing_and_the_run() -> None:
    def publish() -> Published:
        raise RuntimeError("the warehouse refuses")

    publishing = Publishing(publish)
    publishing.more()
    assert publishing._thread is not None
    publishing._thread.join(10)
    assert publishing.failed()
    with pytest.raises(RuntimeError, match="refuses"):
        publishing.more()
    with pytest.raises(RuntimeError, match="refuses"):
        publishing.close()


def test_to_close_what_never_began_is_nothing() -> None:
    Publishing(Published).close()
