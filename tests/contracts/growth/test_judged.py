"""Each record is judged by the version of the contract that it claims."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pandera.polars as pa
import polars as pl
import pytest

from builders import NOW
from grown import ORDERS
from headrace.contracts import (
    EVENTS,
    METRICS,
    Contract,
    Limits,
    Time,
    Was,
    check_batch,
    field,
    violations,
)
from headrace.contracts import check as checking
from headrace.contracts.schema import json_schema
from headrace.core.batch import CheckedBatch, MicroBatch

BASE = {"order_id": "a", "at": "2026-01-01T00:00:00Z"}
FIRST = {**BASE, "schema_version": 1, "legacy": "x"}
SECOND = {**BASE, "schema_version": 2, "legacy": "x"}
THIRD = {**BASE, "schema_version": 3}


def check(contract: Contract, *records: Any) -> CheckedBatch:
    payloads = [json.dumps(record).encode() for record in records]
    batch = MicroBatch.of("memory", payloads, cursor="memory/0", offset=range(len(payloads)))
    return check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())


def reasons(checked: CheckedBatch) -> list[tuple[int, set[tuple[str, str]]]]:
    """The version that judged each rejected row, and its reasons as (check, column)."""
    return [
        (version, {(one["check"], one["column"]) for one in why})
        for version, why in checked.rejected.select("contract_version", "reasons").iter_rows()
    ]


def rows(checked: CheckedBatch, *columns: str) -> list[tuple[Any, ...]]:
    return checked.good.select(columns).rows()


#: What a record is, and of which version -> the columns that land, or why not.
LANDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an old name, by the version that had it": ({**SECOND, "shop": "s"}, {"store": "s"}),
    "an old name, by the newest": ({**THIRD, "shop": "s"}, {"store": "s"}),
    "the newest name counts first": ({**THIRD, "shop": "s", "store": "t"}, {"store": "t"}),
    "a name of tomorrow is unknown to its version": ({**SECOND, "store": "t"}, {"store": None}),
    "a field of tomorrow is unknown, whatever it has": ({**FIRST, "country": 7}, {"country": None}),
    "a default of tomorrow": (FIRST, {"channel": "web", "country": None}),
    "widened, as it was": ({**FIRST, "quantity": 2**31 - 1, "price": 3}, {"quantity": 2**31 - 1, "price": 3.0}),
    "widened, as it is": ({**SECOND, "quantity": 2**40, "price": 3.5}, {"quantity": 2**40, "price": 3.5}),
    "before a check": ({**FIRST, "amount": 1e9}, {"amount": 1e9}),
    "not retired yet": (FIRST, {"legacy": "x", "properties": None}),
    "retired, and moved": (
        {**THIRD, "legacy": {"a": [1.0]}}, {"legacy": None, "properties": '{"legacy":{"a": [1.0]}}'},
    ),
    "retired, and moved beside others": (
        {**THIRD, "legacy": 5, "properties": {"b": 1}}, {"properties": '{"legacy":5,"b":1}'},
    ),
    "what is there stays": ({**THIRD, "legacy": 5, "properties": {"legacy": 1}}, {"properties": '{"legacy":1}'}),
    "retired and null is nothing": ({**THIRD, "legacy": None}, {"legacy": None, "properties": None}),
    "claims nothing": ({**BASE, "shop": "s"}, {"store": "s", "schema_version": 3}),
}  # fmt: skip
REFUSED: dict[str, tuple[dict[str, Any], int, set[tuple[str, str]]]] = {
    "an old name in its version's words": ({**SECOND, "shop": 9}, 2, {("type(string)", "shop")}),
    "an old name in the newest's words": ({**THIRD, "shop": 9}, 3, {("type(string)", "store")}),
    "beyond what it was": (
        {**FIRST, "quantity": 2**31, "price": 3.5}, 1,
        {("in_range(-2147483648, 2147483647)", "quantity"), ("type(integer)", "price")},
    ),
    "a check of its time": ({**FIRST, "amount": -1}, 1, {("greater_than_or_equal_to(0)", "amount")}),
    "a check from then on": ({**SECOND, "amount": 1e9}, 2, {("less_than_or_equal_to(1000000.0)", "amount")}),
    "required until it was retired": ({**BASE, "schema_version": 2}, 2, {("required", "legacy")}),
    "checked until it was retired": (
        {**SECOND, "legacy": "x" * 9}, 2, {("str_length(1, 8)", "legacy")},
    ),
    "a default is no null": ({**SECOND, "channel": None}, 2, {("required", "channel")}),
    "an unknown version, and nothing else": (
        {"schema_version": 4, "amount": "x", "at": 3}, 3, {("known_version(1..3)", "schema_version")},
    ),
    "version zero": ({**BASE, "schema_version": 0}, 3, {("known_version(1..3)", "schema_version")}),
    "no version at all": ({**BASE, "schema_version": "2"}, 3, {("type(integer)", "schema_version")}),
    "null is no version": ({**BASE, "schema_version": None}, 3, {("required", "schema_version")}),
}  # fmt: skip


@pytest.mark.parametrize("record, columns", LANDS.values(), ids=LANDS)
@pytest.mark.parametrize("beside", [(), (FIRST, THIRD, SECOND)], ids=["alone", "mixed"])
def test_a_record_lands_as_its_version_says(
    record: dict[str, Any], columns: dict[str, Any], beside: tuple[dict[str, Any], ...]
) -> None:
    checked = check(ORDERS, record, *beside)
    assert reasons(checked) == []
    assert rows(checked, *columns)[0] == tuple(columns.values())


@pytest.mark.parametrize("record, version, why", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("beside", [(), (FIRST, THIRD, SECOND)], ids=["alone", "mixed"])
def test_a_record_is_refused_for_what_its_version_says(
    record: dict[str, Any], version: int, why: set[tuple[str, str]], beside: tuple[dict[str, Any], ...]
) -> None:
    checked = check(ORDERS, record, *beside)
    assert reasons(checked) == [(version, why)]
    assert checked.good.height == len(beside)


class Tagged(pa.DataFrameModel):
    """Visits with tags, which are asked for since version 3."""

    id: pl.String = field("key", required=True)
    at: Time = field("when", required=True)
    schema_version: pl.Int32 = field("which")
    tags: Annotated[pl.List, pl.Int64] = field("tags", since=2, was={2: Was(required=False)}, required=True)


@pytest.mark.parametrize("beside", [(), (3,)], ids=["alone", "mixed"])
def test_a_list_that_an_older_version_does_not_know_is_empty(beside: tuple[int, ...]) -> None:
    contract = Contract(
        "tagged", 3, Tagged, key="id", time="at", partition="day", order_by=("at",), claims="schema_version"
    )
    visit = {"id": "a", "at": "2026-01-01T00:00:00Z"}
    old = [{**visit, "schema_version": version} for version in (1, 2)]
    checked = check(contract, *old, *({**visit, "schema_version": n, "tags": [1]} for n in beside))
    assert rows(checked, "tags") == [([],), ([],), *(([1],) for _ in beside)]
    assert reasons(check(contract, {**visit, "schema_version": 3})) == [(3, {("required", "tags")})]


def test_elements_of_one_array_may_be_of_all_versions() -> None:
    checked = check(ORDERS, [{**FIRST, "country": "x"}, {**THIRD, "shop": 1}, {**SECOND, "shop": "s"}], FIRST)
    assert rows(checked, "_offset", "_index", "schema_version", "store") == [
        (0, 0, 1, None), (0, 2, 2, "s"), (1, 0, 1, None),
    ]  # fmt: skip
    assert json.loads(checked.rejected["payload"][0])["schema_version"] == 3


def test_names_of_tomorrow_count_as_unknown_in_records_of_yesterday_alone() -> None:
    checked = check(
        ORDERS, {**FIRST, "country": "x", "y": 1}, {**SECOND, "country": "x", "store": "s"}, THIRD
    )
    assert checked.unknown == {"country": 1, "store": 1, "y": 1}


def test_the_policy_for_unknown_fields_holds_for_names_of_tomorrow() -> None:
    record = {**FIRST, "country": "x"}
    strict, kept = replace(ORDERS, unknown="reject"), replace(ORDERS, unknown="keep")
    assert reasons(check(strict, record, SECOND, THIRD)) == [(1, {("unknown_field", "country")})]
    assert rows(check(kept, record, {**SECOND, "country": "DE"}), "country", "_extra") == [
        (None, '{"country":"x"}'), ("DE", None),
    ]  # fmt: skip


def test_versions_that_are_no_longer_accepted_are_unknown() -> None:
    young = replace(ORDERS, oldest=2)
    assert reasons(check(young, FIRST, SECOND)) == [(3, {("known_version(2..3)", "schema_version")})]


def test_without_claims_the_newest_judges_all() -> None:
    silent = replace(ORDERS, claims=None)
    checked = check(silent, {**FIRST, "shop": "s", "amount": 1e9}, {**FIRST, "shop": "s"}, BASE)
    assert [version for version, _ in reasons(checked)] == [3, 3]
    assert {("required", "schema_version")} in [why for _, why in reasons(checked)]
    assert rows(checked, "store", "legacy", "properties") == [("s", None, '{"legacy":"x"}')]


@pytest.mark.parametrize("contract", [EVENTS, METRICS], ids=lambda one: one.name)
def test_headraces_own_contracts_claim_their_version(contract: Contract) -> None:
    assert contract.claims == "schema_version"
    assert json_schema(contract)["properties"]["schema_version"]["enum"] == [1]
    assert json_schema(contract)["properties"]["schema_version"]["default"] == 1


def test_an_old_process_refuses_what_it_does_not_know_and_the_new_one_lands_it() -> None:
    old = ORDERS.at(2)
    checked = check(old, {**THIRD, "store": "s"}, {**SECOND, "shop": "s"})
    assert reasons(checked) == [(2, {("known_version(1..2)", "schema_version")})]
    again = MicroBatch.of("redrive", checked.rejected["payload"].to_list(), cursor="redrive/0", offset=[0])
    landed = check_batch(ORDERS, again, batch_id="b", now=NOW, limits=Limits())
    assert rows(landed, "store", "schema_version") == [("s", 3)]


Schema = Callable[[int], dict[str, Any]]


def test_every_version_has_a_json_schema() -> None:
    schemas = {version: json_schema(ORDERS.at(version)) for version in (1, 2, 3)}
    assert [schemas[v]["properties"]["schema_version"]["enum"] for v in schemas] == [[1], [2], [3]]
    assert "shop" in schemas[1]["properties"]
    assert "country" not in schemas[1]["properties"]
    assert "legacy" in schemas[2]["required"]
    assert "legacy" not in schemas[3]["required"]
    assert schemas[3]["properties"]["legacy"] == {
        "description": "no longer used; not used from version 3 on", "deprecated": True,
    }  # fmt: skip
    assert {"store", "shop"} <= schemas[3]["properties"].keys()
    assert schemas[1]["properties"]["quantity"]["maximum"] == 2**31 - 1
    assert schemas[1]["title"] == "orders v1"


def test_a_record_that_is_read_again_is_counted_once() -> None:
    checked = check(ORDERS, *[{**FIRST, "country": n, "z": n} for n in range(5)])
    assert checked.good.height == 5
    assert checked.unknown == {"country": 5, "z": 5}
    assert checked.good["_offset"].to_list() == list(range(5))
    assert isinstance(checked.good, pl.DataFrame)


def test_rows_in_the_lake_are_held_to_the_version_that_they_claim() -> None:
    landed = check(ORDERS, {**FIRST, "amount": 1e9}, {**SECOND, "amount": 1}, {**THIRD, "amount": 1})
    assert violations(ORDERS, landed.good) == {}
    wrong = landed.good.with_columns(
        amount=pl.lit(1e9), legacy=pl.when(pl.col("schema_version") == 2).then(None).otherwise("legacy")
    )
    assert violations(ORDERS, wrong) == {
        ("amount", "less_than_or_equal_to(1000000.0)"): 2, ("legacy", "required"): 1,
    }  # fmt: skip
    silent = replace(ORDERS, claims=None)
    assert violations(silent, wrong) == {}  # nobody knows which rows are of which version
    assert violations(silent, wrong.with_columns(amount=pl.lit(-1.0))) == {
        ("amount", "greater_than_or_equal_to(0)"): 3,
    }  # fmt: skip


def test_records_of_several_versions_are_checked_together_and_each_by_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is in order is not divided by versions; what is not is named with its place."""
    divided: list[int] = []
    failures = checking._failures

    def noted(schema: Any, rows: pl.DataFrame, more: Any) -> pl.DataFrame | None:
        divided.append(rows.height)
        return failures(schema, rows, more)

    monkeypatch.setattr(checking, "_failures", noted)
    good = [{**FIRST, "amount": 1e9}, THIRD, SECOND, {**THIRD, "amount": 1e6}] * 50
    found = check(ORDERS, *good)
    assert (found.good.height, found.rejected.height, divided) == (200, 0, [])
    wrong = [*good, {**THIRD, "amount": 1e9}, FIRST, {**FIRST, "amount": -1}, {**SECOND, "amount": 1e9}]
    found = check(ORDERS, *wrong)
    assert (found.good.height, divided) == (201, [1, 1, 1])
    assert found.rejected["_offset"].to_list() == [200, 202, 203]
    assert reasons(found) == [
        (3, {("less_than_or_equal_to(1000000.0)", "amount")}),
        (1, {("greater_than_or_equal_to(0)", "amount")}),
        (2, {("less_than_or_equal_to(1000000.0)", "amount")}),
    ]
