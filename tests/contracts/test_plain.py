"""The quick judge of single records: what it takes, the check of batches takes too, with the same values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders import EVENT, METRIC, NOW, event
from headrace.contracts import EVENTS, METRICS, Contract, Limits, check_batch, field
from headrace.contracts.base import Time
from headrace.contracts.plain import Plain
from headrace.core.batch import CheckedBatch, MicroBatch

LIMITS = Limits()


def judged(contract: Contract, *payloads: bytes) -> CheckedBatch:
    batch = MicroBatch.of("test", payloads, cursor="test", offset=range(len(payloads)))
    return check_batch(contract, batch, batch_id="b", now=NOW, limits=LIMITS)


def plain(contract: Contract = EVENTS) -> Plain:
    found = Plain.of(contract, LIMITS)
    assert found is not None
    found.learn(pl.DataFrame({"event_type": ["page_view", "a"], "name": ["cpu", "a"]}))
    return found


TEXTS = st.one_of(
    st.sampled_from(
        ["page_view", "web", "a", "", "A", "page_view\n", "1", "\x00", "é", "😀", "a" * 128, "a" * 129]
    ),
    st.text(max_size=140),
)
TIMES = st.one_of(
    st.sampled_from(
        [
            "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456789Z", "2026-01-02t03:04:05z", "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05+05:45", "2026-01-02T03:04:05", "2026-01-02", "0001-01-01T00:00:00+05:00",
            "9999-12-31T23:59:59-05:00", "2026-06-30T23:59:60Z", "2026-01-02T24:00:00Z", "1999-12-31T23:59:59Z",
            "2026-06-01T01:00:00Z", "2026-06-01T01:00:01Z", "1850-01-01T00:00:00Z", "2026-13-01T00:00:00Z",
        ]
    ),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from(
        [0, -1, 1.5, 1e308, 31 * 86_400_000, 31 * 86_400_000.1, 2**63, 2**31, -(2**31), 10**400, 1.0]
    ),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
VALUES = st.one_of(TEXTS, TIMES, NUMBERS, JSON, st.dictionaries(TEXTS, TEXTS, max_size=2))


def mutated(good: dict[str, Any], names: list[str]) -> st.SearchStrategy[bytes]:
    """Records that are nearly right, with members missing, wrong, doubled or strange, in any spelling."""
    changes = st.dictionaries(st.sampled_from([*names, "strange"]), VALUES, max_size=2)
    twice = st.one_of(st.none(), st.sampled_from(names))

    def text(
        change: dict[str, Any], lost: str | None, doubled: str | None, ascii_: bool, space: bool
    ) -> bytes:
        record = {**good, **change}
        record.pop(lost or "", None)
        said = json.dumps(record, ensure_ascii=ascii_, separators=(" , ", " : ") if space else (",", ":"))
        if doubled in record:
            said = f"{said[:-1]},{json.dumps(doubled)}:{json.dumps(record[doubled])}}}"
        return said.encode("utf-8", "surrogatepass" if ascii_ else "replace")

    return st.builds(text, changes, twice, twice, st.booleans(), st.booleans())


def agrees(contract: Contract, payload: bytes) -> None:
    one = plain(contract)
    record = one.read(payload)
    if record is None or not one.timely(record, NOW):
        return
    written = one.write(record)
    found = judged(contract, payload, written)
    assert found.rejected.is_empty(), found.rejected["reasons"].to_list()
    columns = [c.name for c in contract.columns if c.wire != "object"]
    first, second = found.good.select(columns).rows()
    assert first == second
    for column in contract.columns:
        if column.wire == "object":
            before, after = found.good[column.name]
            assert (before and json.loads(before)) == (after and json.loads(after))


@settings(deadline=None)
@given(mutated(EVENT, [c.name for c in EVENTS.columns]))
@example(event(event_type="page_view\n"))
@example(event(properties={"a": "\ud800"}))
@example(event(properties={"a": "\x00"}))
@example(event(duration_ms=10**400))
@example(event(schema_version=2))
@example(event(schema_version=None))
def test_what_it_takes_of_events_the_contract_takes(payload: bytes) -> None:
    agrees(EVENTS, payload)


@settings(deadline=None)
@given(mutated(METRIC, [c.name for c in METRICS.columns]))
@example(json.dumps({**METRIC, "dimensions": None}).encode())
@example(json.dumps({**METRIC, "dimensions": {"a": "\x00"}}).encode())
def test_what_it_takes_of_measurements_the_contract_takes(payload: bytes) -> None:
    agrees(METRICS, payload)


@pytest.mark.parametrize("contract, good", [(EVENTS, EVENT), (METRICS, METRIC)])
def test_it_takes_what_producers_usually_send(contract: Contract, good: dict[str, Any]) -> None:
    assert plain(contract).read(json.dumps(good).encode()) is not None
    assert plain(contract).read(json.dumps({**good, "schema_version": 1}, indent=1).encode()) is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        event(strange=1),
        event(channel="fax"),
        event(event_id=""),
        event(event_id=5),
        event(event_type="not_seen_before"),
        event(duration_ms=-1),
        event(properties=[]),
        event(properties={"a": "\ud800"}),
        event(occurred_at="2026-01-02T03:04:05"),
        event(schema_version=2),
        event() + b"x",
        b"[" * 100_000,
    ],
    ids=lambda payload: repr(payload[:40]),
)
def test_it_doubts(payload: bytes) -> None:
    assert plain().read(payload) is None


def test_a_value_of_a_pattern_is_known_once_it_has_passed() -> None:
    one = Plain.of(EVENTS, LIMITS)
    assert one is not None
    assert one.read(event()) is None
    one.learn(judged(EVENTS, event(), event(event_type="NO")).good)
    assert one.read(event()) is not None
    assert one.read(event(event_type="NO")) is None


def test_known_values_are_bounded() -> None:
    one = plain()
    for first in range(0, 10_000, 1_000):
        one.learn(pl.DataFrame({"event_type": [f"t{n}" for n in range(first, first + 1_000)]}))
    assert one.read(event(event_type="t9999")) is not None
    assert one.read(event(event_type="t0")) is None


def test_the_window_of_times_is_asked_apart() -> None:
    one = plain()
    late = one.read(event(occurred_at=(NOW + timedelta(hours=1)).isoformat()))
    later = one.read(event(occurred_at=(NOW + timedelta(hours=1, microseconds=1)).isoformat()))
    assert one.timely(late, NOW)
    assert not one.timely(later, NOW)
    assert not one.timely(one.read(event(occurred_at="1999-12-31T23:59:59Z")), NOW)


def test_a_record_is_written_without_what_it_lacks() -> None:
    one = plain()
    assert msgspec.json.decode(one.write(one.read(event()))) == {
        **EVENT,
        "occurred_at": "2026-01-02T03:04:05.678901Z",
    }


class Shaped(pa.DataFrameModel):
    """Has another name in the message."""

    key: pl.String = field("key", required=True, alias="id")
    at: Time = field("when", required=True)


class Bounded(pa.DataFrameModel):
    """Has what only columns can judge."""

    key: pl.String = field("key", required=True, str_matches="^[a-z]+$")
    at: Time = field("when", required=True)


@pytest.mark.parametrize("model", [Shaped, Bounded])
def test_a_contract_that_it_cannot_judge_has_none(model: type[pa.DataFrameModel]) -> None:
    contract = Contract("things", 1, model, "key", "at", "at_date", ("key",))
    assert Plain.of(contract, LIMITS) is None
