"""CloudEvents 1.0 over HTTP: structured, batched and binary (https://github.com/cloudevents/spec).

``source`` and ``id`` together are the event's id. An extension attribute ``stream`` names a stream of one's own, whose
record is then ``data`` itself.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

import msgspec

from headrace.collector.base import Draft, Refused
from headrace.collector.http import Request, Response, answer
from headrace.collector.routes.base import (
    EVENTS,
    FILL,
    Parsed,
    Result,
    Route,
    count,
    decoded,
    event_type,
    record,
    session,
    text,
    time_text,
)

STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
_OBJECT, _ARRAY = msgspec.json.Decoder(dict[str, Any]), msgspec.json.Decoder(list[dict[str, Any]])
_ANY = msgspec.json.Decoder(Any)
_NEEDED = ("id", "source", "type")
_OWN = frozenset(["specversion", "id", "source", "type", "time", "data", "data_base64", "stream"])
#: Members of ``data`` that are columns of events.
_COLUMNS = (
    "session_id", "user_id", "device_id", "channel", "page_url", "screen_name", "conversation_id", "duration_ms",
)  # fmt: skip
_CHANNELS = ("web", "mobile", "chat", "server", "iot", "other")
_MOST_ID = 128
_encode = msgspec.json.Encoder().encode


def is_one(request: Request) -> bool:
    """Tell whether a request is a CloudEvent, whatever its path."""
    return request.content_type in (STRUCTURED, BATCHED) or "ce-specversion" in request.headers


def draft(event: dict[str, Any]) -> Draft:
    """Return a CloudEvent as an event, or as a record of the stream that it names.

    Raises:
        Refused: It lacks an attribute that the specification requires.
    """
    lacking = [name for name in _NEEDED if not isinstance(event.get(name), str) or not event[name]]
    if lacking or not str(event.get("specversion", "")).startswith("1."):
        raise Refused(
            400,
            "a CloudEvent 1.0 has specversion, id, source and type; this one lacks"
            f" {', '.join(lacking) or 'specversion'}; nothing of the body was taken",
        )
    data, stream = event.get("data"), text(event.get("stream"))
    if stream is not None and stream != EVENTS:
        return Draft(stream, _encode(data), FILL)
    attributes = {name: value for name, value in event.items() if name not in _OWN and value is not None}
    given = dict(data) if isinstance(data, dict) else {}
    columns = {name: given.pop(name) for name in _COLUMNS if given.get(name) is not None}
    properties: dict[str, Any] = {**given, "source": event["source"], **attributes}
    if not isinstance(data, dict) and data is not None:
        properties["data"] = data
    if event.get("data_base64") is not None:
        properties["data_base64"] = event["data_base64"]
    called = event_type(event["type"])
    if called != event["type"]:
        properties["type"] = event["type"]
    if columns.get("channel") not in _CHANNELS:
        columns["channel"] = "server"
    at, person, device = (
        time_text(event.get("time")),
        text(columns.get("user_id")),
        text(columns.get("device_id")),
    )
    whose = text(event.get("subject")) or event["source"]
    members = {
        "event_id": identity(event["source"], event["id"]),
        "event_type": called,
        "occurred_at": at,
        **columns,
        "session_id": session(columns.get("session_id"), person or whose, device, at),
        "properties": properties,
    }
    return Draft(EVENTS, record(members), FILL)


def identity(source: str, identity: str) -> str:
    """Return source and id as one id; where that is too long, a digest stands for it."""
    found = f"{source}#{identity}"
    return found if len(found) <= _MOST_ID else blake2b(found.encode(), digest_size=32).hexdigest()


def _parse(request: Request, body: bytes) -> Parsed:
    if request.content_type == BATCHED:
        return Parsed([draft(event) for event in decoded(_ARRAY, body, "a batch of CloudEvents")])
    if request.content_type == STRUCTURED:
        return Parsed([draft(decoded(_OBJECT, body, "a CloudEvent"))])
    if "ce-specversion" in request.headers:
        return Parsed([draft(_binary(request, body))])
    raise Refused(415, f"a CloudEvent is {STRUCTURED}, {BATCHED}, or has its attributes in headers ce-*")


def _binary(request: Request, body: bytes) -> dict[str, Any]:
    event: dict[str, Any] = {
        name[3:]: unquote(value) for name, value in request.headers.items() if name.startswith("ce-")
    }
    if not body:
        return event
    if request.content_type in ("", "application/json") or request.content_type.endswith("+json"):
        return event | {"data": decoded(_ANY, body, "a CloudEvent")}
    return event | {"datacontenttype": request.content_type, "data": body.decode("utf-8", "replace")}


def _told(request: Request, result: Result) -> Response:
    counts = count(result.outcomes)
    conflicts = counts.pop("conflict")
    if conflicts and conflicts == len(result.outcomes):
        raise Refused(422, "another event has this source and id; give each event an id of its own")
    return answer(202, {"receipt": result.receipt, **counts, "conflicts": conflicts})


EVENT = Route("cloudevents", _parse, _told, text=False)
