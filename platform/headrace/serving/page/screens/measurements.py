"""Measurements: counters, gauges and histograms of systems, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.serving.page.drawing import Chart, Line
from headrace.serving.page.numbers import WIDTHS, lines, moments, window_of
from headrace.serving.page.site import Looking, Panel, Screen

#: Lines of each kind, with what people read; the first is broken down by source.
KINDS: dict[str, dict[str, str]] = {
    "gauge": {"gauge_average": "Mean", "gauge_highest": "Highest", "gauge_lowest": "Lowest"},
    "counter": {"counter_increase": "Increase"},
    "histogram": {"histogram_p50": "Median", "histogram_p95": "95 %", "histogram_p99": "99 %"},
}
_COLOURS = (1, 3, 5)
_MOST = 200
_FORMS = {"ms": "milliseconds", "s": "seconds", "seconds": "seconds", "bytes": "bytes", "By": "bytes"}


@dataclass(frozen=True, slots=True)
class Series:
    """What is measured, in one unit.

    Attributes:
        name: Its name.
        kind: ``counter``, ``gauge`` or ``histogram``.
        unit: Of its values; empty for none.
        readings: In the period.
    """

    name: str
    kind: str
    unit: str
    readings: float

    @property
    def filters(self) -> dict[str, str]:
        """Filters that choose it."""
        return {"name": self.name, "kind": self.kind, "unit": self.unit}


async def _known(looking: Looking) -> list[Series]:
    answer = await looking.numbers.ask(
        "measurements", looking.span, dimensions=["name", "kind", "unit"], order=["name"], limit=_MOST
    )
    return [
        Series(str(r["name"]), str(r["kind"]), str(r["unit"] or ""), float(r["value"])) for r in answer.rows
    ]


def _chosen(known: Sequence[Series], looking: Looking) -> Series | None:
    wanted, kind = looking.view.of("name"), looking.view.of("kind")
    fitting = [one for one in known if one.name == wanted and (not kind or one.kind == kind)]
    if wanted:
        return fitting[0] if fitting else None
    return known[0] if known else None


async def _list(looking: Looking) -> Mapping[str, Any]:
    known = await _known(looking)
    chosen = _chosen(known, looking)
    rows = [(one, looking.view.link(name=one.name, kind=one.kind), one == chosen) for one in known]
    return {"rows": rows}


async def _chart(looking: Looking) -> Mapping[str, Any]:
    chosen = _chosen(await _known(looking), looking)
    if chosen is None:
        return {"one": None, "chart": None, "wanted": looking.view.of("name")}
    span, window, shown = looking.span, window_of(looking.span), KINDS[chosen.kind]
    answers = await asyncio.gather(
        *(looking.numbers.ask(one, span, window=window, filters=chosen.filters) for one in shown)
    )
    at = moments(span, window)
    drawn = tuple(
        Line(name, tuple(answer.values.get(when) for when in at), colour)
        for name, answer, colour in zip(shown.values(), answers, _COLOURS)
    )
    chart = Chart(f"{chosen.name} over time", tuple(at), drawn, _form(chosen), WIDTHS[window])
    return {"one": chosen, "chart": chart, "wanted": ""}


async def _sources(looking: Looking) -> Mapping[str, Any]:
    chosen = _chosen(await _known(looking), looking)
    if chosen is None:
        return {"one": None, "chart": None, "wanted": looking.view.of("name")}
    metric, head = next(iter(KINDS[chosen.kind].items()))
    span, window = looking.span, window_of(looking.span)
    answer = await looking.numbers.ask(
        metric, span, window=window, dimensions=["source"], filters=chosen.filters
    )
    at = moments(span, window)
    drawn = tuple(lines(answer, at, "source", empty=None))
    chart = Chart(f"{chosen.name}, {head.lower()} by source", tuple(at), drawn, _form(chosen), WIDTHS[window])
    return {"one": chosen, "chart": chart, "wanted": ""}


def _form(one: Series) -> str:
    return _FORMS.get(one.unit, "number")


SCREEN = Screen(
    "measurements",
    "Measurements",
    "Counters, gauges and histograms that systems and sensors send.",
    "Systems",
    (
        Panel("list", "What is measured", "series", _list, "w4 h-twice tall-panel", flush=True),
        Panel("chart", "Over time", "series_chart", _chart, "w8 h-chart"),
        Panel("sources", "By source", "series_chart", _sources, "w8 h-chart"),
    ),
    parameters=("name", "kind"),
    foot="Each reading counts once. Quantiles are of the readings themselves.",
)
