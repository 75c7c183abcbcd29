"""The values of a filter that there are in the period, with their counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from headrace.serving.page.site import Looking, Panel

_MOST = 40


async def _read(name: str, looking: Looking) -> Mapping[str, Any]:
    others = {key: value for key, value in looking.filters.items() if key != name}
    answer = await looking.numbers.ask("events", looking.span, dimensions=[name], filters=others, limit=_MOST)
    found = [(str(row[name]), float(row["value"])) for row in answer.rows if row[name]]
    return {"name": name, "chosen": looking.view.filtered(name), "choices": found}


def panel(name: str) -> Panel:
    """Return the panel of a filter's values."""
    return Panel(f"choices-{name}", "", "choices", partial(_read, name), label=f"Values of {name}")
