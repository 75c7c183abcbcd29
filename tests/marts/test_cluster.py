"""The same project for a cluster: what is sent, whether ClickHouse's own parser takes it, and that it adds up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.core.batch import Chunk
from headrace.lake.arrow import to_arrow

from . import histories
from .cluster_of_one import CLUSTER, ClusterOfOne, cluster_of_one
from .conftest import Warehouse
from .oracle import Oracle, assert_equal

#: Marts whose rows are sharded, all that are no views.
SHARDED = {
    "cohort_days", "event_metrics", "event_metrics_rollups", "events_history", "metric_windows",
    "metric_windows_rollups", "performance_metrics", "performance_metrics_rollups", "session_metrics",
    "sessions_latest", "user_days", "users_latest",
}  # fmt: skip
VIEWS = {"conversion_funnel", "daily_active_users", "sessions_current", "user_retention", "users_current"}
SPEED = {
    "speed_event_keys",
    "speed_event_windows",
    "speed_metric_keys",
    "speed_metric_windows",
    "speed_performance_windows",
    "speed_sessions",
}


@dataclass
class Told:
    """A warehouse after two builds, and every statement that was sent for them."""

    warehouse: Warehouse
    cluster: ClusterOfOne
    oracle: Oracle

    def like(self, pattern: str) -> list[str]:
        """Statements with this in them."""
        return [one for one in self.cluster.sent if re.search(pattern, one, re.IGNORECASE | re.DOTALL)]


@pytest.fixture(scope="module")
def told(new_warehouse: Callable[..., Warehouse]) -> Iterator[Told]:
    with cluster_of_one() as cluster:
        warehouse = new_warehouse("clustered", cluster=CLUSTER)
        first, second = list(histories.waves(7, 20))[:2]
        touched = sorted(second.days())
        days = {"start_date": str(touched[0] - timedelta(1)), "end_date": str(touched[-1] + timedelta(2))}
        for wave, variables in ((first, {}), (second, days)):
            warehouse.load(EVENTS.table, wave.events)
            warehouse.load(METRICS.table, wave.metrics)
            outcome = warehouse.dbt("run", **variables)
            assert outcome, outcome.error
        oracle = Oracle(pl.concat([first.events, second.events]), pl.concat([first.metrics, second.metrics]))
        yield Told(warehouse, cluster, oracle)


def test_tables_are_replicated_and_distributed_on_the_cluster(told: Told) -> None:
    name = told.warehouse.name
    on = rf"ON CLUSTER [\"`]?{CLUSTER}"
    for mart in SHARDED:
        assert told.like(rf"create table `{name}`\.`{mart}_local`\s+{on}.*engine = Replicated\w*MergeTree"), (
            mart
        )
        spread = rf"ENGINE = Distributed\('{CLUSTER}', '{name}', '{mart}_local'"
        assert told.like(rf"table `{name}`\.`{mart}`\s+{on}.*{spread}"), mart
    for view in SPEED:
        assert told.like(rf"create table `{name}_speed`\.`{view}`\s+{on}.*engine = Replicated\w*MergeTree"), (
            view
        )
        assert told.like(
            rf"create materialized view if not exists `{name}_speed`\.`{view}_mv`\s+{on}.*_local`"
        ), view
    for contract in (EVENTS, METRICS):
        for table in (contract.table, contract.rejected_table):
            assert told.like(
                rf"`{table.name}_local` {on}.*ENGINE = ReplicatedMergeTree\n.*\breplicated_dedup"
            )
            assert told.like(
                rf"`{table.name}` {on}.*ENGINE = Distributed\(`{CLUSTER}`, `{told.warehouse.raw}`"
            )
    assert told.like(rf"_publications {on}.*ReplicatedReplacingMergeTree\('/clickhouse/tables/")
    latest = told.like(rf"`{name}`\.`users_latest`.*Distributed")
    assert latest and all("cityHash64(user_id)" in one for one in latest)


def test_no_table_is_left_to_one_server(told: Told) -> None:
    made = told.like(r"^\W*(/\*.*?\*/)?\s*(create|alter|drop|rename|exchange)\b")
    # meant for the one server that is asked: the migrations' lock, and what dbt tries out at first
    own = re.compile(r"_migrations_(dead_)?lock|__dbt_exchange_test")
    made = [one for one in made if not own.search(one)]
    alone = [one for one in made if "ON CLUSTER" not in one]
    assert made and not alone, alone[:3]
    assert not [one for one in made if re.search(r"engine = (?!Replicated)\w*MergeTree", one, re.IGNORECASE)]


def test_days_are_replaced_on_the_local_tables_of_all_shards(told: Told) -> None:
    swaps = told.like("replace partition id")
    assert {re.search(r"\.`(\w+)_local`", one)[1] for one in swaps} == {  # type: ignore[index]
        mart for mart in SHARDED if mart not in ("users_latest", "sessions_latest", "user_days")
    }
    for one in swaps:
        assert f'ON CLUSTER "{CLUSTER}"' in one
        assert one.rstrip().endswith("settings allow_replace_partition_from_empty_source = 1")
    assert told.like(rf"from cluster\('{CLUSTER}', system\.parts\)")


def test_what_is_built_adds_up(told: Told) -> None:
    for mart in SHARDED | VIEWS:
        assert_equal(told.warehouse.mart(mart), told.oracle.mart(mart))


def test_a_day_of_raw_is_replaced_on_all_shards(told: Told) -> None:
    adapter, table = told.warehouse.adapter, EVENTS.table
    day, rows = max(adapter.counts_by_day(table).items())
    before = len(told.cluster.sent)
    kept = told.oracle.raw_events.filter(pl.col("event_date") == day).select(list(table.schema))
    assert adapter.replace_partition(table, day, [Chunk.of(to_arrow(kept, table))]) == rows == kept.height
    sent = "\n".join(told.cluster.sent[before:])
    swap = rf"REPLACE PARTITION '{day}' FROM .*`_staging_events_[0-9a-f]+_local`"
    assert re.search(rf"`events_local` ON CLUSTER `{CLUSTER}` {swap}", sent)
    assert adapter.replace_partition(table, day, []) == 0


def test_the_engine_parses_every_statement(told: Told, new_warehouse: Callable[..., Warehouse]) -> None:
    parse = told.warehouse.client
    statements = {one for one in told.cluster.sent if not one.startswith("EXPLAIN AST")}
    assert len(statements) > 100
    for one in statements:
        parse.query("select formatQuery({one:String})", parameters={"one": one})
    damaged = next(iter(told.like("ENGINE = Distributed"))).replace("Distributed(", "Distributed((")
    with pytest.raises(DatabaseError, match="Syntax error"):
        parse.query("select formatQuery({one:String})", parameters={"one": damaged})
