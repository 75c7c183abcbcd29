"""Every message ends in good or rejected, with every reason and its payload untouched."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import EVENT, METRIC, NOW, event, metric
from headrace.contracts import EVENTS, METRICS, Contract, Limits, check_batch
from headrace.contracts import check as check_module
from headrace.contracts.schema import json_schema
from headrace.core.batch import REJECTED_SCHEMA, CheckedBatch, MicroBatch

Batch = Callable[..., MicroBatch]


def judge(batch: MicroBatch, contract: Contract = EVENTS) -> CheckedBatch:
    return check_batch(contract, batch, batch_id="b", now=NOW, limits=Limits())


def reasons(checked: CheckedBatch) -> list[set[tuple[str, str]]]:
    return [{(r["check"], r["column"]) for r in row} for row in checked.rejected["reasons"].to_list()]


BAD: list[tuple[str, bytes | None, set[tuple[str, str]]]] = [
    ("not JSON", b"nope", {("json", "")}),
    ("not UTF-8", b'{"event_id": "\xff"}', {("utf8", "")}),
    ("not UTF-8 where nobody looks", event()[:-1] + b', "extra": "\xff"}', {("utf8", "")}),
    ("wrong types", event(event_id=5, duration_ms="1"), {("type(string)", "event_id"), ("type(number)", "duration_ms")}),
    ("a missing field", json.dumps({k: v for k, v in EVENT.items() if k != "channel"}).encode(), {("required", "channel")}),
    ("event type pattern", event(event_type="Page View"), {("str_matches('^[a-z][a-z0-9_.:-]{0,63}$')", "event_type")}),
    ("the far future", event(occurred_at="2099-01-01T00:00:00Z"),
     {("event_time_window(2000-01-01T00:00:00Z, ingestion + 1:00:00)", "occurred_at")}),
    ("a year beyond the calendar", event(occurred_at="+12345-01-01T00:00:00Z"), {("rfc3339_time_with_zone", "occurred_at")}),
    ("no zone", event(occurred_at="2026-01-02T03:04:05"), {("rfc3339_time_with_zone", "occurred_at")}),
    ("an over-long string", event(session_id="x" * 129), {("str_length(1, 128)", "session_id")}),
    ("NaN", event()[:-1] + b', "duration_ms": NaN}', {("json", "")}),
    ("beyond a double", event()[:-1] + b', "duration_ms": 1e999}', {("type(number)", "duration_ms")}),
    ("nested where flat is due", event(user_id={"id": 1}), {("type(string)", "user_id")}),
    ("properties that are no object", event(properties=[1]), {("type(object)", "properties")}),
    ("empty", b"", {("empty", "")}),
    ("blank", b" \n", {("empty", "")}),
    ("a tombstone", None, {("empty", "")}),
    ("an empty array", b"[]", {("empty_array", "")}),
    ("1 MB", b"x" * 1_000_000, {("max_message_bytes(524288)", "")}),
    ("a scalar", b"5", {("object", "")}),
    ("nested without end", b"[" * 200_000, {("json", "")}),
    ("an integer beyond its type", event(schema_version=2**70), {("in_range(-2147483648, 2147483647)", "schema_version")}),
    ("two documents", event() + event(), {("json", "")}),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "expected"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_bad_record_is_rejected_for_its_reasons_and_no_other(
    batch_of: Batch, payload: bytes | None, expected: set[tuple[str, str]]
) -> None:
    checked = judge(batch_of([event(), payload, event()]))
    assert checked.good.height == 2
    assert reasons(checked) == [expected]
    assert checked.rejected["payload"].to_list() == [payload]
    assert checked.rejected["_offset"].to_list() == [1]


def test_a_good_record_keeps_every_value(batch_of: Batch) -> None:
    full = event(
        received_at="2026-01-02T04:04:06+01:00", user_id="u", device_id="d", page_url="/x", screen_name="home",
        conversation_id="c", duration_ms=12, properties={"a": [1, {"b": None}], "ü": "\n"},
    )  # fmt: skip
    checked = judge(batch_of([full]))
    assert checked.rejected.is_empty()
    row = checked.good.row(0, named=True)
    assert row["occurred_at"] == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert row["received_at"] == datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
    assert row["duration_ms"] == 12.0
    assert json.loads(row["properties"]) == {"a": [1, {"b": None}], "ü": "\n"}
    assert row["schema_version"] == 1
    assert str(row["event_date"]) == "2026-01-02"
    assert (row["_cursor"], row["_offset"], row["_index"], row["_batch_id"]) == ("test/0", 0, 0, "b")
    assert checked.good.schema == EVENTS.landed_schema


def test_one_bad_record_of_an_array_is_rejected_alone(batch_of: Batch) -> None:
    bad = metric(value=None)
    array = b"[" + metric(metric_id="a") + b", " + bad + b"," + metric(metric_id="c") + b"]"
    checked = judge(batch_of([array]), METRICS)
    assert checked.good["metric_id"].to_list() == ["a", "c"]
    assert checked.good["_index"].to_list() == [0, 2]
    assert checked.rejected["payload"].to_list() == [bad]
    assert checked.rejected["_index"].to_list() == [1]
    assert checked.rejected.schema == REJECTED_SCHEMA


def test_a_map_is_kept_and_absent_is_empty(batch_of: Batch) -> None:
    without = json.dumps({k: v for k, v in METRIC.items() if k != "dimensions"}).encode()
    checked = judge(batch_of([metric(dimensions={"a": "1", "b": ""}), without]), METRICS)
    assert checked.good["dimensions"].to_list() == [
        [{"key": "a", "value": "1"}, {"key": "b", "value": ""}],
        [],
    ]


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
records: Any = st.fixed_dictionaries(
    {}, optional={name: json_values | st.just(EVENT.get(name)) for name in EVENTS.landed_schema.names()[:14]}
).map(lambda record: json.dumps(record).encode())
messages: Any = st.one_of(
    st.none(),
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    records,
    st.just(event()),
    st.lists(st.just(event()) | records, max_size=4).map(lambda parts: b"[" + b",".join(parts) + b"]"),
)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(payloads=st.lists(messages, max_size=12))
def test_no_message_vanishes_or_doubles_whatever_it_holds(payloads: list[bytes | None]) -> None:
    count = len(payloads)
    batch = MicroBatch.of("t", payloads, cursor="t", offset=range(count))
    checked = judge(batch)
    origins = pl.concat(
        [checked.good.select("_offset", "_index"), checked.rejected.select("_offset", "_index")]
    )
    assert origins.unique().height == origins.height
    assert set(origins["_offset"]) == set(range(count))
    assert all(len(r) for r in checked.rejected["reasons"])


def test_the_json_schema_says_what_the_contract_checks() -> None:
    schema = json_schema(EVENTS)
    assert set(schema["required"]) == {"event_id", "event_type", "occurred_at", "session_id", "channel"}
    assert schema["properties"]["event_id"]["maxLength"] == 128
    assert schema["properties"]["channel"]["enum"][0] == "web"
    assert schema["properties"]["occurred_at"] == {
        "type": "string", "format": "date-time", "description": "when it happened, RFC 3339 with a zone",
    }  # fmt: skip


def failures(found: pl.DataFrame | None) -> set[tuple[Any, ...]]:
    return set() if found is None else set(found.select("index", "column", "check", "failure_case").rows())


values: Any = {
    pl.String: st.none() | st.sampled_from(["web", "gauge", "a", "", "x" * 129, "page_view", "Page"]),
    pl.List: st.none() | st.sampled_from([[], [{"key": "room", "value": "a"}]]),
    pl.Float64: st.none() | st.sampled_from([0.0, -1.0, 3e9, float("nan"), 1.0]),
    pl.Int32: st.none() | st.integers(0, 2),
    pl.Datetime: st.none() | st.just(NOW),
}


@pytest.mark.long
@pytest.mark.parametrize("contract", [EVENTS, METRICS], ids=lambda contract: contract.name)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_one_query_finds_is_what_pandera_finds(contract: Contract, data: st.DataObject) -> None:
    row = st.fixed_dictionaries({c.name: values[c.dtype.base_type()] for c in contract.columns})
    rows = data.draw(st.lists(row, min_size=1, max_size=6))
    frame = pl.DataFrame(rows, schema={c.name: c.dtype for c in contract.columns})
    expected = failures(check_module._validated(contract.schema, frame))
    assert failures(check_module._failures(contract.schema, frame)) == expected
    suspects = check_module._suspects(contract.schema, frame)
    assert suspects is not None
    assert set(suspects.arg_true()) == {index for index, *_ in expected}


@pytest.mark.parametrize(
    "checks",
    [
        pa.Check(lambda data: data.lazyframe.select(pl.col(data.key).sum() < 10)),
        pa.Check(lambda data: data.lazyframe.select(~pl.col(data.key).is_duplicated())),
        pa.Check(lambda data: bool(data.lazyframe.select(pl.col(data.key).max() < 5).collect().item())),
        pa.Check.unique_values_eq([1, 2, 3]),
    ],
    ids=["of all rows", "of a row among others", "a verdict", "a built-in verdict"],
)
def test_a_check_of_more_than_a_row_sees_all_rows(checks: pa.Check) -> None:
    schema = pa.DataFrameSchema({"n": pa.Column(pl.Int64, checks)})
    for numbers in ([1, 2, 3], [7, 7, 8]):
        frame = pl.DataFrame({"n": numbers})
        found, expected = check_module._failures(schema, frame), check_module._validated(schema, frame)
        assert (found is None) == (expected is None) == (numbers == [1, 2, 3])
        if found is not None and expected is not None:
            assert found["index"].to_list() == expected["index"].to_list()


def test_a_check_that_fails_itself_is_panderas_to_name() -> None:
    def broken(data: Any) -> pl.LazyFrame:
        raise ValueError("no such thing")

    schema = pa.DataFrameSchema({"n": pa.Column(pl.Int64, pa.Check(broken, error="broken"))})
    found = check_module._failures(schema, pl.DataFrame({"n": [1]}))
    assert found is not None
    assert found["index"].to_list() == [None]
