"""A warehouse with events and measurements of old and recent days, built once a module, and what was put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from headrace.config.settings import load_settings
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.metrics import Catalogue, Question, Schemas, compile_question, load
from marts.conftest import Warehouse, clickhouse_port, new_warehouse

from . import landed
from .counts import LATENESS, Landed

__all__ = ["clickhouse_port", "new_warehouse"]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """Headrace's own definitions, as without any setting."""
    return load(load_settings())


@dataclass
class Answers:
    """Asks a warehouse.

    Attributes:
        warehouse: The warehouse.
        catalogue: Definitions that lie in it.
        landed: Every raw row in it.
        now: When the questions are asked.
    """

    warehouse: Warehouse
    catalogue: Catalogue
    landed: Landed
    now: datetime

    def to(self, question: Question) -> pl.DataFrame:
        """The answer to a question, in its columns and order."""
        statement = compile_question(question, self.catalogue, now=self.now)
        frame = self.sql(statement.sql, statement.parameters)
        assert frame.columns == [column.name for column in statement.columns]
        return frame

    def sql(self, sql: str, parameters: dict[str, Any] | None = None) -> pl.DataFrame:
        """The result of a query."""
        answer = self.warehouse.client.query_arrow(sql, parameters=parameters, use_strings=True)
        return pl.DataFrame(pl.from_arrow(answer))


@pytest.fixture(scope="module")
def answers(new_warehouse: Callable[..., Warehouse]) -> Iterator[Answers]:
    """Closed days and yesterday are built; of today, and of late rows, the speed layer knows alone."""
    now = datetime.now(UTC).replace(microsecond=0)
    warehouse = new_warehouse("numbers")
    events, metrics = landed.events(now), landed.metrics(now)
    outcome = warehouse.dbt("run")
    assert outcome, outcome.error
    today = pl.col("occurred_at").dt.date() == now.date()
    for contract, rows in ((EVENTS, events), (METRICS, metrics)):
        warehouse.load(contract.table, rows.filter(~today))
        warehouse.load(contract.table, rows.filter(today))
        warehouse.load(contract.rejected_table, landed.rejected(contract, now))
    days = [(now - timedelta(days=n)).date() for n in range(landed.DAYS + 2)]
    before = [day for day in days if day != now.date()]
    span = {"start_date": str(min(before)), "end_date": str(max(before))}
    outcome = warehouse.dbt("run", "--select", "tag:daily", **span)
    assert outcome, outcome.error
    for contract in (EVENTS, METRICS):
        warehouse.adapter.refreshed(contract.table, "lake", 1, before, now + timedelta(seconds=LATENESS))
    own = load(load_settings())
    yield Answers(
        warehouse,
        Catalogue(own.families, Schemas(warehouse.name, warehouse.raw), own.own_width, own.speed_days),
        Landed(events, metrics, {c.name: landed.rejected(c, now) for c in (EVENTS, METRICS)}, now),
        now,
    )
