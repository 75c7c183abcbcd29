"""Make malformed messages on purpose, each with the reasons for which its contract must reject it.

They are sent among the demo's real input, so that a run proves rejection as well as landing. Each of them must
end in the rejected table for exactly these reasons, and no other message may.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from headrace.contracts import EVENTS, METRICS, Contract, Limits

#: Real messages between two malformed ones.
EVERY = 997
_FAR_FUTURE = "2999-01-01T00:00:00Z"

Reason = tuple[str, str]
_EVENT = {
    "event_id": "malformed",
    "event_type": "flight_departed",
    "occurred_at": "2013-07-04T12:00:00Z",
    "session_id": "malformed",
    "channel": "other",
}
_METRIC = {
    "metric_id": "malformed",
    "name": "temp",
    "kind": "gauge",
    "value": 68.0,
    "source": "weather/JFK",
    "occurred_at": "2013-07-04T12:00:00Z",
}


@dataclass(frozen=True, slots=True)
class MalformedMessage:
    """A malformed message and its expected outcome.

    Attributes:
        name: What is wrong, for people.
        payload: None is a tombstone (Kafka only).
        reasons: Check and column of every reason, one set per rejected record.
        landed: Valid records of the message, which must land.
        sqs: Whether SQS can carry it.
    """

    name: str
    payload: bytes | None
    reasons: tuple[frozenset[Reason], ...]
    landed: int = 0
    sqs: bool = True

    @property
    def rejected(self) -> int:
        """Number of records that must be rejected."""
        return len(self.reasons)


def malformed_events(limits: Limits | None = None) -> tuple[MalformedMessage, ...]:
    """Make malformed messages for the stream ``events``, for the pipeline's ``limits``."""
    return _all(EVENTS, _EVENT, limits or Limits())


def malformed_metrics(limits: Limits | None = None) -> tuple[MalformedMessage, ...]:
    """Make malformed messages for the stream ``metrics``, for the pipeline's ``limits``."""
    return _all(METRICS, _METRIC, limits or Limits())


def _all(contract: Contract, good: Mapping[str, Any], limits: Limits) -> tuple[MalformedMessage, ...]:
    return (*_whole(contract, good, limits), *_records(contract, good, limits))


