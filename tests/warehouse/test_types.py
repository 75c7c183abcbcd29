"""Every type from JSON, CSV and Parquet to the lake and, both ways, to the warehouse."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from builders import NOW
from conftest import Stack
from headrace.contracts import Column, Limits, check_batch
from headrace.contracts.dtypes import INT_RANGE
from headrace.core.batch import MicroBatch, is_map
from headrace.formats.records import FileReader
from headrace.lake.arrow import to_arrow
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse import ddl
from headrace.warehouse.clickhouse import ClickHouse
from typed_oracle import judged, loads
from wide import WIDE, wide

COLUMNS = {c.name: c for c in WIDE.columns}
TYPES = {
    "flag": "Nullable(Bool)", "i8": "Nullable(Int8)", "i16": "Nullable(Int16)", "i32": "Nullable(Int32)",
    "i64": "Nullable(Int64)", "u8": "Nullable(UInt8)", "u16": "Nullable(UInt16)", "u32": "Nullable(UInt32)",
    "u64": "Nullable(UInt64)", "f32": "Nullable(Float32)", "day": "Nullable(Date32)",
    "price": "Nullable(Decimal(10, 2))", "wei": "Nullable(Decimal(38, 18))",
    "kind": "LowCardinality(Nullable(String))", "state": "LowCardinality(String)", "uid": "Nullable(UUID)",
    "owner": "UUID", "blob": "Nullable(String)", "tags": "Array(Nullable(String))", "sizes": "Array(Nullable(UInt64))",
    "days": "Array(Nullable(Date32))", "matrix": "Array(Array(Nullable(Int16)))",
    "places": "Array(Tuple(`name` Nullable(String), `fee` Nullable(Decimal(8, 3))))",
    "address": "Tuple(`zip` Nullable(String), `number` Nullable(UInt8), `since` Nullable(Date32),"
    " `tags` Array(Nullable(String)), `at` Tuple(`lat` Nullable(Float32), `price` Nullable(Decimal(20, 4))))",
    "labels": "Map(LowCardinality(String), String)", "prices": "Map(LowCardinality(String), Nullable(Float64))",
    "visits": "Map(LowCardinality(String), Array(Nullable(UInt16)))", "wide_date": "Date",
}  # fmt: skip
DELTA = {
    "flag": "boolean", "i8": "byte", "i16": "short", "i32": "integer", "i64": "long", "u8": "short", "u16": "integer",
    "u32": "long", "u64": "decimal(20,0)", "f32": "float", "day": "date", "price": "decimal(10,2)",
    "wei": "decimal(38,18)", "kind": "string", "uid": "string", "blob": "binary",
}  # fmt: skip


def test_each_type_has_its_own_in_lake_and_warehouse(tmp_path: Path) -> None:
    assert {name: ddl.column_type(WIDE.table, name)[0] for name in TYPES} == TYPES
    table = DeltaLakeTable(str(tmp_path), WIDE.table)
    table.open()
    fields = {f.name: f.type for f in DeltaTable(table.uri).schema().fields}
    assert {name: json.loads(fields[name].to_json()) for name in DELTA} == DELTA


def checked(payloads: list[bytes]) -> pl.DataFrame:
    batch = MicroBatch.of("test", payloads, cursor="test/0", offset=range(len(payloads)))
    found = check_batch(WIDE, batch, batch_id="b", now=NOW, limits=Limits())
    assert found.rejected["reasons"].to_list() == []
    return found.good


#: JSON texts of values at the edges of each type, by wire; those of integers follow from their range.
EDGES: dict[str, list[str]] = {
    "string": ['""', '"ü€😀\\u0000\\t\\\\"', '"\'`\\""'],
    "boolean": ["true", "false"],
    "number": ["0.1", "-0.0", "3.4028234e38", "1e-45", "16777217"],
    "date": ['"1900-01-01"', '"1969-12-31"', '"2299-12-31"', '"2024-02-29"'],
    "uuid": ['"00000000-0000-0000-0000-000000000000"', '"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"'],
    "binary": ['""', '"AP8="', '"/w=="'],
    "object": ["{}", '{"a": [1.50, "\\u00fc"]}'],
}
MOST = "9" * 20 + "." + "9" * 18
DECIMALS = {
    "price": ["99999999.99", '"-99999999.99"', "0", "1e7", "0.010"],
    "wei": [f'"{MOST}"', f'"-{MOST}"', "1e-18", "-1e19"],
    "fee": ["999.999", "-999.999"],
}
NESTED = {
    "tags": ["[]", '[null, "", "a"]', '["%s"]' % ("x" * 40)],
    "notes": ["[]", '["ü"]'],
    "sizes": ["[0, 18446744073709551615, null]", "[]"],
    "days": ['["1900-01-01", null, "2299-12-31"]'],
    "matrix": ["[[], null, [1, null], [-32768, 32767]]", "[[]]"],
    "places": ['[null, {}, {"name": "x", "fee": 99999.999}]', "[{}]"],
    "address": [
        "{}",
        '{"at": {}}',
        '{"zip": "", "number": 255, "since": "1900-01-01", "tags": [null], "at": {"lat": 1e-45, "price": -0.0001}}',
    ],
    "labels": ["{}", '{"": "", "ü": "\\u0000"}'],
    "prices": ["{}", '{"": null, "a": -1e308}'],
    "visits": ["{}", '{"a": [], "b": null, "c": [65535, null]}'],
}


def edges(column: Column) -> list[str]:
    if column.dtype in INT_RANGE:
        return [str(INT_RANGE[column.dtype][0]), str(INT_RANGE[column.dtype][1]), "0"]
    if isinstance(column.dtype, pl.Enum):
        return [json.dumps(choice) for choice in column.dtype.categories]
    return NESTED.get(column.name) or DECIMALS.get(column.name) or EDGES[column.wire]


def messages() -> list[bytes]:
    """Records with all edges, with null, and without the field."""
    own = [c for c in WIDE.columns if c.name not in ("id", "at")]
    found = []
    for n in range(6):
        members = {"id": f'"{n}"', "at": f'"2026-01-02T03:04:0{n}.67890{n}Z"'}
        for place, column in enumerate(own):
            texts = [*edges(column), *(["null"] if column.nullable else [])]
            if (n + place) % 6 < 5:
                members[column.name] = texts[(n + place) % len(texts)]
        found.append(("{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}").encode())
    return [*found, *(wide(**dict.fromkeys(NULLABLE)), wide(), b'{"id": "0", "at": "2026-01-02T03:04:05Z"}')]


NULLABLE = [c.name for c in WIDE.columns if c.nullable]


def plain(value: Any, dtype: Any, warehouse: bool = False) -> Any:
    """A value as all of them have it; in the warehouse a struct is never null, and all text is text."""
    if isinstance(value, uuid.UUID):
        return str(value)
    if is_map(dtype):
        of = dtype.inner.fields[1].dtype
        pairs = value.items() if isinstance(value, dict) else ((p["key"], p["value"]) for p in value or ())
        return {key: plain(one, of, warehouse) for key, one in pairs}
    if isinstance(dtype, pl.List):
        return [plain(one, dtype.inner, warehouse) for one in (value if value is not None else [])]
    if isinstance(dtype, pl.Struct):
        if value is None and not warehouse:
            return None
        return {f.name: plain((value or {}).get(f.name), f.dtype, warehouse) for f in dtype.fields}
    if isinstance(value, bytes):
        return value.hex()
    return value


def seen(rows: list[dict[str, Any]], warehouse: bool = False) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        one = {}
        for name, column in COLUMNS.items():
            value = row[name]
            if name == "blob" and isinstance(value, str):
                value = value.encode("utf-8", "surrogateescape")
            one[name] = plain(value, column.dtype, warehouse)
        one["at"] = one["at"].replace(tzinfo=None)
        found.append(one)
    return found


def published(stack: Stack, table: DeltaLakeTable, version: int, *, as_arrow: bool) -> list[dict[str, Any]]:
    config = stack.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    warehouse = ClickHouse(config)
    warehouse.prepare(table.table)
    for n, chunk in enumerate(table.read(table.describe(version))):
        assert chunk.parquet
        warehouse.insert(table.table, replace(chunk, parquet=None) if as_arrow else chunk, f"t:{n}")
    columns = ", ".join(f"hex({n}) AS {n}" if n == "blob" else n for n in COLUMNS)
    names, rows = warehouse.read_only(f"SELECT {columns} FROM {config.raw_database}.wide ORDER BY _offset")
    warehouse.query(f"SELECT 1 FROM {config.raw_database}.wide WHERE has(tags, 'a') OR address.zip = '1'")
    warehouse.close()
    found = [dict(zip(names, row, strict=True)) for row in rows]
    for row in found:
        row["blob"] = None if row["blob"] is None else bytes.fromhex(row["blob"])
    return seen(found, warehouse=True)


def test_lake_and_warehouse_have_the_values_that_were_sent(stack: Stack, tmp_path: Path) -> None:
    payloads = messages()
    good = checked(payloads)
    for payload, row in zip(payloads, good.rows(named=True), strict=True):  # by the oracle
        record = loads(payload.decode())
        for name, column in COLUMNS.items():
            value, why = judged(column.dtype, record.get(name), name, column.wire)
            if name in record and column.wire != "object":
                assert not why
                assert plain(row[name], column.dtype) == plain(value, column.dtype), name
    table = DeltaLakeTable(str(tmp_path), WIDE.table)
    version = table.open().append(good, {"test/0": 1}, "b")
    sent = seen(good.rows(named=True))
    mine = pl.concat(table.batches())
    assert mine.schema == WIDE.landed_schema
    assert seen(mine.sort("_offset").rows(named=True)) == sent
    lazy = table.scan().sort("_offset").collect()
    assert seen(lazy.rows(named=True)) == sent
    bare = pl.DataFrame(pl.from_arrow(DeltaTable(table.uri).to_pyarrow_table())).sort("_offset")
    assert seen(bare.rows(named=True)) == sent
    assert seen(pl.scan_delta(table.uri).sort("_offset").collect().rows(named=True)) == sent
    wanted = seen(good.rows(named=True), warehouse=True)
    for as_arrow in (False, True):
        assert published(stack, table, version, as_arrow=as_arrow) == wanted


def test_what_is_within_null_or_sliced_columns_becomes_arrow_all_the_same() -> None:
    good = checked(
        [wide(), wide(address=None, places=None), wide(address={"at": None}, visits={}), wide()] * 3
    )
    whole = to_arrow(good, WIDE.table)
    assert whole.slice(1, 7).to_pylist() == to_arrow(good.slice(1, 7), WIDE.table).to_pylist()
    assert pa.types.is_map(whole.schema.field("visits").type)
    assert whole["address"].null_count == 3
    odd = good.filter(pl.int_range(pl.len()) % 2 == 1)
    assert to_arrow(odd, WIDE.table)["visits"].to_pylist() == whole["visits"].to_pylist()[1::2]


def read(content: bytes, name: str) -> list[bytes]:
    records = FileReader(WIDE).records(lambda: io.BytesIO(content), name)
    found = []
    for payload, _, wrong in records:
        assert wrong is None, wrong
        found.append(payload)
    return found


CELLS: dict[str, tuple[str, Any]] = {
    "flag": ("Yes", True), "on": ("f", False), "i8": (" -128", -128), "u8": ("+255", 255),
    "u64": (str(2**64 - 1), 2**64 - 1),
    "f32": (".5", 0.5), "price": ("+012.50", Decimal("12.50")), "wei": ("0.000000000000000001", Decimal("1e-18")),
    "day": (" 2024-02-29", "2024-02-29"), "kind": ("mobile", "mobile"), "uid": ("123E4567-E89B-12D3-A456-426614174000 ",
    "123e4567-e89b-12d3-a456-426614174000"), "blob": ("AP8=", b"\x00\xff"), "tags": ('["a", null]', ["a", None]),
    "places": ('[{"name": "x", "fee": 1.5}]', [{"name": "x", "fee": Decimal("1.500")}]),
    "address": ('{"zip": "1"}', {"zip": "1", "number": None, "since": None, "tags": [],
                                 "at": None}),
    "prices": ('{"a": 1}', [{"key": "a", "value": 1.0}]), "anything": ('{"a": 1}', '{"a": 1}'),
}  # fmt: skip


def test_a_cell_of_csv_is_read_by_the_type_of_its_column() -> None:
    header = ";".join(["id", "at", *CELLS])
    cells = [
        "1",
        "2026-01-02T03:04:05Z",
        *(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell, _ in CELLS.values()),
    ]
    empty = ";".join(["2", "2026-01-02T03:04:05Z", *[""] * len(CELLS)])
    good = checked(read(f"{header}\n{';'.join(cells)}\n{empty}\n".encode(), "x.csv"))
    first, second = good.rows(named=True)
    found = {name: str(first[name]) if name == "day" else first[name] for name in CELLS}
    assert found == {name: value for name, (_, value) in CELLS.items()}
    assert second["flag"] is None
    assert second["on"] is True
    assert second["tags"] == []


@pytest.mark.parametrize(
    ("name", "cell"), [("flag", "maybe"), ("price", "1,50"), ("tags", "a"), ("day", "1.2.2024")]
)
def test_a_cell_that_is_no_value_is_rejected_and_not_guessed(name: str, cell: str) -> None:
    payloads = read(f"id;at;{name}\n1;2026-01-02T03:04:05Z;{cell}\n".encode(), "x.csv")
    batch = MicroBatch.of("test", payloads, cursor="test/0", offset=[0])
    found = check_batch(WIDE, batch, batch_id="b", now=NOW, limits=Limits())
    assert [r["column"] for row in found.rejected["reasons"] for r in row] == [name]


def test_parquet_of_the_lake_or_of_polars_lands_as_it_was() -> None:
    good = checked(messages())
    own = good.select(*COLUMNS)
    by_polars, by_the_lake = io.BytesIO(), io.BytesIO()
    own.write_parquet(by_polars)
    pq.write_table(to_arrow(good, WIDE.table), by_the_lake)
    wanted = seen(good.rows(named=True))
    for row in wanted:  # a null of a file is a field that is not there
        row["on"] = True if row["on"] is None else row["on"]
    for content in (by_polars, by_the_lake):
        again = checked(read(content.getvalue(), "x.parquet"))
        assert seen(again.rows(named=True)) == wanted


def test_what_json_lacks_within_a_list_of_parquet_is_rejected() -> None:
    frame = pl.DataFrame(
        {
            "id": ["1", "2"],
            "at": pl.Series([NOW, NOW]).dt.cast_time_unit("us"),
            "tags": pl.Series([[b"\xff"], [b"a"]], dtype=pl.List(pl.Binary)),
        }
    )
    content = io.BytesIO()
    frame.write_parquet(content)
    records = list(FileReader(WIDE).records(lambda: io.BytesIO(content.getvalue()), "x.parquet"))
    batch = MicroBatch.of("test", [payload for payload, _, _ in records], cursor="test/0", offset=[0, 1])
    found = check_batch(WIDE, batch, batch_id="b", now=NOW, limits=Limits(event_time_ahead=timedelta(days=9)))
    assert found.good["tags"].to_list() == [["a"]]
    assert [(r["column"], r["check"]) for row in found.rejected["reasons"] for r in row] == [
        ("tags", "type(array)")
    ]
