"""What is taken for what the warehouse holds: never older than the bound, and asked for once."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest

from headrace.serving.base import Away
from headrace.serving.held import Held, Published, Relation
from headrace.serving.versions import Versions

DAY = date(2026, 5, 4)


class Warehouse:
    """Changes when a test says so; a look takes as long as a test lets it."""

    def __init__(self) -> None:
        self.digest, self.away, self.looks = "1", False, 0
        self.go = asyncio.Event()
        self.go.set()

    async def look(self, before: Held | None, /) -> Held:
        self.looks += 1
        found = self.digest  # what a query reads when it begins
        await self.go.wait()
        if self.away:
            raise Away("the warehouse is away")
        return before if before is not None and before.digest == found else Held(found)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_look_is_for_all_who_ask_at_a_time() -> None:
    async def run() -> None:
        warehouse, clock = Warehouse(), Clock()
        versions = Versions(warehouse, 0.1, clock)
        found = await asyncio.gather(*(versions.current() for _ in range(50)))
        assert {one.digest for one in found} == {"1"}
        assert warehouse.looks == 1
        clock.now += 0.04
        assert versions.peek() is not None and warehouse.looks == 1
        clock.now += 0.07
        assert versions.peek() is None, "it holds no longer"
        await versions.current()
        assert warehouse.looks == 2

    asyncio.run(run())


def test_without_a_bound_an_answer_waits_for_a_look_that_began_after_it() -> None:
    async def run() -> None:
        warehouse, clock = Warehouse(), Clock()
        versions = Versions(warehouse, 0.0, clock)
        await versions.current()
        warehouse.go.clear()
        clock.now += 1
        early = asyncio.create_task(versions.current())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        warehouse.digest = "2"  # after the early look has read
        clock.now += 1
        late = asyncio.create_task(versions.current())
        await asyncio.sleep(0)
        warehouse.go.set()
        assert (await early).digest in ("1", "2")
        assert (await late).digest == "2"

    asyncio.run(run())


def test_an_outage_is_told_and_passes() -> None:
    async def run() -> None:
        warehouse, clock = Warehouse(), Clock()
        versions = Versions(warehouse, 0.1, clock)
        await versions.current()
        warehouse.away = True
        clock.now += 1
        with pytest.raises(Away):
            await versions.current()
        assert versions.peek() is None
        assert versions.last is not None
        warehouse.away, warehouse.digest = False, "2"
        clock.now += 1
        assert (await versions.current()).digest == "2"

    asyncio.run(run())


def held(**marks: str) -> Held:
    """A mart of two days, a mart without days, a view, and a stream of which both days were published and built."""
    own = {
        "20260504": "a",
        "20260505": "a",
        "": "t",
        **{name.strip("_"): mark for name, mark in marks.items()},
    }
    by_day = {
        DAY: Published(0, 3, "2026-05-04T10:00:00Z"),
        DAY + timedelta(days=1): Published(0, 7, "2026-05-05T10:00:00Z"),
    }
    return Held(
        "digest",
        {
            "marts.daily": Relation("event_date", False, own),
            "marts.whole": Relation("", False, {"all": own["20260505"], "": "t"}),
            "marts.live": Relation("", True, {"": "v"}),
        },
        {"events": max(by_day.values())},
        {"events": by_day},
        {"events": by_day},
    )


def key(found: Held, relation: str, day: date, *asked: str) -> str:
    columns = {"marts.daily": "event_date", "marts.whole": "", "marts.live": "event_date"}
    return found.key(asked, found.made_of({relation: columns[relation]}, ["events"], day, day, DAY))


def test_a_closed_day_keeps_its_key_when_another_day_changes() -> None:
    before, after = held(), held(_20260505="b")
    assert key(before, "marts.daily", DAY) == key(after, "marts.daily", DAY)
    assert key(before, "marts.daily", DAY + timedelta(days=1)) != key(
        after, "marts.daily", DAY + timedelta(days=1)
    )


@pytest.mark.parametrize("relation", ["marts.daily", "marts.whole", "marts.live"])
def test_whatever_may_be_read_changes_the_key(relation: str) -> None:
    assert key(held(), relation, DAY + timedelta(days=1)) != key(
        held(_20260505="b"), relation, DAY + timedelta(days=1)
    )
    assert key(held(), relation, DAY, "a") != key(held(), relation, DAY, "b")
    assert key(held(), relation, DAY, "a", "bc") != key(held(), relation, DAY, "ab", "c")


def test_a_partition_that_went_away_changes_the_key() -> None:
    relation = held().relations["marts.daily"]
    marks = {name: mark for name, mark in relation.marks.items() if name != "20260504"}
    without = Held("digest", {"marts.daily": Relation("event_date", False, marks)}, {}, {}, {})
    assert key(without, "marts.daily", DAY) != key(held(), "marts.daily", DAY)
