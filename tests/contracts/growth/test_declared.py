"""A contract as it was at an earlier version, from how its fields say that it grew."""

from __future__ import annotations

from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest

from grown import ORDERS
from headrace.contracts import Contract, Time, Was, field
from headrace.contracts.growth.declared import CHECK_NAMES
from headrace.contracts.reference import CHECKS


def _field(contract: Contract, name: str) -> Any:
    return next(column for column in contract.fields if column.name == name)


def test_a_version_has_the_fields_and_names_of_its_time() -> None:
    names = {version: [c.name for c in ORDERS.at(version).fields] for version in (1, 2, 3)}
    first = [
        "order_id",
        "at",
        "quantity",
        "shop",
        "price",
        "amount",
        "legacy",
        "properties",
        "schema_version",
    ]
    assert names[1] == first
    assert set(names[2]) - set(names[1]) == {"country", "channel"}
    assert set(names[3]) ^ set(names[2]) == {"shop", "store"}


def test_a_version_has_the_types_and_checks_of_its_time() -> None:
    assert [_field(ORDERS.at(v), "quantity").dtype for v in (1, 2, 3)] == [pl.Int32(), pl.Int64(), pl.Int64()]
    assert [dict(_field(ORDERS.at(v), "amount").checks) for v in (1, 2)] == [
        {"greater_than_or_equal_to": {"min_value": 0}},
        {"greater_than_or_equal_to": {"min_value": 0}, "less_than_or_equal_to": {"max_value": 1e6}},
    ]
    assert [_field(ORDERS.at(v), "legacy").nullable for v in (1, 2, 3)] == [False, False, True]


def test_tables_say_how_they_grew() -> None:
    table = ORDERS.table
    assert (table.version, table.renamed, table.fills, table.retired) == (
        3, {"store": ("shop",)}, {"channel": "web"}, frozenset({"legacy"}),
    )  # fmt: skip
    assert {"country", "legacy"} <= table.nullable
    assert not {"channel", "order_id", "at"} & table.nullable
    first = ORDERS.at(1).table
    assert (first.version, first.renamed, first.fills, first.retired) == (1, {}, {}, frozenset())
    assert "legacy" not in first.nullable


def test_what_an_entry_does_not_name_was_as_in_the_version_after_it() -> None:
    class Steps(pa.DataFrameModel):
        id: pl.String = field("key", required=True)
        at: Time = field("when", required=True)
        x: pl.Int64 = field("x", le=9, was={1: Was(dtype=pl.Int16), 3: Was(le=3, name="y"), 2: Was(name="z")})
        d: Annotated[pl.Decimal, 18, 4] = field("d", was={2: Was(dtype=Annotated[pl.Decimal, 10, 2])})

    steps = Contract("steps", 4, Steps, key="id", time="at", partition="day", order_by=("at",))
    found = {version: steps.at(version).fields for version in (1, 2, 3, 4)}
    assert [(c[2].name, c[2].dtype) for c in found.values()] == [
        ("z", pl.Int16()), ("z", pl.Int64()), ("y", pl.Int64()), ("x", pl.Int64()),
    ]  # fmt: skip
    assert [c[2].checks[0][1]["max_value"] for c in found.values()] == [3, 3, 3, 9]
    assert [c[3].dtype for c in found.values()] == [pl.Decimal(10, 2)] * 2 + [pl.Decimal(18, 4)] * 2
    assert steps.table.renamed == {"x": ("y", "z")}
    assert steps.at(3).table.renamed == {"y": ("z",)}
    assert steps.at(3).at(1).fields == steps.at(1).fields


@pytest.mark.parametrize("version", [0, 4, -1, "1"])
def test_there_is_no_version_that_was_never_declared(version: Any) -> None:
    with pytest.raises(ValueError, match="contract 'orders' has versions 1 to 3"):
        ORDERS.at(version)


def test_every_check_that_a_field_takes_has_a_name() -> None:
    assert {argument: name for argument, (name, _) in CHECKS.items()} == CHECK_NAMES
