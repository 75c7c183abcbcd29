"""Messages that are arrays cost what their bytes cost, and their records are judged one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from builders import EVENT, NOW, event
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.contracts import check as check_module
from headrace.contracts.wire import decode, json_array
from headrace.core.batch import MicroBatch

Batch = Callable[..., MicroBatch]


@dataclass
class Counting:
    """A decoder that counts its work."""

    decoder: msgspec.json.Decoder[Any]
    calls: int = 0
    read: int = 0

    def decode(self, text: bytes) -> Any:
        self.calls += 1
        self.read += len(text)
        return self.decoder.decode(text)


def array(parts: list[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"


def said(checks: pl.Series) -> list[list[str]]:
    return [[reason["check"] for reason in reasons] for reasons in checks]


@pytest.mark.parametrize(
    "element",
    [b"1", b"{}", event(occurred_at="1999-01-01T00:00:00Z"), event(event_id=1), b'"\\ud800"'],
    ids=["no object", "no fields", "refused by a check", "a wrong type", "no text"],
)
@pytest.mark.parametrize("count", [200, 3_000])
def test_an_array_is_split_as_often_for_many_wrong_elements_as_for_few(
    batch_of: Batch, monkeypatch: pytest.MonkeyPatch, element: bytes, count: int
) -> None:
    counting = Counting(json_array._ARRAY)
    monkeypatch.setattr(json_array, "_ARRAY", counting)
    payload = array([element] * count)
    limits = Limits(max_message_bytes=len(payload))
    checked = check_batch(EVENTS, batch_of([payload]), batch_id="b", now=NOW, limits=limits)
    assert checked.good.is_empty()
    assert counting.calls <= 4
    assert counting.read <= 4 * len(payload)
    # no row holds more than its own element
    assert checked.rejected["payload"].to_list() == [element] * count
    assert checked.rejected["_index"].to_list() == list(range(count))
    assert all(checked.rejected["reasons"].list.len())


def test_the_largest_array_of_the_smallest_elements_is_rejected(batch_of: Batch) -> None:
    payload = array([b"1"] * 262_143)
    limits = Limits(max_message_records=262_143)
    checked = check_batch(EVENTS, batch_of([payload, event()]), batch_id="b", now=NOW, limits=limits)
    assert (checked.good.height, checked.rejected.height) == (1, 262_143)
    assert checked.rejected["payload"].bin.size().sum() == 262_143


@pytest.mark.parametrize("element", [b"1", event()])
def test_an_array_of_too_many_records_is_rejected_whole_and_once(batch_of: Batch, element: bytes) -> None:
    within, beyond = array([element] * 30), array([element] * 31)
    limits = Limits(max_message_records=30)
    checked = check_batch(EVENTS, batch_of([event(), beyond, within]), batch_id="b", now=NOW, limits=limits)
    whole = checked.rejected.filter(pl.col("_offset") == 1)
    assert whole["payload"].to_list() == [beyond]
    assert whole["reasons"].to_list() == [[{"check": "max_message_records(30)", "column": "", "value": "31"}]]
    assert checked.good.height + checked.rejected.height == 1 + 1 + 30


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (array([event(), event()]) + b" " * 2_000, "max_message_bytes(1000)"),
        (array([event(), b'{"event_id": "\xff"}']), "utf8"),
        (array([event(), b"nope"]), "json"),
        (b" [ ] ", "empty_array"),
        (b"[" * 500 + b"]" * 499, "json"),
    ],
)
def test_an_array_that_is_rejected_whole_keeps_all_its_bytes(
    batch_of: Batch, payload: bytes, expected: str
) -> None:
    limits = Limits(max_message_bytes=1_000)
    checked = check_batch(EVENTS, batch_of([payload]), batch_id="b", now=NOW, limits=limits)
    assert said(checked.rejected["reasons"]) == [[expected]]
    assert checked.rejected["payload"].to_list() == [payload]


def test_key_and_headers_are_not_multiplied_without_bound(batch_of: Batch) -> None:
    batch = batch_of([array([b"1"] * 100), array([b"1"] * 99)])
    records = batch.records.with_columns(
        key=pl.lit(b"k" * 600), headers=pl.lit([{"key": "h" * 30, "value": b"v" * 10}])
    ).cast(dict(batch.records.schema))
    limits = Limits(max_message_bytes=1_000)
    assert limits.max_repeated_bytes == 99 * 640 + 640
    checked = check_batch(
        EVENTS, MicroBatch("t", records, batch.before, batch.after), batch_id="b", now=NOW, limits=limits
    )
    assert checked.rejected.height == 100 + 99
    narrow = records.with_columns(key=pl.lit(b"k" * 601))
    checked = check_batch(
        EVENTS, MicroBatch("t", narrow, batch.before, batch.after), batch_id="b", now=NOW, limits=limits
    )
    assert checked.rejected.height == 1 + 99
    assert checked.rejected["reasons"].to_list()[0] == [
        {"check": "max_repeated_bytes(64000)", "column": "", "value": "100 records of 641 bytes"}
    ]


def test_a_lone_surrogate_rejects_its_own_element_and_no_other(batch_of: Batch) -> None:
    lone = json.dumps({**EVENT, "user_id": "\ud800"}).encode()
    pair = json.dumps({**EVENT, "event_id": "\U0001f600", "user_id": "\\ud800"}).encode()
    checked = check_batch(
        EVENTS, batch_of([array([event(), lone, pair]), lone]), batch_id="b", now=NOW, limits=Limits()
    )
    assert checked.good["event_id"].to_list() == ["e-1", "\U0001f600"]
    assert checked.good["_index"].to_list() == [0, 2]
    assert checked.rejected["payload"].to_list() == [lone, lone]
    reason = {"check": "json", "column": "", "value": "lone surrogate \\ud800"}
    assert checked.rejected["reasons"].to_list() == [[reason], [reason]]


LARGEST = 20
messages: Any = st.sampled_from(
    [
        event(), event(channel="fax"), array([event(), b"1", event(channel="fax")]), b" " + array([b"{}"] * 7), b"[]",
        array([b"1"] * LARGEST), None, b"", b"nope", b"[" * 9,
    ]
)  # fmt: skip


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(messages, max_size=12), at_once=st.integers(1, 30))
def test_a_batch_of_crowded_messages_is_checked_in_parts(
    batch_of: Batch, payloads: list[bytes | None], at_once: int
) -> None:
    batch = batch_of(payloads)
    whole = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits())
    decoded: list[int] = []

    def counted(*arguments: Any) -> Any:
        found = decode.decode(*arguments)
        decoded.append(found.rows.height)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(check_module, "_COMMAS", at_once)
        patched.setattr(check_module, "decode", counted)
        parts = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits())
    assert_frame_equal(parts.good, whole.good)
    assert_frame_equal(parts.rejected, whole.rejected)
    single = sum(1 for payload in payloads if not payload or payload[:1] == b"{")
    assert max(decoded) <= max(at_once, LARGEST) + single


texts: Any = st.text(st.characters(), max_size=6) | st.sampled_from(
    ["\ud800", "\udc00", "\ud83d\ude00", "\\ud800", "a\udfff\ud800", '"[,]\\"']
)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
spaces: Any = st.text(" \t\r\n", max_size=3).map(str.encode)


@settings(max_examples=300, deadline=None)
@given(elements=st.lists(values, max_size=6), space=st.lists(spaces, min_size=14, max_size=14))
@example(elements=["\ud800"], space=[b""] * 14)
def test_elements_are_the_bytes_that_were_sent(elements: list[Any], space: list[bytes]) -> None:
    parts = [json.dumps(element).encode() for element in elements]
    spaced = [space[2 * n] + part + space[2 * n + 1] for n, part in enumerate(parts)]
    whole = space[12] + b"[" + (b",".join(spaced) or space[0]) + b"]" + space[13]
    assert [bytes(part) for part in json_array.split(whole)] == parts
    assert json_array.take(whole, range(len(parts))) == parts
