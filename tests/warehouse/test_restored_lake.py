"""A lake that was restored from an older copy: seen by its history, and the warehouse holds what the lake holds."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import NOW, event
from conftest import Stack
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import Chunk, MicroBatch, Table
from headrace.core.errors import HistoryGone
from headrace.flow.publish import publish, unpublished_range
from headrace.health.status import inspect
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from headrace.pipelines import discover
from headrace.streams.stream import Stream
from headrace.warehouse import Publication
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.memory import MemoryWarehouse

Batch = Callable[..., MicroBatch]


class Lake:
    """A table that can be set back."""

    def __init__(self, on: str, folder: Path, batch_of: Batch) -> None:
        self._folder, self._batch_of, self._on = folder, batch_of, on
        self._at = 0
        self.table: Any = MemoryLakeTable(EVENTS.table) if on == "memory" else self._opened()
        self.table.open()

    def _opened(self) -> DeltaLakeTable:
        return DeltaLakeTable(str(self._folder / "lake"), EVENTS.table, sync=False)

    def land(self, *numbers: int) -> int:
        """One version, with an event on each of these days of January."""
        payloads = [event(event_id=f"{n}", occurred_at=f"2026-01-{n:02d}T00:00:00Z") for n in numbers]
        batch = self._batch_of(payloads, start=self._at)
        self._at += len(numbers)
        good = check_batch(EVENTS, batch, batch_id=f"{uuid.uuid4()}", now=NOW, limits=Limits()).good
        return int(self.table.open().append(good, {"test/0": self._at}, "b"))

    def copy(self) -> int:
        if self._on == "delta":
            shutil.copytree(self._folder / "lake", self._folder / "copy")
        return int(self.table.open().version)

    def restore(self, version: int) -> None:
        if self._on == "memory":
            self.table.restore(version)
            return
        shutil.rmtree(self._folder / "lake")
        shutil.copytree(self._folder / "copy", self._folder / "lake")
        self.table = self._opened()


@pytest.fixture(params=["delta", "memory"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, batch_of: Batch) -> Lake:
    return Lake(request.param, tmp_path, batch_of)


@pytest.fixture(params=["clickhouse", "memory"])
def warehouse(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemoryWarehouse()
        return
    stack: Stack = request.getfixturevalue("stack")
    found = ClickHouse(stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"}))
    yield found
    found.close()


def agrees(lake: Lake, warehouse: Any) -> None:
    assert warehouse.counts_by_day(EVENTS.table) == lake.table.counts_by_day()


@pytest.mark.long
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
def test_what_lands_after_a_restore_is_published(
    lake: Lake, warehouse: Any, after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """So many versions land before the next publish: fewer than were lost, as many, or more."""
    lake.land(1, 2)
    publish(lake.table, warehouse)
    copy = lake.copy()
    for n in (3, 4, 5):
        lake.land(n, 9)
    publish(lake.table, warehouse)
    lake.restore(copy)
    for n in range(after):
        lake.land(6 + n, 9)
    done = publish(lake.table, warehouse)
    agrees(lake, warehouse)
    assert caplog.text.count("restored from an older copy") == 1
    assert done.rows == 2 + 2 * after
    assert {date(2026, 1, 3), date(2026, 1, 9)} <= done.days, "days that lost rows are built anew"
    for n in (20, 21, 22, 23, 24):  # their numbers have been published once, with other rows
        assert publish(lake.table, warehouse).rows == 0
        lake.land(n, 9)
        assert publish(lake.table, warehouse).rows == 2
        agrees(lake, warehouse)
    assert caplog.text.count("restored from an older copy") == 1
    touched = warehouse.stale_days(EVENTS.table, lake.table.id)
    assert {one.day for one in touched} >= {date(2026, 1, 3), date(2026, 1, 24)}


def test_a_second_restore_is_seen_too(lake: Lake, warehouse: Any) -> None:
    lake.land(1)
    copy = lake.copy()
    for round_ in range(3):
        for n in range(3):
            lake.land(2 + n + 3 * round_)
        publish(lake.table, warehouse)
        agrees(lake, warehouse)
        lake.restore(copy)
    publish(lake.table, warehouse)
    agrees(lake, warehouse)
    assert warehouse.published(EVENTS.table, lake.table.id).epoch == 3


def test_models_that_were_built_before_are_built_again(lake: Lake, warehouse: Any) -> None:
    lake.land(1)
    copy = lake.copy()
    for n in range(6):
        lake.land(2 + n)
    publish(lake.table, warehouse)
    last = warehouse.published(EVENTS.table, lake.table.id).version
    built = [date(2026, 1, n) for n in range(1, 9)]
    warehouse.refreshed(EVENTS.table, lake.table.id, last, built, datetime.now(UTC) + timedelta(seconds=1))
    assert not warehouse.stale_days(EVENTS.table, lake.table.id)
    lake.restore(copy)
    publish(lake.table, warehouse)
    assert {one.day for one in warehouse.stale_days(EVENTS.table, lake.table.id)} == set(built[:7])


def test_a_crash_while_it_is_taken_whole_is_made_good(
    lake: Lake, warehouse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(1)
    copy = lake.copy()
    lake.land(2), lake.land(3)
    publish(lake.table, warehouse)
    lake.restore(copy)
    lake.land(4)
    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(warehouse, "record", _interrupted)
        publish(lake.table, warehouse)
    publish(lake.table, warehouse)
    agrees(lake, warehouse)


def _interrupted(*_: Any) -> None:
    raise InterruptedError


def test_a_lake_that_was_not_restored_is_not_suspected(
    lake: Lake, warehouse: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(1, 6):
        lake.land(n)
        publish(lake.table, warehouse)
    if isinstance(lake.table, DeltaLakeTable):
        lake.table.maintain(timedelta(days=1), timedelta(hours=1))  # compacts
        publish(lake.table, warehouse)
    assert "restored" not in caplog.text
    assert not unpublished_range(lake.table, warehouse)


class _LandsMeanwhile(MemoryWarehouse):
    """Another machine lands and publishes right after this one was asked what it holds."""

    def __init__(self, lake: Lake) -> None:
        super().__init__()
        self._lake, self._others = lake, 1

    def published(self, table: Table, lake_id: str, /) -> Publication | None:
        last = super().published(table, lake_id)
        if self._others:
            self._others -= 1
            self._lake.land(30)
            publish(self._lake.table, self)
        return last


def test_a_publisher_that_is_overtaken_does_not_take_it_for_a_restore(
    tmp_path: Path, batch_of: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake("memory", tmp_path, batch_of)
    lake.land(1)
    warehouse = _LandsMeanwhile(lake)
    publish(lake.table, warehouse)
    agrees(lake, warehouse)
    assert "restored" not in caplog.text


def test_without_the_epoch_in_the_token_rows_would_be_swallowed(lake: Lake, warehouse: Any) -> None:
    """Negative control: numbers come again, and the warehouse knows their tokens."""
    lake.land(1)
    publish(lake.table, warehouse)
    chunk: Chunk = next(lake.table.read(lake.table.describe(1)))
    before = Counter(warehouse.counts_by_day(EVENTS.table))
    warehouse.insert(EVENTS.table, chunk, f"{EVENTS.name}:{lake.table.id}:1:0")
    assert Counter(warehouse.counts_by_day(EVENTS.table)) == before
    warehouse.insert(EVENTS.table, chunk, f"{EVENTS.name}:{lake.table.id}~1:1:0")
    assert Counter(warehouse.counts_by_day(EVENTS.table)).total() == 2


def test_what_was_published_without_fingerprints_is_told_by_its_number(lake: Lake) -> None:
    warehouse = MemoryWarehouse()
    warehouse.prepare(EVENTS.table)
    warehouse.record(EVENTS.table, Publication(lake.table.id, 0, 0, ()))
    lake.land(1)
    assert publish(lake.table, warehouse).rows == 1
    warehouse.record(EVENTS.table, Publication(lake.table.id, 7, 0, ()))
    publish(lake.table, warehouse)
    assert warehouse.published(EVENTS.table, lake.table.id).epoch == 1  # type: ignore[union-attr]


def test_a_log_that_no_longer_reaches_back_cannot_tell(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = MemoryWarehouse()
    lake.land(1)
    publish(lake.table, warehouse)
    lake.land(2)
    real = lake.table.describe

    def shortened(version: int) -> Any:
        if version < 2:
            raise HistoryGone("version 1 is no longer in the log")
        return real(version)

    monkeypatch.setattr(lake.table, "describe", shortened)
    assert publish(lake.table, warehouse).rows == 1


def test_status_says_that_the_lake_was_restored(
    stack: Stack, tmp_path: Path, batch_of: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    settings = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    lake = Lake("delta", tmp_path, batch_of)
    lake.land(1)
    copy = lake.copy()
    for n in range(2, 6):
        lake.land(n)

    def stream() -> Stream:
        return Stream(discover().pipelines["events"], settings)

    stream().publish()
    lake.restore(copy)
    found = inspect(stream())
    assert (
        found.unpublished_versions == 2
    )  # the newest of good rows, and the other table, which the copy lacks
    assert any(
        "the lake's events is at version 1, and version 5 of it was published: it has been restored" in said
        for said in found.problems
    )
    assert stream().publish().rows == 1
    found = inspect(stream())
    assert (found.unpublished_versions, found.warehouse_rows, found.lake_rows) == (0, 1, 1)
    assert not any("restored" in said for said in found.problems)
