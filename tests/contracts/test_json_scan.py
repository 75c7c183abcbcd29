"""What compiled code makes of a record is what msgspec makes of it, or it leaves the record to msgspec."""

from __future__ import annotations

import base64
import decimal
import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from builders import METRIC, event, metric
from headrace.contracts import EVENTS, METRICS, Contract
from headrace.contracts.unknown import EXTRA, POLICIES
from headrace.contracts.wire import decode, json_columns, structs
from headrace.contracts.wire.decoded import Decoded
from wide import RECORD, WIDE, wide

_LIMIT = 4_000


def by_msgspec_alone(contract: Contract, payloads: pl.Series, limit: int = _LIMIT) -> Decoded:
    parser = structs.StructParser(contract.wire_fields, contract.unknown, payloads, limit)
    return decode.finished(contract, parser.parsed())


def odd_of(contract: Contract, payloads: list[bytes]) -> list[bool]:
    odd = np.zeros(len(payloads), np.bool_)
    json_columns.scan_columns(
        contract.wire_fields, contract.unknown, pl.Series(payloads, dtype=pl.Binary), odd
    )
    return [bool(each) for each in odd]


def compare(contract: Contract, messages: list[bytes | None], limit: int = _LIMIT) -> None:
    payloads = pl.Series(messages, dtype=pl.Binary)
    for policy in POLICIES:
        compare_by(replace(contract, unknown=policy), payloads, limit)


def compare_by(contract: Contract, payloads: pl.Series, limit: int) -> None:
    found, expected = decode.decode(contract, payloads, limit), by_msgspec_alone(contract, payloads, limit)
    assert found.unknown == expected.unknown
    if contract.unknown == "keep":
        kept = [[text and json.loads(text) for text in of.rows[EXTRA]] for of in (found, expected)]
        assert kept[0] == kept[1]
        assert all(text is None or text for text in kept[0])
        found.rows, expected.rows = found.rows.drop(EXTRA), expected.rows.drop(EXTRA)
    assert_frame_equal(found.rows, expected.rows, check_exact=True)
    assert_series_equal(found.message, expected.message)
    assert_series_equal(found.index, expected.index)

    def said(of: Decoded) -> list[tuple[Any, ...]]:
        return sorted(
            zip(of.failures.row, of.failures.check, of.failures.column, of.failures.value, strict=True)
        )

    assert said(found) == said(expected)


texts: Any = st.text(max_size=30) | st.sampled_from(
    ["", "é", "\U0001f600", "a" * 12, "a" * 13, '"\\/\b\f\n\r\t\0']
)
numbers: Any = (
    st.floats(allow_nan=False) | st.integers() | st.decimals(allow_nan=False, allow_infinity=False).map(float)
)
times: Any = st.datetimes().map(lambda t: t.isoformat() + "Z") | st.sampled_from(
    [
        "2024-02-29T23:59:59.999999999+23:59", "2023-02-29T00:00:00Z", "2024-12-31T23:59:60Z", "2024-01-01t00:00:00z",
        "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2024-01-01 00:00:00Z", "2024-01-01T00:00Z",
        "2024-01-01T00:00:00.1234567890Z", "2024-01-01T00:00:00.Z", "2024-04-31T00:00:00Z", "1969-12-31T23:59:59.5Z",
        "2024-01-01T24:00:00Z", "2024-01-01T00:00:00+0100", "2024-01-01T00:00:00+24:00", "1900-02-29T00:00:00Z",
    ]
)  # fmt: skip
anything: Any = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
dates: Any = st.dates().map(str) | st.sampled_from(
    [
        "1900-01-01",
        "1899-12-31",
        "2299-12-31",
        "2300-01-01",
        "2023-02-29",
        "2024-2-29",
        "0000-01-01",
        "2024-13-01",
    ]
)
decimals: Any = st.decimals(-(10**9), 10**9, places=3).map(str) | numbers | st.integers(-(10**40), 10**40)
right: dict[str, Any] = {
    "string": texts, "number": numbers, "integer": st.integers(-(2**31), 2**31 - 1), "time": times,
    "object": st.dictionaries(texts, anything, max_size=3), "map": st.dictionaries(texts, texts, max_size=4),
    "boolean": st.booleans(), "date": dates, "decimal": decimals | decimals.map(str),
    "enum": st.sampled_from(["web", "mobile", "", "new", "old", "q"]),
    "uuid": st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper()) | st.uuids().map(lambda u: u.hex),
    "binary": st.binary(max_size=9).map(lambda b: base64.b64encode(b).decode()),
    "list": st.lists(st.none() | texts | st.integers(0, 99) | dates, max_size=3)
    | st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=2), max_size=3)
    | st.lists(st.dictionaries(st.sampled_from(["name", "fee", "x"]), texts | decimals, max_size=3), max_size=2),
    "struct": st.fixed_dictionaries({}, optional={
        "zip": texts, "number": st.integers(-2, 300), "since": dates, "tags": st.none() | st.lists(texts, max_size=2),
        "at": st.fixed_dictionaries({}, optional={"lat": numbers, "price": decimals, "y": anything}), "x": anything,
    }),
}  # fmt: skip
right["map"] |= st.dictionaries(
    texts, st.none() | numbers | st.lists(st.integers(0, 70_000), max_size=2), max_size=3
)


