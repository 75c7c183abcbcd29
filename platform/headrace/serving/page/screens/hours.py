"""Hours: when in the week things happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.serving.page.drawing import level
from headrace.serving.page.screens.tiles import chosen, landed
from headrace.serving.page.site import Looking, Panel, Screen

METRICS = ("events", "unique_users", "unique_sessions")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


async def _heat(looking: Looking) -> Mapping[str, Any]:
    metric = chosen(METRICS, looking)
    answer = await looking.numbers.ask(
        metric, looking.span, dimensions=["weekday", "hour_of_day"], filters=looking.filters
    )
    found = {(int(r["weekday"]), int(r["hour_of_day"])): float(r["value"] or 0) for r in answer.rows}
    most = max(found.values(), default=0.0)
    rows = [
        (
            DAYS[day - 1],
            [(hour, found.get((day, hour), 0.0), level(found.get((day, hour)), most)) for hour in range(24)],
        )
        for day in range(1, 8)
    ]
    top = max(found, key=lambda key: found[key], default=None)
    label, _, _ = looking.numbers.described(metric)
    known = [one for one in METRICS if looking.numbers.knows(one)]
    choices = [
        (
            looking.numbers.described(one)[0],
            looking.view.link(metric=None if one == known[0] else one),
            one == metric,
        )
        for one in known
    ]
    return {
        "rows": rows,
        "most": most,
        "label": label,
        "top": (DAYS[top[0] - 1], top[1], found[top]) if top and most else None,
        "choices": choices,
        "landed": bool(most) or await landed(looking),
    }


SCREEN = Screen(
    "hours",
    "Hours",
    "When in the week things happen, added up over the weeks of the period.",
    "Product",
    (Panel("heat", "Hour by day of the week", "hours", _heat, "w12 h-heat", note="UTC"),),
    parameters=("metric",),
    filters=("channel", "event_type"),
    foot="Each event counts in the hour in which it happened.",
)
