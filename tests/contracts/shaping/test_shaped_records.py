"""Records of a contract that declares shaping are what plain Python makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts import Time, field, unknown
from headrace.contracts.dtypes import WireField
from headrace.contracts.wire import json_columns, parse
from headrace.core.batch import STRING_MAP, CheckedBatch
from shaped import KNOWN, VISIT, VISITS, WRONG, expected

Judge = Callable[..., CheckedBatch]

clocks: Any = st.sampled_from(
    [
        "2024-03-13 10:21:14",
        "2024-03-31 02:30:00",
        "2024-10-27 02:30:00",
        "2024-02-30 00:00:00",
        "2024-3-1 1:02:03",
        "",
    ]
)
odd: Any = st.sampled_from([None, 5, 1.5, True, "x", "", "N/A", [], {}, [1], {"a": 1}, "Ünï\n", "\u2028"])
texts: Any = st.sampled_from([" Anna ", "BOB", "", " n/a ", "N/A", "Zoë", "x" * 21, "İ"])
right: dict[str, Any] = {
    "at": clocks | st.integers(10**12, 17 * 10**11),
    "seen_at": st.sampled_from(
        ["2024-07-01T12:00:00", " 2024-07-01T12:00:00Z", "never", " never ", "2024-03-31T02:30:00", "12"]
    ),
    "day": st.sampled_from(["1.2.2024", "31.12.1999", "32.1.2024", "2024-01-01"]),
    "user": texts,
    "context": st.fixed_dictionaries(
        {},
        optional={
            "page": st.fixed_dictionaries({}, optional={"url": texts | odd, "x": odd}) | odd,
            "screen.width": st.integers(-5, 5) | odd,
            "more": odd,
        },
    ),
    "w": st.integers(-5, 5) | st.just(2.0) | st.just(2**31),
    "items": st.lists(st.fixed_dictionaries({}, optional={"sku": texts | odd}) | odd, max_size=2),
    "price": st.sampled_from([1.5, -2, 0, "-", "", "1.5", 1e300]),
    "quantity": st.sampled_from([1, 2.0, 2**63 - 1, 2**63, "2", -3]),
    "channel": st.sampled_from(["WEB", "app", "fax", ""]),
    "tags": st.lists(st.sampled_from(["a", "ü", None, 1]), max_size=2),
    "note": st.sampled_from(["", "short", "much too long"]),
    "strange": odd,
    "shop": odd,
}
right |= {
    "ts": right["at"], "Time Stamp": right["at"], "User Name": texts, "Price, EUR": right["price"],
    "qty": right["quantity"], "n": right["quantity"], "Tags": right["tags"],
}  # fmt: skip


@st.composite
def records(draw: Any) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(right)), max_size=8, unique=True))
    found = {name: draw(right[name] if draw(st.integers(0, 5)) else odd) for name in names}
    base = VISIT if draw(st.booleans()) else {}
    return {**base, **found}


@pytest.mark.long
@pytest.mark.parametrize("way", ["plain", "array", "escaped"])
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some=st.lists(records(), min_size=1, max_size=6))
def test_every_record_is_what_python_makes_of_it(judge: Judge, way: str, some: list[dict[str, Any]]) -> None:
    payloads = [json.dumps(one).encode() for one in some]
    if way == "array":
        payloads = [b"[" + b",".join(payloads) + b"]"]
    elif way == "escaped":  # a name that only a whole parser reads
        payloads = [
            p.replace(b'"user"', rb'"us\u0065r"').replace(b'"context"', rb'"c\u006fntext"') for p in payloads
        ]
    found = judge(VISITS, payloads)
    place = "_index" if way == "array" else "_offset"
    good = {row[place]: row for row in found.good.iter_rows(named=True)}
    bad = {row[place]: row for row in found.rejected.iter_rows(named=True)}
    for number, record in enumerate(some):
        values, wrong = expected(record)
        if wrong:
            reasons = {one["column"].partition("[")[0] for one in bad[number]["reasons"]}
            assert reasons == wrong, record
            assert json.loads(bad[number]["payload"]) == record
            continue
        row = good[number]
        for name, value in values.items():
            if name != "note":
                assert row[name] == value, (name, record)
        assert row["shop"] == "shop-7"
    assert len(good) + len(bad) == len(some)
    assert "note" not in found.good.columns
    strange = {name for record in some for name in record if name not in KNOWN}
    assert set(found.unknown) == strange
    assert WRONG not in good.values()


def test_members_of_an_object_that_is_read_by_path_are_data(judge: Judge) -> None:
    message = json.dumps({**VISIT, "context": {"page": {"url": "/", "a": 1}, "b": 2}, "c": 3}).encode()
    assert judge(VISITS, [message]).unknown == {"c": 1}
    [extra] = judge(replace(VISITS, unknown="keep"), [message]).good[unknown.EXTRA]
    assert json.loads(extra) == {"c": 3}
    found = judge(replace(VISITS, unknown="reject"), [message, json.dumps({**VISIT, "ts": None}).encode()])
    assert found.good.height == 1
    assert found.rejected["reasons"].to_list() == [[{"check": "unknown_field", "column": "c", "value": "3"}]]


def test_a_constant_does_not_hide_what_a_message_says(judge: Judge) -> None:
    message = json.dumps({**VISIT, "shop": "shop-3", "total": 1, "visit_id": "x"}).encode()
    found = judge(replace(VISITS, unknown="keep"), [message])
    assert found.good["shop"].to_list() == ["shop-7"]
    assert json.loads(found.good[unknown.EXTRA][0]) == {"shop": "shop-3", "total": 1, "visit_id": "x"}


#: What comes first counts, wrong or not; null is nothing.
FIRST: list[tuple[dict[str, Any], Any]] = [
    ({"quantity": 2, "qty": 3}, 2),
    ({"quantity": None, "qty": 3}, 3),
    ({"qty": None, "n": 4}, 4),
    ({"quantity": 2, "qty": "x"}, 2),
    ({"quantity": "x", "qty": 3}, WRONG),
    ({"quantity": None}, None),
    ({"n": None}, None),
    ({}, 1),
]


@pytest.mark.parametrize(("fields", "value"), FIRST)
def test_the_first_name_with_a_value_counts(judge: Judge, fields: dict[str, Any], value: Any) -> None:
    found = judge(VISITS, [json.dumps({**VISIT, **fields}).encode()])
    if value is WRONG:
        [[reason]] = found.rejected["reasons"].to_list()
        assert (reason["check"], reason["column"], reason["value"]) == ("type(integer)", "quantity", '"x"')
    else:
        assert found.good["quantity"].to_list() == [value]


def test_a_wrong_object_is_a_reason_for_each_field_within(judge: Judge) -> None:
    found = judge(VISITS, [json.dumps({**VISIT, "context": "x", "items": {"sku": 1}}).encode()])
    [reasons] = found.rejected["reasons"].to_list()
    assert {(r["check"], r["column"], r["value"]) for r in reasons} == {
        ("type(object)", "url", '"x"'),
        ("type(object)", "width", '"x"'),
        ("type(array)", "sku", '{"sku": 1}'),
    }


class Wholes(pa.DataFrameModel):
    """Values that are read whole and in parts."""

    at: Time = field("when", required=True)
    user: pl.String = field("who", required=True)
    all: pl.String = field("an object", wire="object", alias="o")
    part: pl.Int32 = field("in it", path="o.a")
    labels: STRING_MAP = field("labels", required=True, default={}, alias="m")  # type: ignore[valid-type]
    label: pl.String = field("one of them", path="m.a", nulls="-")
    tags: Annotated[pl.List, pl.Int64] = field("numbers", path="l")
    second: pl.Int64 = field("one of them", path="l[1]")
    first: pl.Int64 = field("another", path="l[0]", default=7)
    amount: Annotated[pl.Decimal, 10, 2] = field("EUR", nulls=("-",), alias="sum")


WHOLES = replace(VISITS, model=Wholes, key="user", unknown="count")


RICH = json.dumps({
    **VISIT, "context": {"page": {"url": "/"}, "screen.width": 7}, "items": [{"sku": "A"}], "price": "-", "qty": 2,
    "day": "1.2.2024", "seen_at": "never", "tags": ["a"], "channel": "web", "note": "n", "x": [1, {"y": "\u00e9"}],
}).encode()  # fmt: skip


@pytest.mark.long
@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 2_000),
            st.binary(max_size=2) | st.sampled_from([b'"', b"{", b"]", b"null", rb"\ud800", rb"\u002d", b"1e400"]),
            st.integers(0, 3),
        ),
        min_size=1, max_size=3,
    ),
    array=st.booleans(),
)  # fmt: skip
def test_a_damaged_message_is_one_row_and_harms_no_other(
    judge: Judge, changes: list[tuple[int, bytes, int]], array: bool
) -> None:
    damaged = RICH
    for at, put, gone in changes:
        at %= len(damaged) + 1
        damaged = damaged[:at] + put + damaged[at + gone :]
    message = b"[" + RICH + b"," + RICH + b"]" if array else RICH
    found = judge(VISITS, [message, damaged, message])
    right = found.good.filter(pl.col("_offset") != 1)
    assert right.height == (4 if array else 2)
    assert right.drop("visit_id", "^_.*$").n_unique() == 1
    origins = pl.concat([f.select("_offset", "_index") for f in (found.good, found.rejected)])
    assert origins.n_unique() == origins.height == right.height + 1
    if found.rejected.height:
        assert found.rejected["payload"].to_list() == [damaged]


def test_members_that_nobody_asks_for_leave_an_object_to_compiled_code(judge: Judge) -> None:
    many = {f"member-{n}": [n, {"x": None}] for n in range(60)}
    payloads = [
        json.dumps({**many, "page": {"url": "/"}}).encode(),
        json.dumps({"page": many | {"a": "\ud800"}}).encode(),
    ]
    fields, odd = (WireField("page", "json"),), np.zeros(2, np.bool_)
    [raw], counted = json_columns.scan_columns(fields, None, pl.Series(payloads), odd)
    assert (odd.tolist(), counted) == ([False, True], {})
    assert raw.fields["page"].to_list() == ['{"url": "/"}', None]
    assert parse.parse(fields, None, pl.Series(payloads[:1] * 2 + [payloads[0] + b" "]), 10_000).unknown == {}
    [message] = [json.dumps({**VISIT, "context": {**many, "page": {**many, "url": "/"}}}).encode()]
    found = judge(VISITS, [message, b"[" + message + b"]"])
    assert found.good["url"].to_list() == ["/", "/"]
    assert found.unknown == {}


@pytest.mark.parametrize("messages", [[], [b"x"], [None], [b"[]"], [b"[1]", b"{}"]])
def test_batches_without_a_record(judge: Judge, messages: list[bytes | None]) -> None:
    found = judge(VISITS, messages)
    assert (found.good.height, found.rejected.height) == (0, len(messages))
    assert found.good.schema == VISITS.landed_schema


def test_a_value_may_be_read_whole_and_in_parts(judge: Judge) -> None:
    base = {"at": "2024-03-13T10:21:14Z", "user": "u"}
    records: list[dict[str, Any]] = [
        {"o": {"a": 1, "b": [2]}, "m": {"a": "x", "b": "y"}, "l": [5, 6, 7], "sum": "0.10"},
        {"m": {"a": "-"}, "l": [], "amount": "-", "sum": 3},
        {"o": None, "m": None, "l": [None], "amount": 1.5},
        {"o": 5}, {"m": {"a": 1}}, {"l": [1, "x"]}, {"sum": 0.001},
    ]  # fmt: skip
    found = judge(WHOLES, [json.dumps({**base, **record}).encode() for record in records])
    assert found.good.select("all", "part", "label", "tags", "second", "first", "amount").rows() == [
        ('{"a": 1, "b": [2]}', 1, "x", [5, 6, 7], 6, 5, Decimal("0.10")),
        (None, None, None, [], None, 7, None),
        (None, None, None, [None], None, None, Decimal("1.50")),
    ]
    assert [len(labels) for labels in found.good["labels"]] == [2, 1, 0]
    assert [{r["column"] for r in row} for row in found.rejected["reasons"].to_list()] == [
        {"all", "part"}, {"labels", "label"}, {"tags[]", "second"}, {"amount"},
    ]  # fmt: skip


def test_a_contract_without_shaping_takes_no_part_of_this(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from builders import event
    from headrace.contracts import EVENTS, METRICS, check

    for way in ("read_shaped", "complete"):
        monkeypatch.setattr(check, way, lambda *_: pytest.fail("the hot path is another"))
    assert EVENTS.shaping is METRICS.shaping is None
    assert EVENTS.read_columns == EVENTS.columns == EVENTS.fields
    assert judge(EVENTS, [event()]).good.height == 1
