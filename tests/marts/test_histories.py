"""Property: whatever arrived in whatever order, and however its days were rebuilt, the marts are those of Polars."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS

from . import histories
from .conftest import Warehouse
from .oracle import Oracle, assert_equal
from .test_marts import ALL

#: Side by side in one case: a build costs the same for two hundred as for one.
HISTORIES = 200
#: So few that histories have repeats further apart, which count.
REPEATS = {"repeat_days": histories.REPEAT_DAYS}


def build(warehouse: Warehouse, days: set[date], chance: random.Random, **variables: object) -> None:
    """Rebuild the touched days and those that change with them, in pieces."""
    metas = [node.config.meta for node in warehouse.manifest.nodes.values() if "daily" in node.tags]
    reach = max(m.get("days_back", 0) for m in metas), max(m.get("days_ahead", 0) for m in metas)
    for start, end in histories.chunks(days, reach, chance):
        outcome = warehouse.dbt(
            "run", "--select", "tag:daily", start_date=str(start), end_date=str(end), **variables
        )
        assert outcome, outcome.error


@pytest.mark.long
def test_any_history_in_any_order_equals_the_reference(new_warehouse: Callable[..., Warehouse]) -> None:
    chance = random.Random(0)
    warehouse = new_warehouse("histories")
    landed: list[histories.Wave] = []
    assert warehouse.dbt("run", "--exclude", "tag:daily", **REPEATS)
    for wave in histories.waves(0, HISTORIES):
        landed.append(wave)
        warehouse.load(EVENTS.table, wave.events)
        warehouse.load(METRICS.table, wave.metrics)
        build(warehouse, wave.days(), chance, **REPEATS)
    raw = pl.concat(w.events for w in landed), pl.concat(w.metrics for w in landed)
    oracle = Oracle(*raw, repeat_days=histories.REPEAT_DAYS)
    assert oracle.raw_events.height > oracle.events.height, "nothing came twice"
    counted = [Oracle(*raw, repeat_days=days).events.height for days in (0, histories.REPEAT_DAYS, 99)]
    assert counted[0] > counted[1] > counted[2], "no repeat on another day, or none that counts"
    marts = {name: warehouse.mart(name) for name in ALL}
    for name, mart in marts.items():
        assert_equal(mart, oracle.mart(name))
    for view, mart in (
        ("int_events_deduplicated", oracle.events),
        ("int_metrics_deduplicated", oracle.metrics),
    ):
        found = warehouse.query(f"select * from {{db}}_intermediate.{view}")
        origin = ["_cursor", "_offset", "_ingested_at"]
        assert_frame_equal(
            found.select(origin).sort(origin), mart.select(origin).sort(origin), check_dtypes=False
        )
    whole = warehouse.dbt("run", "--select", "tag:daily", "--full-refresh", **REPEATS)
    assert whole, whole.error
    for name, mart in marts.items():
        assert_frame_equal(warehouse.mart(name), mart, check_exact=True)


@pytest.mark.long
def test_in_processing_time_rows_are_placed_by_their_landing(new_warehouse: Callable[..., Warehouse]) -> None:
    chance, processing = random.Random(9), {"window_time": "processing", **REPEATS}
    warehouse = new_warehouse("processing")
    landed: list[histories.Wave] = []
    assert warehouse.dbt("run", "--exclude", "tag:daily", **processing)
    for wave in histories.waves(9, 30):
        landed.append(wave)
        warehouse.load(EVENTS.table, wave.events)
        warehouse.load(METRICS.table, wave.metrics)
        build(warehouse, {*wave.events["_ingested_at"].dt.date()}, chance, **processing)
    rows = pl.concat(w.events for w in landed), pl.concat(w.metrics for w in landed)
    oracle = Oracle(*rows, processing=True, repeat_days=histories.REPEAT_DAYS)
    together = oracle.events.select("window_time", "event_id").is_duplicated().any()
    assert together, "no two rows of one id that landed at one time and both count"
    for name in ALL:
        assert_equal(warehouse.mart(name), oracle.mart(name))
    days = warehouse.mart("event_metrics")["event_date"]
    assert set(days) <= {t.date() for t in rows[0]["_ingested_at"]}


def test_a_wrong_model_is_seen(project_copy: Path, new_warehouse: Callable[..., Warehouse]) -> None:
    macro = project_copy / "macros/first_of_each.sql"
    correct = macro.read_text()
    macro.write_text(correct.replace("and one.3 < {{", "and one.3 > {{").replace("one.2 < {{", "one.2 > {{"))
    assert macro.read_text() != correct
    warehouse = new_warehouse("wrong", project_copy)
    wave = histories.waves(3, 20)[0]
    warehouse.load(EVENTS.table, wave.events)
    assert warehouse.dbt("run", "--select", "+events_history")
    with pytest.raises(AssertionError):
        assert_equal(
            warehouse.mart("events_history"), Oracle(wave.events, wave.metrics).mart("events_history")
        )
