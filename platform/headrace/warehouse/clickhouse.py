"""The warehouse on ClickHouse, over HTTP.

Exactly once: every insert carries ``insert_deduplication_token``, which the table keeps in its deduplication
window and passes on to dependent materialized views; a repeated insert adds only the parts that are missing.
Requires the ``non_replicated_deduplication_window`` that ``ddl.create_table`` sets.
https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date
from typing import Any, Protocol

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from headrace.batch import Table
from headrace.errors import Fatal, Retriable
from headrace.warehouse import ddl
from headrace.warehouse.base import Publication, Touched

#: Server codes after which the same call may succeed: timeouts, memory, too many queries or parts, shutdown.
_RETRIABLE = {159, 160, 202, 209, 210, 236, 241, 242, 252, 285, 394, 439, 999}
_INSERT = {
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_partitions_per_insert_block": 0,  # a version may touch any number of days
    "min_insert_block_size_rows": 0,  # blocks exactly as sent: the same in every retry
    "min_insert_block_size_bytes": 0,
}


class ClickHouseConfig(Protocol):
    """The settings that this adapter reads."""

    clickhouse_host: str
    clickhouse_port: int
    clickhouse_user: str
    clickhouse_secure: bool
    raw_database: str
    raw_ttl_days: int

    @property
    def clickhouse_password(self) -> Any:
        """Secret with ``get_secret_value``."""


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Driver exceptions become ours, once, here."""
    try:
        yield
    except OperationalError as error:
        hint = "is it up? See 'headrace stack status'"
        raise Retriable(
            f"ClickHouse at {where} does not answer; {hint} ({_first_line(error)[-120:]})"
        ) from error
    except DatabaseError as error:
        kind = Retriable if _code(error) in _RETRIABLE else Fatal
        raise kind(f"ClickHouse at {where} refused: {_first_line(error)}") from error
    except ClickHouseError as error:
        raise Fatal(f"ClickHouse at {where}: {_first_line(error)}") from error


def _code(error: Exception) -> int:
    text = str(error)
    digits = text.partition("Code: ")[2] or text.partition("code ")[2] or text.partition("code: ")[2]
    number = "".join(c for c in digits[:6] if c.isdigit())
    return int(number) if number else -1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition("server response: ")[2][:500] or lines[0][:500]


