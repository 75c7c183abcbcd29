"""Days that are replaced at once: by two machines, beside a publisher of another one, after one was killed."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import polars as pl
import pytest

from builders import NOW, event
from conftest import Stack
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import Chunk, MicroBatch
from headrace.flow.publish import publish, replace_days
from headrace.lake.arrow import to_arrow
from headrace.lake.memory import MemoryLakeTable
from headrace.warehouse import clickhouse as adapter
from headrace.warehouse.clickhouse import ClickHouse

FIRST, SECOND = date(2026, 1, 1), date(2026, 1, 2)
ROWS = 40


@pytest.fixture
def machines(stack: Stack) -> Iterator[Callable[[], ClickHouse]]:
    """Each call is another machine, of one warehouse."""
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    made: list[ClickHouse] = []

    def another() -> ClickHouse:
        made.append(ClickHouse(config))
        made[-1].prepare(EVENTS.table)
        return made[-1]

    yield another
    for one in made:
        one.close()


def rows_of(batch_of: Callable[..., MicroBatch], day: date, rows: int = ROWS, start: int = 0) -> pl.DataFrame:
    payloads = [event(event_id=f"{day}-{start + n}", occurred_at=f"{day}T10:00:00Z") for n in range(rows)]
    return check_batch(EVENTS, batch_of(payloads, start=start), batch_id="b", now=NOW, limits=Limits()).good


def staging(machine: ClickHouse) -> list[str]:
    raw = machine._config.raw_database
    found = machine.query(
        f"SELECT name FROM system.tables WHERE database = '{raw}' AND name LIKE '%staging%'"
    )
    return [str(name) for (name,) in found]


@pytest.mark.parametrize("days", [(FIRST, SECOND), (FIRST, FIRST)], ids=["different days", "the same day"])
def test_two_at_once_neither_lose_nor_double(
    machines: Callable[[], ClickHouse], batch_of: Callable[..., MicroBatch], days: tuple[date, date]
) -> None:
    both = threading.Barrier(2)

    def chunks(day: date) -> Iterator[Chunk]:
        half = to_arrow(rows_of(batch_of, day, ROWS // 2), EVENTS.table)
        both.wait(30)  # each has its staging table
        yield Chunk.of(half)
        both.wait(30)  # each is half filled
        yield Chunk.of(to_arrow(rows_of(batch_of, day, ROWS // 2, ROWS // 2), EVENTS.table))

    one, other = machines(), machines()
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(machine.replace_partition, EVENTS.table, day, chunks(day))
            for machine, day in zip((one, other), days, strict=True)
        ]
        assert [each.result(60) for each in done] == [ROWS, ROWS]
    assert one.counts_by_day(EVENTS.table) == dict.fromkeys(days, ROWS)
    [(ids,)] = one.query(f"SELECT uniqExact(event_id) FROM {one._config.raw_database}.events")
    assert ids == ROWS * len({*days})
    assert not staging(one)


def test_what_a_killed_one_left_is_dropped_in_time(
    machines: Callable[[], ClickHouse], batch_of: Callable[..., MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def chunks() -> Iterator[Chunk]:
        yield Chunk.of(to_arrow(rows_of(batch_of, FIRST), EVENTS.table))
        raise Killed

    dead = machines()
    with monkeypatch.context() as killed:
        killed.setattr(dead, "_drop", lambda name: None)
        with pytest.raises(Killed):
            dead.replace_partition(EVENTS.table, FIRST, chunks())
    assert len(staging(dead)) == 1
    assert dead.counts_by_day(EVENTS.table) == {}
    machines().replace_partition(EVENTS.table, SECOND, [])
    assert len(staging(dead)) == 1, "it may be somebody's who is slow"
    monkeypatch.setattr(adapter, "_ABANDONED_SECONDS", -1)
    machines().replace_partition(EVENTS.table, SECOND, [])
    assert not staging(dead)


def test_rows_that_another_machine_published_meanwhile_stay(
    machines: Callable[[], ClickHouse], batch_of: Callable[..., MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inserted, not even recorded yet, when the old day goes: without leases or a second look they are lost."""
    lake, here, there = MemoryLakeTable(EVENTS.table), machines(), machines()
    here._unfenced = there._unfenced = True
    lake.open().append(rows_of(batch_of, FIRST), {"test/0": ROWS}, "b")
    publish(lake, here)
    swap = here.replace_partition

    def beside(*arguments: Any) -> int:
        monkeypatch.setattr(here, "replace_partition", swap)
        lake.open().append(rows_of(batch_of, FIRST, 5, ROWS), {"test/0": ROWS + 5}, "b")
        with monkeypatch.context() as unrecorded:
            unrecorded.setattr(there, "record", lambda *_: None)
            publish(lake, there)
        rows = swap(*arguments)
        assert rows == ROWS, "the five are gone with the old day"
        return rows

    monkeypatch.setattr(here, "replace_partition", beside)
    assert replace_days(lake, here, [FIRST]) == {FIRST: ROWS + 5}
    publish(lake, there)
    assert here.counts_by_day(EVENTS.table) == {FIRST: ROWS + 5}
