"""The last version of each day stays readable, for plain readers too, although the log is short and old files go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from builders import NOW, event
from growing import CHANGES, LANDED, Change, dated, today
from growing import rows as rows_for
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import ORIGIN_KEY, MicroBatch
from headrace.core.errors import HistoryGone
from headrace.lake.delta import DeltaLakeTable, history
from headrace.lake.delta.history import ends_of_days, kept, read_log
from headrace.lake.delta.restore import Target, fence, restore

CURSOR = "test/0"
A_DAY = 30  # commits of each day of ``aged``


def commit(table: DeltaLakeTable, first: int, end: int, at: datetime = NOW) -> None:
    snapshot = table.open()
    for n in range(first, end):
        batch = MicroBatch.of("test", [event(event_id=f"e-{n}")], cursor=CURSOR, offset=[n])
        good = check_batch(EVENTS, batch, batch_id="b", now=at, limits=Limits()).good
        dated(table, snapshot.append(good, {CURSOR: n + 1}, str(n)), at)


def aged(table: DeltaLakeTable, days: int) -> None:
    """Thirty commits of a row on each of the days before today, and on today."""
    table.open()
    dated(table, 0, today() - timedelta(days=days))
    for n in range(days + 1):
        at = today() - timedelta(days=days - n)
        commit(table, A_DAY * n, A_DAY * (n + 1), at)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Four days before today and today, thirty rows each: the last versions of the days are 30, 60, 90 and 120.

    Made once a day: a test that begins after midnight gets another one.
    """

    @cache
    def made_on(day: datetime) -> Path:
        root = tmp_path_factory.mktemp("made")  # Polars reads no folder with a space in its name
        aged(DeltaLakeTable(str(root), EVENTS.table), 4)
        return root

    return lambda: made_on(today())


@pytest.fixture
def table(made: Callable[[], Path], tmp_path: Path) -> DeltaLakeTable:
    """A copy of ``made``."""
    shutil.copytree(made(), tmp_path / "lake")
    return DeltaLakeTable(str(tmp_path / "lake"), EVENTS.table)


def short() -> timedelta:
    """Return an age that today's commits of ``aged`` have passed, and those of the test not yet."""
    return (datetime.now(UTC) - today()) / 2


def rows_of(table: DeltaLakeTable, version: int) -> set[int]:
    """Rows of a version by each plain reader."""
    handle = DeltaTable(table.uri, version=version)
    return {
        handle.to_pyarrow_dataset().to_table(columns=["_offset"]).num_rows,
        pl.scan_delta(table.uri, version=version).select("_offset").collect().height,
        len(duck(table, version, "_offset")),
    }


def duck(table: DeltaLakeTable, version: int, columns: str) -> list[tuple[Any, ...]]:
    """Rows of a version by DuckDB's own extension, which PyPI has as a package."""
    import duckdb_extension_delta  # type: ignore[import-untyped]

    [extension] = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension*")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        connection.execute(f"LOAD '{extension}'")
        asked = f"SELECT {columns} FROM delta_scan('{table.uri}', version = {version}) ORDER BY ALL"
        return connection.execute(asked).fetchall()


def hint(table: DeltaLakeTable) -> int:
    return int(json.loads((Path(table.uri) / "_delta_log" / "_last_checkpoint").read_text())["version"])


@pytest.mark.parametrize("how", ["by number", "by age"])
def test_the_last_version_of_each_day_stays_when_the_log_is_shortened(
    table: DeltaLakeTable, how: str
) -> None:
    before = hint(table)
    if how == "by number":
        table.shorten_log(150, 10)
    else:
        table.maintain(timedelta(days=1), short())
    assert hint(table) >= before, "it points to the newest as ever"
    assert read_log(table).kept == [30, 60, 90, 120]
    for version in (30, 60, 90, 120, 150):
        assert rows_of(table, version) == {version}
    for version in (31, 100):
        with pytest.raises(HistoryGone, match="can no longer be read"):
            table.at(version)
    assert list(kept(table).daily) == [30, 60, 90, 120]
    assert table.committed_at(60).date() == (today() - timedelta(days=3)).date()


def test_without_days_to_keep_none_stays(tmp_path: Path) -> None:
    plain = DeltaLakeTable(str(tmp_path), EVENTS.table, version_days=0)
    aged(plain, 2)
    plain.shorten_log(200, 10)
    assert read_log(plain).kept == []
    with pytest.raises(Exception, match="log"):
        DeltaTable(plain.uri, version=30)


def test_vacuum_spares_the_files_of_kept_versions_until_they_are_too_old(table: DeltaLakeTable) -> None:
    DeltaTable(table.uri).optimize.compact()  # 150 files become one
    files = set(Path(table.uri).rglob("part-*.parquet"))
    for file in files:
        os.utime(file, (1_700_000_000,) * 2)
    age_tombstones(table)
    table.maintain(timedelta(days=1), short())
    left = set(Path(table.uri).rglob("part-*.parquet"))
    assert len(files) == 151
    assert len(left) == 121, "those of the day that goes on are in no kept version"
    assert rows_of(table, 120) == {120}
    table.version_days = 2
    table.maintain(timedelta(days=1), short())
    assert list(kept(table).daily) == [90, 120]
    assert rows_of(table, 90) == {90}
    table.version_days = 0
    table.maintain(timedelta(days=1), short())
    table.version_days = 30
    assert kept(table).versions == []
    assert table.extent().rows == 150 == table.scan().collect().height


