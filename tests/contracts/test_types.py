"""Every type against an oracle in plain Python: edges, wrong types, nulls, absent fields, defaults."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import NOW
from headrace.contracts import Contract, Limits, Time, check_batch, field, violations
from headrace.contracts.schema import json_schema
from headrace.contracts.wire import decode, structs
from headrace.contracts.wire.decoded import Decoded
from headrace.core.batch import MicroBatch, is_map
from typed_oracle import Token, judged, loads, tokens
from wide import WIDE, Prices, wide

COLUMNS = {c.name: c for c in WIDE.columns}
ASKED = sorted(set(COLUMNS) - {"id", "at", "text"})
_NAMED = '"id": "1", "at": "2026-01-02T03:04:05Z"'


def decoded(payloads: list[bytes], way: str = "compiled", contract: Contract = WIDE) -> Decoded:
    series = pl.Series(payloads, dtype=pl.Binary)
    if way == "compiled":
        return decode.decode(contract, series, 100_000)
    return decode.finished(
        contract, structs.StructParser(contract.wire_fields, contract.unknown, series, 100_000).parsed()
    )


def shown(value: Any, dtype: Any) -> Any:
    """A value of Polars as the oracle has it."""
    if value is None:
        return None
    if is_map(dtype):
        of = dtype.inner.fields[1].dtype
        return {pair["key"]: shown(pair["value"], of) for pair in value}
    if isinstance(dtype, pl.List):
        return [shown(one, dtype.inner) for one in value]
    if isinstance(dtype, pl.Struct):
        return {f.name: shown(value[f.name], f.dtype) for f in dtype.fields}
    return value


def expected(name: str, text: str | None) -> tuple[Any, set[tuple[str, str]]]:
    column = COLUMNS[name]
    if text is None and column.default is not None:
        return column.default, set()
    found, why = judged(column.dtype, None if text is None else loads(text), name, column.wire)
    if name == "anything" and found is not None:
        found = text
    if not why and found is None and not column.nullable:
        why = {(name, "required")}
    return found, why


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_value_lands_as_the_oracle_says_or_with_its_reasons(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(ASKED), min_size=1, max_size=6, unique=True))
    values = {name: data.draw(tokens(COLUMNS[name].dtype, COLUMNS[name].wire)) for name in chosen}
    payload = f"{{{_NAMED}, {', '.join(f'{json.dumps(n)}: {v}' for n, v in values.items())}}}".encode()
    checked = check_batch(
        WIDE, MicroBatch.of("test", [payload, wide()], cursor="test/0", offset=[0, 1]),
        batch_id="b", now=NOW, limits=Limits(),
    )  # fmt: skip
    wanted = {name: expected(name, values.get(name)) for name in ASKED}
    why = set().union(*(reasons for _, reasons in wanted.values()))
    said = {(r["column"], r["check"]) for row in checked.rejected["reasons"] for r in row}
    assert said == why
    for way in ("compiled", "msgspec"):
        row = decoded([payload, wide()], way).rows.row(0, named=True)
        for name, (value, reasons) in wanted.items():
            if not reasons:
                assert shown(row[name], COLUMNS[name].dtype) == value, (way, name, values.get(name))
    assert checked.good.height == (1 if why else 2)
    assert checked.good.schema == WIDE.landed_schema
    assert violations(WIDE, checked.good) == {}


def test_the_oracle_would_tell() -> None:
    assert judged(pl.UInt8(), Token("256"), "x")[1] == {("x", "in_range(0, 255)")}
    assert judged(pl.Decimal(4, 2), Token("1.255"), "x")[1] == {("x", "decimal(4, 2)")}
    assert judged(pl.List(pl.Date), ["2024-02-30"], "x")[1] == {("x[]", "date(YYYY-MM-DD)")}


#: What is no value of a type although it looks like one, by column; and the reasons.
NEARLY: list[tuple[str, str, str]] = [
    ("flag", "1", "type(boolean)"), ("flag", '"true"', "type(boolean)"), ("flag", "0", "type(boolean)"),
    ("i8", '"1"', "type(integer)"), ("i8", "1.5", "type(integer)"), ("i8", "true", "type(integer)"),
    ("i8", "128", "in_range(-128, 127)"), ("u8", "-1", "in_range(0, 255)"), ("f32", '"1"', "type(number)"),
    ("u64", "18446744073709551616", "in_range(0, 18446744073709551615)"), ("day", "20240101", "type(string)"),
    ("day", '"01/02/2024"', "date(YYYY-MM-DD)"), ("day", '"1899-12-31"', "in_range(1900-01-01, 2299-12-31)"),
    ("price", '"1,5"', "type(decimal)"), ("price", "true", "type(decimal)"), ("price", '" 1.5"', "type(decimal)"),
    ("price", '"NaN"', "type(decimal)"), ("price", "1.005", "decimal(10, 2)"), ("price", "1e9", "decimal(10, 2)"),
    ("kind", '"Web"', "isin(['web', 'mobile', ''])"), ("uid", '"x"', "uuid"), ("blob", '"A"', "base64"),
    ("tags", '"a"', "type(array)"), ("tags", "{}", "type(array)"), ("labels", "[]", "type(map)"),
    ("prices", "[]", "type(object)"), ("address", "[]", "type(object)"), ("address", '"{}"', "type(object)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "check"), NEARLY)
def test_what_is_nearly_a_value_is_rejected_with_its_reason(name: str, text: str, check: str) -> None:
    payload = f'{{{_NAMED}, "{name}": {text}}}'.encode()
    for way in ("compiled", "msgspec"):
        failures = decoded([payload], way).failures
        assert list(zip(failures.check, failures.column, strict=True)) == [(check, name)]


@pytest.mark.parametrize("way", ["compiled", "msgspec"])
def test_reasons_within_a_value_name_its_path_and_show_what_is_wrong(way: str) -> None:
    payload = wide(
        tags=["a", 1], matrix=[[1], [2, "x"]], places=[{"fee": "1.0001"}], prices={"a": "x"}, visits={"a": [70_000]},
        address={"zip": 1, "at": {"lat": "x"}, "tags": [None, {}]},
    )  # fmt: skip
    failures = decoded([wide(), payload], way).failures
    assert set(failures.row) == {1}
    assert set(zip(failures.column, failures.check, failures.value, strict=True)) == {
        ("tags[]", "type(string)", "1"),
        ("matrix[][]", "type(integer)", '"x"'),
        ("places[].fee", "decimal(8, 3)", '"1.0001"'),
        ("prices.*", "type(number)", '"x"'),
        ("visits.*[]", "in_range(0, 65535)", "70000"),
        ("address.zip", "type(string)", "1"),
        ("address.at.lat", "type(number)", '"x"'),
        ("address.tags[]", "type(string)", "{}"),
    }


@pytest.mark.parametrize("way", ["compiled", "msgspec"])
def test_a_value_that_is_wrong_in_many_places_has_a_bounded_number_of_reasons(way: str) -> None:
    wrong = wide(tags=list(range(1_000)), matrix=[["x"] * 100] * 10)
    failures = decoded([wide(), wrong, wide(tags=[1])], way).failures
    of = list(zip(failures.row, failures.column, strict=True))
    assert (of.count((1, "tags[]")), of.count((1, "matrix[][]")), of.count((2, "tags[]"))) == (32, 32, 1)


@pytest.mark.parametrize("text", ['"1\\u0032.5"', "0." + "0" * 120 + "125e122", "1250e-2"])
def test_a_decimal_is_read_however_it_is_written(text: str) -> None:
    payload = f'{{{_NAMED}, "price": {text}}}'.encode()
    for way in ("compiled", "msgspec"):
        found = decoded([payload, payload], way)
        assert found.failures.row == []
        assert [str(one) for one in found.rows["price"]] == ["12.50", "12.50"]


@pytest.mark.parametrize("way", ["compiled", "msgspec"])
def test_members_that_nobody_names_follow_the_policy_of_the_contract(way: str) -> None:
    payload = wide(
        address={"zip": "1", "floor": 3, "at": {"alt": 9}},
        places=[{"name": "a", "x": 1}, {"x": "ü"}],
        stranger=1,
    )
    counted = decoded([payload, wide()], way)
    assert counted.failures.row == []
    assert counted.unknown == {"stranger": 1, "address.floor": 1, "address.at.alt": 1, "places[].x": 2}
    kept = decoded([payload, wide()], way, replace(WIDE, unknown="keep")).rows["_extra"].to_list()
    assert [text and json.loads(text) for text in kept] == [
        {"stranger": 1, "address.floor": 3, "address.at.alt": 9, "places[0].x": 1, "places[1].x": "ü"}, None,
    ]  # fmt: skip
    refused = decoded([payload, wide()], way, replace(WIDE, unknown="reject")).failures
    assert set(refused.check) == {"unknown_field"}
    assert sorted(refused.column) == [
        "address.at.alt",
        "address.floor",
        "places[].x",
        "places[].x",
        "stranger",
    ]


class Listed(pa.DataFrameModel):
    """Lists and maps that have to be there, and such that need not."""

    id: pl.String = field("key", required=True)
    at: Time = field("time", required=True)
    must: Annotated[pl.List, pl.String] = field("list", required=True)
    may: Annotated[pl.List, pl.String] = field("list")
    none: Annotated[pl.List, pl.String] = field("list", required=True, default=[])
    named: Prices = field("map", required=True)
    place: Annotated[pl.Struct, {"zip": pl.String}] = field("struct", required=True)


def test_a_list_a_map_and_a_struct_that_are_required_have_to_be_there() -> None:
    contract = Contract("listed", 1, Listed, key="id", time="at", partition="listed_date", order_by=("at",))
    payloads = [
        f"{{{_NAMED}, {rest}}}".encode()
        for rest in (
            '"must": [], "named": {}, "place": {}',
            '"may": null, "none": null',
            '"must": null, "named": null, "place": null, "may": ["a"]',
        )
    ]
    batch = MicroBatch.of("test", payloads, cursor="test/0", offset=range(3))
    checked = check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())
    [row] = checked.good.rows(named=True)
    assert (row["must"], row["may"], row["none"], row["named"], row["place"]) == (
        [],
        [],
        [],
        [],
        {"zip": None},
    )
    why = [sorted((r["column"], r["check"]) for r in reasons) for reasons in checked.rejected["reasons"]]
    assert why == [[("must", "required"), ("named", "required"), ("place", "required")]] * 2


def test_rows_that_others_wrote_are_held_against_the_contract() -> None:
    good = decoded([wide(), wide()]).rows
    assert violations(WIDE, good) == {}
    stored = good.with_columns(
        pl.col("u8").cast(pl.Int16), pl.col("kind").cast(pl.String), pl.col("u64").cast(pl.Decimal(20, 0))
    )
    assert violations(WIDE, stored) == {}
    wrong = stored.with_columns(
        u8=pl.Series([-1, 1], dtype=pl.Int16), kind=pl.Series(["?", None]), state=pl.Series(["new", "?"])
    )
    assert violations(WIDE, wrong) == {
        ("u8", "dtype(UInt8)"): 1,
        ("kind", "dtype(Enum(categories=['web', 'mobile', '']))"): 1,
        ("state", "dtype(Enum(categories=['new', 'old']))"): 1,
    }


def test_the_json_schema_has_every_type() -> None:
    properties = json_schema(WIDE)["properties"]
    assert properties["flag"]["type"] == ["boolean", "null"]
    assert properties["n8"] == {
        "type": "integer", "minimum": 0, "maximum": 255, "description": "default", "default": 7,
    }  # fmt: skip
    assert properties["kind"]["enum"] == ["web", "mobile", "", None]
    assert properties["first"] == {
        "type": "string", "format": "date", "description": "default", "default": "2020-02-29",
    }  # fmt: skip
    assert properties["fee"]["default"] == 1.25
    assert properties["uid"]["format"] == "uuid"
    assert properties["blob"]["contentEncoding"] == "base64"
    assert properties["tags"]["items"] == {"type": ["string", "null"]}
    assert properties["notes"] == {
        "type": ["array", "null"], "items": {"type": ["string", "null"]}, "description": "default", "default": [],
    }  # fmt: skip
    assert properties["prices"]["additionalProperties"] == {"type": ["number", "null"]}
    assert properties["address"]["properties"]["at"]["properties"]["price"]["type"] == [
        "number",
        "string",
        "null",
    ]
    assert "additionalProperties" not in properties["address"]
    strict = json_schema(replace(WIDE, unknown="reject"))["properties"]
    assert strict["address"]["properties"]["at"]["additionalProperties"] is False
    assert json.loads(json.dumps(json_schema(WIDE))) == json_schema(WIDE)
