"""Tables that break a metric down by one dimension; a click on a row filters by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace.serving.page.address import FILTERS
from headrace.serving.page.numbers import said
from headrace.serving.page.site import Looking, Panel

#: Rows of a table.
ROWS = 9


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        label: Value of the dimension.
        value: Of the metric.
        share: Of the sum of all values; None where values do not add up.
        of_most: Share of the greatest value, 0 to 1.
        href: Where a click leads; empty for nowhere.
        chosen: Whether it is the filter.
    """

    label: str
    value: float
    share: float | None
    of_most: float
    href: str = ""
    chosen: bool = False


def rows(looking: Looking, found: Mapping[str, float], key: str, total: float | None) -> list[Row]:
    """Make rows of values by label, the greatest first."""
    most = max(found.values(), default=0) or 1
    chosen = looking.view.filtered(key)
    return [
        Row(
            label,
            value,
            value / total if total else None,
            max(0.0, value / most),
            looking.view.link(**{key: None if label == chosen else label}) if key in FILTERS else "",
            label == chosen,
        )
        for label, value in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


async def read(metric: str, key: str, head: str, looking: Looking) -> Mapping[str, Any]:
    """Read one table; the filter by its own dimension is left out, so that the other values stay to be chosen."""
    metric = metric or looking.view.of("metric", "events")
    if key not in looking.numbers.dimensions(metric):
        label, _, _ = looking.numbers.described(metric)
        return {"rows": [], "why": f"{label} are not counted by {head.lower()}"}
    filters = {name: value for name, value in looking.filters.items() if name != key}
    answer = await looking.numbers.ask(
        metric, looking.span, dimensions=[key], filters=filters, order=["-value"], limit=ROWS
    )
    found = {said(row[key]): float(row["value"]) for row in answer.rows if row["value"] is not None}
    total = None
    if answer.form == "number":
        whole = await looking.numbers.ask(metric, looking.span, filters=filters)
        total = whole.total
    return {
        "rows": rows(looking, found, key, total),
        "head": (head, answer.label),
        "form": answer.form,
        "why": "",
    }


def panel(name: str, title: str, key: str, metric: str = "", size: str = "w4 h-table") -> Panel:
    """Return the panel of a table.

    Args:
        name: Of the panel.
        title: Its heading.
        key: The dimension.
        metric: The metric; empty for the one that the address chooses.
        size: Its width and height.
    """
    return Panel(name, title, "breakdown", partial(read, metric, key, title), size, flush=True)
