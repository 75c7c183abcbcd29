"""A warehouse that comes back from a power cut with its rows and without the tokens that it had seen."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from builders import NOW, event
from conftest import Stack
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.flow.publish import publish
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse import Publication
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.memory import MemoryWarehouse

Batch = Callable[..., MicroBatch]


class PowerCut(Exception):
    """The machine of the warehouse goes dark here."""


@pytest.fixture(params=["clickhouse", "memory"])
def warehouse(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield MemoryWarehouse()
        return
    stack: Stack = request.getfixturevalue("stack")
    found = ClickHouse(stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"}))
    yield found
    found.close()


def forget_tokens(warehouse: Any) -> None:
    if isinstance(warehouse, MemoryWarehouse):
        warehouse.forget_tokens()
        return
    warehouse.restarted_since = lambda _: True
    name = f"{warehouse._config.raw_database}.events"
    for window in (0, 10_000):
        warehouse._server.command(
            f"ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = {window}"
        )


@pytest.fixture
def table(tmp_path: Path, batch_of: Batch) -> DeltaLakeTable:
    """Versions of two rows each, and one without any."""
    made, at = DeltaLakeTable(str(tmp_path), EVENTS.table, sync=False), 0
    for days in ((1, 2), (2, 3), (), (3, 4)):
        payloads = [event(event_id=str(d), occurred_at=f"2026-01-{d:02d}T00:00:00Z") for d in days]
        name = str(uuid.uuid4())
        good = check_batch(EVENTS, batch_of(payloads, start=at), batch_id=name, now=NOW, limits=Limits()).good
        at += len(days)
        made.open().append(good, {"test/0": at}, name)
    return made


@pytest.mark.long
@pytest.mark.parametrize("lost", [1, 2, 4], ids=lambda n: f"{n} records lost")
def test_rows_that_are_there_are_not_inserted_again(
    warehouse: Any, table: DeltaLakeTable, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[Publication] = []

    def never(_: Any, publication: Publication) -> None:
        if publication.version:
            records.append(publication)
            if len(records) == lost:
                raise PowerCut

    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        patched.setattr(warehouse, "record", never)
        publish(table, warehouse)
    forget_tokens(warehouse)
    publish(table, warehouse)
    assert warehouse.counts_by_day(EVENTS.table) == table.counts_by_day()


def test_who_takes_the_tokens_for_granted_doubles(
    warehouse: Any, table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    with monkeypatch.context() as patched:
        patched.setattr(warehouse, "record", lambda *_: None)
        publish(table, warehouse)
    forget_tokens(warehouse)
    publish(table, warehouse, unsure=False)
    assert sum(warehouse.counts_by_day(EVENTS.table).values()) == 12


def test_it_asks_until_a_version_is_not_there_at_all(
    warehouse: Any, table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = warehouse.holds
    monkeypatch.setattr(warehouse, "holds", lambda *a: asked.append(a) or real(*a))
    publish(table, warehouse)
    assert len(asked) == 1
    publish(table, warehouse)
    assert len(asked) == 1, "there is nothing to ask for"


def test_what_another_machine_is_publishing_is_left_to_it(
    warehouse: Any, table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing its days would take away what it has added of later versions by then; so without leases, too."""
    warehouse._unfenced = True
    recording, recorded = threading.Event(), warehouse.record

    def slowly(of: Any, publication: Publication, /) -> None:
        if publication.version == 1 and threading.current_thread() is not threading.main_thread():
            recording.set()
            assert looked.wait(30)
        recorded(of, publication)

    looked = threading.Event()
    real = warehouse.holds

    def holds(*asked: Any) -> bool:
        found = bool(real(*asked))
        looked.set()
        return found

    replaced: list[Any] = []
    swap = warehouse.replace_partition
    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as other:
        patched.setattr(warehouse, "record", slowly)
        patched.setattr(warehouse, "restarted_since", lambda _: True)
        patched.setattr(warehouse, "replace_partition", lambda *a: replaced.append(a) or swap(*a))
        elsewhere = other.submit(publish, table, warehouse, unsure=False)
        assert recording.wait(30)
        patched.setattr(warehouse, "holds", holds)
        publish(table, warehouse, settle_seconds=30)
        elsewhere.result(60)
    assert not replaced
    assert warehouse.counts_by_day(EVENTS.table) == table.counts_by_day()


def test_a_warehouse_that_has_been_up_knows_its_tokens(
    stack: Stack, table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sent half of a version may be frozen, and go on: its tokens must be known by then."""
    found = ClickHouse(stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"}))
    replaced: list[Any] = []
    with monkeypatch.context() as patched:
        patched.setattr(found, "record", lambda *_: None)
        publish(table, found)
    monkeypatch.setattr(found, "replace_partition", lambda *a: replaced.append(a))
    assert found.restarted_since(datetime.fromtimestamp(0, UTC))
    publish(table, found)
    assert not replaced
    assert found.counts_by_day(EVENTS.table) == table.counts_by_day()
    found.close()
