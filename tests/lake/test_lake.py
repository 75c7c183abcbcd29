"""One suite for every lake: what must hold for messages to land exactly once."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from builders import NOW, event, metric
from headrace.contracts import EVENTS, METRICS, Contract, Limits, check_batch
from headrace.core.batch import MicroBatch, sent_stamp
from headrace.core.errors import Conflict, Fatal, HistoryGone
from headrace.lake import LakeTable
from headrace.lake.arrow import to_arrow
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.parquet import writer_properties
from headrace.lake.memory import MemoryLakeTable

Batch = Callable[..., MicroBatch]
CURSOR = "test/0"


@pytest.fixture(params=["delta", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., LakeTable]:
    def build(contract: Contract = EVENTS) -> LakeTable:
        if request.param == "memory":
            return MemoryLakeTable(contract.table)
        return DeltaLakeTable(str(tmp_path / "a lake"), contract.table)

    return build


def rows(batch: MicroBatch, contract: Contract = EVENTS) -> pl.DataFrame:
    return check_batch(contract, batch, batch_id=str(uuid.uuid4()), now=NOW, limits=Limits()).good


def day(number: int) -> str:
    return f"2026-01-{number:02d}T12:00:00Z"


def test_rows_and_position_move_together(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table = make()
    snapshot = table.open()
    assert not snapshot.position([CURSOR])
    good = rows(batch_of([event(), event(event_id="e-2")]))
    version = snapshot.append(good, {CURSOR: 2}, "b")
    assert table.open().version == version
    assert dict(table.open().position([CURSOR, "test/1"])) == {CURSOR: 2}
    assert table.counts_by_day() == {date(2026, 1, 2): 2}


def test_a_second_writer_from_the_same_snapshot_is_refused(
    make: Callable[..., LakeTable], batch_of: Batch
) -> None:
    table = make()
    table.open()
    good = rows(batch_of([event()]))
    first, second = table.open(), table.open()
    first.append(good, {CURSOR: 1}, "b")
    with pytest.raises(Conflict):
        second.append(good, {CURSOR: 1}, "b")
    assert table.counts_by_day() == {date(2026, 1, 2): 1}


def test_writers_of_other_cursors_do_not_disturb(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table = make()
    table.open()
    first, second = table.open(), table.open()
    first.append(rows(batch_of([event()])), {CURSOR: 1}, "b")
    second.append(rows(batch_of([event()], cursor="test/1")), {"test/1": 1}, "b")
    assert table.counts_by_day() == {date(2026, 1, 2): 2}


def test_a_snapshot_can_be_written_through_again_until_somebody_else_moves_its_cursor(
    make: Callable[..., LakeTable], batch_of: Batch
) -> None:
    table = make()
    mine, other = table.open(), "test/1"
    for n in range(1, 4):
        version = mine.append(rows(batch_of([event(event_id=str(n))], start=n - 1)), {CURSOR: n}, "b")
        assert (mine.version, dict(mine.position([CURSOR]))) == (version, {CURSOR: n})
    table.open().append(rows(batch_of([event()], cursor=other)), {other: 1}, "b")
    mine.append(rows(batch_of([event()], start=3)), {CURSOR: 4}, "b")
    assert (
        dict(mine.position([CURSOR, other]))
        == {CURSOR: 4, other: 1}
        == dict(table.open().position([CURSOR, other]))
    )
    table.open().append(rows(batch_of([event()], start=4)), {CURSOR: 5}, "b")
    with pytest.raises(Conflict):
        mine.append(rows(batch_of([event()], start=4)), {CURSOR: 5}, "b")
    assert table.counts_by_day() == {date(2026, 1, 2): 6}


def test_an_append_may_move_positions_only(make: Callable[..., LakeTable]) -> None:
    table = make()
    version = table.open().append(pl.DataFrame(schema=EVENTS.landed_schema), {CURSOR: 7}, "b")
    assert dict(table.open().position([CURSOR])) == {CURSOR: 7}
    assert table.describe(version).rows == 0
    assert list(table.read(table.describe(version))) == []


def test_the_newest_landing_is_known(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table = make()
    table.open()
    assert table.latest() is None
    table.open().append(rows(batch_of([event()])), {CURSOR: 1}, "b")
    assert table.latest() == NOW
    table.open().append(pl.DataFrame(schema=EVENTS.landed_schema), {CURSOR: 2}, "b")
    assert table.latest() == NOW, "moving a position lands nothing"


def test_a_version_reads_back_what_it_added(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table = make(METRICS)
    payloads = [
        metric(metric_id=str(n), occurred_at=day(1 + n % 3), dimensions={"n": str(n)}) for n in range(9)
    ]
    good = rows(batch_of(payloads), METRICS)
    version = table.open().append(good, {CURSOR: 9}, "b")
    table.open().append(rows(batch_of([metric()], start=9), METRICS), {CURSOR: 10}, "b")
    added = table.describe(version)
    assert (added.rows, added.days) == (9, tuple(date(2026, 1, d) for d in (1, 2, 3)))
    once, again = (list(table.read(added)) for _ in range(2))
    assert [pa.concat_tables(c) for c in once] == [pa.concat_tables(c) for c in again]
    back = pl.concat([pl.DataFrame(pl.from_arrow(chunk)) for chunk in once])
    assert sorted(back["metric_id"]) == [str(n) for n in range(9)]
    assert back.filter(pl.col("metric_id") == "4")["dimensions"].to_list() == [{"n": "4"}]
    assert set(back["metric_date"]) == set(added.days)


def test_a_day_reads_as_of_a_version(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table = make()
    first = table.open().append(rows(batch_of([event(), event(occurred_at=day(5))])), {CURSOR: 2}, "b")
    table.open().append(rows(batch_of([event()], start=2)), {CURSOR: 3}, "b")
    newest = table.open().version

    def count(version: int, of: date) -> int:
        return sum(chunk.num_rows for chunk in table.read_day(of, version))

    assert count(first, date(2026, 1, 2)) == 1
    assert count(newest, date(2026, 1, 2)) == 2
    assert count(newest, date(2026, 1, 9)) == 0


def test_origins_of_finds_those_that_are_there(make: Callable[..., LakeTable], batch_of: Batch) -> None:
    table, sent = make(), datetime(2026, 1, 2, tzinfo=UTC)
    batch = batch_of([event(), event()], cursor="sqs/q")
    name = f"{sent_stamp(sent)}-b"
    landed = check_batch(
        EVENTS, batch, batch_id=name, now=datetime.now(UTC), limits=Limits()
    ).good.with_columns(_offset=pl.lit(None, pl.Int64), _message_id=pl.Series(["a", "b"]))
    table.open().append(landed, {"sqs/q": 1}, name)

    def found(cursor: str, since: datetime | None) -> list[str]:
        asked = pl.Series(["b", "c"])
        return table.open().origins_of(cursor, asked, since, timedelta(0))["_message_id"].to_list()

    assert found("sqs/q", None) == found("sqs/q", sent) == ["b"]
    assert found("sqs/q", sent + timedelta(seconds=1)) == [], "sent wholly before"
    assert found("sqs/other", None) == []


def test_a_version_beyond_the_log_is_an_error_that_says_what_to_do(make: Callable[..., LakeTable]) -> None:
    table = make()
    table.open()
    with pytest.raises(Fatal, match="no longer in the"):
        table.describe(99)


def test_a_delta_table_below_a_folder_with_a_space_can_be_scanned(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path / "with a space"), METRICS.table)
    good = rows(batch_of([metric(), metric(metric_id="m-2")]), METRICS)
    table.open().append(good, {CURSOR: 2}, "b")
    scanned = table.scan().select("metric_id", "_cursor", "_offset", "_index").collect()
    assert sorted(scanned["metric_id"]) == ["m-1", "m-2"]


def test_delta_compaction_adds_nothing_to_publish(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(3):
        table.open().append(rows(batch_of([event()], start=n)), {CURSOR: n + 1}, "b")
    DeltaTable(table.uri).optimize.compact()
    assert table.describe(table.open().version).rows == 0
    assert dict(table.open().position([CURSOR])) == {CURSOR: 3}
    assert table.counts_by_day() == {date(2026, 1, 2): 3}


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "a file, not a folder"
    folder.write_text("")
    yield folder


def test_a_lake_that_cannot_be_written_is_one_clear_line(read_only: Path) -> None:
    from headrace.core.errors import HeadraceError

    with pytest.raises(HeadraceError) as raised:
        DeltaLakeTable(str(read_only), EVENTS.table).open()
    assert str(read_only) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_commit_that_upkeep_made_impossible_is_made_from_a_new_snapshot(
    tmp_path: Path, batch_of: Batch
) -> None:
    """Upkeep sets properties of tables that have others, and compacts, while a run goes on with its snapshot."""
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    snapshot, good = table.open(), rows(batch_of([event()]))
    for n in range(1, 3):
        snapshot.append(good, {CURSOR: n}, "b")
    DeltaTable(table.uri).optimize.compact()
    snapshot.append(good, {CURSOR: 3}, "b")
    DeltaTable(table.uri).alter.set_table_properties({"delta.logRetentionDuration": "interval 5 hours"})
    with pytest.raises(Conflict):
        snapshot.append(good, {CURSOR: 4}, "b")
    table.open().append(good, {CURSOR: 4}, "b")
    assert table.counts_by_day() == {date(2026, 1, 2): 4}


def chunks_of(file: pq.ParquetFile) -> list[pq.ColumnChunkMetaData]:
    """Of its only row group."""
    return [file.metadata.row_group(0).column(n) for n in range(file.metadata.num_columns)]


@pytest.mark.parametrize("contract", [EVENTS, METRICS])
def test_files_are_as_delta_rs_would_have_written_them(
    contract: Contract, tmp_path: Path, batch_of: Batch
) -> None:
    make_one = event if contract is EVENTS else metric
    payloads = [make_one(occurred_at=f"2026-01-0{1 + n % 3}T12:00:00.00{n}5Z") for n in range(9)]
    good = rows(batch_of(payloads), contract)
    ours, theirs = (DeltaLakeTable(str(tmp_path / name), contract.table) for name in ("ours", "theirs"))
    ours.open().append(good, {CURSOR: 9}, "b")
    theirs.open()
    write_deltalake(
        theirs.uri,
        to_arrow(good, contract.table),
        mode="append",
        writer_properties=writer_properties(contract.table),
    )
    found = []
    for table in (ours, theirs):
        handle = DeltaTable(table.uri)
        actions = pl.DataFrame(handle.get_add_actions(flatten=True)).sort(f"partition.{contract.partition}")
        files = [pq.ParquetFile(Path(table.uri) / path) for path in actions["path"]]
        day = contract.partition  # delta-rs has it in the path alone
        dictionaries = [
            [(c.path_in_schema, c.has_dictionary_page) for c in chunks_of(f) if c.path_in_schema != day]
            for f in files
        ]
        kinds = [
            (c.path, c.physical_type, str(c.logical_type), c.max_definition_level)
            for c in (files[0].schema.column(n) for n in range(len(files[0].schema.names)))
            if c.path != day
        ]
        codecs = {chunk.compression for f in files for chunk in chunks_of(f)}
        said = actions.drop("path", "size_bytes", "modification_time")
        # delta-rs cuts times in its statistics to milliseconds
        said = said.with_columns(pl.col(pl.Datetime).dt.truncate("1ms"))
        contents = table.scan().sort("_offset").collect()
        found.append((said.select(sorted(said.columns)), dictionaries, kinds, codecs, contents))
    assert found[0][0].to_dicts() == found[1][0].to_dicts()
    assert len(found[0][0]) == 3
    assert found[0][1:4] == found[1][1:4]
    assert found[0][4].equals(found[1][4])
    assert found[0][4].height == 9


def noise(count: int) -> list[bytes]:
    """Events that compress badly."""
    source = random.Random(7)
    return [
        event(event_id=source.randbytes(60).hex(), page_url=source.randbytes(100).hex()) for _ in range(count)
    ]


def test_a_file_of_megabytes_is_written(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    good = rows(batch_of(noise(30_000)))
    table.open().append(good, {CURSOR: good.height}, "b")
    assert table.extent().bytes > 3 << 20
    assert table.scan().sort("_offset").collect().equals(good)


def test_rows_that_are_staged_part_by_part_are_one_file_for_each_day_in_one_commit(
    tmp_path: Path, batch_of: Batch
) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    snapshot, staged, parts = table.open(), table.stage(), []
    for n in range(4):
        payloads = [event(occurred_at=f"2026-01-0{1 + k % 2}T12:00:0{n}Z") for k in range(10)]
        parts.append(rows(batch_of(payloads, start=10 * n)))
        staged.add(parts[-1])
    assert staged.height == 40
    assert not list(Path(table.uri).rglob("*.parquet")), "nobody sees what has not been committed"
    version = snapshot.append(staged, {CURSOR: 40}, "b")
    added = table.describe(version)
    assert (added.rows, [str(day) for day in added.days], len(added.files)) == (
        40,
        ["2026-01-01", "2026-01-02"],
        2,
    )
    whole = pl.concat(parts)
    assert table.scan().sort("_offset").collect().equals(whole)
    actions = pl.DataFrame(DeltaTable(table.uri).get_add_actions(flatten=True))
    said = actions.select(
        pl.col("num_records").sum(),
        pl.col("min.occurred_at").min(),
        pl.col("max.occurred_at").max(),
        pl.col("min._offset").min(),
        pl.col("max._offset").max(),
        pl.col("null_count._offset").sum(),
    )
    times = whole["occurred_at"]
    assert said.row(0) == (40, times.min(), times.max(), 0, 39, 0)


def test_small_parts_of_a_day_share_a_row_group(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    staged = table.stage()
    for n in range(50):
        staged.add(rows(batch_of([event()], start=n)))
    table.open().append(staged, {CURSOR: 50}, "b")
    [file] = Path(table.uri).rglob("*.parquet")
    assert pq.read_metadata(file).num_row_groups == 1


@pytest.mark.parametrize("contract", [EVENTS, METRICS])
def test_other_clients_read_and_rewrite_files_that_have_the_partition_column(
    contract: Contract, tmp_path: Path, batch_of: Batch
) -> None:
    make_one = event if contract is EVENTS else metric
    payloads = [make_one(occurred_at=f"2026-01-0{1 + n % 3}T12:00:00Z") for n in range(9)]
    good, table = rows(batch_of(payloads), contract), DeltaLakeTable(str(tmp_path), contract.table)
    for n in (0, 9):
        table.open().append(good.with_columns(pl.col("_offset") + n), {CURSOR: n + 9}, "b")
    for file in Path(table.uri).rglob("*.parquet"):
        assert contract.partition in pq.read_schema(file).names
    names, day = ["_offset", contract.partition], contract.partition

    def seen() -> list[pl.DataFrame]:
        handle = DeltaTable(table.uri)
        by = [
            pl.DataFrame(handle.to_pyarrow_dataset().to_table(columns=names)),
            pl.scan_delta(table.uri).select(names).collect(),
            pl.DataFrame(QueryBuilder().register("t", handle).execute(f"SELECT _offset, {day} FROM t")),
            table.scan().select(names).collect(),
        ]
        return [frame.sort("_offset") for frame in by]

    expected = pl.concat([good, good.with_columns(pl.col("_offset") + 9)]).select(names)
    for frame in seen():
        assert frame.to_dicts() == expected.to_dicts()
    assert DeltaTable(table.uri).optimize.compact()["numFilesAdded"] == 3
    for frame in seen():
        assert frame.to_dicts() == expected.to_dicts()
    DeltaTable(table.uri).delete("_offset = 4")
    for frame in seen():
        assert frame.to_dicts() == expected.filter(pl.col("_offset") != 4).to_dicts()


def test_a_table_that_was_made_with_other_columns_is_refused_by_name(tmp_path: Path, batch_of: Batch) -> None:
    other = EVENTS.table.schema.copy()
    del other["page_url"]
    other["duration_ms"] = pl.Int64()
    before = DeltaLakeTable(str(tmp_path), replace(EVENTS.table, schema=pl.Schema(other)))
    before.open()
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    with pytest.raises(Fatal, match="other columns than its contract: page_url, duration_ms;"):
        table.open().append(rows(batch_of([event()])), {CURSOR: 1}, "b")
    assert not table.open().position([CURSOR])


def test_a_table_says_how_large_it_is_and_when_it_was_committed_to(
    make: Callable[..., LakeTable], batch_of: Batch
) -> None:
    table = make()
    before = datetime.now(UTC) - timedelta(seconds=1)  # clocks in the log are cut to milliseconds
    version = table.open().append(rows(batch_of([event(), event(event_id="e-2")])), {CURSOR: 2}, "b")
    assert table.extent().rows == 2
    assert before <= table.committed_at(version) <= datetime.now(UTC)
    with pytest.raises(HistoryGone):
        table.committed_at(version + 1)


def test_maintenance_puts_files_together_and_keeps_rows_positions_and_what_is_young(
    tmp_path: Path, batch_of: Batch
) -> None:
    table = DeltaLakeTable(str(tmp_path / "a lake"), EVENTS.table)
    for n in range(4):
        good = rows(batch_of([event(event_id=f"e-{n}")], start=n))
        table.open().append(good, {CURSOR: n + 1}, str(n))
    done = table.maintain(timedelta(days=7), timedelta(days=1))
    assert (done.compacted, done.written, done.removed) == (4, 1, 0)
    assert table.extent().files == 1
    assert table.extent().rows == 4
    assert dict(table.open().position([CURSOR])) == {CURSOR: 4}
    assert [table.describe(v).rows for v in range(1, 5)] == [1, 1, 1, 1], "a publisher may be as far behind"
    assert sum(chunk.num_rows for chunk in table.read(table.describe(2))) == 1
    assert (tmp_path / "a lake" / "events" / "_delta_log" / "_last_checkpoint").exists()
    for path in (tmp_path / "a lake" / "events").rglob("*.parquet"):
        if "_delta_log" not in path.parts:
            os.utime(path, (1_700_000_000, 1_700_000_000))
    table.open().append(rows(batch_of([event(event_id="e-9")], start=4)), {CURSOR: 5}, "9")
    again = DeltaLakeTable(str(tmp_path / "a lake"), EVENTS.table).maintain(
        timedelta(days=7), timedelta(days=1)
    )
    assert again.removed == 0, "what was replaced a moment ago is young, however old its file"
    assert table.extent().rows == 5


def test_maintenance_shortens_the_log_and_keeps_rows_and_positions(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(30):
        table.open().append(rows(batch_of([event(event_id=f"e-{n}")], start=n)), {CURSOR: n + 1}, str(n))
    log = tmp_path / "events" / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 1, "after twenty commits"
    for version in range(25):
        os.utime(log / f"{version:020d}.json", (1_700_000_000, 1_700_000_000))
    table.maintain(timedelta(days=7), timedelta(days=30_000))
    assert table.describe(1).rows == 1, "all of it is young enough"
    table.maintain(timedelta(days=7), timedelta(hours=3), NOW)
    assert table.describe(1).rows == 1, "somebody still has to read it"
    table.maintain(timedelta(days=7), timedelta(hours=3))
    with pytest.raises(HistoryGone):
        table.describe(1)
    newest = DeltaTable(str(tmp_path / "events"))
    assert newest.metadata().configuration["delta.logRetentionDuration"] == "interval 3 hours"
    assert [table.describe(v).rows for v in range(26, 31)] == [1] * 5, "what is young stays"
    version = newest.version()
    table.maintain(timedelta(days=7), timedelta(hours=3))
    assert DeltaTable(str(tmp_path / "events")).version() == version, "nothing is left to do"
    assert table.extent().rows == 30
    assert dict(table.open().position([CURSOR])) == {CURSOR: 30}
    table.open().append(rows(batch_of([event(event_id="e-30")], start=30)), {CURSOR: 31}, "30")
    assert table.extent().rows == 31


def test_some_days_can_be_scanned_alone(tmp_path: Path, batch_of: Batch) -> None:
    table = DeltaLakeTable(str(tmp_path / "a lake"), EVENTS.table)
    good = rows(batch_of([event(event_id=f"e-{n}", occurred_at=day(n)) for n in (1, 2, 3)]))
    table.open().append(good, {CURSOR: 3}, "b")
    found = table.scan([date(2026, 1, 1), date(2026, 1, 3)]).collect()
    assert sorted(found["event_id"]) == ["e-1", "e-3"]
    assert table.scan([]).collect().is_empty()
