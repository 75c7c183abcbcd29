"""Retention: of the users first seen on a day, how many came back so many days later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from headrace.serving.page.drawing import level
from headrace.serving.page.numbers import moment
from headrace.serving.page.site import Looking, Panel, Screen

METRIC, COHORT = "retained_users", "cohort_users"
#: Days of a row.
MOST_DAYS = 30


@dataclass(frozen=True, slots=True)
class Cell:
    """A day of a cohort.

    Attributes:
        days: Days since the first.
        users: Users that were active; None for a day that is yet to come.
        share: Of the cohort.
        level: Of the colour.
    """

    days: int
    users: int | None
    share: float | None
    level: int


@dataclass(frozen=True, slots=True)
class Cohort:
    """The users first seen on a day, and their days since."""

    day: date
    users: int
    cells: tuple[Cell, ...]


def cohorts(found: Mapping[date, Mapping[int, int]], today: date, most_days: int = MOST_DAYS) -> list[Cohort]:
    """Make rows of users by cohort and days since; a day without a row is one on which nobody came back.

    Args:
        found: Users by day and days since; those of day 0 are the cohort.
        today: Later days are yet to come.
        most_days: Days of a row.
    """
    width = min(most_days, max(((today - day).days for day in found), default=0))
    made = []
    for day in sorted(found, reverse=True):
        own, whole = found[day], found[day].get(0, 0)
        cells = []
        for n in range(width + 1):
            if n > (today - day).days:
                cells.append(Cell(n, None, None, 0))
                continue
            users = own.get(n, 0)
            share = users / whole if whole else 0.0
            cells.append(Cell(n, users, share, level(share, 1.0)))
        made.append(Cohort(day, whole, tuple(cells)))
    return made


async def _heat(looking: Looking) -> Mapping[str, Any]:
    answer = await looking.numbers.ask(
        METRIC, looking.span, window="day", dimensions=["days_since"], filters=looking.filters
    )
    found: dict[date, dict[int, int]] = {}
    for row in answer.rows:
        day = moment(row["window_start"]).date()
        found.setdefault(day, {})[int(row["days_since"])] = int(row["value"] or 0)
    made = cohorts(found, looking.now.date())
    average: list[float | None] = []
    for n in range(len(made[0].cells) if made else 0):
        there = [(one.cells[n].users or 0, one.users) for one in made if one.cells[n].users is not None]
        users = sum(whole for _, whole in there)
        average.append(sum(back for back, _ in there) / users if users else None)
    return {"cohorts": made, "average": average, "levels": [level(one, 1.0) for one in average]}


SCREEN = Screen(
    "retention",
    "Retention",
    "Of the users first seen on a day, how many came back so many days later.",
    "Product",
    (Panel("heat", "Days since the first", "retention", _heat, "w12 h-heat", note="share of the cohort"),),
    foot="A user counts on each UTC day with an event. Day 0 is the day on which they were first seen.",
)
