"""Figures on top of a screen: each with its change and a small line, and the one that the chart below shows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.serving.page.address import FILTERS
from headrace.serving.page.drawing import Spark
from headrace.serving.page.numbers import moments, over_time, window_of
from headrace.serving.page.site import Looking, Panel, judged

#: Metrics of which less is better.
LESS = frozenset(
    {
        "bounce_rate",
        "duration_p50",
        "duration_p75",
        "duration_p95",
        "duration_p99",
        "slow_share",
        "late_rows",
        "late_share",
        "repeated_rows",
        "rejected_records",
    }
)


#: Seconds that one figure may take; the others do not wait for it any longer.
_TILE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure.

    Attributes:
        metric: Its name.
        label: For people.
        about: What it is.
        value: Of the period.
        before: Of the period before; None if it is not asked for, or there is none.
        form: How it is written.
        spark: Its values over the period.
        less: Whether less is better.
        href: Where a click leads.
        chosen: Whether the chart shows it.
        note: A filter that it does not know.
    """

    metric: str
    label: str
    about: str
    value: float | None
    before: float | None
    form: str
    spark: Spark
    less: bool
    href: str
    chosen: bool
    note: str = ""


def chosen(metrics: Sequence[str], looking: Looking) -> str:
    """Return the metric that the address chooses, or the first."""
    known = [one for one in metrics if looking.numbers.knows(one)]
    return looking.view.one_of("metric", known or list(metrics))


async def _tiles(metrics: Sequence[str], linked: bool, looking: Looking) -> Mapping[str, Any]:
    known = [one for one in metrics if looking.numbers.knows(one)]
    current = chosen(metrics, looking) if linked else ""
    made = await asyncio.gather(
        *(_tile(one, one == current, one == known[0], looking) for one in known), return_exceptions=True
    )
    failed = [one for one in made if isinstance(one, BaseException)]
    if failed and len(failed) == len(made):
        raise failed[0]
    found = [
        _without(name, one, looking) if isinstance(one, BaseException) else one
        for name, one in zip(known, made, strict=True)
    ]
    return {"tiles": found, "compare": looking.view.compare, "linked": linked}


async def _tile(metric: str, current: bool, first: bool, looking: Looking) -> Tile:
    async with asyncio.timeout(_TILE_SECONDS):
        return await _answered(metric, current, first, looking)


async def _answered(metric: str, current: bool, first: bool, looking: Looking) -> Tile:
    numbers, span, filters = looking.numbers, looking.span, looking.filters
    window = numbers.window(metric, window_of(span))
    asked = [
        numbers.ask(metric, span, filters=filters),
        numbers.ask(metric, span, window=window, filters=filters),
    ]
    if looking.view.compare:
        asked.append(numbers.ask(metric, span.before, filters=filters))
    now, series, *before = await asyncio.gather(*asked)
    label, about, form = numbers.described(metric)
    values = series.values
    at = [when for when in moments(span, window) if when <= looking.now]
    ignored = " or ".join(FILTERS.get(one, one).lower() for one in now.ignored)
    return Tile(
        metric,
        label,
        about,
        now.total,
        before[0].total if before else None,
        form,
        Spark(tuple(values.get(when, 0.0 if form == "number" else None) for when in at)),
        metric in LESS,
        looking.view.link(metric=None if first else metric),
        current,
        f"not by {ignored}" if ignored else "",
    )


def _without(metric: str, error: BaseException, looking: Looking) -> Tile:
    """Return a figure that could not be had, and why: the others stand beside it."""
    label, _, form = looking.numbers.described(metric)
    href = looking.view.link(metric=metric)
    _, title, why = judged(error)
    return Tile(metric, label, why, None, None, form, Spark(), False, href, False, title.lower())


async def _chart(metrics: Sequence[str], looking: Looking) -> Mapping[str, Any]:
    metric = chosen(metrics, looking)
    _, about, form = looking.numbers.described(metric)
    chart = await over_time(
        looking.numbers,
        metric,
        looking.span,
        looking.filters,
        compare=looking.view.compare,
        empty=0.0 if form == "number" else None,
    )
    return {"chart": chart, "about": about, "landed": await landed(looking)}


async def landed(looking: Looking) -> bool:
    """Tell whether anything has ever landed, for what an empty chart says."""
    from headrace.serving.page.address import Span

    whole = Span(looking.now.replace(year=looking.now.year - 2, day=1), looking.span.end)
    found = await looking.numbers.ask("events", whole)
    return bool(found.total)


def panels(metrics: Sequence[str], label: str, *, linked: bool = True) -> tuple[Panel, Panel]:
    """Return the panels of some figures and of the chart below them.

    Args:
        metrics: Their names; those that are not defined are left out.
        label: What they are of.
        linked: Whether a click on a figure has the chart show it.
    """
    return (
        Panel(
            "figures",
            "",
            "figures",
            partial(_tiles, metrics, linked),
            "w12 h-kpi kpis",
            label=f"Figures of {label}",
        ),
        Panel(
            "chart",
            "",
            "chart",
            partial(_chart, metrics),
            "w12 h-chart",
            label=f"{label.capitalize()} over time",
        ),
    )