def age_tombstones(table: DeltaLakeTable) -> None:
    """Have the last commit say that files were replaced two days ago."""
    ago = int((datetime.now(UTC) - timedelta(days=2)).timestamp() * 1000)
    file = max((Path(table.uri) / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "remove" in line:
            line["remove"]["deletionTimestamp"] = ago
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_days_are_found_with_few_looks() -> None:
    looks: list[int] = []

    def at(version: int) -> datetime:
        looks.append(version)
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=version)

    assert ends_of_days(range(10_000), at, date(2026, 1, 4)) == [1439 + 1440 * n for n in (3, 4, 5)]
    assert len(looks) < 80
    assert ends_of_days(range(100), at, date(2026, 1, 1)) == []
    assert ends_of_days([], at, date(2026, 1, 1)) == []


def test_a_checkpoint_of_an_old_version_leaves_the_hint_alone(table: DeltaLakeTable) -> None:
    before = hint(table)
    history.checkpoint_at(table, 45)
    assert hint(table) == before
    assert rows_of(table, 45) == {45}


def origins(table: DeltaLakeTable, *offsets: int) -> pl.DataFrame:
    return table.scan().filter(pl.col("_offset").is_in(offsets)).select(*ORIGIN_KEY).collect()


def offsets(table: DeltaLakeTable, version: int) -> list[int]:
    """Offsets of a version, by a plain reader."""
    return sorted(DeltaTable(table.uri, version=version).to_pyarrow_table()["_offset"].to_pylist())


@pytest.mark.long
@pytest.mark.parametrize("log", ["whole", "short"])
@pytest.mark.parametrize("compacted", [False, True])
def test_an_erasure_reaches_kept_versions_and_leaves_everybody_else(
    table: DeltaLakeTable, log: str, compacted: bool
) -> None:
    if log == "short":
        table.shorten_log(150, 10)
    if compacted:
        DeltaTable(table.uri).optimize.compact()
    gone = origins(table, 3, 31, 149)
    done = table.erase(gone)
    assert done.rows == 3
    for version in (30, 60, 90, 120):
        assert offsets(table, version) == [n for n in range(version) if n not in {3, 31, 149}]
    assert table.forget(done) >= 3
    for version in (30, 60, 90, 120):
        assert offsets(table, version) == [n for n in range(version) if n not in {3, 31, 149}]
        assert rows_of(table, version) == {version - (version > 3) - (version > 31)}
    newest = DeltaTable(table.uri).version()
    assert offsets(table, newest) == [n for n in range(150) if n not in {3, 31, 149}]
    assert hint(table) >= 150
    commit(table, 150, 175)
    table.maintain(timedelta(days=1), short())
    assert sorted(table.scan().select("_offset").collect()["_offset"]) == [
        n for n in range(175) if n not in {3, 31, 149}
    ]
    assert not table.erase(gone).files


def test_an_erasure_that_was_killed_between_two_versions_is_finished_by_the_next(
    table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.shorten_log(150, 10)
    gone, put, calls = origins(table, 3), history.put_log_file, list[str]()

    def killed(storage: DeltaLakeTable, name: str, content: bytes) -> None:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        put(storage, name, content)

    monkeypatch.setattr(history, "put_log_file", killed)
    with pytest.raises(KeyboardInterrupt):
        table.erase(gone)
    assert 3 in offsets(table, 120), "or this tests nothing"
    monkeypatch.undo()
    left = table.scan_kept().filter(pl.col("_offset") == 3).select(*ORIGIN_KEY).collect()
    assert left.height == 1, "whoever erases again finds it, though the newest version has it no more"
    table.forget(table.erase(left))
    for version in (30, 60, 90, 120):
        assert offsets(table, version) == [n for n in range(version) if n != 3]
    assert table.scan_kept().filter(pl.col("_offset") == 3).collect().is_empty()


def restored(table: DeltaLakeTable, target: Target) -> None:
    fence(table, "mark")
    restore(table, target, lambda wanted: wanted.clear(), lambda rows: rows)


@pytest.mark.long
@pytest.mark.parametrize("who", ["new", "old"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_tables_that_have_grown_since_go_back_and_forget(change: Change, who: str, tmp_path: Path) -> None:
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (change.before, change.after))
    for table, value, first, count in ((old, change.old, 0, 2), (new, change.new, 2, 2)):
        snapshot, last = table.open(), 0 if table is old else table.open().version + 1
        if table is new:
            snapshot.grow()
        at = LANDED + timedelta(days=first)
        values = [{**value, "_ingested_at": at}] * count
        snapshot.append(rows_for(table.table, values, first), {CURSOR: first + count}, "b")
        for version in range(last, table.open().version + 1):
            dated(table, version, today() - timedelta(days=2 - first // 2))
    before = new.scan().sort("_offset").collect()
    asking = new if who == "new" else old
    assert list(kept(asking).daily) == [1]
    plain = DeltaTable(new.uri, version=1).to_pyarrow_table().to_pylist()
    restored(asking, Target(LANDED + timedelta(days=1)))
    assert new.scan().sort("_offset").collect().equals(before.head(2))
    [one] = history.restores(asking.newest())
    restored(asking, Target(one.to, one))
    assert new.scan().sort("_offset").collect().equals(before), "no column of anybody's is lost"
    gone = new.scan().filter(pl.col("_offset").is_in([1, 3])).select(*ORIGIN_KEY).collect()
    asking.forget(asking.erase(gone))
    assert new.scan().sort("_offset").collect().equals(before.filter(~pl.col("_offset").is_in([1, 3])))
    left = [row for row in plain if row["_offset"] == 0]
    assert DeltaTable(new.uri, version=1).to_pyarrow_table().to_pylist() == left
    assert pl.scan_delta(new.uri, version=1).collect().height == 1
    assert duck(new, 1, "_offset") == [(0,)]
    assert new.at(1).collect()["_offset"].to_list() == [0]
