"""Two writers that judge the same messages differently: every message is in exactly one table, however they mix."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from builders import NOW, event
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import CheckedBatch, Position
from headrace.core.errors import Conflict
from headrace.flow import commit as story
from headrace.flow.commit import StreamLake, land
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog, MemoryQueue

#: What each of two writers accepts: both, the short message alone, neither.
LENIENT, BETWEEN, STRICT = Limits(), Limits(max_message_bytes=170), Limits(max_message_bytes=10)
MESSAGES = [
    event(event_id="short"),
    event(event_id="long", user_id="u" * 60),
    b"[" + event(event_id="a") + b"," + event(event_id="b", channel="?") + b"]",
]
ORIGIN = ["_cursor", "_offset", "_message_id", "_index"]


class Dead(BaseException):
    """A writer was killed."""


class Turns:
    """Writers as threads that go on by one step at a time, when it is their turn."""

    def __init__(self) -> None:
        self._go: dict[str, threading.Semaphore] = {}
        self._waits: dict[str, threading.Semaphore] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._killed: set[str] = set()
        self.errors: list[BaseException] = []

    def start(self, name: str, work: Callable[[], None]) -> None:
        self._go[name], self._waits[name] = threading.Semaphore(0), threading.Semaphore(0)

        def run() -> None:
            try:
                work()
            except Dead:
                pass
            except BaseException as error:
                self.errors.append(error)
            finally:
                self._waits[name].release()

        self._threads[name] = threading.Thread(target=run, name=name, daemon=True)
        self._threads[name].start()
        self._waits[name].acquire()

    def step(self) -> None:
        """Before each step of a writer, in its thread."""
        name = threading.current_thread().name
        if name not in self._go:
            return
        self._waits[name].release()
        self._go[name].acquire()
        if name in self._killed:
            raise Dead

    def give(self, name: str, *, kill: bool = False) -> bool:
        """Let a writer do one step; whether it is still there."""
        thread = self._threads[name]
        if not thread.is_alive() or name in self._killed:
            return False
        if kill:
            self._killed.add(name)
        self._go[name].release()
        assert self._waits[name].acquire(timeout=120)
        if kill:
            thread.join(30)
        return not kill

    def finish(self) -> None:
        """Let every writer run to its end, one after the other."""
        for name, thread in self._threads.items():
            while thread.is_alive() and name not in self._killed:
                self._go[name].release()
                thread.join(0.0005)
        if self.errors:
            raise self.errors[0]


class Stepwise:
    """A lake table whose calls each wait for a turn."""

    def __init__(self, real: Any, turns: Turns) -> None:
        self._real, self._turns = real, turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def open(self) -> Any:
        self._turns.step()
        return _StepwiseSnapshot(self._real.open(), self._turns)


class _StepwiseSnapshot(Stepwise):
    def append(self, *args: Any) -> int:
        self._turns.step()
        return int(self._real.append(*args))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = Retrying(retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(30), reraise=True)
    monkeypatch.setattr(story, "_RACES", at_once)


def lake_of(on: str, folder: Path) -> StreamLake[Any]:
    tables = EVENTS.table, EVENTS.rejected_table
    if on == "memory":
        return StreamLake(*(MemoryLakeTable(table) for table in tables))
    return StreamLake(*(DeltaLakeTable(str(folder), table, sync=False) for table in tables))


@cache
def judgement(kind: type[MemoryLog] | type[MemoryQueue], limits: Limits) -> CheckedBatch:
    """What a writer makes of all messages."""
    source = kind("events")
    source.publish(MESSAGES)  # type: ignore[arg-type]
    return check_batch(EVENTS, source.read(Position(), 10, 0), batch_id="b", now=NOW, limits=limits)


def play(
    kind: type[MemoryLog] | type[MemoryQueue],
    lake: StreamLake[Any],
    judges: Sequence[Limits],
    schedule: Sequence[int],
    killed_at: int | None = None,
) -> None:
    """Writers land the same messages, step by step in this order; one may be killed at a place of the schedule."""
    source, turns = kind("events"), Turns()
    source.publish(MESSAGES)  # type: ignore[arg-type]

    def writer(limits: Limits) -> Callable[[], None]:
        mine = StreamLake(Stepwise(lake.good, turns), Stepwise(lake.rejected, turns))

        def work() -> None:
            tables = mine.rejected.open(), mine.good.open()
            if isinstance(source, MemoryQueue):
                source.expire()  # handed out to this one too
            batch = source.read(tables[1].position(source.cursors()), 10, 0)
            if len(batch):
                land(batch, EVENTS, mine, limits, tables, judgement(kind, limits))

        return work

    for n, limits in enumerate(judges):
        turns.start(str(n), writer(limits))
    for place, n in enumerate(schedule):
        turns.give(str(n), kill=place == killed_at)
    turns.finish()
    # whatever was left is landed by the next run
    last = source.read(lake.good.open().position(source.cursors()), 10, 0)
    if isinstance(source, MemoryQueue):
        source.expire()
        last = source.read(lake.good.open().position(source.cursors()), 10, 0)
    if len(last):
        land(last, EVENTS, lake, LENIENT, checked=judgement(kind, LENIENT))
    exactly_once(lake)


def exactly_once(lake: StreamLake[Any]) -> None:
    found = []
    for table in (lake.good, lake.rejected):
        rows = table.rows() if isinstance(table, MemoryLakeTable) else table.scan().collect()
        found += list(rows.select(ORIGIN).iter_rows())
    assert len(found) == len(set(found)), "a record is there twice"
    by_message: dict[tuple[Any, ...], set[int]] = {}
    for *message, index in found:
        by_message.setdefault(tuple(message), set()).add(index)
    # rejected whole, the array is one record
    assert sorted(map(sorted, by_message.values())) in ([[0], [0], [0]], [[0], [0], [0, 1]])


def orders(steps: int) -> Iterator[tuple[int, ...]]:
    """Every way of mixing so many steps of two writers."""
    for mine in itertools.combinations(range(2 * steps), steps):
        yield tuple(int(at in mine) for at in range(2 * steps))


@pytest.mark.long
@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("judges", [(LENIENT, STRICT), (LENIENT, BETWEEN), (BETWEEN, STRICT)])
def test_every_interleaving_of_two_writers(
    kind: type[MemoryLog] | type[MemoryQueue], judges: tuple[Limits, Limits], tmp_path: Path
) -> None:
    """Five steps each: open both tables, the two commits, and one in between if a commit has to be refused."""
    for order in orders(5):
        play(kind, lake_of("memory", tmp_path), judges, order)


#: A lenient writer is frozen between its commits; a strict one judges the same; the first goes on before its second
#: commit, or after it.
FROZEN = {
    "goes on before the other's good commit": [0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1],
    "goes on before the other's rejected commit": [0, 0, 0, 1, 1, 1, 0, 1, 1, 1],
    "goes on after the other is done": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0],
    "goes on while the other opens": [0, 0, 0, 1, 1, 0, 1, 1, 1],
}


@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("how", FROZEN)
@pytest.mark.parametrize("strict", [STRICT, BETWEEN])
def test_who_was_frozen_between_its_commits_does_not_land_what_another_has_rejected(
    kind: type[MemoryLog] | type[MemoryQueue], how: str, strict: Limits, tmp_path: Path
) -> None:
    play(kind, lake_of("delta", tmp_path), (LENIENT, strict), FROZEN[how])


@given(
    judges=st.lists(st.sampled_from([LENIENT, BETWEEN, STRICT]), min_size=2, max_size=3),
    schedule=st.lists(st.integers(0, 2), max_size=30),
    killed_at=st.none() | st.integers(0, 15),
    kind=st.sampled_from([MemoryLog, MemoryQueue]),
)
@settings(max_examples=75, deadline=None)
def test_three_writers_one_of_which_may_die(
    judges: list[Limits],
    schedule: list[int],
    killed_at: int | None,
    kind: type[MemoryLog] | type[MemoryQueue],
) -> None:
    at_once = Retrying(retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(30), reraise=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(story, "_RACES", at_once)
        order = [n for n in schedule if n < len(judges)]
        play(kind, lake_of("memory", Path()), judges, order, killed_at)
