"""Quality: what landed, late, twice and refused; how far everything is behind; what the checks say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from headrace.serving.page.drawing import Chart
from headrace.serving.page.numbers import lines, moments, said
from headrace.serving.page.screens import breakdown, tiles
from headrace.serving.page.site import Looking, Panel, Screen, judged

FIGURES = ("landed_rows", "late_rows", "late_share", "repeated_rows", "rejected_records")
_DAY = 86_400
#: Seconds that an examination of everything may take: services that are away are waited for.
_SECONDS = 60.0


async def _streams(looking: Looking) -> Mapping[str, Any]:
    return {"health": await looking.sources.health(_SECONDS), "dagster": looking.sources.dagster}


async def _checks(looking: Looking) -> Mapping[str, Any]:
    found = await looking.sources.health(_SECONDS)
    checks = found.checks or ()
    base = looking.sources.dagster
    links = {one.asset: f"{base}/assets/{quote(one.asset)}?view=checks" for one in checks} if base else {}
    return {
        "ran": found.checks is not None,
        "checks": checks,
        "failed": [one for one in checks if not one.passed],
        "links": links,
    }


async def _reasons(looking: Looking) -> Mapping[str, Any]:
    answer = await looking.numbers.ask(
        "rejections", looking.span, dimensions=["reason"], order=["-value"], limit=breakdown.ROWS
    )
    found = {said(row["reason"]): float(row["value"]) for row in answer.rows if row["value"]}
    rows = breakdown.rows(looking, found, "reason", None)
    return {"rows": rows, "head": ("Reason", "Records"), "form": "number", "why": ""}


async def _by_stream(looking: Looking) -> Mapping[str, Any]:
    names = ("landed_rows", "late_share", "repeated_rows", "rejected_records", "lateness_longest")
    answers = await asyncio.gather(
        *(looking.numbers.ask(one, looking.span, dimensions=["stream"]) for one in names),
        return_exceptions=True,
    )
    failed = [one for one in answers if isinstance(one, BaseException)]
    if len(failed) == len(answers):
        raise failed[0]
    found: dict[str, dict[str, Any]] = {}
    for name, answer in zip(names, answers, strict=True):
        for row in [] if isinstance(answer, BaseException) else answer.rows:
            found.setdefault(said(row["stream"]), dict.fromkeys(names))[name] = row["value"]
    return {
        "rows": sorted(found.items()),
        "names": names,
        "why": f"{judged(failed[0])[1]}: {judged(failed[0])[2]}" if failed else "",
    }


async def _lateness(looking: Looking) -> Mapping[str, Any]:
    answer = await looking.numbers.ask("lateness_p99", looking.span, window="day", dimensions=["stream"])
    at = moments(looking.span, "day")
    title = "Lateness, 99th percentile by day"
    chart = Chart(title, tuple(at), tuple(lines(answer, at, "stream", empty=None)), "seconds", _DAY)
    return {"chart": chart, "about": title, "landed": True}


SCREEN = Screen(
    "quality",
    "Quality",
    "Whether what arrived is complete, on time and as its contract says.",
    "Data",
    (
        Panel(
            "streams",
            "Streams",
            "quality_streams",
            _streams,
            "w12 h-small",
            flush=True,
            note="as of now",
            seconds=_SECONDS,
        ),
        *tiles.panels(FIGURES, "quality"),
        Panel("reasons", "Rejected by reason", "breakdown", _reasons, "w6 h-table", flush=True),
        Panel("by_stream", "By stream", "quality_by_stream", _by_stream, "w6 h-table", flush=True),
        Panel(
            "lateness",
            "Lateness by day",
            "chart",
            _lateness,
            "w12 h-chart",
            note="99th percentile, event to lake",
        ),
        Panel(
            "checks",
            "Checks",
            "quality_checks",
            _checks,
            "w12 h-table",
            flush=True,
            note="the last of each",
            seconds=_SECONDS,
        ),
    ),
    parameters=("metric",),
    compared=True,
    foot="Landed rows count on the day of their events, rejected records on the day on which they landed.",
)
