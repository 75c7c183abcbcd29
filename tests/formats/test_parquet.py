"""Rows of Parquet become what they are, or are rejected for their column and its type."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts import EVENTS, METRICS, Contract
from headrace.core.batch import CheckedBatch
from headrace.core.errors import BadData
from headrace.formats.arrow_json import json_column
from headrace.formats.base import Record
from headrace.formats.records import FileReader

Judge = Callable[..., CheckedBatch]
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def events(rows: int = 1, **columns: pa.Array) -> pa.Table:
    """Good events with other columns."""
    good = {
        "event_id": pa.array([f"e{n}" for n in range(rows)]),
        "event_type": pa.array(["click"] * rows),
        "occurred_at": pa.array([START] * rows, pa.timestamp("us", "UTC")),
        "session_id": pa.array(["s"] * rows),
        "channel": pa.array(["web"] * rows),
    }
    return pa.table({**good, **columns})


def metrics(**columns: pa.Array) -> pa.Table:
    good = {"metric_id": "m", "name": "temp", "kind": "gauge", "value": 1.5, "source": "a"}
    at = {"occurred_at": pa.array([START], pa.timestamp("us", "UTC"))}
    return pa.table({**{n: pa.array([v]) for n, v in good.items()}, **at, **columns})


@pytest.fixture
def records(tmp_path: Path) -> Callable[..., list[Record]]:
    """``records(table)``: what is read of a file with it."""

    def read(table: pa.Table, contract: Contract = EVENTS, **options: Any) -> list[Record]:
        path = tmp_path / "a.parquet"
        pq.write_table(table, path, **options)
        return list(FileReader(contract).records(lambda: path.open("rb"), str(path)))

    return read


@pytest.fixture
def landed(records: Callable[..., list[Record]], judge: Judge) -> Callable[..., CheckedBatch]:
    """``landed(table)``: what becomes of a file with it."""

    def judged(table: pa.Table, contract: Contract = EVENTS, **options: Any) -> CheckedBatch:
        return judge(contract, [payload for payload, _, _ in records(table, contract, **options)])

    return judged


def said(checked: CheckedBatch) -> list[list[tuple[str, str]]]:
    return [[(r["check"], r["column"]) for r in reasons] for reasons in checked.rejected["reasons"]]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30"])
@pytest.mark.parametrize(
    ("unit", "units", "micros"),
    [
        ("s", 1_767_323_045, 1_767_323_045_000_000),
        ("ms", 1_767_323_045_678, 1_767_323_045_678_000),
        ("us", 1_767_323_045_678_901, 1_767_323_045_678_901),
        ("ns", 1_767_323_045_678_901_234, 1_767_323_045_678_901),
        ("ns", 1_767_323_045_678_901_999, 1_767_323_045_678_901),
    ],
)
def test_a_timestamp_with_a_zone_lands_as_that_instant(
    landed: Callable[..., CheckedBatch], unit: str, units: int, micros: int, zone: str
) -> None:
    table = events(occurred_at=pa.array([units], pa.timestamp(unit, zone)))
    checked = landed(table)
    assert checked.rejected.is_empty()
    assert checked.good["occurred_at"].to_physical().to_list() == [micros]


units_of: dict[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@settings(deadline=None)
@given(
    unit=st.sampled_from([*units_of]),
    values=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**12), 10**12) | st.none()),
)
def test_every_count_of_a_timestamp_is_its_instant_or_is_named(unit: str, values: list[int | None]) -> None:
    found = json_column(pa.array(values, pa.timestamp(unit, "UTC")))
    for row, value in enumerate(values):
        if value is None:
            assert found.values[row] is None
            continue
        try:
            at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value * 10**6 // units_of[unit])
        except OverflowError:
            assert found.wrong[row] == f"timestamp[{unit}, tz=UTC] beyond the years 1 to 9999"
            continue
        assert row not in found.wrong
        assert found.values[row] == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


@pytest.mark.parametrize("unit", [*units_of])
def test_a_timestamp_without_a_zone_refuses_the_file(records: Callable[..., list[Record]], unit: str) -> None:
    table = events(occurred_at=pa.array([1], pa.timestamp(unit)))
    with pytest.raises(
        BadData, match=r"'occurred_at' have no zone, they are timestamp\[.*dt.tz_localize\('UTC'\)"
    ):
        records(table)


def test_sparks_int96_refuses_the_file_and_names_sparks_setting(
    records: Callable[..., list[Record]],
) -> None:
    table = events(occurred_at=pa.array([1], pa.timestamp("ns")))
    with pytest.raises(BadData, match=r"INT96.*parquet\.outputTimestampType"):
        records(table, use_deprecated_int96_timestamps=True)


BINARIES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2)]


@pytest.mark.parametrize("kind", BINARIES, ids=str)
def test_binary_that_is_text_is_text_and_other_binary_is_rejected(
    records: Callable[..., list[Record]], judge: Judge, kind: pa.DataType
) -> None:
    table = events(3, user_id=pa.array(["ü".encode(), b"\xff\x00", None], kind))
    got = records(table)
    why = f"column 'user_id': {kind} that is not UTF-8 text (here in base64)"
    assert [wrong and (wrong.line, wrong.reason) for _, _, wrong in got] == [None, (2, why), None]
    checked = judge(EVENTS, [payload for payload, _, _ in got])
    assert checked.good["user_id"].to_list() == ["ü", None]
    (row,) = checked.rejected.iter_rows(named=True)
    (reason,) = row["reasons"]
    assert (reason["check"], reason["column"]) == ("type(string)", "user_id")
    assert str(kind) in reason["value"]
    kept = json.loads(row["payload"])
    assert kept["event_id"] == "e1"
    assert base64.b64decode(kept["user_id"][1]) == b"\xff\x00"


def test_text_that_is_not_utf8_is_rejected_like_binary(landed: Callable[..., CheckedBatch]) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    checked = landed(events(2, user_id=text))
    assert checked.good["user_id"].to_list() == ["a"]
    assert said(checked) == [[("type(string)", "user_id")]]


#: A column, its values, and what is rejected: each row must say so by column, in JSON.
WRONG: list[tuple[str, pa.Array, str]] = [
    ("occurred_at", pa.array([2**50], pa.timestamp("ms", "UTC")), "type(time)"),
    ("occurred_at", pa.array([date(2026, 1, 2)]), "rfc3339_time_with_zone"),
    ("occurred_at", pa.array([time(1, 2)]), "rfc3339_time_with_zone"),
    ("occurred_at", pa.array([1]), "type(time)"),
    ("received_at", pa.array([-(2**31)], pa.date32()), "type(time)"),
    ("user_id", pa.array([5], pa.int8()), "type(string)"),
    ("user_id", pa.array([Decimal("1.50")]), "type(string)"),
    ("user_id", pa.array([True]), "type(string)"),
    ("user_id", pa.array([["a"]]), "type(string)"),
    ("user_id", pa.array([2**63 - 1], pa.duration("s")), "type(string)"),
    ("duration_ms", pa.array([float("nan")]), "type(number)"),
    ("duration_ms", pa.array([float("-inf")], pa.float32()), "type(number)"),
    ("duration_ms", pa.array(["1"]), "type(number)"),
    ("duration_ms", pa.array([timedelta(seconds=1)]), "type(number)"),
    ("schema_version", pa.array([1.5]), "type(integer)"),
    ("schema_version", pa.array([2**64 - 1], pa.uint64()), "in_range(-2147483648, 2147483647)"),
    ("properties", pa.array(["no JSON"]), "type(object)"),
    ("properties", pa.array(["[1]"]), "type(object)"),
    ("properties", pa.array([[1]]), "type(object)"),
    ("properties", pa.array([{"a": [{"b": b"\xff"}]}]), "type(object)"),
    ("properties", pa.array([{"a": float("inf")}]), "type(object)"),
    ("properties", pa.array([[("a", b"\xff")]], pa.map_(pa.string(), pa.binary())), "type(object)"),
    ("properties", pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())), "type(object)"),
]


@pytest.mark.parametrize(("column", "array", "check"), WRONG, ids=[f"{c}-{a.type}" for c, a, _ in WRONG])
def test_what_cannot_be_represented_is_rejected_as_json_with_its_column(
    landed: Callable[..., CheckedBatch], column: str, array: pa.Array, check: str
) -> None:
    checked = landed(events(**{column: array}))
    assert checked.good.is_empty()
    assert said(checked) == [[(check, column)]]
    kept = json.loads(checked.rejected["payload"][0])
    assert kept["event_id"] == "e0"
    assert kept[column] not in (None, [], {})


#: A column and what lands of it.
RIGHT: list[tuple[str, pa.Array, Any]] = [
    ("user_id", pa.array(["a"]).dictionary_encode(), "a"),
    ("user_id", pa.array(["a"], pa.large_string()), "a"),
    ("user_id", pa.array(["a"], pa.string_view()), "a"),
    ("user_id", pa.array([None], pa.null()), None),
    ("user_id", pa.array([bytes(range(16))], pa.uuid()), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
    ("user_id", pa.array([date(2026, 1, 2)]), "2026-01-02"),
    ("duration_ms", pa.array([12], pa.int8()), 12.0),
    ("duration_ms", pa.array([12], pa.uint64()), 12.0),
    ("duration_ms", pa.array([0.5], pa.float16()), 0.5),
    ("duration_ms", pa.array([0.5], pa.float32()), 0.5),
    ("duration_ms", pa.array([Decimal("12.50")]), 12.5),
    ("duration_ms", pa.array([Decimal("12.50")], pa.decimal256(60, 2)), 12.5),
    ("schema_version", pa.array([1], pa.int16()), 1),
    ("schema_version", pa.array([1.0]), 1),  # as pandas writes integers of a column with gaps
    ("schema_version", pa.array([Decimal("1.00")]), 1),
    ("properties", pa.array(['{"a": 1.10, "b": 12345678901234567890}']), '{"a": 1.10, "b": 12345678901234567890}'),
    ("properties", pa.array(['{"a":1}'], pa.json_()), '{"a":1}'),
    ("properties", pa.array([b'{"a":1}']), '{"a":1}'),
    ("properties", pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int64())), '{"a":1,"b":null}'),
    ("properties", pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())), '{"1":"x"}'),
    (
        "properties",
        pa.array([{"at": START, "day": date(2026, 1, 2), "list": [{"x": Decimal("1.50")}, None], "none": None}]),
        '{"at":"2026-01-02T03:04:05.000000Z","day":"2026-01-02","list":[{"x":1.50},null],"none":null}',
    ),
    (
        "properties",
        pa.array([{"local": START.replace(tzinfo=None), "at": time(1, 2, 3, 4), "for": timedelta(seconds=90)}]),
        '{"local":"2026-01-02T03:04:05.000000","at":"01:02:03.000004","for":"PT90S"}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("column", "array", "expected"), RIGHT, ids=[f"{c}-{a.type}" for c, a, _ in RIGHT])
def test_what_json_has_lands(
    landed: Callable[..., CheckedBatch], column: str, array: pa.Array, expected: Any
) -> None:
    checked = landed(events(**{column: array}))
    assert checked.rejected.is_empty()
    assert checked.good[column].to_list() == [expected]


PAIR = pa.struct([("key", pa.string()), ("value", pa.string())])


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[("a", "1"), ("b", "")]], pa.map_(pa.string(), pa.string())),
        pa.array([{"a": "1", "b": "", "c": None}]),
        pa.array(['{"a": "1", "b": ""}']),
        pa.array([[{"key": "a", "value": "1"}, {"key": "b", "value": ""}]]),
pa.array([[{"key": "a", "value": "1"}, {"key": "b", "value": ""}]], pa.large_list(PAIR)),
    ],
    ids=lambda array: str(array.type),
)  # fmt: skip
def test_a_map_is_a_map_however_it_is_written(landed: Callable[..., CheckedBatch], array: pa.Array) -> None:
    checked = landed(metrics(dimensions=array), METRICS)
    assert checked.rejected.is_empty()
    assert checked.good["dimensions"].to_list() == [[{"key": "a", "value": "1"}, {"key": "b", "value": ""}]]


nested: Any = st.recursive(
    st.sampled_from(
        [pa.int64(), pa.string(), pa.binary(), pa.float64(), pa.timestamp("s", "UTC"), pa.date32()]
    ),
    lambda kind: st.one_of(
        kind.map(pa.list_),
        kind.map(lambda k: pa.list_(k, 2)),
        kind.map(lambda k: pa.map_(pa.string(), k)),
        kind.map(lambda k: pa.struct([("a", k), ("b", pa.int8())])),
    ),
    max_leaves=3,
)


def value_of(kind: pa.DataType) -> Any:
    if pa.types.is_fixed_size_list(kind):
        return st.none() | st.lists(value_of(kind.value_type), min_size=2, max_size=2)
    if pa.types.is_map(kind):
        return st.none() | st.dictionaries(st.text(max_size=2), value_of(kind.item_type), max_size=2).map(
            lambda d: [*d.items()]
        )
    if pa.types.is_list(kind):
        return st.none() | st.lists(value_of(kind.value_type), max_size=2)
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({m.name: value_of(m.type) for m in kind})
    if pa.types.is_binary(kind):
        return st.none() | st.binary(max_size=3)
    if pa.types.is_string(kind):
        return st.none() | st.text(max_size=3)
    if pa.types.is_floating(kind):
        return st.none() | st.floats()
    bits = 7 if pa.types.is_int8(kind) else 31 if pa.types.is_date32(kind) else 62
    return st.none() | st.integers(-(2**bits), 2**bits - 1)


def is_right(value: Any, kind: pa.DataType) -> bool:
    """Whether JSON has the value, by the value alone."""
    if value is None:
        return True
    if pa.types.is_map(kind):
        return all(is_right(v, kind.item_type) for _, v in value)
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return all(is_right(v, kind.value_type) for v in value)
    if pa.types.is_struct(kind):
        return all(is_right(value[m.name], m.type) for m in kind)
    if pa.types.is_binary(kind):
        return bool(value.decode(errors="ignore").encode() == value)
    if pa.types.is_floating(kind):
        return bool(np.isfinite(value))
    if pa.types.is_timestamp(kind):
        return bool(-62_135_596_800 <= value <= 253_402_300_799)
    return not pa.types.is_date32(kind) or -719_162 <= value <= 2_932_896


@settings(deadline=None)
@given(data=st.data(), kind=nested, before=st.integers(0, 2))
def test_nested_columns_keep_every_row_in_its_place(
    data: st.DataObject, kind: pa.DataType, before: int
) -> None:
    rows = data.draw(st.lists(value_of(kind), max_size=5))
    array = pa.array([None] * before + rows, kind)[before:]  # also one that begins within its buffers
    found = json_column(array)
    assert len(found.values) == len(rows)
    assert [row not in found.wrong for row in range(len(rows))] == [is_right(row, kind) for row in rows]
    assert [value is None for value in found.values] == [row is None for row in rows]
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        assert [len(v or ()) for v in found.values] == [len(row or ()) for row in rows]


def test_files_of_the_lake_can_be_sent_again(records: Callable[..., list[Record]], judge: Judge) -> None:
    first = judge(EVENTS, [payload for payload, _, _ in records(events(3))]).good
    again = judge(
        EVENTS, [payload for payload, _, _ in records(first.to_arrow(compat_level=pl.CompatLevel.oldest()))]
    )
    assert again.good.equals(first)
