"""Lake against warehouse as of one version: what is on its way is no difference, and what is wrong is one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from builders import event
from conftest import Stack
from headrace.core.batch import MicroBatch
from headrace.core.errors import HistoryGone
from headrace.flow.commit import land
from headrace.health import verdicts
from headrace.health.parity import Parity, arriving, arriving_days, parity, settled
from headrace.streams.stream import Stream, streams
from headrace.warehouse.server import Server

DAY, NEXT = date(2026, 1, 2), date(2026, 1, 3)
Batch = Callable[..., MicroBatch]


@pytest.fixture
def stream(stack: Stack, tmp_path: Path) -> Iterator[Stream]:
    """A stream with a lake and a raw database of its own."""
    config = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "a lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    one = streams(config)["events"]
    yield one
    one.close()


@pytest.fixture
def lands(stream: Stream, batch_of: Batch) -> Callable[..., None]:
    """``lands(3, day)``: so many events of a day, as a version of their own."""
    landed = 0

    def version(count: int, day: date = DAY) -> None:
        nonlocal landed
        made = [event(event_id=f"e-{landed + n}", occurred_at=f"{day}T10:00:00Z") for n in range(count)]
        land(batch_of(made, start=landed), stream.contract, stream.lake, stream.limits)
        landed += count

    return version


def half_publish(stream: Stream) -> None:
    """What a publisher does before it records a version: the rows of the newest version are in."""
    good = stream.lake.good
    newest = good.open().version
    for n, chunk in enumerate(good.read(good.describe(newest))):
        stream.warehouse.insert(good.table, chunk, f"{good.table.name}:{good.id}:{newest}:{n}")


def sql(stream: Stream, statement: str) -> None:
    Server(stream.settings).command(statement.replace("{raw}", stream.settings.raw_database))


def test_rows_of_a_version_on_its_way_are_no_difference(stream: Stream, lands: Callable[..., None]) -> None:
    lands(3)
    stream.publish()
    lands(4)
    half_publish(stream)
    lands(2, NEXT)
    assert sum(stream.warehouse_counts().values()) == 7
    found = parity(stream, within=0)
    assert (dict(found.different), found.inconclusive, found.later) == ({}, "", 4)
    assert parity(stream, [DAY], within=0).different == {}
    stream.publish()
    found = parity(stream, within=0)
    assert (dict(found.different), found.later) == ({}, 0)


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        ("ALTER TABLE {raw}.events DELETE WHERE event_id = 'e-1' SETTINGS mutations_sync = 2", 2),
        ("INSERT INTO {raw}.events SELECT * FROM {raw}.events WHERE event_id = 'e-1'", 4),
    ],
)
def test_a_fault_is_found_although_more_rows_are_on_their_way(
    stream: Stream, lands: Callable[..., None], fault: str, counted: int
) -> None:
    """With one row on its way, a count of everything would agree where one was deleted."""
    lands(3)
    stream.publish()
    lands(1)
    half_publish(stream)
    sql(stream, fault)
    assert parity(stream).different == {DAY: (3, counted)}
    assert not verdicts.parity_with_lake(parity(stream)).passed


def test_a_version_that_was_recorded_without_its_rows_is_found(
    stream: Stream, lands: Callable[..., None]
) -> None:
    lands(3)
    lands(5, NEXT)
    stream.publish()
    sql(stream, "ALTER TABLE {raw}.events DELETE WHERE event_date = '2026-01-03' SETTINGS mutations_sync = 2")
    assert parity(stream).different == {NEXT: (5, 0)}
    assert parity(stream, [DAY]).different == {}


def test_days_of_versions_that_are_not_published_are_named(
    stream: Stream, lands: Callable[..., None]
) -> None:
    lands(3)
    assert arriving(stream.lake.good, -1) == {DAY}
    stream.publish()
    version = stream.published_version()
    assert arriving_days(stream, version) == set()
    lands(1, NEXT)
    assert arriving_days(stream, version) == {NEXT}
    [landed_on] = arriving(stream.lake.good, version, by_landing=True)
    assert landed_on == stream.lake.good.committed_at(version + 1).date()


Look = Mapping[date, tuple[int, int]] | str


@pytest.mark.parametrize(
    ("looks", "different", "inconclusive"),
    [
        ([{}], {}, False),
        ([{DAY: (2, 1)}, {DAY: (3, 2)}], {DAY: (3, 2)}, False),  # twice
        ([{DAY: (2, 1)}, {}], {}, False),  # an erasure was between warehouse and lake
        ([{DAY: (2, 1)}, {NEXT: (2, 1)}, {NEXT: (2, 1)}], {NEXT: (2, 1)}, False),
        (["gone", {}], {}, False),
        (["gone", "gone", "gone"], {}, True),
    ],
)
def test_what_differs_in_two_looks_differs_and_what_cannot_be_seen_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch, looks: list[Look], different: Look, inconclusive: bool
) -> None:
    clock = iter(range(100))
    waiting = [Parity(1, inconclusive=x) if isinstance(x, str) else Parity(1, x) for x in looks]
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    found = settled(lambda: waiting.pop(0), within=3, pause=0)
    assert waiting == []
    assert (found.different, bool(found.inconclusive)) == (different, inconclusive)
    verdict = verdicts.parity_with_lake(found)
    assert verdict.passed == (not different)
    assert verdict.metadata["inconclusive"] is inconclusive
    if inconclusive:
        assert "no consistent look: gone, for 3 s" in verdict.description


def test_a_log_that_was_shortened_meanwhile_is_looked_at_again(
    stream: Stream, lands: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lands(3)
    stream.publish()
    lands(1)
    real, gone = stream.lake.good.describe, [HistoryGone("version 2 is no longer there")]

    def describe(version: int) -> Any:
        if gone:
            raise gone.pop()
        return real(version)

    monkeypatch.setattr(stream.lake.good, "describe", describe)
    assert parity(stream, within=5) == Parity(stream.published_version())