def _whole(contract: Contract, good: Mapping[str, Any], limits: Limits) -> Iterator[MalformedMessage]:
    """Make messages that are no record at all, or that hold several."""
    text = _json(good)
    long = max(limits.max_message_bytes, 1_000_000)
    filler = _json({**good, "filler": "x" * long})

    def bad(name: str, payload: bytes | None, check: str, *, sqs: bool = True) -> MalformedMessage:
        return MalformedMessage(name, payload, (frozenset({(check, "")}),), sqs=sqs)

    yield bad("not JSON", b"flight UA1545 has left", "json")
    yield bad("cut off", text[: len(text) // 2], "json")
    yield bad("two documents", text + text, "json")
    yield bad("NaN", text[:-1] + b',"other":NaN}', "json")
    yield bad("Infinity", text[:-1] + b',"other":-Infinity}', "json")
    yield bad("a number", b"42", "object")
    yield bad("a string", b'"flight"', "object")
    yield bad("null", b"null", "object")
    yield bad("blank", b" \n", "empty")
    yield bad("empty", b"", "empty", sqs=False)
    yield bad("tombstone", None, "empty", sqs=False)
    yield bad("not UTF-8", text[:-1] + b',"other":"\xff\xfe"}', "utf8", sqs=False)
    yield bad("too long", filler, f"max_message_bytes({limits.max_message_bytes})", sqs=False)
    yield bad("empty array", b"[]", "empty_array")
    crowd = b"[" + b"1," * limits.max_message_records + b"1]"
    yield bad("too many records", crowd, f"max_message_records({limits.max_message_records})", sqs=False)
    if contract is METRICS:  # the stream whose producers send arrays
        first, second, third = ({**good, contract.key: f"malformed-{n}"} for n in (1, 2, 3))
        yield MalformedMessage(
            "array with one bad record",
            _json([first, {**second, contract.time: "yesterday"}, third]),
            (frozenset({("rfc3339_time_with_zone", contract.time)}),),
            landed=2,
        )
    yield MalformedMessage(
        "array of no records", b"[1,[]]", (frozenset({("object", "")}), frozenset({("object", "")}))
    )


def _records(contract: Contract, good: Mapping[str, Any], limits: Limits) -> Iterator[MalformedMessage]:
    """Make messages of one record each, with one or more wrong fields."""
    since = f"{limits.event_time_min:%Y-%m-%dT%H:%M:%SZ}"
    window = f"event_time_window({since}, ingestion + {limits.event_time_ahead})"
    identity, time = contract.key, contract.time
    cases: list[tuple[str, dict[str, Any], tuple[Reason, ...]]] = [
        ("number for a string", {identity: 4711}, (("type(string)", identity),)),
        ("text for a time", {time: "yesterday"}, (("rfc3339_time_with_zone", time),)),
        ("time without zone", {time: "2013-07-04T12:00:00"}, (("rfc3339_time_with_zone", time),)),
        ("far future", {time: _FAR_FUTURE}, ((window, time),)),
        ("long ago", {time: "1970-01-01T00:00:00Z"}, ((window, time),)),
        ("long identity", {identity: "x" * 129}, (("str_length(1, 128)", identity),)),
        ("empty identity", {identity: ""}, (("str_length(1, 128)", identity),)),
        ("unknown version", {"schema_version": 2}, (("known_version(1)", "schema_version"),)),
        ("text for a version", {"schema_version": "1"}, (("type(integer)", "schema_version"),)),
    ]
    if contract is EVENTS:
        cases += _EVENT_CASES
    else:
        cases += _METRIC_CASES
    for name, change, reasons in cases:
        yield MalformedMessage(name, _json({**good, **change}), (frozenset(reasons),))
    required = [c.name for c in contract.columns if not c.nullable and c.default is None]
    yield MalformedMessage("no fields", b"{}", (frozenset(("required", name) for name in required),))
    for name in required:
        payload = _json({k: v for k, v in good.items() if k != name})
        yield MalformedMessage(f"no {name}", payload, (frozenset({("required", name)}),))


_CHANNELS = "isin(['web', 'mobile', 'chat', 'server', 'iot', 'other'])"
_EVENT_TYPE = "str_matches('^[a-z][a-z0-9_.:-]{0,63}$')"
_EVENT_CASES: list[tuple[str, dict[str, Any], tuple[Reason, ...]]] = [
    ("event type in capitals", {"event_type": "Flight Departed"}, ((_EVENT_TYPE, "event_type"),)),
    ("unknown channel", {"channel": "fax"}, ((_CHANNELS, "channel"),)),
    ("negative duration", {"duration_ms": -1}, (("greater_than_or_equal_to(0.0)", "duration_ms"),)),
    ("text for a duration", {"duration_ms": "12 min"}, (("type(number)", "duration_ms"),)),
    ("object for a string", {"page_url": {"path": "/"}}, (("type(string)", "page_url"),)),
    ("text for properties", {"properties": "a=1"}, (("type(object)", "properties"),)),
    ("array for properties", {"properties": [1, 2]}, (("type(object)", "properties"),)),
    ("long screen name", {"screen_name": "x" * 257}, (("str_length(1, 256)", "screen_name"),)),
    (
        "three wrong fields",
        {"event_type": "", "channel": None, "duration_ms": -5},
        (
            (_EVENT_TYPE, "event_type"),
            ("required", "channel"),
            ("greater_than_or_equal_to(0.0)", "duration_ms"),
        ),
    ),
]
_METRIC_CASES: list[tuple[str, dict[str, Any], tuple[Reason, ...]]] = [
    ("name in capitals", {"name": "Temp (F)"}, (("str_matches('^[a-z][a-z0-9_.:-]{0,127}$')", "name"),)),
    ("unknown kind", {"kind": "summary"}, (("isin(['counter', 'gauge', 'histogram'])", "kind"),)),
    ("text for a value", {"value": "68"}, (("type(number)", "value"),)),
    ("null value", {"value": None}, (("required", "value"),)),
    ("nested dimensions", {"dimensions": {"airport": {"code": "JFK"}}}, (("type(map)", "dimensions"),)),
    ("array for dimensions", {"dimensions": ["JFK"]}, (("type(map)", "dimensions"),)),
    ("long unit", {"unit": "x" * 33}, (("str_length(1, 32)", "unit"),)),
]


def interleave(
    messages: pl.DataFrame, malformed: Sequence[MalformedMessage], every: int = EVERY
) -> pl.DataFrame:
    """Insert the n-th malformed message after ``every * (n + 1)`` real ones, or at the end if there are fewer.

    Args:
        messages: ``payload`` and ``key``, both Binary.
        malformed: All of them are inserted; their key is ``malformed``.
        every: Distance, in real messages.

    Returns:
        The same columns.
    """
    bad = pl.DataFrame(
        {
            "payload": [m.payload for m in malformed],
            "key": [b"malformed"] * len(malformed),
            "_at": [every * (n + 1) for n in range(len(malformed))],
        },
        schema={"payload": pl.Binary, "key": pl.Binary, "_at": pl.UInt32},
    )
    real = messages.with_row_index("_at").select("payload", "key", pl.col("_at").cast(pl.UInt32))
    return pl.concat([bad, real]).sort("_at", maintain_order=True).drop("_at")


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
