"""The contract of ``events``: one row per analytics event."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from headrace.contracts.base import Contract, Time, field

CHANNELS = ("web", "mobile", "chat", "server", "iot", "other")
MAX_DURATION_MS = 31 * 86_400_000.0


class Events(pa.DataFrameModel):
    """An event that a person, device or service caused, once per producer's message."""

    event_id: pl.String = field("the producer's id of the event", length=(1, 128), required=True)
    event_type: pl.String = field(
        "what happened: lower case, digits, _ . : -",
        required=True,
        low_cardinality=True,
        str_matches=r"^[a-z][a-z0-9_.:-]{0,63}$",
    )
    occurred_at: Time = field("when it happened, RFC 3339 with a zone", required=True)
    received_at: Time = field("when a collector received it, RFC 3339 with a zone")
    session_id: pl.String = field(
        "the visit, conversation or run it belongs to", length=(1, 128), required=True
    )
    user_id: pl.String = field("the person or account, where known", length=(1, 128))
    device_id: pl.String = field("the device or installation, where known", length=(1, 128))
    channel: pl.String = field(
        f"one of {', '.join(CHANNELS)}", required=True, low_cardinality=True, isin=list(CHANNELS)
    )
    page_url: pl.String = field("the page, for web", length=(1, 2_048))
    screen_name: pl.String = field("the screen, for apps", length=(1, 256), low_cardinality=True)
    conversation_id: pl.String = field("the conversation, for chat", length=(1, 128))
    duration_ms: pl.Float64 = field("how long it took, ms", ge=0.0, le=MAX_DURATION_MS)
    properties: pl.String = field("anything else, a JSON object", wire="object", length=(2, 65_536))
    schema_version: pl.Int32 = field("version of this contract", required=True)

    class Config:
        """Refuse columns that the model does not name."""

        strict = True


EVENTS = Contract(
    name="events",
    version=1,
    model=Events,
    key="event_id",
    time="occurred_at",
    partition="event_date",
    order_by=("channel", "session_id", "occurred_at"),
    claims="schema_version",
)
