"""Two versions of the events' contract, for processes that are replaced one after the other."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from headrace.contracts import EVENTS
from headrace.contracts.base import field
from headrace.contracts.events import Events
from headrace.contracts.growth import Was


class GrownEvents(Events):
    """Events with more columns and a wider one."""

    country: pl.String = field("where it happened", required=True, since=2, default="CH")
    score: pl.Int64 = field("how well it went", since=2)
    schema_version: pl.Int64 = field(  # type: ignore[assignment]
        "version of this contract", required=True, default=1, isin=[1], was={1: Was(dtype=pl.Int32)}
    )


#: By the name that a job has of it.
CONTRACTS = {"old": EVENTS, "new": replace(EVENTS, version=2, model=GrownEvents)}
