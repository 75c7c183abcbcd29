"""One statement for one server, or what it is on a cluster.

On a cluster the rows of a stream are sharded: a local table ``<name>_local`` on every server, replicated within its
shard, and a ``Distributed`` table under the name that everybody reads and writes. Bookkeeping is tiny and asked for
as a whole: every server of the cluster is a replica of the same table. Which is which shows in the statement: tables
of streams are partitioned by day, bookkeeping is not.

The migrations stay as they are, so their checksums are the same on one server and on many.
https://clickhouse.com/docs/engines/table-engines/mergetree-family/replication
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.core.errors import Fatal

#: dbt-clickhouse's suffix of local tables too.
LOCAL = "_local"
_NAME = r"`(?:[^`\\]|\\.)+`\.(?:`(?:[^`\\]|\\.)+`|\w+)"
_CREATE = re.compile(rf"(?P<head>CREATE TABLE IF NOT EXISTS )(?P<name>{_NAME})(?P<body>.*)", re.DOTALL)
_ALTER = re.compile(rf"(?P<head>ALTER TABLE )(?P<name>{_NAME})(?P<body>.*)", re.DOTALL)
_ENGINE = re.compile(r"^ENGINE = (?P<kind>\w*MergeTree)(?:\((?P<arguments>[^)]*)\))?$", re.MULTILINE)
_ORDER = re.compile(r"^ORDER BY \(.*?`(?P<key>session_id|source)`", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where tables are.

    Attributes:
        cluster: Name of the cluster in the servers' ``remote_servers``; empty for one server.
    """

    cluster: str = ""

    @property
    def on(self) -> str:
        """The clause after a table's name, with a space before it; empty for one server."""
        return f" ON CLUSTER `{self.cluster}`" if self.cluster else ""

    def local(self, name: str) -> str:
        """Name of the table that holds the rows of ``name``, quoted as that is."""
        if not self.cluster:
            return name
        return f"{name[:-1]}{LOCAL}`" if name.endswith("`") else name + LOCAL

    def everywhere(self, name: str) -> str:
        """What to select from to see the rows of a local table on all shards."""
        return f"cluster(`{self.cluster}`, {name})" if self.cluster else name

    def statements(self, statement: str) -> list[str]:
        """What a statement is here: itself on one server.

        Raises:
            Fatal: It is of a kind of which this does not know what it is on a cluster.
        """
        if not self.cluster or re.match(r"SELECT\b", statement):
            return [statement]
        statement = statement.strip()
        if found := _CREATE.fullmatch(statement):
            return self._create(*found.groups())
        if found := _ALTER.fullmatch(statement):
            head, name, body = found.groups()
            # bookkeeping is read under its own name; its names begin with _
            table = name if "._" in name or ".`_" in name else self.local(name)
            return [f"{head}{table}{self.on}{body}"]
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
        # the window by which a repeated insert is recognised has another name here, and is kept in Keeper
        body = body.replace("non_replicated_deduplication_window", "replicated_deduplication_window")
        if not sharded:
            return [f"{head}{name}{self.on}{body}"]
        local = self.local(name)
        return [f"{head}{local}{self.on}{body}", self.distributed(head, name, _sharding(body))]

    def distributed(self, head: str, name: str, sharding: str) -> str:
        """The statement that makes the table over the local ones of all shards.

        Args:
            head: What stands before the name.
            name: Its name.
            sharding: Expression that chooses the shard of a row: the same for the same row, so that an insert
                that is sent again meets the tokens of the first.
        """
        database, table = self.local(name).replace("`", "").split(".")
        engine = f"Distributed(`{self.cluster}`, `{database}`, `{table}`, {sharding})"
        return f"{head}{name}{self.on} AS {self.local(name)}\nENGINE = {engine}"


ONE_SERVER = Placement()


def _sharding(body: str) -> str:
    """By session or source where rows are ordered by one, so that what is asked together is on one shard; or else by
    the origin of the message, which every raw table has."""
    key = _ORDER.search(body)
    return f"cityHash64(`{key['key'] if key else '_cursor'}`)"
