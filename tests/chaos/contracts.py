"""Two versions of the events' contract, for processes that are replaced one after the other."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from headrace.contracts import EVENTS
from headrace.contracts.base import field
from headrace.contracts.events import Events
from headrace.contracts.growth import Was


class OldEvents(Events):
    """Events as they were."""

    score: pl.Int32 = field("how well it went")


class NewEvents(OldEvents):
    """Events with a column more, and a wider one."""

    country: pl.String = field("where it happened", required=True, since=2, default="CH")
    score: pl.Int64 = field(  # type: ignore[assignment]
        "how well it went", was={1: Was(dtype=pl.Int32)}
    )


#: By the name that a job has of it.
CONTRACTS = {
    "old": replace(EVENTS, model=OldEvents),
    "new": replace(EVENTS, version=2, model=NewEvents),
}
