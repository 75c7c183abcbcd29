"""Property: whatever arrived in whatever order, and however its days were rebuilt, the marts are those of Polars."""

from __future__ import annotations

import random
from collections.abc import Callable

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS

from . import histories
from .conftest import Warehouse
from .oracle import Oracle, assert_equal
from .test_dbt_marts import LATEST, MARTS, VIEWS

#: Histories of one case; with the cases below 200.
HISTORIES = 100
ALL = (*MARTS, *LATEST, *VIEWS)


def build(warehouse: Warehouse, landed: histories.Wave, chance: random.Random, **variables: object) -> None:
    """Rebuild what a wave touched, in pieces."""
    for start, end in histories.chunks(landed.days(), (1, 2), chance):
        outcome = warehouse.dbt(
            "run", "--select", "tag:daily", start_date=str(start), end_date=str(end), **variables
        )
        assert outcome, outcome.error


@pytest.mark.parametrize("seed", range(2))
def test_any_history_in_any_order_equals_the_reference(
    new_warehouse: Callable[..., Warehouse], seed: int
) -> None:
    chance = random.Random(seed)
    warehouse = new_warehouse(f"histories_{seed}")
    landed: list[histories.Wave] = []
    assert warehouse.dbt("run", "--exclude", "tag:daily")
    for wave in histories.waves(seed, HISTORIES):
        landed.append(wave)
        warehouse.load(EVENTS.table, wave.events)
        warehouse.load(METRICS.table, wave.metrics)
        build(warehouse, wave, chance)
    oracle = Oracle(pl.concat(w.events for w in landed), pl.concat(w.metrics for w in landed))
    assert oracle.raw_events.height > oracle.events.height, "nothing came twice"
    marts = {name: warehouse.mart(name) for name in ALL}
    for name, mart in marts.items():
        assert_equal(mart, oracle.mart(name))
    whole = warehouse.dbt("run", "--select", "tag:daily", "--full-refresh")
    assert whole, whole.error
    for name, mart in marts.items():
        assert_frame_equal(warehouse.mart(name), mart, check_exact=True)
