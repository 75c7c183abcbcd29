"""Tables follow their contracts, and every reader sees the rows of all versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder

from growing import CHANGES, CURSOR, DAY, Change, dated, rows, table
from headrace.core.batch import ORIGIN_KEY, Table
from headrace.core.errors import Conflict, Fatal
from headrace.lake import LakeTable
from headrace.lake.arrow import to_arrow
from headrace.lake.delta import DeltaLakeTable, growth, storage
from headrace.lake.memory import MemoryLakeTable

#: Opens one table as processes with other contracts do.
Opens = Callable[[Table], LakeTable]
Reader = Callable[[str, list[str]], pl.DataFrame]


@pytest.fixture(params=["delta", "memory"])
def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Opens:
    made: list[MemoryLakeTable] = []

    def build(of: Table) -> LakeTable:
        if request.param == "delta":
            return DeltaLakeTable(str(tmp_path / "lake"), of)
        made.append(MemoryLakeTable(of, made[0] if made else None))
        return made[-1]

    return build


def delta_rs(uri: str, names: list[str]) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(DeltaTable(uri).to_pyarrow_dataset().to_table(columns=names)))


def datafusion(uri: str, names: list[str]) -> pl.DataFrame:
    asked = ", ".join(f'"{name}"' for name in names)
    return pl.DataFrame(QueryBuilder().register("t", DeltaTable(uri)).execute(f"SELECT {asked} FROM t"))


def polars(uri: str, names: list[str]) -> pl.DataFrame:
    return pl.scan_delta(uri).select(names).collect()


def duck(uri: str, names: list[str]) -> pl.DataFrame:
    """Read by DuckDB's own extension, which PyPI has as a package."""
    import duckdb_extension_delta  # type: ignore[import-untyped]

    [extension] = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension*")
    with duckdb.connect(config={"allow_unsigned_extensions": "true"}) as connection:
        connection.execute(f"LOAD '{extension}'")
        asked = ", ".join(f'"{name}"' for name in names)
        return pl.DataFrame(connection.execute(f"SELECT {asked} FROM delta_scan('{uri}')").to_arrow_table())


PLAIN: dict[str, Reader] = {"delta-rs": delta_rs, "DataFusion": datafusion, "Polars": polars, "DuckDB": duck}


