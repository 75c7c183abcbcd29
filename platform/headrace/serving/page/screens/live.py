"""Live: the last half hour, and the newest events as they came, good and rejected."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from headrace.serving.page.address import Span
from headrace.serving.page.drawing import Chart, Line
from headrace.serving.page.numbers import moments, said
from headrace.serving.page.screens import breakdown
from headrace.serving.page.screens.tiles import landed
from headrace.serving.page.site import Looking, Panel, Screen

MINUTES = 30
#: Newest events of each table, and seconds for which they are looked for.
EVENTS, SECONDS = 30, 2.0
#: Events that are shown.
SHOWN = 50
WHICH = {"all": "All", "good": "Good", "rejected": "Rejected"}


def half_hour(looking: Looking) -> Span:
    """Return the last half hour, up to the end of this minute."""
    end = looking.now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return Span(end - timedelta(minutes=MINUTES), end)


async def _figures(looking: Looking) -> Mapping[str, Any]:
    span, filters = half_hour(looking), looking.filters
    names = [one for one in ("events", "unique_users", "unique_sessions") if looking.numbers.knows(one)]
    answers = await asyncio.gather(*(looking.numbers.ask(one, span, filters=filters) for one in names))
    series = await looking.numbers.ask("events", span, window="minute", filters=filters)
    at = moments(span, "minute")
    chart = Chart(
        "Events a minute",
        tuple(at),
        (Line("Events", tuple(series.values.get(when, 0.0) for when in at)),),
        "number",
        60,
        "bars",
    )
    some = any(one.total for one in answers)
    return {"figures": answers, "chart": chart, "landed": some or await landed(looking), "minutes": MINUTES}


async def _by(key: str, head: str, looking: Looking) -> Mapping[str, Any]:
    filters = {name: value for name, value in looking.filters.items() if name != key}
    answer = await looking.numbers.ask(
        "events",
        half_hour(looking),
        dimensions=[key],
        filters=filters,
        order=["-value"],
        limit=breakdown.ROWS,
    )
    found = {said(row[key]): float(row["value"]) for row in answer.rows}
    whole = await looking.numbers.ask("events", half_hour(looking), filters=filters)
    rows = breakdown.rows(looking, found, key, whole.total)
    return {"rows": rows, "head": (head, "Events"), "form": "number", "why": ""}


async def _feed(looking: Looking) -> Mapping[str, Any]:
    which = looking.view.one_of("show", list(WHICH))
    events = await looking.sources.look("newest_events", EVENTS, SECONDS)
    chosen = [one for one in events if which == "all" or bool(one.reasons) == (which == "rejected")]
    choices = [
        (name, looking.view.link(show=None if one == "all" else one), one == which)
        for one, name in WHICH.items()
    ]
    return {"events": chosen[:SHOWN], "some": bool(events), "choices": choices}


def _extra(looking: Looking) -> Mapping[str, Any]:
    return {"stream": "/v1/stream", "stream_events": "message"}


def _panel(name: str, title: str, key: str) -> Panel:
    return Panel(name, title, "breakdown", partial(_by, key, title), "w4 h-table", flush=True, live=True)


SCREEN = Screen(
    "live",
    "Live",
    "The last 30 minutes, anew with each publication.",
    "Product",
    (
        Panel("now", "", "live_now", _figures, "w12 h-live", label="The last 30 minutes", live=True),
        _panel("channels", "Channel", "channel"),
        _panel("types", "Event type", "event_type"),
        _panel("pages", "Page", "page"),
        Panel("feed", "Newest events", "live_feed", _feed, "w12 h-tall", flush=True, live=True),
    ),
    template="live.html",
    parameters=("show",),
    filters=("channel", "event_type"),
    dated=False,
    foot="From the speed layer: what was published a moment ago counts.",
    extra=_extra,
)
