"""Overview: how much happens, beside the period before, and by what."""

from __future__ import annotations

from headrace.serving.page.screens import breakdown, tiles
from headrace.serving.page.site import Screen

METRICS = ("events", "unique_users", "sessions", "conversion_rate", "bounce_rate", "session_duration")

SCREEN = Screen(
    "overview",
    "Overview",
    "How much happens, by whom and where, beside the period before.",
    "Product",
    (
        *tiles.panels(METRICS, "activity"),
        breakdown.panel("channels", "Channel", "channel"),
        breakdown.panel("types", "Event type", "event_type"),
        breakdown.panel("pages", "Page", "page"),
    ),
    parameters=("metric",),
    filters=("channel", "event_type"),
    compared=True,
    foot="Each event counts once, on the minute at which it happened.",
)
