"""Performance: how long pages, screens and calls take, and which are slow."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from headrace.serving.page.drawing import Chart, Line
from headrace.serving.page.numbers import WIDTHS, moments, said, window_of
from headrace.serving.page.screens import tiles
from headrace.serving.page.screens.tiles import landed
from headrace.serving.page.site import Looking, Panel, Screen

FIGURES = ("timed_events", "duration_p50", "duration_p75", "duration_p95", "duration_p99", "slow_share")
QUANTILES = {"duration_p50": "Median", "duration_p75": "75 %", "duration_p95": "95 %", "duration_p99": "99 %"}
#: Colours of the lines, from the median on.
_COLOURS = (1, 4, 3, 5)
_ROWS = 15


async def _chart(looking: Looking) -> Mapping[str, Any]:
    span, window = looking.span, window_of(looking.span)
    answers = await asyncio.gather(
        *(looking.numbers.ask(one, span, window=window, filters=looking.filters) for one in QUANTILES)
    )
    at = moments(span, window)
    drawn = tuple(
        Line(name, tuple(answer.values.get(when) for when in at), colour)
        for name, answer, colour in zip(QUANTILES.values(), answers, _COLOURS, strict=True)
    )
    chart = Chart("Duration over time", tuple(at), drawn, "milliseconds", WIDTHS[window])
    return {"chart": chart, "about": "", "landed": await landed(looking)}


async def _table(key: str, looking: Looking) -> Mapping[str, Any]:
    """Read the values of a dimension with the longest 95th percentile, beside the others of each."""
    shown = ("timed_events", "duration_p50", "duration_p95", "duration_p99", "slow_share")
    answers = await asyncio.gather(
        *(looking.numbers.ask(one, looking.span, dimensions=[key], filters=looking.filters) for one in shown)
    )
    found: dict[str, dict[str, Any]] = {}
    for name, answer in zip(shown, answers, strict=True):
        for row in answer.rows:
            found.setdefault(said(row[key]), {})[name] = row["value"]
    most = max((one.get("duration_p95") or 0 for one in found.values()), default=0) or 1
    ranked = sorted(found.items(), key=lambda pair: -(pair[1].get("duration_p95") or 0))[:_ROWS]
    return {
        "rows": [
            (label, {n: one.get(n) for n in shown}, (one.get("duration_p95") or 0) / most)
            for label, one in ranked
        ]
    }


async def _pages(looking: Looking) -> Mapping[str, Any]:
    return {"head": "Page, screen or call", **await _table("page", looking)}


async def _channels(looking: Looking) -> Mapping[str, Any]:
    return {"head": "Channel", **await _table("channel", looking)}


SCREEN = Screen(
    "performance",
    "Performance",
    "How long pages, screens and calls take, and which are slow.",
    "Systems",
    (
        tiles.panels(FIGURES, "durations", linked=False)[0],
        Panel("chart", "Duration", "chart", _chart, "w12 h-chart", note="quantiles, exact in each window"),
        Panel(
            "pages",
            "Slowest pages",
            "slowest",
            _pages,
            "w12 h-table",
            flush=True,
            note="by their 95th percentile",
        ),
        Panel("channels", "By channel", "slowest", _channels, "w12 h-small", flush=True),
    ),
    filters=("channel",),
    compared=True,
    foot="Of events with a duration. A quantile is of all events of its window or range, never a mean of others.",
)
