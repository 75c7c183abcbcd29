"""Express the contract of ``events`` for peers: a function over a dict, and a Pydantic model."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, Field

from headrace.contracts.events import CHANNELS, MAX_DURATION_MS

_TYPE = r"^[a-z][a-z0-9_.:-]{0,63}$"
_MATCHES = re.compile(_TYPE).match
_TEXTS = {
    "session_id": 128,
    "user_id": 128,
    "device_id": 128,
    "page_url": 2_048,
    "screen_name": 256,
    "conversation_id": 128,
}
_REQUIRED = ("event_id", "event_type", "occurred_at", "session_id", "channel")

#: Columns of a peer's table.
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("event_id", "event_type", "channel", "properties", *_TEXTS)),
        ("occurred_at", pa.timestamp("us", tz="UTC")),
        ("received_at", pa.timestamp("us", tz="UTC")),
        ("duration_ms", pa.float64()),
        ("schema_version", pa.int32()),
        ("event_date", pa.date32()),
    ]
)


def is_right(row: dict[str, Any]) -> bool:
    """Tell whether a decoded event satisfies the contract."""
    if any(row.get(name) is None for name in _REQUIRED):
        return False
    for name, longest in _TEXTS.items():
        text = row.get(name)
        if text is not None and not (isinstance(text, str) and 1 <= len(text) <= longest):
            return False
    duration, kind = row.get("duration_ms"), row["event_type"]
    return (
        isinstance(row["event_id"], str)
        and 1 <= len(row["event_id"]) <= 128
        and isinstance(kind, str)
        and _MATCHES(kind) is not None
        and row["channel"] in CHANNELS
        and (duration is None or (isinstance(duration, int | float) and 0 <= duration <= MAX_DURATION_MS))
        and isinstance(row.get("properties", {}), dict)
        and row.get("schema_version", 1) == 1
    )


def with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Replace time texts by times, and add the day that partitions the table.

    Raises:
        ValueError: A text is no time.
    """
    row["occurred_at"] = at = datetime.fromisoformat(row["occurred_at"])
    if row.get("received_at"):
        row["received_at"] = datetime.fromisoformat(row["received_at"])
    row["event_date"] = at.date()
    return row


_Id = Annotated[str, Field(min_length=1, max_length=128)]


class Event(BaseModel):
    """An event, for peers that validate row by row."""

    event_id: _Id
    event_type: Annotated[str, Field(pattern=_TYPE)]
    occurred_at: AwareDatetime
    received_at: AwareDatetime | None = None
    session_id: _Id
    user_id: _Id | None = None
    device_id: _Id | None = None
    channel: Literal["web", "mobile", "chat", "server", "iot", "other"]
    page_url: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None
    screen_name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    conversation_id: _Id | None = None
    duration_ms: Annotated[float, Field(ge=0, le=MAX_DURATION_MS)] | None = None
    properties: Annotated[str, Field(max_length=65_536)] | None = None
    schema_version: Literal[1] = 1
