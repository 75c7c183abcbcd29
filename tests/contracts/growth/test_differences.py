"""Each rule by which a contract may change: what is fine, what breaks whom, and what a person reads."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from grown import ORDERS
from headrace.contracts import EVENTS, METRICS
from headrace.contracts.growth.describe import described, described_table, text_of
from headrace.contracts.growth.differences import Difference, at_version, differences, names_of
from shaped import VISITS
from wide import WIDE

ALL = {"producers", "lake readers", "marts"}
READERS = {"lake readers", "marts"}
NAMES = ("order_id", "at", "quantity", "shop", "amount", "note")


def orders(version: int = 1, *, claims: str | None = "schema_version", **fields: Any) -> dict[str, Any]:
    """Describe a contract; ``fields`` replace, add (a dict) or remove (None) its fields, other keys its attributes."""
    attributes = {name: fields.pop(name) for name in [*fields] if name in _ATTRIBUTES}
    every: dict[str, Any] = {
        "order_id": {
            "type": "String",
            "required": True,
            "checks": {"str_length": {"min_value": 1, "max_value": 64}},
        },
        "at": {"type": "Time", "required": True},
        "quantity": {"type": "Int32"},
        "shop": {"type": "String"},
        "amount": {"type": "Float64", "checks": {"less_than_or_equal_to": {"max_value": 1000.0}}},
        "note": {"type": "String"},
        "size": {"type": "Int32", "required": True, "default": 1},
        "schema_version": {"type": "Int32", "required": True, "default": 1},
        **fields,
    }
    return {
        "format": 1,
        "contract": "orders",
        "version": version,
        "claims": claims,
        "key": "order_id",
        "time": "at",
        "partition": "order_date",
        "order_by": ["at"],
        "fields": [{"name": name, **copy.deepcopy(one)} for name, one in every.items() if one is not None],
        **attributes,
    }


_ATTRIBUTES = {"oldest", "key", "time", "partition", "order_by", "unknown", "checks"}
Found = list[tuple[str, str, set[str]]]


def found(old: dict[str, Any], new: dict[str, Any]) -> Found:
    """Return kind, column and who breaks of each difference but that of the version."""
    return [(d.kind, d.column, set(d.breaks)) for d in differences(old, new) if d.kind != "version"]


def le(value: float) -> dict[str, Any]:
    return {"checks": {"less_than_or_equal_to": {"max_value": value}}}


AMOUNT: dict[str, Any] = {"type": "Float64"}
LONG = {"str_length": {"min_value": 1, "max_value": 64}}
LENGTH = {"type": "String", "required": True}

#: What a contract may do: it is declared, and breaks nobody.
FINE: dict[str, tuple[dict[str, Any], Found]] = {
    "a nullable column": (
        orders(2, country={"type": "String", "since": 2}),
        [("added", "country", set())],
    ),
    "a column with a default": (
        orders(2, channel={"type": "String", "required": True, "default": "web", "since": 2}),
        [("added", "channel", set())],
    ),
    "a nullable column without a word": (
        orders(1, country={"type": "String"}),
        [("added", "country", set())],
    ),
    "a wider type": (
        orders(2, quantity={"type": "Int64", "was": {"1": {"type": "Int32"}}}),
        [("widened", "quantity", set())],
    ),
    "another name": (
        orders(2, shop=None, store={"type": "String", "was": {"1": {"name": "shop"}}}),
        [("renamed", "store", set())],
    ),
    "another name and a wider type": (
        orders(2, quantity=None, pieces={"type": "Int64", "was": {"1": {"name": "quantity", "type": "Int32"}}}),
        [("renamed", "pieces", set()), ("widened", "pieces", set())],
    ),
    "the key by another name": (
        orders(
            2,
            order_id=None,
            id={**LENGTH, "checks": LONG, "was": {"1": {"name": "order_id"}}},
            key="id",
        ),
        [("renamed", "id", set())],
    ),
    "a retired column": (
        orders(2, note={"type": "String", "retired": 2}),
        [("retired", "note", set())],
    ),
    "a check that is tighter from a version on": (
        orders(2, amount={**AMOUNT, **le(500.0), "was": {"1": le(1000.0)}}),
        [("tightened", "amount", set())],
    ),
    "a looser check": (orders(1, amount={**AMOUNT, **le(2000.0)}), [("loosened", "amount", set())]),
    "no check any more": (orders(1, amount=AMOUNT), [("loosened", "amount", set())]),
    "a longer text": (
        orders(1, order_id={**LENGTH, "checks": {"str_length": {"min_value": 1, "max_value": 128}}}),
        [("loosened", "order_id", set())],
    ),
    "required from a version on": (
        orders(2, note={"type": "String", "required": True, "was": {"1": {"required": None}}}),
        [("required", "note", set())],
    ),
    "no longer required": (
        orders(1, order_id={"type": "String", "checks": {"str_length": {"min_value": 1, "max_value": 64}}}),
        [("required", "order_id", set())],
    ),
    "a default": (orders(1, note={"type": "String", "default": "-"}), [("default", "note", set())]),
    "an alias": (orders(1, note={"type": "String", "alias": ["remark"]}), [("message", "note", set())]),
    "other fields are kept": (orders(1, unknown="keep"), [("unknown", "unknown", set())]),
}  # fmt: skip

#: What breaks somebody.
BREAKING: dict[str, tuple[dict[str, Any], Found, str]] = {
    "a required column without a default": (
        orders(2, country={"type": "String", "required": True, "since": 2}),
        [("added", "country", {"producers"})],
        "give it a default",
    ),
    "a default that old rows lack": (
        orders(1, channel={"type": "String", "required": True, "default": "web"}),
        [("added", "channel", READERS)],
        "raise version to 2 and declare since=2",
    ),
    "a column that is gone": (
        orders(2, note=None),
        [("removed", "note", READERS)],
        "leave it in the contract with retired=2",
    ),
    "a column by another name without a word": (
        orders(1, note=None, shop=None, quantity=None, pieces={"type": "Int32"}),
        [
            ("added", "pieces", set()),
            ("removed", "quantity", READERS),
            ("removed", "shop", READERS),
            ("removed", "note", READERS),
        ],
        "if 'pieces' is its new name, raise version to 2 and declare was={1: Was(name='quantity')}",
    ),
    "a wider type in the same version": (
        orders(1, quantity={"type": "Int64"}),
        [("widened", "quantity", READERS)],
        "raise version to 2 and declare was={1: Was(dtype=pl.Int32)} at the field",
    ),
    "a wider type without a word": (
        orders(2, quantity={"type": "Int64"}),
        [("widened", "quantity", READERS)],
        "declare was={1: Was(dtype=pl.Int32)} at the field",
    ),
    "a narrower type, declared": (
        orders(2, quantity={"type": "Int16", "was": {"1": {"type": "Int32"}}}),
        [("type", "quantity", ALL)],
        "keep Int32 and retire it, and add Int16 under another name",
    ),
    "another type": (
        orders(2, quantity={"type": "String"}),
        [("type", "quantity", ALL)],
        "add String under another name",
    ),
    "a tighter check": (
        orders(1, amount={**AMOUNT, **le(500.0)}),
        [("tightened", "amount", {"producers"})],
        "raise version to 2 and declare was={1: Was(le=1000.0)} at the field",
    ),
    "a new check": (
        orders(2, quantity={"type": "Int32", "checks": {"greater_than": {"min_value": 0}}}),
        [("tightened", "quantity", {"producers"})],
        "declare was={1: Was(gt=None)} at the field",
    ),
    "a check that nobody can be exempt from": (
        orders(2, claims=None, amount={**AMOUNT, **le(500.0), "was": {"1": le(1000.0)}}),
        [("claims", "claims", {"producers"}), ("tightened", "amount", {"producers"})],
        "declare `claims`",
    ),
    "a tighter check and no old version": (
        orders(2, oldest=2, amount={**AMOUNT, **le(500.0), "was": {"1": le(1000.0)}}),
        [("oldest", "oldest", {"producers"}), ("tightened", "amount", {"producers"})],
        "keep oldest=1",
    ),
    "a shorter text": (
        orders(1, order_id={**LENGTH, "checks": {"str_length": {"min_value": 1, "max_value": 32}}}),
        [("tightened", "order_id", {"producers"})],
        "Was(length=(1, 64))",
    ),
    "required": (
        orders(1, note={"type": "String", "required": True}),
        [("required", "note", {"producers"})],
        "was={1: Was(required=False)}",
    ),
    "no default any more": (
        orders(2, size={"type": "Int32", "required": True}),
        [("default", "size", {"producers"})],
        "was={1: Was(default=1)}",
    ),
    "another default": (
        orders(2, size={"type": "Int32", "required": True, "default": 2}),
        [("default", "size", {"marts"})],
        "was={1: Was(default=1)}",
    ),
    "another key": (orders(2, key="shop"), [("key", "key", READERS)], "keep key='order_id'"),
    "another partition": (orders(1, partition="day"), [("partition", "partition", READERS)], "keep partition"),
    "another order": (orders(1, order_by=["shop", "at"]), [("order_by", "order_by", READERS)], "keep order_by=('at',)"),
    "the oldest version is dropped": (
        orders(2, oldest=2),
        [("oldest", "oldest", {"producers"})],
        "until no producer sends version 1",
    ),
    "no claims": (orders(1, claims=None), [("claims", "claims", {"producers"})], "keep claims='schema_version'"),
    "other fields are refused": (orders(1, unknown="reject"), [("unknown", "unknown", {"producers"})], "keep it"),
    "another place": (
        orders(1, note={"type": "String", "path": ["context", "note"]}),
        [("message", "note", {"producers"})],
        "keep the place 'note'",
    ),
    "a format where there was none": (
        orders(1, at={"type": "Time", "required": True, "formats": ["epoch_ms"]}),
        [("message", "at", {"producers"})],
        "keep the standard format",
    ),
    "it is computed": (
        orders(1, note={"type": "String", "computed": "constant", "constant": "-"}),
        [("computed", "note", {"marts"})],
        "declare another field",
    ),
    "it no longer lands": (
        orders(1, note={"type": "String", "apart": True}),
        [("removed", "note", READERS)],
        "retired=2",
    ),
    "a past that was not": (
        orders(2, quantity={"type": "Int64", "was": {"1": {"type": "Int16"}}}),
        [("history", "quantity", ALL)],
        "declare was={1: Was(dtype=pl.Int32)} at the field, as it was recorded",
    ),
    "a column that was there, as a new one": (
        orders(2, note={"type": "String", "since": 2}),
        [("history", "note", ALL)],
        "leave since out",
    ),
    "a column retired in a version that had it": (
        orders(2, note={"type": "String", "retired": 1}),
        [("history", "note", ALL)],
        "declare retired=2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
def test_what_a_contract_declares_breaks_nobody(case: str) -> None:
    new, expected = FINE[case]
    assert found(orders(), new) == expected
    assert not any(one.breaking for one in differences(orders(), new))


@pytest.mark.parametrize("case", BREAKING)
def test_what_would_hurt_is_refused_with_what_to_do_instead(case: str) -> None:
    new, expected, said = BREAKING[case]
    assert found(orders(), new) == expected
    assert any(said in one.said for one in differences(orders(), new)), [
        d.said for d in differences(orders(), new)
    ]


GROWN = orders(
    3,
    shop=None,
    store={"type": "String", "was": {"2": {"name": "shop"}}},
    quantity={"type": "Int64", "was": {"1": {"type": "Int32"}}},
    country={"type": "String", "since": 2},
    amount={**AMOUNT, **le(1000.0), "was": {"1": {"checks": None}}},
    note={"type": "String", "retired": 3},
)

#: What contradicts the history of GROWN, in version 4 of it.
CONTRADICTIONS: dict[str, tuple[dict[str, Any], Found, str]] = {
    "an earlier name is forgotten": (
        {"store": {"type": "String"}},
        [("history", "store", READERS)],
        "keep was={2: Was(name='shop')}",
    ),
    "an earlier check is forgotten": (
        {"amount": {**AMOUNT, **le(1000.0)}},
        [("history", "amount", {"producers"})],
        "declare was={1: Was(le=None)}",
    ),
    "an earlier type is another": (
        {"quantity": {"type": "Int64", "was": {"1": {"type": "Int16"}}}},
        [("history", "quantity", ALL)],
        "declare was={1: Was(dtype=pl.Int32)}",
    ),
    "a column was always there": (
        {"country": {"type": "String"}},
        [("history", "country", ALL)],
        "keep since=2",
    ),
    "a retired column is asked for again": (
        {"note": {"type": "String"}},
        [("history", "note", ALL)],
        "keep retired=3",
    ),
    "a retired column is gone": ({"note": None}, [("removed", "note", READERS)], "retired=4"),
}  # fmt: skip


def grown(**fields: Any) -> dict[str, Any]:
    own = {one["name"]: {k: v for k, v in one.items() if k != "name"} for one in GROWN["fields"]}
    return orders(4, **{"shop": None, **own, **fields})


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_history_that_contradicts_the_recorded_one_breaks(case: str) -> None:
    fields, expected, said = CONTRADICTIONS[case]
    assert found(GROWN, grown()) == []  # the next version, with the same history
    assert found(GROWN, grown(**fields)) == expected
    assert any(said in one.said for one in differences(GROWN, grown(**fields)))


def test_a_contract_that_skipped_versions_follows_its_whole_history() -> None:
    assert found(orders(1, amount=AMOUNT), GROWN) == [
        ("widened", "quantity", set()),
        ("tightened", "amount", set()),
        ("retired", "note", set()),
        ("renamed", "store", set()),
        ("added", "country", set()),
    ]


def test_the_past_of_versions_that_are_no_longer_accepted_is_nobodys() -> None:
    forgotten = {"amount": {**AMOUNT, **le(1000.0)}}
    new = grown(**forgotten) | {"oldest": 3}
    assert found(GROWN | {"oldest": 3}, new) == []
    assert found(GROWN, grown(**forgotten)) == [("history", "amount", {"producers"})]


@pytest.mark.parametrize("contract", [EVENTS, METRICS, VISITS, WIDE, ORDERS], ids=lambda one: one.name)
def test_a_contract_does_not_differ_from_itself(contract: Any) -> None:
    assert differences(described(contract), described(contract)) == []
    assert (
        differences(
            described_table(contract.name, contract.table.schema, contract.partition), described(contract)
        )
        == []
    )


def test_a_version_is_one_contract_for_ever() -> None:
    looser = orders(1, amount=AMOUNT)
    [version, loosened] = differences(orders(), looser)
    assert (version.kind, version.breaking) == ("version", False)
    assert version.said.startswith("raise it to 2")
    assert not loosened.breaking
    [raised] = differences(orders(), orders(2))
    assert (raised.before, raised.after, raised.breaking) == ("1", "2", False)


def test_a_version_never_goes_back() -> None:
    [one] = differences(orders(3), orders(2, note=None))
    assert (one.kind, one.breaks) == ("version", frozenset(ALL))
    assert "version 4" in one.said


def test_of_a_table_without_a_description_the_columns_are_compared() -> None:
    table = {
        "format": 1,
        "contract": "orders",
        "fields": [
            {"name": "order_id", "type": "String"},
            {"name": "quantity", "type": "Int64"},
            {"name": "shop", "type": "String"},
            {"name": "store", "type": "String"},
            {"name": "gone", "type": "String"},
        ],
    }  # fmt: skip
    new = orders(2, shop=None, note=None, store={"type": {"enum": ["a"]}, "was": {"1": {"name": "shop"}}})
    assert found(table, new) == [
        ("added", "at", {"producers"}),
        ("type", "quantity", ALL),
        ("added", "amount", set()),
        ("added", "size", READERS),
        ("added", "schema_version", READERS),
        ("removed", "gone", READERS),
    ]


def test_a_difference_is_one_line_for_people() -> None:
    [_, one] = differences(orders(), orders(1, amount={**AMOUNT, **le(500.0)}))
    assert str(one) == (
        "amount: tightened, le=1000.0 -> le=500.0, breaks producers: raise version to 2 and declare"
        " was={1: Was(le=1000.0)} at the field"
    )
    assert "\n" not in str(one)


def test_a_field_as_of_a_version() -> None:
    field = {
        "name": "store",
        "type": "Int64",
        "since": 2,
        "retired": 6,
        "required": True,
        "was": {"3": {"name": "shop"}, "2": {"type": "Int32", "required": None}},
    }
    assert at_version(field, 1) is None
    assert at_version(field, 2) == {"name": "shop", "type": "Int32"}
    assert at_version(field, 3) == {"name": "shop", "type": "Int64", "required": True}
    assert at_version(field, 4) == {"name": "store", "type": "Int64", "required": True}
    assert at_version(field, 6) == {"name": "store", "type": "Int64", "required": False, "retired": True}
    assert names_of(field) == ["shop"]


def test_bounds_of_decimals_are_numbers() -> None:
    money = {"type": {"decimal": [18, 4]}}
    old = orders(1, amount={**money, "checks": {"less_than_or_equal_to": {"max_value": "1000.00"}}})
    new = orders(1, amount={**money, "checks": {"less_than_or_equal_to": {"max_value": "900"}}})
    assert found(old, new) == [("tightened", "amount", {"producers"})]
    assert found(new, old) == [("loosened", "amount", set())]


CHECKS: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"isin": {"allowed_values": [1, 2]}}, {"isin": {"allowed_values": [2, 1]}}, []),
    ({"isin": {"allowed_values": [1, 2]}}, {"isin": {"allowed_values": [2, 3]}}, ["tightened", "loosened"]),
    ({"isin": {"allowed_values": [1, 2]}}, {"equal_to": {"value": 1}}, ["tightened"]),
    ({"notin": {"forbidden_values": [1]}}, {"not_equal_to": {"value": 1}}, []),
    ({"notin": {"forbidden_values": [1]}}, {}, ["loosened"]),
    ({"greater_than": {"min_value": 0}}, {"greater_than_or_equal_to": {"min_value": 0}}, ["loosened"]),
    (
        {"in_range": {"min_value": 0, "max_value": 9, "include_min": True, "include_max": True}},
        {"greater_than_or_equal_to": {"min_value": 0}, "less_than_or_equal_to": {"max_value": 9}},
        [],
    ),
    (
        {"in_range": {"min_value": 0, "max_value": 9, "include_min": True, "include_max": True}},
        {"in_range": {"min_value": 1, "max_value": 10, "include_min": True, "include_max": True}},
        ["tightened", "loosened"],
    ),
    ({"str_matches": {"pattern": "^a"}}, {"str_matches": {"pattern": "^b"}}, ["tightened"]),
    ({"str_matches": {"pattern": "^a"}}, {}, ["loosened"]),
    ({}, {"own": {}}, ["tightened"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "kinds"), CHECKS, ids=str)
def test_checks_are_compared_by_what_passes(
    before: dict[str, Any], after: dict[str, Any], kinds: list[str]
) -> None:
    old, new = (orders(1, note={"type": "Int64", "checks": checks}) for checks in (before, after))
    assert [kind for kind, _, _ in found(old, new)] == kinds


def test_differences_survive_being_recorded() -> None:
    old = json.loads(text_of(described(EVENTS)))
    assert differences(old, described(EVENTS)) == []
    assert all(isinstance(one, Difference) for one in differences(old, described(METRICS)))


def test_a_contract_follows_from_each_of_its_own_versions() -> None:
    first, second, third = (described(ORDERS.at(version)) for version in (1, 2, 3))
    assert found(first, second) == [
        ("widened", "quantity", set()),
        ("widened", "price", set()),
        ("added", "country", set()),
        ("added", "channel", set()),
        ("tightened", "amount", set()),
    ]
    assert found(second, third) == [("renamed", "store", set()), ("retired", "legacy", set())]
    assert not any(one.breaking for one in differences(first, third))
    assert any(one.breaking for one in differences(third, first))


def test_a_contract_may_begin_to_read_which_version_a_record_claims() -> None:
    """Absent means the newest version then, so the field needs no default."""
    new = orders(2, schema_version={"type": "Int32", "required": True})
    assert found(orders(1, claims=None), new) == [("claims", "claims", set())]


def test_two_columns_do_not_become_one() -> None:
    """A column that takes the name of another one's past does not hide that the other is gone."""
    new = orders(2, shop=None, note={"type": "String", "was": {"1": {"name": "shop"}}})
    assert ("removed", "shop", READERS) in found(orders(), new)
