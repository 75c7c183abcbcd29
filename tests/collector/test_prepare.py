"""What the collector writes into an event, once, before it is judged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import EVENT, METRIC, event
from collector.doubles import STREAMS
from headrace.collector.base import Draft, Event, Refused, Seen
from headrace.collector.judge import judge

NOW = datetime(2026, 1, 2, 4, 5, 6, 789_000, tzinfo=UTC)
ID, FILL = frozenset({"id"}), frozenset({"id", "time"})
EVENTS = STREAMS["events"]


def taught() -> None:
    """Have the event type of the builders seen once."""
    odd = EVENTS.event(Draft("events", event()), Seen(NOW, "k"), 0)
    judge(STREAMS, [odd], NOW)
    assert EVENTS.event(Draft("events", event()), Seen(NOW, "k"), 0).plain


def made(payload: bytes, fill: frozenset[str] = ID, place: int = 0, **seen: Any) -> Event:
    return EVENTS.event(Draft("events", payload, fill), Seen(NOW, "k", **seen), place)


def record(one: Event) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(one.payload)
    return found


@pytest.mark.parametrize("odd", [False, True])
def test_it_says_when_it_was_received_whatever_the_client_says(odd: bool) -> None:
    taught()
    one = made(event(received_at="1999-01-01T00:00:00Z", **({"strange": 1} if odd else {})))
    assert one.plain is not odd
    assert record(one)["received_at"] == "2026-01-02T04:05:06.789000Z"


@pytest.mark.parametrize("odd", [False, True])
def test_times_are_corrected_by_the_clients_clock(odd: bool) -> None:
    taught()
    sent = datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC)  # an hour and 789 ms late
    one = made(event(**({"strange": 1} if odd else {})), sent=sent)
    at = datetime.fromisoformat(record(one)["occurred_at"])
    assert at == datetime.fromisoformat(EVENT["occurred_at"]) + timedelta(hours=1, milliseconds=789)


@settings(deadline=None)
@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 2), timezones=st.just(UTC)),
    st.timedeltas(timedelta(-400), timedelta(400)),
)
def test_a_corrected_time_is_as_long_before_reception_as_it_was_before_sending(
    original: datetime, skew: timedelta
) -> None:
    taught()
    pause = NOW - original
    one = made(event(occurred_at=(original + skew).isoformat()), sent=original + skew + pause)
    assert datetime.fromisoformat(record(one)["occurred_at"]) == original


def test_a_repeat_is_the_same_event_however_late_it_comes() -> None:
    first = made(event(), sent=NOW)
    later = EVENTS.event(
        Draft("events", event(), ID), Seen(NOW + timedelta(days=2), "k", sent=NOW + timedelta(days=1)), 3
    )
    assert first.digest == later.digest and first.payload != later.payload


@pytest.mark.parametrize(
    "other", [event(event_id="e-2"), event(user_id="u"), event() + b" "], ids=["id", "body", "spelling"]
)
def test_another_id_or_body_is_another_event(other: bytes) -> None:
    one, two = made(event()), made(other)
    assert one.digest != two.digest
    assert (one.digest[:16] == two.digest[:16]) == (one.id == two.id)


def test_an_event_without_an_id_gets_one_and_is_never_a_repeat() -> None:
    bare = event()[:-1].replace(b'"event_id": "e-1", ', b"") + b"}"
    one, two = made(bare), made(bare)
    assert one.id and one.id != two.id and one.digest != two.digest
    assert record(one)["event_id"] == one.id


def test_the_requests_own_id_makes_those_of_its_events() -> None:
    bare = event().replace(b'"event_id": "e-1", ', b"")
    one, again, next_ = (made(bare, place=place, request_id="r") for place in (0, 0, 1))
    assert one.id == "r/0" and next_.id == "r/1" and one.digest == again.digest


def test_a_time_is_filled_only_where_the_route_says_so() -> None:
    bare = b'{"event_id":"1","event_type":"page_view","session_id":"s","channel":"web"}'
    assert "occurred_at" not in record(made(bare))
    assert record(made(bare, FILL))["occurred_at"] == "2026-01-02T04:05:06.789000Z"


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize(
    "properties, expected",
    [
        (None, {"$collector": {"ip": "192.0.2.0"}}),
        ({}, {"$collector": {"ip": "192.0.2.0"}}),
        ({"a": 1}, {"$collector": {"ip": "192.0.2.0"}, "a": 1}),
        ({"$collector": 5}, {"$collector": 5}),
    ],
)
def test_what_is_known_of_the_client_is_a_property(odd: bool, properties: Any, expected: Any) -> None:
    taught()
    more = ({"strange": 1} if odd else {}) | ({} if properties is None else {"properties": properties})
    one = made(event(**more), about=b'{"ip":"192.0.2.0"}')
    assert record(one)["properties"] == expected


def test_properties_that_are_no_object_are_left_to_the_contract() -> None:
    assert record(made(event(properties=[1]), about=b"{}"))["properties"] == [1]


def test_a_member_that_comes_twice_is_written_once() -> None:
    one = made(event()[:-1] + b',"event_id":"e-9","user_id":"a","user_id":"b"}')
    assert one.id == "e-9" and one.payload.count(b"user_id") == 1 and record(one)["user_id"] == "b"


def test_measurements_have_no_time_of_reception() -> None:
    one = STREAMS["metrics"].event(Draft("metrics", msgspec.json.encode(METRIC)), Seen(NOW, "k"), 0)
    assert "received_at" not in record(one)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b'{"a":}', b"5 5", b'"a', b"[1,]", b"nul", b"[" * 200_000, b'{"a":' * 200_000]
)
def test_what_is_no_json_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused) as refused:
        made(payload)
    assert refused.value.status == 400


@settings(deadline=None)
@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_whatever_comes_is_refused_or_valid_json(payload: bytes) -> None:
    try:
        payload.decode()
        one = made(payload)
    except (Refused, UnicodeDecodeError):
        return
    msgspec.json.decode(one.payload, type=msgspec.Raw)
    msgspec.json.decode(b"[" + one.payload + b"]", type=list[msgspec.Raw])


#: Changes of an event: some keep it plain, others make it odd, and some need a look at each record.
CHANGES: list[dict[str, Any]] = [
    {},
    {"properties": {}},
    {"properties": {"a": {"properties": "}"}, "b": "é"}},
    {"properties": {"$collector": 5}},
    {"properties": [1]},
    {"strange": 1},
    {"event_type": "never_seen_before"},
    {"channel": "fax"},
    {"occurred_at": "2026-01-02T09:00:00Z"},
    {"occurred_at": "1899-01-01T00:00:00Z"},
    {"user_id": None},
    {"event_id": ""},
]
MORE = [b"5", b"[]", b'{"event_id":"x"}', event(event_id="s").replace(b'"}', b'","properties":{ "a":1}}')]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.one_of(st.sampled_from(CHANGES).map(lambda c: event(**c)), st.sampled_from(MORE)), max_size=8
    ),
    st.sampled_from([b"", b'{"ip":"192.0.2.0"}']),
    st.sampled_from([None, datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC)]),
)
def test_an_event_is_the_same_alone_and_beside_others(
    payloads: list[bytes], about: bytes, sent: datetime | None
) -> None:
    taught()
    drafts = [Draft("events", one) for one in payloads]
    seen = Seen(NOW, "k", sent, about)
    together = EVENTS.events(drafts, seen)
    alone = [EVENTS.event(draft, seen, place) for place, draft in enumerate(drafts)]
    assert [(e.payload, e.id, e.plain) for e in together] == [(e.payload, e.id, e.plain) for e in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.digest == other.digest or not one.id, "without an id nothing is a repeat"