def by_id(found: pl.DataFrame, dtypes: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    found = found.cast(dict(dtypes or {}))  # type: ignore[arg-type]
    return found.sort("id").to_dicts()


def land(lake: LakeTable, values: Sequence[Mapping[str, Any]], start: int, *, grow: bool = False) -> None:
    """Land rows as a process with this table's contract does."""
    snapshot = lake.open()
    if grow:
        snapshot.grow()
    snapshot.append(rows(lake.table, values, start), {CURSOR: start + len(values)}, "b")


def as_read(lake: LakeTable) -> list[dict[str, Any]]:
    """All rows, the way they are published."""
    day = [
        pl.DataFrame(pl.from_arrow(part))
        for chunk in lake.read_day(DAY, lake.open().version)
        for part in chunk
    ]
    versions = [lake.describe(version) for version in range(1, lake.open().version + 1)]
    added = [
        pl.DataFrame(pl.from_arrow(part))
        for version in versions
        if not version.rewritten
        for chunk in lake.read(version)
        for part in chunk
    ]
    shape, schema = lake.shape(), to_arrow(rows(lake.shape(), []), lake.shape()).schema
    assert all(part.schema == schema for chunk in lake.read_day(DAY, lake.open().version) for part in chunk)
    names, dtypes = shape.schema.names(), dict(shape.schema)
    whole, parts = (by_id(pl.concat(found).select(names), dtypes) for found in (day, added))
    assert [row for row in parts if row in whole] == whole, "as versions are read, so are days"
    if isinstance(lake, DeltaLakeTable):
        assert by_id(lake.scan().collect(), dtypes) == whole
        assert by_id(pl.concat(lake.batches())) == by_id(
            lake.scan().collect().select(lake.table.schema.names())
        )
        assert by_id(lake.open().rows(names), dtypes) == whole
    return whole


def seen(found: list[dict[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
    """Compare the columns in question of rows in the order of their offsets."""
    assert [{name: row[name] for name in want} for row, want in zip(found, expected, strict=True)] == [
        *expected
    ]


@pytest.fixture(params=CHANGES, ids=lambda change: change.name)
def change(request: pytest.FixtureRequest) -> Change:
    found: Change = request.param
    return found


def test_rows_of_all_versions_are_read_by_processes_of_both(change: Change, opens: Opens) -> None:
    old, new = opens(change.before), opens(change.after)
    land(old, [change.old], 0)
    land(new, [change.new], 1, grow=True)
    land(old, [change.old], 2)  # a process that has not been replaced yet
    seen(as_read(new), change.read)
    assert len(as_read(old)) == 3
    assert new.counts_by_day() == old.counts_by_day() == {DAY: 3}
    gone = rows(change.before, [change.old]).select(ORIGIN_KEY)
    assert old.erase(gone).rows == 1, "by a process that does not know what its files are rewritten with"
    seen(as_read(new), change.read[1:])
    assert new.erase(gone.with_columns(_offset=pl.lit(2, pl.Int64))).rows == 1
    seen(as_read(new), change.read[1:2])


@pytest.mark.parametrize("reader", PLAIN.values(), ids=PLAIN)
def test_other_programs_read_rows_of_all_versions(change: Change, reader: Reader, tmp_path: Path) -> None:
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (change.before, change.after))
    land(old, [change.old], 0)
    land(new, [change.new], 1, grow=True)
    land(old, [change.old], 2)
    plain = change.old_read if change.old_plain is None else change.old_plain
    fresh = change.new_plain or {name: change.new.get(name) for name in plain}
    dtypes = {name: dtype for name, dtype in new.layout(new.newest()).raw.schema.items() if name in plain}
    for _ in range(2):
        seen(by_id(reader(new.uri, ["id", *plain]), dtypes), [plain, fresh, plain])
        DeltaTable(new.uri).optimize.compact()
    seen(as_read(new), change.read)


def test_of_two_processes_that_change_a_table_one_starts_over(opens: Opens) -> None:
    before, after = table({"x": pl.Int32()}), table({"x": pl.Int64(), "y": pl.String()}, 2)
    opens(before).open()
    first, second = opens(after), opens(after)
    one, other = first.open(), second.open()
    assert one.behind == other.behind == ("x", "y")
    one.grow()
    with pytest.raises(Conflict):
        other.grow()
    again = second.open()
    assert (again.behind, again.described) == ((), after.description_json)
    version = again.version
    again.grow()
    assert second.open().version == version, "nothing is left to do"


def test_a_process_that_had_the_table_open_starts_over_with_its_own_columns(opens: Opens) -> None:
    before, after = table({"x": pl.Int32()}), table({"x": pl.Int64(), "y": pl.String()}, 2)
    old, new = opens(before), opens(after)
    snapshot, staged = old.open(), old.stage()
    staged.add(rows(before, [{"x": 1}]))
    new.open().grow()
    with pytest.raises(Conflict):
        snapshot.append(staged, {CURSOR: 1}, "b")
    if isinstance(old, DeltaLakeTable):  # in memory nothing has been encoded
        with pytest.raises(Conflict):
            old.open().append(staged, {CURSOR: 1}, "b")
    assert old.open().unknown == ("y",)
    land(old, [{"x": 1}], 0)
    land(new, [{"x": 2**40, "y": "z"}], 1)
    seen(as_read(new), [{"x": 1, "y": None}, {"x": 2**40, "y": "z"}])
    seen(as_read(old), [{"x": 1, "y": None}, {"x": 2**40, "y": "z"}])


def test_rows_are_refused_until_the_table_has_their_columns(opens: Opens) -> None:
    opens(table({"x": pl.Int32()})).open()
    new = opens(table({"x": pl.Int64(), "y": pl.String()}, 2))
    with pytest.raises(Fatal, match="other columns than its contract: x, y"):
        land(new, [{"x": 1, "y": "z"}], 0)
    assert not new.open().position([CURSOR])


def test_a_type_that_does_not_widen_changes_nothing(opens: Opens) -> None:
    opens(table({"x": pl.String()})).open()
    lake = opens(table({"x": pl.Int64(), "y": pl.String()}, 2))
    version = lake.open().version
    with pytest.raises(Fatal, match=r"column 'x' .*String.*Int64"):
        lake.open().grow()
    assert lake.open().version == version


def test_a_file_is_passed_on_whole_only_if_nothing_of_it_is_to_be_changed(tmp_path: Path) -> None:
    before = table({"x": pl.Int32(), "y": pl.String()})
    after = table({"x": pl.Int64(), "y": pl.String()}, 2, fills={"y": "-"})
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (before, after))
    land(old, [{"x": 1, "y": "a"}], 0)
    land(new, [{"x": 2, "y": "b"}], 1, grow=True)
    land(old, [{"x": 3, "y": None}], 2)
    land(old, [{"x": 4, "y": "d"}], 3)
    added = [new.describe(version) for version in range(new.open().version + 1)]
    chunks = [chunk for version in added for chunk in new.read(version)]
    assert [chunk.parquet is not None for chunk in chunks] == [False, True, False, True]


def test_the_ends_of_a_change_that_was_interrupted_are_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed between the commit of the columns, that of old files, and that of its contract."""
    before, after = table({"x": pl.Int64()}), table({"x": pl.Float64()}, 2)
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (before, after))
    land(old, [{"x": 1}], 0)

    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(growth, "_rewrite_some", killed)
        new.open().grow()
    assert (new.open().behind, new.open().described) == ((), before.description_json)
    with pytest.raises(pl.exceptions.SchemaError):
        polars(new.uri, ["x"])
    land(old, [{"x": 2}], 1)
    seen(as_read(new), [{"x": 1.0}, {"x": 2.0}])
    new.open().grow()
    assert new.open().described == after.description_json
    assert polars(new.uri, ["x"])["x"].sort().to_list() == [1.0, 2.0]
    assert sum(new.describe(v).rows for v in range(new.open().version + 1)) == 2, "rewriting adds nothing"


@pytest.mark.parametrize(
    ("narrow", "wide", "value", "read"),
    [
        (pl.Int64(), pl.Float64(), 2**53 + 1, float(2**53)),
        (pl.List(pl.Int64()), pl.List(pl.Float64()), [2**53 + 1, None], [float(2**53), None]),
        (pl.UInt32(), pl.UInt64(), 2**32 - 1, 2**32 - 1),
    ],
    ids=str,
)
def test_while_files_are_rewritten_large_integers_are_read_rounded(
    narrow: Any, wide: Any, value: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = table({"x": narrow}), table({"x": wide}, 2)
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (before, after))
    land(old, [{"x": value}], 0)
    with monkeypatch.context() as during:
        during.setattr(growth, "_rewritten", lambda *_: False)  # as if another process were at it
        new.open().grow()
    assert storage.property_of(new.newest(), storage.REWRITING) == "x", "or this tests nothing"
    wanted = {"x": read, "_offset": 0}

    def by_all(lake: DeltaLakeTable) -> list[list[dict[str, Any]]]:
        at = lake.at(lake.newest().version()).collect()
        known = lake.as_of(datetime.now(UTC)).collect()
        return [
            rows.select("x", "_offset").sort("_offset").to_dicts()
            for rows in (lake.scan().collect(), at, known, pl.concat(lake.batches(columns=["x", "_offset"])))
        ]

    assert by_all(new) == by_all(old) == [[wanted]] * 4
    land(old, [{"x": value}], 1)  # in the table's types
    expected = [[wanted, {**wanted, "_offset": 1}]] * 4
    assert by_all(new) == by_all(old) == expected
    seen(as_read(new), [{"x": read}, {"x": read}])
    new.open().grow()
    assert storage.property_of(new.newest(), storage.REWRITING) == ""
    assert by_all(new) == by_all(old) == expected


def test_kept_versions_of_before_a_change_are_erased_from_with_their_own_columns(tmp_path: Path) -> None:
    change = next(one for one in CHANGES if one.name == "renamed")
    old, new = (DeltaLakeTable(str(tmp_path), of) for of in (change.before, change.after))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    land(old, [{"shop": "Bern"}, {"shop": "Thun"}], 0)
    for version in (0, 1):
        dated(old, version, yesterday)
    land(new, [change.new], 2, grow=True)
    gone = rows(change.before, [change.old]).select(ORIGIN_KEY)
    for lake in (new, DeltaLakeTable(str(tmp_path), change.after)):
        lake.forget(lake.erase(gone))
    assert new.at(1).select("id", "store").collect().rows() == [(f"{CURSOR}-1", "Thun")]
    assert pl.DataFrame(pl.from_arrow(DeltaTable(new.uri, version=1).to_pyarrow_dataset().to_table()))[
        "shop"
    ].to_list() == ["Thun"]
    assert sorted(new.scan().collect()["store"]) == ["Biel", "Thun"]
    assert new.scan_kept().select("store").collect()["store"].to_list() == ["Thun"]
