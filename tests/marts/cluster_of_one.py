"""A cluster as its clients see it, made of one server that knows neither Keeper nor clusters.

Keeps every statement as it was sent, and runs what it comes to where one server is the only shard and replica. So
the order of statements is tried, and each statement can be given to the engine's own parser; what servers say to
each other is not tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clickhouse_connect.driver.httpclient import HttpClient

CLUSTER = "main"
_NAME = r"[`\w]+\.[`\w]+"
_DISTRIBUTED = re.compile(
    rf"(?P<verb>create (?:or replace )?table (?:if not exists )?)(?P<name>{_NAME})\s+as (?P<local>{_NAME})\s+"
    r"engine = Distributed\(.*\)\s*$",
    re.DOTALL | re.IGNORECASE,
)
_RULES = (
    (re.compile(rf"\bON CLUSTER [\"`]?{CLUSTER}[\"`]?", re.IGNORECASE), ""),
    (re.compile(r"Replicated(\w*MergeTree)\('/clickhouse/[^']*', '\{shard\}-\{replica\}'(?:, )?"), r"\1("),
    (re.compile(r"Replicated(\w*MergeTree)"), r"\1"),
    (re.compile(r"(?<!non_)replicated_deduplication_window"), "non_replicated_deduplication_window"),
    (
        re.compile(rf"clusterAllReplicas\(\"{CLUSTER}\", system\.tables\)"),
        "(select *, 1 as _shard_num from system.tables)",
    ),
    (re.compile(rf"\bcluster\(['\"`]{CLUSTER}['\"`], ([^)]+)\)"), r"\1"),
)


class ClusterOfOne:
    """Attributes:
    sent: Statements as they were sent, in their order.
    """

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._spread: dict[str, str] = {}

    def here(self, statement: str) -> str:
        """What a statement comes to on the one server."""
        self.sent.append(statement)
        for pattern, replacement in _RULES:
            statement = pattern.sub(replacement, statement)
        statement = re.sub(
            rf"(?i)(insert into )({_NAME})",
            lambda m: m[1] + self._spread.get(_plain(m[2]), m[2]),
            statement,
            count=1,
        )
        if renamed := re.search(rf"(?i)rename table ({_NAME}) to ({_NAME})", statement):
            before, after = _plain(renamed[1]), _plain(renamed[2])
            if before in self._spread:
                self._spread[after] = self._spread.pop(before)
        if made := _DISTRIBUTED.search(statement.strip()):
            local = _plain(made["local"])
            self._spread[_plain(made["name"])] = local
            database, table = local.split(".")
            return f"{made['verb']}{made['name']} as {local} engine = Merge('{database}', '^{table}$')"
        return statement

    def local(self, table: str) -> str:
        """Where inserts into a table go."""
        return self._spread.get(_plain(table), table)


def _plain(name: str) -> str:
    return name.replace("`", "")


@contextmanager
def cluster_of_one() -> Iterator[ClusterOfOne]:
    """While entered, every ClickHouse client of this process speaks to a cluster."""
    cluster = ClusterOfOne()
    command, query, insert = HttpClient.command, HttpClient.query, HttpClient.raw_insert

    def commanded(self: HttpClient, cmd: str, *args: Any, **more: Any) -> Any:
        return command(self, cluster.here(cmd), *args, **more)

    def queried(self: HttpClient, query_: str | None = None, *args: Any, **more: Any) -> Any:
        return query(self, cluster.here(query_) if query_ else query_, *args, **more)

    def inserted(self: HttpClient, table: str, *args: Any, **more: Any) -> Any:
        return insert(self, cluster.local(table), *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HttpClient, "command", commanded)
        patch.setattr(HttpClient, "query", queried)
        patch.setattr(HttpClient, "raw_insert", inserted)
        yield cluster
