"""Headrace's own routes: events, measurements, and records of any stream, in the words of their contracts."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from headrace.collector.base import Draft, Outcome, Refused
from headrace.collector.http import Request, Response, answer
from headrace.collector.routes.base import (
    EVENTS,
    FILL,
    METRICS,
    Parsed,
    Result,
    Route,
    count,
    decoded,
    moment,
    record,
)

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ONE = msgspec.json.Decoder(msgspec.Raw)
_ID = frozenset({"id"})
_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
#: A transparent picture of one pixel.
_GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
_KEYS = ("write_key", "writeKey", "api_key", "key")
_encode = msgspec.json.Encoder().encode


class Batch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Body of ``/v1/batch``.

    Attributes:
        events: Records of the stream ``events``.
        measurements: Records of the stream ``metrics``.
        streams: Records of any streams by name.
        sent_at: When it was sent, by the sender's clock; times are then corrected.
        write_key: The write key, if no header has it.
    """

    events: list[msgspec.Raw] = []
    measurements: list[msgspec.Raw] = []
    streams: dict[str, list[msgspec.Raw]] = {}
    sent_at: datetime | None = None
    write_key: str | None = None


_BATCH = msgspec.json.Decoder(Batch)


def sent_by(request: Request) -> datetime | None:
    """Return when a request was sent, by its header ``X-Sent-At``.

    Raises:
        Refused: It is no time.
    """
    told = request.headers.get("x-sent-at")
    if told is None:
        return None
    found = moment(told)
    if found is None:
        raise Refused(400, f"X-Sent-At {told[:60]!r} is no time; write it like 2026-11-30T12:00:00Z")
    return found


def _drafts(stream: str, items: Iterable[msgspec.Raw], fill: frozenset[str] = _ID) -> list[Draft]:
    return [Draft(stream, item, fill) for item in items]


def _one_or_more(stream: str, body: bytes, fill: frozenset[str]) -> list[Draft]:
    begin = body.lstrip()[:1]
    if begin == b"[":
        return _drafts(stream, decoded(_ITEMS, body, "this route"), fill)
    if begin == b"{":
        return [Draft(stream, body, fill)]
    decoded(_ONE, body, "this route")
    raise Refused(400, "the body is neither an object nor an array of objects; nothing of it was taken")


def _track(request: Request, body: bytes) -> Parsed:
    return Parsed(_one_or_more(EVENTS, body, _ID), sent_by(request))


def _measurements(request: Request, body: bytes) -> Parsed:
    return Parsed(_one_or_more(METRICS, body, FILL), sent_by(request))


def batch(request: Request, body: bytes) -> Parsed:
    """Read the body of ``/v1/batch``: lines of JSON, an array, or an object with records by stream."""
    stream = request.parameters.get("stream", EVENTS)
    if request.content_type in _LINES:
        return Parsed(lines(stream, body), sent_by(request))
    if body.lstrip()[:1] == b"[":
        return Parsed(_drafts(stream, decoded(_ITEMS, body, "/v1/batch")), sent_by(request))
    found: Batch = decoded(_BATCH, body, "/v1/batch")
    drafts = [*_drafts(EVENTS, found.events), *_drafts(METRICS, found.measurements, FILL)]
    for name, items in found.streams.items():
        drafts += _drafts(name, items)
    sent = found.sent_at
    if sent is not None and sent.tzinfo is None:
        raise Refused(400, "sent_at has no time zone; write it like 2026-11-30T12:00:00Z")
    return Parsed(drafts, sent or sent_by(request), found.write_key)


def lines(stream: str, body: bytes) -> list[Draft]:
    """Return the drafts of lines of JSON; blank lines are passed over.

    Raises:
        Refused: A line is no JSON; the message names it.
    """
    found = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if not (line := line.strip()):
            continue
        try:
            found.append(Draft(stream, _ONE.decode(line), _ID))
        except (msgspec.DecodeError, RecursionError) as error:
            raise Refused(400, f"line {number} is no JSON: {error}; nothing of the body was taken") from None
    return found


def _pixel(request: Request, body: bytes) -> Parsed:
    """Read an event from the parameters of a GET, or from ``e``, base64 of its JSON."""
    parameters = request.parameters
    if (packed := parameters.get("e")) is not None:
        try:
            whole = urlsafe_b64decode(packed + "=" * (-len(packed) % 4))
            whole.decode()
        except (binascii.Error, ValueError):
            raise Refused(400, "parameter e is no base64 of an event in JSON") from None
        return Parsed(_one_or_more(EVENTS, whole, FILL))
    members: dict[str, Any] = {k: v for k, v in parameters.items() if k in _COLUMNS}
    if "duration_ms" in members:
        with suppress(ValueError):  # the contract says what is wrong with it
            members["duration_ms"] = float(members["duration_ms"])
    rest = {k: v for k, v in parameters.items() if k not in _COLUMNS and k not in _KEYS}
    members["properties"] = rest or None
    return Parsed([Draft(EVENTS, record(members), FILL)])


#: Columns of events that parameters may give; all others go to ``properties``.
_COLUMNS = frozenset(
    {
        "event_id", "event_type", "occurred_at", "session_id", "user_id", "device_id", "channel", "page_url",
        "screen_name", "conversation_id", "duration_ms",
    }
)  # fmt: skip


class Told(msgspec.Struct):
    """Answer to a request: its receipt, how many of its events became what, and what became of each."""

    receipt: str
    accepted: int
    repeated: int
    rejected: int
    conflicts: int
    events: Sequence[Outcome]


def _told(request: Request, result: Result) -> Response:
    outcomes = result.outcomes
    accepted, repeated, rejected, conflicts = count(outcomes).values()
    status = 202 if not conflicts else 422 if conflicts == len(outcomes) else 207
    return answer(status, Told(result.receipt, accepted, repeated, rejected, conflicts, outcomes))


def _picture(request: Request, result: Result) -> Response:
    return Response(200, _GIF, "image/gif", {"cache-control": "no-store"})


TRACK = Route("track", _track, _told)
BATCH = Route("batch", batch, _told, keyed_in_body=True)
MEASUREMENTS = Route("measurements", _measurements, _told)
PIXEL = Route("pixel", _pixel, _picture)