@st.composite
def records(draw: Any, contract: Contract) -> bytes:
    """One record as a producer might write it: any order, any spacing, escaped or not, now and then wrong."""
    fields = {c.name: draw(right[c.wire] | anything) for c in contract.columns if draw(st.integers(0, 9))}
    extra = draw(st.dictionaries(st.text(max_size=4), anything, max_size=2))
    pairs = draw(st.permutations([*fields.items(), *extra.items()]))
    if draw(st.integers(0, 9)) == 0 and pairs:
        pairs = [*pairs, pairs[0]]
    ascii_only, space = draw(st.booleans()), draw(st.sampled_from(["", " ", "\n\t", "\r "]))
    between = ":" + space, space + "," + space
    inner = between[1].join(
        json.dumps(k, ensure_ascii=ascii_only) + between[0]
        + json.dumps(v, ensure_ascii=ascii_only, separators=(between[1], between[0]))
        for k, v in pairs
    )  # fmt: skip
    return f"{space}{{{space}{inner}{space}}}{space}".encode("utf-8", "surrogatepass")


@pytest.mark.long
@pytest.mark.parametrize("contract", [EVENTS, METRICS, WIDE], ids=lambda c: c.name)
@settings(max_examples=75, deadline=None)
@given(data=st.data())
def test_records_are_what_msgspec_makes_of_them(contract: Contract, data: st.DataObject) -> None:
    compare(contract, data.draw(st.lists(records(contract), max_size=6)))


@settings(max_examples=75, deadline=None)
@given(
    kind=st.sampled_from(["event", "metric"]),
    changes=st.lists(
        st.tuples(st.integers(0, 2_000), st.binary(max_size=2), st.integers(0, 2)), min_size=1, max_size=3
    ),
)
def test_damaged_records_are_what_msgspec_makes_of_them(
    kind: str, changes: list[tuple[int, bytes, int]]
) -> None:
    rich = {
        "properties": {"a": [1.5e-3, {"b": None, "c": [True, False, "\\"]}], "ü": "\n"},
        "duration_ms": 12.25,
    }
    whole = event(**rich) if kind == "event" else metric(dimensions={"a": "1", "b": "\\u00e9"})
    damaged = whole
    for at, put, gone in changes:
        at %= len(damaged) + 1
        damaged = damaged[:at] + put + damaged[at + gone :]
    compare(EVENTS if kind == "event" else METRICS, [whole, damaged, whole])


@settings(max_examples=150, deadline=None)
@given(number=st.from_regex(r"\A-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,19})?([eE][+-]?[0-9]{1,2})?\Z"))
@example("9007199254740993")  # between two doubles
@example("9007199254740992.5")
@example("5e-324")
@example("0.1e1")
@example("123456789012345678e-22")
@example("179769313486231580e291")
def test_a_number_is_the_nearest_double(number: str) -> None:
    record = event()[:-1] + f', "duration_ms": {number}}}'.encode()
    compare(EVENTS, [record])


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(number=st.from_regex(r"\A-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,19}|\.0{1,40})?([eE][+-]?[0-9]{1,2})?\Z"))
@example("1.0")
@example("1e0")
@example("-0.0")
@example("0e99")
@example("12300e-2")
@example("2147483647.0")
@example("-2147483648.0")
@example("-2147483649.0")
@example("214748364.8e1")
@example("1.5")
@example("100000000000000000000e-20")
@example("1" + "0" * 5_000)
@example("1." + "0" * 5_000)
@example("0." + "0" * 5_000 + "1e5001")
@example("1e400")
@example("1e-400")
@example("1e" + "9" * 60)
@example("0e" + "9" * 60)
@example("1e-" + "9" * 60)
def test_an_integer_is_any_number_without_a_fraction_that_fits(number: str) -> None:
    record = b'{"schema_version": ' + number.encode() + b"}"
    for payload in (record, b"[" + record + b"]"):
        compare(EVENTS, [payload], limit=20_000)
        found = decode.decode(EVENTS, pl.Series([payload]), 20_000)
        kind, value = judged_integer(number)
        checks = [c.removesuffix("(-2147483648, 2147483647)") for c in found.failures.check]
        assert checks == ([kind] if kind else [])
        assert kind or found.rows["schema_version"].to_list() == [value]


