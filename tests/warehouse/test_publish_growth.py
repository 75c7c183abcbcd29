"""Published by processes with an old and a new contract, in turns: nothing is lost, doubled or taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from growing import CHANGES, CURSOR, DAY, Change, rows
from headrace.config.settings import Settings
from headrace.core.batch import Chunk, Table
from headrace.core.errors import Retriable
from headrace.flow.publish import publish, replace_days
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.memory import MemoryWarehouse
from headrace.warehouse.server import Server

Start = Callable[[], Any]


@pytest.fixture(params=["clickhouse", "memory"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """``start()``: one warehouse, as another process has it open."""
    if request.param == "memory":
        shared = MemoryWarehouse()
        yield lambda: shared
        return
    clickhouse: Callable[..., ClickHouse] = request.getfixturevalue("clickhouse")
    yield clickhouse


class Process:
    """A process with a contract: it lands and publishes."""

    def __init__(self, folder: Path, table: Table, warehouse: Any) -> None:
        # members and elements may be null, as contracts have it
        self.lake = DeltaLakeTable(str(folder), replace(table, nested=frozenset(table.schema)))
        self.warehouse = warehouse

    def land(self, row: Mapping[str, Any], at: int, *, grow: bool = False) -> None:
        snapshot = self.lake.open()
        if grow:
            snapshot.grow()
        batch = f"b-{at}"
        snapshot.append(rows(self.lake.table, [{**row, "_batch_id": batch}], at), {CURSOR: at + 1}, batch)

    def publish(self) -> int:
        return publish(self.lake, self.warehouse).rows


def held(new: Process, expected: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The columns in question of what the warehouse holds, in the order of their offsets."""
    names = list(expected[0])
    if isinstance(new.warehouse, MemoryWarehouse):
        return new.warehouse.rows(new.lake.table).sort("_offset").select(names).to_dicts()
    database = new.warehouse._config.raw_database
    found = new.warehouse.query(f"SELECT {', '.join(names)} FROM {database}.things ORDER BY _offset")
    return [dict(zip(names, row, strict=True)) for row in found]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_every_kind_of_change_is_published_by_both(change: Change, start: Start, tmp_path: Path) -> None:
    old, new = (Process(tmp_path, table, start()) for table in (change.before, change.after))
    old.land(change.old, 0)
    assert old.publish() == 1
    new.land(change.new, 1, grow=True)
    grown = not {*change.after.schema.items()} <= {*change.before.schema.items()}
    if (grown or change.name == "null allowed") and not isinstance(old.warehouse, MemoryWarehouse):
        with pytest.raises(Retriable, match="publishing things waits: the lake"):
            old.publish()
        assert old.warehouse.counts_by_day(change.before) == {DAY: 1}
    assert new.publish() == 1
    old.land(change.old, 2)
    new.land({**change.old_read, **change.new}, 3)
    assert old.publish() == 2, "an old process publishes what a new one has landed"
    expected = [change.read[0], change.read[1], change.read[2], change.read[1]]
    assert held(new, expected) == expected
    assert old.publish() == new.publish() == 0
    for one in (
        old,
        new,
        Process(tmp_path, change.before, start()),
        Process(tmp_path, change.after, start()),
    ):
        assert replace_days(one.lake, one.warehouse, [DAY]) == {DAY: 4}
        assert held(new, expected) == expected
    assert new.warehouse.counts_by_day(change.before) == {DAY: 4}


def test_rows_that_were_sent_twice_are_there_once_whoever_sent_them(start: Start, tmp_path: Path) -> None:
    """An old process crashes after its insert, and a new one sends the rows again, in its columns."""
    [change] = [one for one in CHANGES if one.name == "renamed"]
    old, new = (Process(tmp_path, table, start()) for table in (change.before, change.after))
    old.land(change.old, 0)
    old.warehouse.prepare(old.lake.table)
    [chunk] = old.lake.read(old.lake.describe(1))
    old.warehouse.insert(old.lake.table, chunk, f"things:{old.lake.id}:1:0")
    new.land(change.new, 1, grow=True)
    assert publish(new.lake, new.warehouse, unsure=False).rows == 2
    expected = change.read[:2]
    assert held(new, expected) == expected


def test_a_file_goes_as_it_is_where_the_table_has_all_its_columns(
    clickhouse: Callable[..., ClickHouse], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[bool, tuple[str, ...]]] = []
    insert = Server.insert

    def noted(
        self: Server, database: str, name: str, columns: Sequence[str], chunk: Chunk, settings: Any
    ) -> None:
        sent.append((chunk.parquet is not None, tuple(columns)))
        insert(self, database, name, columns, chunk, settings)

    monkeypatch.setattr(Server, "insert", noted)
    [change] = [one for one in CHANGES if one.name == "added with a default"]
    old, new = (Process(tmp_path, table, clickhouse()) for table in (change.before, change.after))
    old.land(change.old, 0)
    old.publish()
    new.land(change.new, 1, grow=True)
    new.publish()
    new.land(change.new, 2)
    old.publish()
    assert [whole for whole, _ in sent] == [True, True, True]
    assert "channel" not in sent[0][1] and "channel" in sent[2][1]


def test_members_that_a_struct_has_gained_are_null_in_rows_of_an_old_process(
    clickhouse: Callable[..., ClickHouse], tmp_path: Path
) -> None:
    [change] = [one for one in CHANGES if one.name == "a struct"]
    old, new = (Process(tmp_path, table, clickhouse()) for table in (change.before, change.after))
    new.warehouse.prepare(new.lake.table)  # the warehouse has grown, the lake has not
    old.land(change.old, 0)
    assert old.publish() == 1
    assert held(new, change.read[:1]) == change.read[:1]


def test_a_process_that_waits_goes_on_once_the_newer_was_there(
    clickhouse: Callable[..., ClickHouse], raw: Settings, tmp_path: Path
) -> None:
    [change] = [one for one in CHANGES if one.name == "added"]
    old, new = (Process(tmp_path, table, clickhouse()) for table in (change.before, change.after))
    old.land(change.old, 0)
    new.land(change.new, 1, grow=True)
    with pytest.raises(Retriable, match="a process with the newer contract publishes it"):
        old.publish()
    new.warehouse.prepare(new.lake.table)
    assert old.publish() == 2
    expected = change.read[:2]
    assert held(new, expected) == expected
    counted = Server(raw).query(f"SELECT uniqExact(_offset), count() FROM {raw.raw_database}.things")
    assert counted == [(2, 2)]
    assert pl.DataFrame(held(new, expected)).height == 2