class ClickHouse:
    """A warehouse on one ClickHouse server. Connects on first use; safe for one thread."""

    def __init__(
        self, config: ClickHouseConfig, through: Callable[[Callable[[], Any]], Any] = lambda call: call()
    ) -> None:
        """Args:
        config: Where the server is.
        through: Makes every call, and may make one again that raised ``Retriable``: each can be repeated.
        """
        self._config = config
        self._through = through
        self._where = f"{config.clickhouse_host}:{config.clickhouse_port}"
        self._client: Client | None = None
        self._prepared: set[str] = set()

    def _connected(self) -> Client:
        if self._client is None:
            with _translated(self._where):
                self._client = clickhouse_connect.get_client(
                    host=self._config.clickhouse_host,
                    port=self._config.clickhouse_port,
                    username=self._config.clickhouse_user,
                    password=self._config.clickhouse_password.get_secret_value(),
                    secure=self._config.clickhouse_secure,
                    autogenerate_session_id=False,
                    connect_timeout=5,
                    send_receive_timeout=600,
                )
        return self._client

    def _call(self, call: Callable[[Client], Any]) -> Any:
        def once() -> Any:
            client = self._connected()
            with _translated(self._where):
                return call(client)

        return self._through(once)

    def _command(self, sql: str) -> None:
        self._call(lambda c: c.command(sql))

    def query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; values go in as server-side parameters (``{name:Type}``)."""
        rows = self._call(lambda c: c.query(sql, parameters=parameters or None).result_rows)
        return [tuple(row) for row in rows]

    def read_only(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a person's query; the server refuses whatever would change anything."""
        found = self._call(lambda c: c.query(sql, settings={"readonly": 2}))
        return list(found.column_names), [tuple(row) for row in found.result_rows]

    def _name(self, table: Table) -> str:
        return f"{ddl.quoted(self._config.raw_database)}.{ddl.quoted(table.name)}"

    def prepare(self, table: Table, /) -> None:
        """Create database, bookkeeping and the table if they are missing."""
        if table.name in self._prepared:
            return
        database = ddl.quoted(self._config.raw_database)
        statements = (
            f"CREATE DATABASE IF NOT EXISTS {database}",
            ddl.PUBLICATIONS.format(database=database),
            ddl.REFRESHES.format(database=database),
            ddl.create_table(self._config.raw_database, table, self._config.raw_ttl_days),
        )
        for statement in statements:
            self._command(statement)
        self._prepared.add(table.name)

    def published(self, table: Table, lake_id: str, /) -> int | None:
        """Last version that is wholly in."""
        [(count, version)] = self.query(
            f"SELECT count(), max(version) FROM {ddl.quoted(self._config.raw_database)}._publications"
            " WHERE table = {table:String} AND lake_id = {lake_id:String}",
            table=table.name,
            lake_id=lake_id,
        )
        return int(version) if count else None

    def insert(self, table: Table, rows: pa.Table, token: str, /) -> None:
        """Insert ``rows`` as one block per partition, once per token."""
        self._insert_arrow(table.name, rows, token)

    def _insert_arrow(self, name: str, rows: pa.Table, token: str) -> None:
        settings = {**_INSERT, "insert_deduplication_token": token}
        block = rows.combine_chunks()
        self._call(
            lambda c: c.insert_arrow(name, block, database=self._config.raw_database, settings=settings)
        )

    def record(self, table: Table, publication: Publication, /) -> None:
        """Note a version; the table keeps one row per version."""
        p = publication
        self._call(
            lambda c: c.insert(
                "_publications",
                [[table.name, p.lake_id, p.version, p.rows, list(p.days)]],
                column_names=["table", "lake_id", "version", "rows", "days"],
                database=self._config.raw_database,
            )
        )

    def replace_partition(self, table: Table, day: date, chunks: Iterable[pa.Table], /) -> int:
        """Fill a staging table with the day and swap its partition in.

        REPLACE PARTITION is atomic: readers see the old day or the new one. An empty ``chunks`` empties the day.
        """
        self.prepare(table)
        name, partition = self._name(table), ddl.literal(day.isoformat())
        staging = f"{ddl.quoted(self._config.raw_database)}.{ddl.quoted(f'_staging_{table.name}')}"
        self._command(f"DROP TABLE IF EXISTS {staging} SYNC")
        self._command(f"CREATE OR REPLACE TABLE {staging} AS {name}")
        try:
            for n, chunk in enumerate(chunks):
                self._insert_arrow(f"_staging_{table.name}", chunk, f"staging:{n}")
            [(staged,)] = self.query(f"SELECT count() FROM {staging}")
            # ClickHouse refuses to replace a partition by nothing
            swap = (
                f"REPLACE PARTITION {partition} FROM {staging}" if staged else f"DROP PARTITION {partition}"
            )
            self._command(f"ALTER TABLE {name} {swap}")
        finally:
            self._command(f"DROP TABLE IF EXISTS {staging} SYNC")
        [(rows,)] = self.query(
            f"SELECT count() FROM {name} WHERE {ddl.quoted(table.partition)} = {{day:Date}}", day=day
        )
        return int(rows)

    def counts_by_day(self, table: Table, /) -> dict[date, int]:
        """Rows by partition."""
        self.prepare(table)
        column = ddl.quoted(table.partition)
        rows = self.query(f"SELECT {column}, count() FROM {self._name(table)} GROUP BY {column}")
        return {day: int(count) for day, count in rows}

    def touched(self, table: Table, lake_id: str, /) -> list[Touched]:
        """Days with rows that were published after their models were last built."""
        database = ddl.quoted(self._config.raw_database)
        rows = self.query(
            f"""
            WITH
                fresh AS
                (
                    SELECT day, version, published_at FROM {database}._publications ARRAY JOIN days AS day
                    WHERE table = {{table:String}} AND lake_id = {{lake_id:String}}
                ),
                built AS
                (
                    SELECT day, max(version) AS version FROM {database}._refreshes ARRAY JOIN days AS day
                    WHERE table = {{table:String}} AND lake_id = {{lake_id:String}} GROUP BY day
                )
            SELECT fresh.day, min(fresh.published_at), max(fresh.published_at)
            FROM fresh LEFT JOIN built ON fresh.day = built.day
            WHERE fresh.version > built.version
            GROUP BY fresh.day ORDER BY fresh.day
            """,
            table=table.name,
            lake_id=lake_id,
        )
        # the driver gives times of a UTC column without their zone
        return [
            Touched(day, since.replace(tzinfo=UTC), latest.replace(tzinfo=UTC)) for day, since, latest in rows
        ]

    def refreshed(self, table: Table, lake_id: str, version: int, days: Iterable[date], /) -> None:
        """Note that the models of ``days`` were built from ``version``."""
        self._call(
            lambda c: c.insert(
                "_refreshes",
                [[table.name, lake_id, version, sorted(days)]],
                column_names=["table", "lake_id", "version", "days"],
                database=self._config.raw_database,
            )
        )

    def erase(self, database: str, column: str, value: str, *, only_count: bool = False) -> dict[str, int]:
        """Delete the rows of a value from every table of a database that has the column.

        Returns:
            Rows that had it, by table; tables without such rows are left out.
        """
        tables = self.query(
            """
            SELECT t.name FROM system.tables AS t INNER JOIN system.columns AS c
            ON c.database = t.database AND c.table = t.name
            WHERE t.database = {database:String} AND c.name = {column:String} AND t.engine LIKE '%MergeTree'
            ORDER BY t.name
            """,
            database=database,
            column=column,
        )
        found: dict[str, int] = {}
        for (name,) in tables:
            table, where = (
                f"{ddl.quoted(database)}.{ddl.quoted(name)}",
                f"{ddl.quoted(column)} = {{value:String}}",
            )
            [(rows,)] = self.query(f"SELECT count() FROM {table} WHERE {where}", value=value)
            if not rows:
                continue
            found[f"{database}.{name}"] = int(rows)
            if not only_count:
                literal = ddl.literal(value)  # mutations take no parameters
                self._command(
                    f"ALTER TABLE {table} DELETE WHERE {ddl.quoted(column)} = {literal} SETTINGS mutations_sync = 2"
                )
        return found

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None