def judged_integer(number: str) -> tuple[str, int | None]:
    """By decimal arithmetic alone."""
    mantissa, _, power = number.lower().partition("e")
    if not mantissa.strip("-0."):
        return "", 0
    if len(power) > 50:
        return ("type(integer)" if power.startswith("-") else "in_range"), None
    with decimal.localcontext(prec=20_000):
        value = decimal.Decimal(number)
        if value != value.to_integral_value():
            return "type(integer)", None
        if not -(2**31) <= value < 2**31:
            return "in_range", None
        return "", int(value)


def test_plain_records_are_left_to_nobody() -> None:
    plain = [
        event(),
        event(duration_ms=0.1 + 0.2, properties={"a": ["é", {"b": [1]}]}),
        b'{"event_id": "caf\\u00e9\\n"}',
        b"{}",
        b'{"schema_version": 1.0}',
        b'{"schema_version": -1.50E+1}',
        b'{"x": "\\ud83d\\uDE00", "user_id": "\\ud83d\\uDE00"}',
        b'{"received_at": "2016-12-31t18:59:60.1234567890-05:00"}',
    ]
    assert odd_of(EVENTS, plain) == [False] * len(plain)
    assert odd_of(METRICS, [metric(dimensions={"a": "1", "b": 'x"'})]) == [False]
    shorter = {"i64": 10**18 - 1, "u64": 10**18 - 1}  # more digits are left to msgspec
    assert odd_of(WIDE, [wide(), wide(**shorter), wide(**dict.fromkeys(RECORD))]) == [True, False, False]


@pytest.mark.parametrize(
    "record",
    [
        b"[" + event() + b"]", b'{"event_id": 5}', b'{"event_id": "a", "event_id": "b"}', b'{"event_id": "a",}',
        b"{} {}",
        b'{"event_\\u0069d": "a"}', b'{"event_id": "\\ud800"}', b'{"duration_ms": 01}', b'{"duration_ms": 1.}',
        b'{"duration_ms": 12345678901234567890}', b'{"schema_version": 1.5}', b'{"schema_version": 1e400}',
        b'{"schema_version": 2147483648.0}', b'{"x": "\\ud800"}', b'{"x": "\\udc00\\ud800"}',
        b'{"properties": {"\\ud800\\n": 1}}', b'{"x": tru}', b'{"x": [1, ]}',
        b'{"x": {"a" 1}}',
        b'{"x": ' + b"[" * 62 + b"]" * 62 + b"}", b"null", b"", b"{",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_msgspec(record: bytes) -> None:
    assert odd_of(EVENTS, [event(), record, event()]) == [False, True, False]


def test_payloads_beyond_what_a_view_reaches_are_scanned_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_columns, "_AT_ONCE", 3 * len(event()))
    payloads: list[bytes | None] = [event(event_id=f"{n:0>20}", properties={"a": "\n"}) for n in range(11)]
    compare(EVENTS, [*payloads, b"[]", *payloads])


def test_a_key_twice_in_a_map_is_msgspecs_to_judge() -> None:
    twice = json.dumps({**METRIC, "dimensions": {}}).replace(
        '"dimensions": {}', '"dimensions": {"a": "1", "a": "2"}'
    )
    assert odd_of(METRICS, [twice.encode()]) == [True]
    compare(METRICS, [twice.encode()])
    long = {"d" * 20 + str(n): "v" for n in range(70)}
    assert odd_of(METRICS, [metric(dimensions=long)]) == [True]
