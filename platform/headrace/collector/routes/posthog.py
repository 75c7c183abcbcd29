"""PostHog's routes for events: ``/batch/``, and ``/capture/`` and ``/e/`` for one or an array."""

from __future__ import annotations

from typing import Any

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
    moment,
    record,
    session,
    text,
    time_text,
)

_BODY = msgspec.json.Decoder(Any)
_TYPES = {"$pageview": "page_view", "$pageleave": "page_leave", "$screen": "screen_view"}
_OWN = frozenset(
    ["event", "uuid", "timestamp", "distinct_id", "properties", "api_key", "token", "sent_at", "type"]
)
_MOBILE = ("ios", "android", "react-native", "flutter")


def draft(message: Any) -> Draft:
    """Return one event of PostHog as one of ours.

    Raises:
        Refused: It is no object with the name of an event.
    """
    name = text(message.get("event")) if isinstance(message, dict) else None
    if name is None:
        raise Refused(400, "an event is an object with the name of an event; nothing of the body was taken")
    given = message.get("properties")
    properties: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    properties |= {n: value for n, value in message.items() if n not in _OWN and value not in (None, {}, [])}
    called = _TYPES.get(name) or event_type(name)
    if name != called:
        properties["event"] = name
    person = text(message.get("distinct_id")) or text(properties.get("distinct_id"))
    device = text(properties.get("$device_id"))
    library = str(properties.get("$lib", "")).lower()
    at = time_text(message.get("timestamp"))
    members = {
        "event_id": text(message.get("uuid")),
        "event_type": called,
        "occurred_at": at,
        "session_id": session(properties.get("$session_id"), person, device, at),
        "user_id": person,
        "device_id": device,
        "channel": "web"
        if library == "web"
        else "mobile"
        if any(m in library for m in _MOBILE)
        else "server",
        "page_url": text(properties.get("$current_url")),
        "screen_name": text(properties.get("$screen_name")),
        "properties": properties or None,
    }
    return Draft(EVENTS, record(members), FILL)


def _parse(request: Request, body: bytes) -> Parsed:
    whole = decoded(_BODY, body, "this route")
    sent, secret = None, None
    if isinstance(whole, dict):
        sent = moment(whole.get("sent_at")) or moment(whole.get("sentAt"))
        secret = text(whole.get("api_key")) or text(whole.get("token"))
        messages = whole.get("batch", [whole])
    else:
        messages = whole
    if not isinstance(messages, list):
        raise Refused(400, "batch is no array of events; nothing of it was taken")
    if secret is None and messages and isinstance(messages[0], dict):
        properties = messages[0].get("properties")
        secret = text(messages[0].get("api_key")) or text(
            properties.get("token") if isinstance(properties, dict) else None
        )
    return Parsed([draft(message) for message in messages], sent, secret)


def _told(request: Request, result: Result) -> Response:
    counts = count(result.outcomes)
    conflicts = counts.pop("conflict")
    if conflicts and conflicts == len(result.outcomes):
        raise Refused(422, "another event has this uuid; give each event an id of its own")
    return answer(200, {"status": 1, "receipt": result.receipt, **counts, "conflicts": conflicts})


CAPTURE = Route("posthog", _parse, _told, keyed_in_body=True)
