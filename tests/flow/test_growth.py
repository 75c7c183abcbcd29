"""Contracts of several versions land in one lake, by processes that are replaced one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import event
from chaos.contracts import CONTRACTS
from growing import CHANGES, CURSOR, DAY, Change, rows
from headrace.contracts import METRICS, Contract, Limits
from headrace.contracts.base import Time, field
from headrace.core.batch import ORIGIN_KEY, MicroBatch, Table
from headrace.core.errors import Conflict, Fatal
from headrace.flow.commit import StreamLake, Writer
from headrace.flow.growth import follow, judge
from headrace.flow.validate import validate
from headrace.lake import LakeTable, Snapshot
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from wide import WIDE

Batch = Callable[..., MicroBatch]
OLD, NEW = CONTRACTS["old"], CONTRACTS["new"]


def lake_of(
    contract: Contract, beside: StreamLake[MemoryLakeTable] | None = None
) -> StreamLake[MemoryLakeTable]:
    good, rejected = (beside.good, beside.rejected) if beside else (None, None)
    return StreamLake(
        MemoryLakeTable(contract.table, good), MemoryLakeTable(contract.rejected_table, rejected)
    )


def landing(contract: Contract, lake: StreamLake[MemoryLakeTable]) -> Writer:
    return Writer(contract, lake, Limits(), replayable=True)


def test_a_process_with_an_older_contract_lands_on_and_says_so_once(
    batch_of: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    old_lake = lake_of(OLD)
    new_lake = lake_of(NEW, old_lake)
    old, new = landing(OLD, old_lake), landing(NEW, new_lake)

    def land(writer: Writer, contract: Contract, start: int) -> tuple[str, ...]:
        batch = batch_of([event(event_id=f"e-{start}")], start=start)
        landed = writer.commit([(batch, validate(batch, contract, Limits()))], writer.tables())
        assert landed is not None and landed.good == 1
        return landed.ahead

    with caplog.at_level(logging.WARNING):
        assert [land(old, OLD, 0), land(new, NEW, 1)] == [(), ()]
        [line] = land(landing(OLD, old_lake), OLD, 2)
        again = landing(OLD, old_lake)
        assert [len(land(again, OLD, at)) for at in (3, 4)] == [1, 0]
    assert "follows version 2" in line and "this process has version 1" in line and "country null" in line
    assert caplog.text.count("follows version 2") == 2, "once a process"
    found = new_lake.good.rows().sort("_offset")
    assert found["country"].to_list() == ["CH"] * 5
    assert found.schema["score"] == pl.Int64


def test_a_writer_that_had_the_table_open_reads_again(batch_of: Batch) -> None:
    old_lake = lake_of(OLD)
    writer = landing(OLD, old_lake)
    tables = writer.tables()
    follow(lake_of(NEW, old_lake).good)
    batch = batch_of([event()])
    assert writer.commit([(batch, validate(batch, OLD, Limits()))], tables) is None
    landed = writer.commit([(batch, validate(batch, OLD, Limits()))], writer.tables())
    assert landed is not None and landed.good == 1
    assert old_lake.good.counts_by_day() == dict.fromkeys(landed.days, 1)


class Narrow(pa.DataFrameModel):
    """An event without its page, and with another type."""

    event_id: pl.String = field("id", required=True)
    occurred_at: Time = field("when", required=True)
    channel: pl.Int64 = field("where", required=True)
    session_id: pl.String = field("the visit", required=True)


def test_a_contract_that_breaks_who_reads_is_refused_before_anything_lands(tmp_path: Path) -> None:
    DeltaLakeTable(str(tmp_path), OLD.table).open()
    broken = replace(OLD, version=2, model=Narrow, claims=None)
    lake = DeltaLakeTable(str(tmp_path), broken.table)
    version = lake.open().version
    with pytest.raises(Fatal, match=r"nothing lands: .*channel: type, String.* -> Int64") as refused:
        follow(lake)
    assert "user_id: removed, String" in str(refused.value)
    assert lake.open().version == version


@pytest.mark.parametrize("contract", [OLD, METRICS, WIDE, replace(WIDE, unknown="keep")])
def test_a_table_of_before_records_its_contract_and_nothing_else_of_it_changes(
    contract: Contract, tmp_path: Path
) -> None:
    lake = DeltaLakeTable(str(tmp_path), replace(contract.table, description_json=""))
    before = lake.newest().schema()
    snapshot, line = follow(DeltaLakeTable(str(tmp_path), contract.table))
    assert (snapshot.described, line) == (contract.table.description_json, "")
    assert lake.newest().schema() == before


def test_a_table_without_a_record_is_judged_by_its_columns(tmp_path: Path) -> None:
    DeltaLakeTable(str(tmp_path), replace(OLD.table, description_json="")).open()
    lake = DeltaLakeTable(str(tmp_path), NEW.table)
    snapshot, _ = follow(lake)
    assert (snapshot.described, snapshot.behind) == (NEW.table.description_json, ())
    assert follow(lake)[0].version == snapshot.version, "as long as nothing changes, nothing is committed"


def test_what_breaks_producers_alone_is_no_matter_of_the_table() -> None:
    stricter = replace(NEW, version=3, oldest=2)
    found = judge(NEW.table.description_json, stricter.table.description_json)
    assert (found.broken, found.newer, found.changes) == ((), False, True)
    assert [one.kind for one in found.stricter] == ["oldest"]
    assert judge(stricter.table.description_json, NEW.table.description_json).newer


class Process:
    """A process with a contract: opens the table, may be overtaken, lands the rows that it read."""

    def __init__(self, lake: LakeTable) -> None:
        self.lake, self.snapshot = lake, lake.open()

    def open(self) -> None:
        self.snapshot = self.lake.open()
        if self.snapshot.behind:
            self.snapshot.grow()

    def land(self, values: dict[str, object]) -> None:
        """Land the row that follows, from whatever snapshot there is; start over as long as others were first."""
        for _ in range(3):
            try:
                self._append(self.snapshot, values)
                return
            except Conflict:
                self.open()
        raise AssertionError("a process does not get to land")

    def _append(self, snapshot: Snapshot, values: dict[str, object]) -> None:
        if snapshot.behind:
            snapshot.grow()
        start = snapshot.position([CURSOR]).get(CURSOR, 0)
        staged = self.lake.stage()
        staged.add(rows(self.lake.table, [values], start))
        snapshot.append(staged, {CURSOR: start + 1}, "b")


STEPS = st.lists(st.tuples(st.sampled_from(["open", "land", "erase", "compact"]), st.booleans()), max_size=12)


@settings(max_examples=25, deadline=None)
@given(change=st.sampled_from(CHANGES), steps=STEPS, second=st.booleans(), delta=st.booleans())
def test_any_order_of_old_and_new_processes_lands_every_row_once(
    change: Change,
    steps: list[tuple[str, bool]],
    second: bool,
    delta: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root, made = str(tmp_path_factory.mktemp("lake")), list[MemoryLakeTable]()

    def opens(of: Table) -> LakeTable:
        if delta:
            return DeltaLakeTable(root, of)
        made.append(MemoryLakeTable(of, made[0] if made else None))
        return made[-1]

    old = [Process(opens(change.before)) for _ in range(1 + second)]
    new = [Process(opens(change.after)) for _ in range(1 + second)]
    expected: dict[int, dict[str, object]] = {}
    offset = 0
    for n, (step, is_new) in enumerate(steps):
        process = (new if is_new else old)[n % (1 + second)]
        if step == "open":
            process.open()
        elif step == "land":
            process.land(dict(change.new if is_new else change.old))
            expected[offset] = change.read[1 if is_new else 0]
            offset += 1
        elif step == "erase" and expected:
            gone = min(expected)
            key = rows(change.before, [change.old], gone).select(ORIGIN_KEY)
            assert process.lake.erase(key).rows == 1
            del expected[gone]
        elif step == "compact" and isinstance(process.lake, DeltaLakeTable):
            process.lake.newest().optimize.compact()
    new[0].open()
    lake = new[0].lake
    parts = [pl.DataFrame(pl.from_arrow(p)) for c in lake.read_day(DAY, lake.open().version) for p in c]
    names = ["_offset", *change.old_read]
    dtypes = {name: dtype for name, dtype in lake.shape().schema.items() if name in names}
    found = pl.concat(parts).select(names).cast(dtypes).sort("_offset").to_dicts() if parts else []  # type: ignore[arg-type]
    assert found == [{"_offset": at, **row} for at, row in sorted(expected.items())]
