"""Fields that a contract does not name are counted, refused or kept: never lost without a word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from builders import METRIC, event, metric
from headrace.contracts import EVENTS, METRICS, unknown
from headrace.contracts.schema import json_schema
from headrace.core.batch import CheckedBatch
from headrace.producers import flights
from headrace.producers.malformed import malformed_events, malformed_metrics
from headrace.producers.traffic import Traffic
from headrace.warehouse.ddl import create_table

Judge = Callable[..., CheckedBatch]
KEEP, REJECT = replace(EVENTS, unknown="keep"), replace(EVENTS, unknown="reject")
#: Records as they take the compiled way, and as they take the other: an array, an escaped name, a field twice.
WAYS: dict[str, Callable[..., bytes]] = {
    "plain": event,
    "array": lambda **changes: b"[" + event(**changes) + b"]",
    "escaped": lambda **changes: event(**changes).replace(b"event_id", rb"event_\u0069d"),
    "twice": lambda **changes: event(**changes).replace(b"{", b'{"event_id": "e-0", ', 1),
    "long number": lambda **changes: event(**changes, duration_ms=1.2345678901234567890123),
}


@pytest.mark.parametrize("way", WAYS)
def test_count_lands_the_rest_and_says_the_names(judge: Judge, way: str) -> None:
    made = WAYS[way]
    messages = [made(country="DE"), made(country=None, city="Bonn"), made(), made(properties={"nested": 1})]
    found = judge(EVENTS, messages)
    assert (found.good.height, found.rejected.height) == (4, 0)
    assert found.unknown == {"country": 2, "city": 1}
    assert unknown.EXTRA not in found.good.columns


@pytest.mark.parametrize("way", WAYS)
def test_reject_gives_a_reason_for_each_field(judge: Judge, way: str) -> None:
    made = WAYS[way]
    found = judge(REJECT, [made(), made(country="DE", city=[1]), made(event_type="NO", country="FR")])
    assert found.good.height == 1
    reasons = [[tuple(one.values()) for one in row] for row in found.rejected["reasons"].to_list()]
    assert sorted(reasons[0]) == [("unknown_field", "city", "[1]"), ("unknown_field", "country", '"DE"')]
    assert ("unknown_field", "country", '"FR"') in reasons[1]
    assert [column for _, column, _ in reasons[1]] == ["country", "event_type"] or len(reasons[1]) == 2
    assert not found.unknown


@pytest.mark.parametrize("way", WAYS)
def test_keep_holds_them_as_json(judge: Judge, way: str) -> None:
    made = WAYS[way]
    strange: dict[str, Any] = {"country": "DE", "nested": {"a": [1, None, "é"]}, "n": -1.5e3}
    found = judge(KEEP, [made(**strange), made(), made(x="\u2028\n")])
    kept = [text and json.loads(text) for text in found.good[unknown.EXTRA]]
    assert kept == [strange, None, {"x": "\u2028\n"}]
    assert found.good.schema == KEEP.landed_schema
    assert found.unknown == {"country": 1, "nested": 1, "n": 1, "x": 1}


def test_a_column_for_what_is_kept_is_in_every_table_and_nowhere_else() -> None:
    assert "`_extra` Nullable(String)" in create_table("raw", KEEP.table)
    assert "_extra" not in create_table("raw", EVENTS.table)
    assert "_extra" not in EVENTS.table.nullable
    assert json_schema(REJECT)["additionalProperties"] is False
    assert "additionalProperties" not in json_schema(EVENTS)


def test_what_the_contract_names_is_the_same_whatever_becomes_of_the_rest(judge: Judge) -> None:
    messages = [event(country="DE"), event(event_id=""), b"x", event(user_id="u")]
    by_count, by_keep = judge(EVENTS, messages), judge(KEEP, messages)
    assert_frame_equal(by_count.good, by_keep.good.drop(unknown.EXTRA))
    assert_frame_equal(by_count.rejected, by_keep.rejected)


def test_a_rejected_record_counts_too(judge: Judge) -> None:
    assert judge(EVENTS, [event(channel="fax", country="DE")]).unknown == {"country": 1}


def test_what_is_no_record_has_no_fields(judge: Judge) -> None:
    assert judge(EVENTS, [b'{"country": "DE"', b"[1]", b"", None, b'"country"']).unknown == {}


fields: Any = st.dictionaries(
    st.text(min_size=1, max_size=5).filter(lambda n: n not in METRIC), st.integers(), max_size=5
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(fields, max_size=12), arrays=st.booleans())
def test_each_name_is_counted_in_as_many_records_as_have_it(
    judge: Judge, records: list[dict[str, int]], arrays: bool
) -> None:
    messages = [
        json.dumps({**METRIC, **extra}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        for extra in records
    ]
    if arrays:
        messages = [b"[" + b",".join(messages) + b"]"] if messages else []
    found = judge(METRICS, messages)
    expected = Counter(name for extra in records for name in extra)
    if len(expected) <= 20:
        assert found.unknown == expected
    assert sum(found.unknown.values()) == sum(expected.values())


@pytest.mark.parametrize("arrays", [False, True])
def test_names_without_end_are_one_number(judge: Judge, arrays: bool) -> None:
    records = [metric(**{f"user-{n}": n, "country": "DE"}) for n in range(1_500)]
    found = judge(METRICS, [b"[" + b",".join(records) + b"]"] if arrays else records)
    assert found.good.height == 1_500
    assert len(found.unknown) == 21
    assert found.unknown["country"] == 1_500
    assert sum(found.unknown.values()) == 3_000


def test_a_record_of_very_many_fields_has_few_reasons_and_a_long_name_is_cut(judge: Judge) -> None:
    many = {f"f{n:04}": n for n in range(1_000)}
    [reasons] = judge(REJECT, [event(**many)]).rejected["reasons"].to_list()
    assert len(reasons) == 33
    assert reasons[-1]["value"] == "968 more fields"
    assert judge(EVENTS, [event(**many)]).unknown[unknown.OTHERS] == 980
    assert list(judge(EVENTS, [event(**{"x" * 1_000: 1})]).unknown) == ["x" * 64 + "…"]
    [extra] = judge(KEEP, [event(**many)]).good[unknown.EXTRA]
    assert json.loads(extra) == many


def test_what_a_commit_notes_is_read_back_with_the_newest_first() -> None:
    early = datetime(2026, 1, 1, tzinfo=UTC)
    late = early + timedelta(hours=1)
    notes = [
        (late, unknown.noted({"a": 1})[unknown.NOTE]),
        (early, unknown.noted({"a": 2, "b": 9, "ü": 1})[unknown.NOTE]),
    ]
    found = unknown.seen(notes)
    assert list(found) == ["a", "b", "ü"]
    assert found["a"] == unknown.Seen(3, late)
    assert unknown.noted({}) == {}


def test_headraces_own_producers_send_what_the_contracts_name(judge: Judge) -> None:
    """So ``make up`` and the demo do not warn."""
    start = datetime(2026, 5, 6, 14, tzinfo=UTC)
    sent = Traffic(1, 20).between(start, start + timedelta(minutes=10))
    assert sum(map(len, sent)) > 5_000
    for contract, chunk in zip((EVENTS, METRICS), sent, strict=True):
        assert judge(contract, [*chunk.payloads]).unknown == {}
    for contract, messages in ((EVENTS, flights.flight_events()), (METRICS, flights.weather_messages())):
        payload = messages["payload"].head(2_000)
        assert judge(contract, payload.cast(pl.Binary)).unknown == {}
    for contract, wrong in ((EVENTS, malformed_events()), (METRICS, malformed_metrics())):
        found = judge(contract, [one.payload for one in wrong])
        assert found.rejected.height and found.unknown == {}
