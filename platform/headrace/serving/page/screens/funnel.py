"""Funnel: how many sessions took each step after all steps before it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.serving.page.drawing import Chart, Line
from headrace.serving.page.numbers import moment, moments
from headrace.serving.page.screens.tiles import landed
from headrace.serving.page.site import Looking, Panel, Screen

METRIC = "funnel_sessions"
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the funnel.

    Attributes:
        number: From 1.
        name: Its name.
        sessions: Sessions that took it.
        of_first: Their share of those that took the first.
        of_previous: Their share of those that took the one before; None of the first.
        lost: Sessions that took the one before and not this.
        before: Sessions that took it in the period before; None if that is not asked for.
    """

    number: int
    name: str
    sessions: float
    of_first: float
    of_previous: float | None
    lost: float
    before: float | None


def steps(rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] | None) -> list[Step]:
    """Make steps of sessions by ``step`` and ``step_name``."""
    found = sorted((int(r["step"]), str(r["step_name"]), float(r["value"] or 0)) for r in rows)
    earlier = {int(r["step"]): float(r["value"] or 0) for r in before or ()}
    made: list[Step] = []
    for number, name, sessions in found:
        first, previous = (made[0].sessions, made[-1].sessions) if made else (sessions, None)
        made.append(
            Step(
                number,
                name,
                sessions,
                sessions / first if first else 0.0,
                None if previous is None else (sessions / previous if previous else 0.0),
                0.0 if previous is None else max(0.0, previous - sessions),
                None if before is None else earlier.get(number, 0.0),
            )
        )
    return made


async def _funnel(looking: Looking) -> Mapping[str, Any]:
    asked = [looking.span, *([looking.span.before] if looking.view.compare else [])]
    answers = await asyncio.gather(*(_by_step(looking, span, "all") for span in asked))
    made = steps(answers[0].rows, answers[1].rows if len(answers) > 1 else None)
    whole = made[-1].sessions / made[0].sessions if made and made[0].sessions else None
    return {"steps": made, "whole": whole, "compare": looking.view.compare, "landed": await landed(looking)}


async def _by_step(looking: Looking, span: Any, window: str) -> Any:
    return await looking.numbers.ask(
        METRIC, span, window=window, dimensions=["step", "step_name"], filters=looking.filters
    )


async def _chart(looking: Looking) -> Mapping[str, Any]:
    answer = await _by_step(looking, looking.span, "day")
    at = moments(looking.span, "day")
    by_step: dict[int, dict[Any, float]] = {}
    names: dict[int, str] = {}
    for row in answer.rows:
        number = int(row["step"])
        names[number] = str(row["step_name"])
        by_step.setdefault(number, {})[moment(row["window_start"])] = float(row["value"] or 0)
    first = by_step.get(min(by_step, default=0), {})
    drawn = [
        Line(names[n], tuple(_share(by_step[n].get(when), first.get(when)) for when in at), place + 1)
        for place, n in enumerate(sorted(by_step)[1:])
    ]
    title = "Share of the sessions of the first step, by day"
    return {"chart": Chart(title, tuple(at), tuple(drawn), "percent", _DAY), "about": title, "landed": True}


def _share(sessions: float | None, first: float | None) -> float | None:
    return (sessions or 0.0) / first if first else None


SCREEN = Screen(
    "funnel",
    "Funnel",
    "How many sessions took each step after all steps before it.",
    "Product",
    (
        Panel("funnel", "Steps", "funnel", _funnel, "w12 h-small"),
        Panel("chart", "Share that reaches each step, by day", "chart", _chart, "w12 h-chart"),
    ),
    filters=("channel",),
    compared=True,
    foot="The steps are those of the dbt project's var funnel_steps; a session counts on the day on which it starts.",
)
