"""The description of a contract: plain JSON, stable, and with every fact that a record is judged by."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from grown import ORDERS
from headrace.contracts import EVENTS, METRICS, Contract
from headrace.contracts.dtypes import landed
from headrace.contracts.growth.describe import (
    VERSIONED,
    described,
    described_table,
    ever_null,
    landed_types,
    text_of,
)
from headrace.contracts.growth.differences import at_version
from headrace.contracts.growth.type_text import dtype_of_json, landed_json, spelled, type_json, written
from headrace.core.errors import Fatal
from headrace.warehouse.ddl import column_type
from shaped import VISITS
from wide import WIDE


@pytest.mark.parametrize("contract", [EVENTS, METRICS, VISITS, WIDE, ORDERS], ids=lambda one: one.name)
def test_a_description_is_json_that_reads_back_as_itself(contract: Contract) -> None:
    found = described(contract)
    assert json.loads(text_of(found)) == found
    assert text_of(described(replace(contract))) == text_of(found)  # another object, the same contract
    assert [one["name"] for one in found["fields"]] == [column.name for column in contract.fields]
    assert "\n" not in text_of(found)
    assert contract.table.description_json == text_of(found)


@pytest.mark.parametrize("contract", [EVENTS, METRICS, VISITS, WIDE, ORDERS], ids=lambda one: one.name)
def test_a_description_tells_what_lands(contract: Contract) -> None:
    found, table = described(contract), contract.table
    names = {column.name for column in contract.columns}
    landing = {name: dtype for name, dtype in table.schema.items() if name in names}
    assert {name: dtype for name, dtype in landed_types(found).items() if name in names} == landing
    kinds = {name: column_type(table, name)[0] for name in landing}
    by_description = replace(table, nullable=ever_null(found))
    assert {name: column_type(by_description, name)[0] for name in landing} == kinds
    newer = {**found, "fields": [{"name": "shape", "type": {"polygon": 4}}]}
    assert landed_types(newer) == {}


def test_a_description_has_what_a_record_is_judged_by() -> None:
    found = described(EVENTS)
    assert {key: value for key, value in found.items() if key != "fields"} == {
        "format": 1,
        "contract": "events",
        "version": 1,
        "claims": "schema_version",
        "key": "event_id",
        "time": "occurred_at",
        "partition": "event_date",
        "order_by": ["channel", "session_id", "occurred_at"],
    }
    fields = {one["name"]: one for one in found["fields"]}
    assert fields["event_id"] == {
        "name": "event_id",
        "type": "String",
        "required": True,
        "checks": {"str_length": {"max_value": 128, "min_value": 1}},
    }
    assert fields["properties"]["wire"] == "object"
    assert "default" not in fields["schema_version"]  # absent means the newest version, whichever that is
    assert fields["received_at"] == {"name": "received_at", "type": "Time"}


def test_a_description_has_a_fields_shaping() -> None:
    fields = {one["name"]: one for one in described(VISITS)["fields"]}
    assert (fields["user"]["alias"], fields["user"]["lower"], fields["user"]["nulls"]) == (
        ["User Name"],
        True,
        ["", "N/A"],
    )
    assert fields["sku"]["path"] == ["items", 0, "sku"]
    assert fields["at"]["formats"] == ["%Y-%m-%d %H:%M:%S", "epoch_ms"]
    assert (fields["shop"]["computed"], fields["shop"]["constant"]) == ("constant", "shop-7")
    assert (fields["visit_id"]["computed"], fields["visit_id"]["hashed"]) == ("hashed", ["user", "at"])
    assert fields["total"]["computed"] == "derive"
    assert fields["note"]["apart"]


def test_values_that_json_lacks_are_text_and_empty_defaults_stay() -> None:
    fields = {one["name"]: one for one in described(WIDE)["fields"]}
    assert (fields["first"]["default"], fields["fee"]["default"]) == ("2020-02-29", "1.250")
    assert fields["notes"]["default"] == []
    assert fields["on"]["default"] is True


@pytest.mark.parametrize("column", WIDE.columns, ids=lambda one: one.name)
def test_a_type_reads_back_as_itself(column: object) -> None:
    dtype = column.dtype  # type: ignore[attr-defined]
    text = json.loads(json.dumps(type_json(dtype)))
    assert dtype_of_json(text) == dtype
    assert dtype_of_json(landed_json(text)) == landed(dtype)


@pytest.mark.parametrize(
    ("dtype", "said", "model"),
    [
        (pl.Int64(), "Int64", "pl.Int64"),
        (pl.Datetime("us", "UTC"), "Time", "Time"),
        (pl.Decimal(18, 4), "Decimal(18, 4)", "Annotated[pl.Decimal, 18, 4]"),
        (pl.Enum(["a", "b"]), "Enum(a, b)", "Annotated[pl.Enum, ['a', 'b']]"),
        (pl.List(pl.Struct({"zip": pl.String})), "List(Struct(zip: String))", None),
    ],
    ids=str,
)
def test_a_type_is_spelled(dtype: pl.DataType, said: str, model: str | None) -> None:
    assert spelled(type_json(dtype)) == said
    assert model is None or written(type_json(dtype)) == model


def test_a_type_of_a_newer_headrace_is_named() -> None:
    with pytest.raises(Fatal, match="'Int256', which a newer Headrace wrote"):
        dtype_of_json("Int256")


def test_a_table_without_a_description_has_columns_alone() -> None:
    found = described_table("visits", VISITS.table.schema, VISITS.partition)
    assert "version" not in found
    assert {"name": "channel", "type": "String"} in found["fields"]
    assert not {one["name"] for one in found["fields"]} & {"visit_date", "_offset", "_headers"}


def test_a_description_has_how_each_field_grew() -> None:
    fields = {one["name"]: one for one in described(ORDERS)["fields"]}
    assert fields["quantity"]["was"] == {"1": {"type": "Int32"}}
    assert fields["store"]["was"] == {"2": {"name": "shop"}}
    assert "alias" not in fields["store"]  # its earlier names are names in messages anyway
    assert fields["country"]["since"] == 2
    assert fields["amount"]["was"]["1"]["checks"] == {"greater_than_or_equal_to": {"min_value": 0}}
    assert (fields["legacy"]["retired"], fields["legacy"]["moved_to"]) == (3, "properties")
    length = {"str_length": {"max_value": 8, "min_value": 1}}
    assert fields["legacy"]["was"] == {"2": {"required": True, "checks": length}}
    assert described(ORDERS)["claims"] == "schema_version"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_version_is_found_in_the_description_of_the_newest(version: int) -> None:
    then = {one["name"]: one for one in described(ORDERS.at(version))["fields"]}
    found = [at_version(one, version) for one in described(ORDERS)["fields"]]
    kept = [{key: value for key, value in one.items() if key in VERSIONED and value} for one in found if one]
    assert kept == [{key: value for key, value in one.items() if key in VERSIONED} for one in then.values()]
