"""What migrations and derived DDL are on a cluster; that it runs is tried in tests/marts/test_cluster.py."""

from __future__ import annotations

import re

import pytest

from conftest import Stack
from headrace.contracts import EVENTS
from headrace.core.errors import Fatal
from headrace.warehouse import ddl
from headrace.warehouse.cluster import ONE_SERVER, Placement
from headrace.warehouse.migrations.files import read_migrations
from headrace.warehouse.server import Refused, Server

MAIN = Placement("main")
TABLE = ddl.create_table("raw", EVENTS.table, 7)
TTL = ddl.set_ttl("raw", EVENTS.table, 7)


def every() -> list[str]:
    """Every statement of the migrations and of the DDL that contracts give, for a cluster."""
    made = [one for migration in read_migrations() for one in migration.statements("raw", MAIN)]
    return [*made, *MAIN.statements(TABLE), *MAIN.statements(TTL)]


def test_on_one_server_nothing_is_different() -> None:
    for one in (TABLE, TTL, "\nDROP TABLE x "):
        assert ONE_SERVER.statements(one) == [one]
    assert (ONE_SERVER.on, ONE_SERVER.local("`a`"), ONE_SERVER.everywhere("a.b")) == ("", "`a`", "a.b")


def test_every_statement_is_on_the_cluster_replicated_and_parses(stack: Stack) -> None:
    server = Server(stack.settings)
    for one in every():
        assert " ON CLUSTER `main`" in one
        assert not re.search(r"\bnon_replicated_|ENGINE = \w*(?<!Replicated)(?<!Replacing)MergeTree", one)
        server.query("SELECT formatQuery({one:String})", one=one)
    with pytest.raises(Refused, match="Syntax error"):
        server.query(
            "SELECT formatQuery({one:String})", one=every()[0].replace("ON CLUSTER", "ON THE CLUSTER")
        )


def test_rows_are_sharded_and_bookkeeping_is_whole_everywhere() -> None:
    local, spread = MAIN.statements(TABLE)
    assert local.startswith("CREATE TABLE IF NOT EXISTS `raw`.`events_local` ON CLUSTER `main`\n")
    assert "ENGINE = ReplicatedMergeTree\n" in local
    assert " replicated_deduplication_window = 10000" in local
    assert spread == (
        "CREATE TABLE IF NOT EXISTS `raw`.`events` ON CLUSTER `main` AS `raw`.`events_local`\n"
        "ENGINE = Distributed(`main`, `raw`, `events_local`, cityHash64(`session_id`))"
    )
    assert MAIN.statements(TTL) == [
        "ALTER TABLE `raw`.`events_local` ON CLUSTER `main` MODIFY TTL event_date + toIntervalDay(7)"
    ]
    kept = [one for one in every() if "`raw`._publications" in one]
    path = "'/clickhouse/tables/raw/_publications', '{shard}-{replica}'"
    assert f"ReplicatedReplacingMergeTree({path}, published_at)" in kept[0]
    assert kept[1].startswith("ALTER TABLE `raw`._publications ON CLUSTER `main`")


@pytest.mark.parametrize(
    "statement", ["DROP TABLE `raw`.`x`", "CREATE TABLE IF NOT EXISTS `raw`.`x` (a Int8) ENGINE = Log"]
)
def test_what_is_not_known_on_a_cluster_is_refused(statement: str) -> None:
    with pytest.raises(Fatal, match="cluster 'main'"):
        MAIN.statements(statement)
