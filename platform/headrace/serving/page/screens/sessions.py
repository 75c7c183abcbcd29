"""Sessions: how many, how long, where they begin and end, and which convert."""

from __future__ import annotations

from headrace.serving.page.screens import breakdown, tiles
from headrace.serving.page.site import Screen

METRICS = (
    "sessions",
    "bounce_rate",
    "session_duration",
    "events_per_session",
    "conversions",
    "conversion_rate",
)

SCREEN = Screen(
    "sessions",
    "Sessions",
    "Visits: how many, how long, where they begin and end, and which convert.",
    "Product",
    (
        *tiles.panels(METRICS, "sessions"),
        breakdown.panel("entries", "Entry page", "entry_page"),
        breakdown.panel("exits", "Exit page", "exit_page"),
        breakdown.panel("channels", "Channel", "channel"),
    ),
    parameters=("metric",),
    filters=("channel",),
    compared=True,
    foot="A session counts on the day on which it starts; one of a single event is a bounce.",
)
