"""Segment's routes, which the libraries of RudderStack and Jitsu speak too.

How its fields become ours is a table in ``docs/collector.md``; what has no column goes into ``properties``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.collector.base import Draft, Refused
from headrace.collector.http import Request, Response, answer
from headrace.collector.routes import native
from headrace.collector.routes.base import (
    EVENTS,
    FILL,
    Parsed,
    Result,
    Route,
    count,
    decoded,
    event_type,
    moment,
    record,
    session,
    text,
    time_text,
)

_BODY = msgspec.json.Decoder(dict[str, Any])
_KINDS = ("track", "page", "screen", "identify", "group", "alias")
_TYPES = {"page": "page_view", "screen": "screen_view"}
#: Fields that become columns, or only matter on the way.
_OWN = frozenset(
    {
        "type", "event", "messageId", "userId", "anonymousId", "timestamp", "originalTimestamp", "sentAt", "receivedAt",
        "writeKey", "properties", "traits", "_metadata",
    }
)  # fmt: skip
_MOBILE = ("ios", "android", "ipados", "watchos", "tvos")


def draft(message: Any, kind: str | None = None) -> Draft:
    """Return one message as an event.

    Args:
        message: A message of Segment's spec.
        kind: Its type, if the route says so; else the message does.

    Raises:
        Refused: It is no object, or of an unknown type.
    """
    if not isinstance(message, dict):
        raise Refused(
            400, f"a message is an object, not {str(message)[:40]!r}; nothing of the body was taken"
        )
    kind = kind or message.get("type")
    if kind not in _KINDS:
        raise Refused(
            400, f"type {str(kind)[:40]!r} is none of {', '.join(_KINDS)}; nothing of the body was taken"
        )
    context = _object(message.get("context"))
    properties = dict(_object(message.get("properties")))
    if traits := _object(message.get("traits")):
        properties["traits"] = traits
    properties |= {
        name: value for name, value in message.items() if name not in _OWN and value not in (None, {}, [])
    }
    name = text(message.get("event"))
    if kind == "track":
        called = event_type(name or "", "track")
        if name and name != called:
            properties["event"] = name
    else:
        called = _TYPES.get(kind, kind)
    page, person = _object(context.get("page")), text(message.get("userId"))
    device = text(message.get("anonymousId")) or text(_object(context.get("device")).get("id"))
    at = time_text(message.get("originalTimestamp")) or time_text(message.get("timestamp"))
    members = {
        "event_id": text(message.get("messageId")),
        "event_type": called,
        "occurred_at": at,
        "session_id": session(context.get("sessionId"), person, device, at),
        "user_id": person,
        "device_id": device,
        "channel": _channel(message, context),
        "page_url": text(page.get("url")) or text(properties.get("url")),
        "screen_name": text(message.get("name")) if kind == "screen" else None,
        "properties": properties or None,
    }
    return Draft(EVENTS, record(members), FILL)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _channel(message: dict[str, Any], context: dict[str, Any]) -> str:
    """Return where an event comes from: what it says, or what its library runs on."""
    said = str(message.get("channel") or context.get("channel") or "").lower()
    if said in ("web", "browser"):
        return "web"
    system = str(_object(context.get("os")).get("name", "")).lower()
    if said == "mobile" or system in _MOBILE or message.get("type") == "screen":
        return "mobile"
    library = str(_object(context.get("library")).get("name", "")).lower()
    browser = context.get("page") is not None or library in ("analytics.js", "@segment/analytics-next")
    return "web" if browser and said != "server" else "server"


def _one(kind: str) -> Callable[[Request, bytes], Parsed]:
    def parse(request: Request, body: bytes) -> Parsed:
        message = decoded(_BODY, body, f"/v1/{kind}")
        return Parsed([draft(message, kind)], moment(message.get("sentAt")), text(message.get("writeKey")))

    return parse


def _batch(request: Request, body: bytes) -> Parsed:
    """Read a batch: Segment's has ``batch``, any other is Headrace's own."""
    if b'"batch"' not in body or body.lstrip()[:1] != b"{":
        return native.batch(request, body)
    whole = decoded(_BODY, body, "/v1/batch")
    if "batch" not in whole:
        return native.batch(request, body)
    messages = whole["batch"]
    if not isinstance(messages, list):
        raise Refused(400, "batch is no array of messages; nothing of it was taken")
    context = _object(whole.get("context"))
    if context:
        messages = [
            {**m, "context": {**context, **_object(m.get("context"))}} if isinstance(m, dict) else m
            for m in messages
        ]
    sent = moment(whole.get("sentAt"))
    if sent is None and messages and isinstance(messages[0], dict):
        sent = moment(messages[0].get("sentAt"))
    return Parsed([draft(m) for m in messages], sent, text(whole.get("writeKey")), answer=_told)


def _told(request: Request, result: Result) -> Response:
    counts = count(result.outcomes)
    conflicts = counts.pop("conflict")
    if conflicts and conflicts == len(result.outcomes):
        raise Refused(422, "another event has this messageId; give each event an id of its own")
    value = {"success": True, "receipt": result.receipt, **counts, "conflicts": conflicts}
    return answer(200, value)


def settings(request: Request, key: str) -> Response:
    """Answer analytics.js, which asks for the settings of a write key before it sends anything."""
    host = request.headers.get("host", "")
    return answer(200, {"integrations": {"Segment.io": {"apiKey": key, "apiHost": f"{host}/v1"}}, "plan": {}})


CALLS = {kind: Route(f"segment_{kind}", _one(kind), _told, keyed_in_body=True) for kind in _KINDS}
#: ``/v1/batch``, which is also ours.
BATCH = Route("batch", _batch, native.BATCH.answer, keyed_in_body=True)
