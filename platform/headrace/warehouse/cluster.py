"""Turn a statement for one server into the statements for a cluster.

A stream's rows are sharded. Every server has a local table ``<name>_local``, replicated within its shard. A
``Distributed`` table carries the name that everybody reads and writes. Bookkeeping tables are small and always
read as a whole, so every server of the cluster holds a replica of them. The statement itself shows the kind:
tables of streams are partitioned by day, bookkeeping tables are not.

The migrations stay unchanged, so their checksums are the same on one server and on a cluster.
https://clickhouse.com/docs/engines/table-engines/mergetree-family/replication
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.core.errors import Fatal

#: Suffix of local tables, the same as dbt-clickhouse's.
LOCAL = "_local"
_NAME = r"`(?:[^`\\]|\\.)+`\.(?:`(?:[^`\\]|\\.)+`|\w+)"
_CREATE = re.compile(rf"(?P<head>CREATE TABLE IF NOT EXISTS )(?P<name>{_NAME})(?P<body>.*)", re.DOTALL)
_ALTER = re.compile(rf"(?P<head>ALTER TABLE )(?P<name>{_NAME})(?P<body>.*)", re.DOTALL)
_OF_COLUMN = re.compile(r"\s*(ADD|MODIFY|RENAME|DROP|COMMENT|ALTER) COLUMN\b", re.IGNORECASE)
_ENGINE = re.compile(r"^ENGINE = (?P<kind>\w*MergeTree)(?:\((?P<arguments>[^)]*)\))?$", re.MULTILINE)
_ORDER = re.compile(r"^ORDER BY \(.*?`(?P<key>session_id|source)`", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where tables live: on one server or on a cluster.

    Attributes:
        cluster: Name of the cluster in the servers' ``remote_servers``; empty for one server.
    """

    cluster: str = ""

    @property
    def on(self) -> str:
        """The clause that follows a table's name, with a leading space; empty for one server."""
        return f" ON CLUSTER `{self.cluster}`" if self.cluster else ""

    def local(self, name: str) -> str:
        """Return the name of the table that holds the rows of ``name``, with the same quoting."""
        if not self.cluster:
            return name
        return f"{name[:-1]}{LOCAL}`" if name.endswith("`") else name + LOCAL

    def everywhere(self, name: str) -> str:
        """Return what to select from to read a local table's rows on all shards."""
        return f"cluster(`{self.cluster}`, {name})" if self.cluster else name

    def statements(self, statement: str) -> list[str]:
        """Return the statements to run for one statement: on one server, the statement itself.

        Raises:
            Fatal: There is no rule for this kind of statement on a cluster.
        """
        if not self.cluster or re.match(r"SELECT\b", statement):
            return [statement]
        statement = statement.strip()
        if found := _CREATE.fullmatch(statement):
            return self._create(*found.groups())
        if found := _ALTER.fullmatch(statement):
            head, name, body = found.groups()
            # bookkeeping tables, whose names begin with _, have no local table
            if "._" in name or ".`_" in name:
                return [f"{head}{name}{self.on}{body}"]
            # a column is one of both tables; all else is of the one that holds the rows
            tables = (self.local(name), name) if _OF_COLUMN.match(body) else (self.local(name),)
            return [f"{head}{table}{self.on}{body}" for table in tables]
        raise Fatal(
            f"no statement for cluster {self.cluster!r} can be made of: {' '.join(statement.split())[:80]};"
            " begin it with CREATE TABLE IF NOT EXISTS or ALTER TABLE"
        )

    def _create(self, head: str, name: str, body: str) -> list[str]:
        engine = _ENGINE.search(body)
        if engine is None:
            raise Fatal(
                f"table {name} has no MergeTree engine on a line of its own; cluster {self.cluster!r}"
            )
        sharded = "\nPARTITION BY " in body
        kind, arguments = engine["kind"], engine["arguments"] or ""
        if not sharded:
            path = name.replace("`", "").replace(".", "/")
            arguments = ", ".join(
                filter(None, (f"'/clickhouse/tables/{path}'", "'{shard}-{replica}'", arguments))
            )
        replicated = f"ENGINE = Replicated{kind}" + (f"({arguments})" if arguments else "")
        body = body[: engine.start()] + replicated + body[engine.end() :]
        # replicated tables name the deduplication window differently, and keep it in Keeper
        body = body.replace("non_replicated_deduplication_window", "replicated_deduplication_window")
        if not sharded:
            return [f"{head}{name}{self.on}{body}"]
        local = self.local(name)
        return [f"{head}{local}{self.on}{body}", self.distributed(head, name, _sharding(body))]

    def distributed(self, head: str, name: str, sharding: str) -> str:
        """Return the statement that creates the table over the local tables of all shards.

        Args:
            head: The text before the name.
            name: Name of the table.
            sharding: Expression that chooses a row's shard. It must be the same for the same row, so that a
                repeated insert meets the tokens of the first.
        """
        database, table = self.local(name).replace("`", "").split(".")
        engine = f"Distributed(`{self.cluster}`, `{database}`, `{table}`, {sharding})"
        return f"{head}{name}{self.on} AS {self.local(name)}\nENGINE = {engine}"


ONE_SERVER = Placement()


def _sharding(body: str) -> str:
    """Choose the column to shard by.

    Rows ordered by session or source are sharded by it, so that rows queried together share a shard. All others
    are sharded by the origin of the message, which every raw table has.
    """
    key = _ORDER.search(body)
    return f"cityHash64(`{key['key'] if key else '_cursor'}`)"
