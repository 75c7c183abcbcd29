"""Implement the warehouse on ClickHouse, over HTTP.

Exactly once: every insert carries an ``insert_deduplication_token``. The table remembers it within its
deduplication window and passes it on to dependent materialized views, so a repeated insert adds only the parts
that are missing. This needs the ``non_replicated_deduplication_window`` that ``ddl.create_table`` sets. On a
cluster (``warehouse_cluster``) every table is a ``Distributed`` one over replicated local tables; see
``cluster``.
https://clickhouse.com/docs/guides/developer/deduplicating-inserts-on-retries
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from headrace.core.batch import Chunk, Table
from headrace.core.errors import Fatal, Retriable
from headrace.warehouse import ddl
from headrace.warehouse.base import Builds, Publication, StaleDay
from headrace.warehouse.cluster import Placement
from headrace.warehouse.earlier import copies, lacks_members, with_copies
from headrace.warehouse.growth import Growth, too_narrow
from headrace.warehouse.lease import Leases, NoDoors
from headrace.warehouse.lock import ERASURES, MigrationLock
from headrace.warehouse.migrations.files import ProjectMigrations, generated_for
from headrace.warehouse.migrations.runner import Migrations, MigrationState, refuse
from headrace.warehouse.server import (
    INCOMPATIBLE_COLUMNS,
    NO_SUCH_COLUMN,
    ClickHouseConfig,
    Refused,
    Server,
)

log = logging.getLogger(__name__)

_INSERT = {
    # collected by the server, rows would come after their answer, and without their token
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_partitions_per_insert_block": 0,  # a version may touch any number of days
    # everything sent becomes one block, whatever its parts, so that every retry sends the same block
    "min_insert_block_size_rows": 1 << 62,
    "min_insert_block_size_bytes": 0,
    "input_format_parquet_allow_missing_columns": 0,
    # null where none may be is the type's default, as ever: the column's own may be made of columns that are not sent
    "input_format_defaults_for_omitted_fields": 0,
}
#: Columns of a publication that its writer knows.
_PUBLICATION = {
    "table": "String",
    "lake_id": "String",
    "version": "Int64",
    "rows": "UInt64",
    "days": "Array(Date)",
    "landed_days": "Array(Date)",
    "fingerprint": "String",
    "epoch": "UInt32",
}
#: Prefix of the tables in which a day is assembled before it is swapped in.
_STAGING = "_staging_"
#: What to do where this process' contract is too old for what has landed.
_NEWER = "a process with the newer contract publishes it: start one, or run 'headrace publish' with it"
#: Age after which a staging table counts as abandoned: even the largest day takes less time.
_ABANDONED_SECONDS = 86_400


class ClickHouse:
    """A warehouse on one ClickHouse server. Connects on first use; safe for one thread.

    Args:
        config: Where the server is.
        retry: Makes every call, and may repeat one that raised ``Retriable``: every call can be repeated.
        project: The migrations of the user's project; None for none.
    """

    def __init__(
        self,
        config: ClickHouseConfig,
        retry: Callable[[Callable[[], Any]], Any] = lambda call: call(),
        project: ProjectMigrations | None = None,
    ) -> None:
        self._config, self._project = config, project
        self._server = Server(config, retry)
        self._placement = Placement(config.warehouse_cluster)
        self._shapes: dict[str, ddl.Shape] | None = None
        self._states: list[MigrationState] = []
        self._prepared: set[str] = set()
        self._looked_for_abandoned = False
        self._leases = Leases(self._server, config.raw_database, max_seconds=config.lock_max_seconds)
        #: Names of the doors to the tables whose lease this object holds (``lease``).
        self._doors: dict[str, str] = {}
        #: Whether tables are changed without a lease; known from the first one on.
        self._unfenced = self._placement.cluster != ""

    @property
    def migrations(self) -> Migrations:
        """The migrations of the raw database."""
        return Migrations(
            self._server,
            self._config.raw_database,
            placement=self._placement,
            project=self._project,
            ttl_days=self._config.raw_ttl_days,
        )

    def query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query and return its rows; values are passed as server-side parameters (``{name:Type}``)."""
        return self._server.query(sql, **parameters)

    def read_only(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a person's query; the server refuses any statement that changes something.

        Returns:
            Column names and rows.
        """
        return self._server.read_only(sql)

    def stream(self, sql: str, format: str | None) -> Iterator[bytes]:
        """Stream the answer to a person's query in ClickHouse's format; see ``Server.stream``."""
        return self._server.stream(sql, format)

    def _name(self, table: Table) -> str:
        return f"{ddl.quoted(self._config.raw_database)}.{ddl.quoted(table.name)}"

    def prepare(self, table: Table, /) -> None:
        """Migrate the raw database, bring the table up to its contract, and set how long rows are kept.

        If nothing is to be done, this takes one round trip for all tables together.

        Raises:
            Fatal: The migrations differ from those that were applied, or the table cannot become by itself what
                its contract wants; other tables are not held up by that.
            Retriable: Another process is migrating, and the wait for it took too long.
        """
        if table.name in self._prepared:
            return
        raw, days = self._config.raw_database, self._config.raw_ttl_days
        if table.name not in self._looked() and table.version == 1:
            self._run(ddl.create_table(raw, table, days))
            self._shapes = None
        elif self._lacks(table):
            self.migrations.grow(table)
            self._shapes = None
        elif self._looked()[self._placement.local(table.name)].ttl != ddl.ttl(table, days):
            self._run(ddl.set_ttl(raw, table, days))
        self._prepared.add(table.name)

    def _lacks(self, table: Table) -> bool:
        """Tell whether a table lacks something of its contract, or somebody died while changing it."""
        shapes = self._looked()
        begun = any(one.unfinished and generated_for(one.name)[0] == table.name for one in self._states)
        return begun or bool(self.migrations.plan(table, self._states, shapes))

    def grow(self, tables: Iterable[Table]) -> tuple[list[MigrationState], list[Fatal]]:
        """Bring raw tables that exist up to their contracts; return what was applied, and what was refused.

        One that is refused does not hold up the others.
        """
        done: list[MigrationState] = []
        refused: list[Fatal] = []
        for table in tables:
            try:
                if table.name in self._looked() and self._lacks(table):
                    done += self.migrations.grow(table)
                    self._shapes = None
            except Fatal as error:
                refused.append(error)
        return done, refused

    def plan(self, tables: Iterable[Table]) -> tuple[list[MigrationState], list[Growth]]:
        """Return the state of every migration, and what raw tables lack of their contracts; changes nothing.

        Of a table that lacks nothing there is no growth. One that does not exist yet would be made.
        """
        migrations = self.migrations
        states, found = migrations.look(*ddl.SHAPES, database=self._config.raw_database)
        shapes = ddl.shapes(*found) if found else {}
        to_do = {one.version for one in states if one.to_do}
        made = {
            word for one in migrations.known if one.version in to_do for word in re.findall(r"\w+", one.text)
        }
        lacking = [
            growth
            for table in tables
            if (table.name in shapes or table.name not in made)  # a file makes it
            and (growth := migrations.plan(table, states, shapes))
        ]
        return states, [one.named(self._config.raw_database) for one in lacking]

    def expect(self, rows: Table, /) -> None:
        """Compare the columns of rows with the table's; looks at the server only if they seem not to fit."""

        def narrow() -> dict[str, tuple[str, str]]:
            shape = self._looked().get(rows.name)
            return too_narrow(rows, shape.columns) if shape else {}

        if narrow():
            self._shapes = None  # somebody else may have widened them since
        for name, (there, wanted) in narrow().items():
            raise Retriable(
                f"publishing {rows.name} waits: the lake's column {name!r} needs {wanted}, and raw table"
                f" {self._config.raw_database}.{rows.name} has {there}; the contract of this process (version"
                f" {rows.version}) is older than the lake's; {_NEWER}"
            )

    def _run(self, statement: str) -> None:
        for placed in self._placement.statements(statement):
            self._server.command(placed)

    def _looked(self) -> dict[str, ddl.Shape]:
        """Return the shapes of the raw database's tables as of the last look; migrates before the first one."""
        if self._shapes is None:
            self._states, self._shapes = self._migrated()
        return self._shapes

    def _migrated(self) -> tuple[list[MigrationState], dict[str, ddl.Shape]]:
        """Apply pending migrations; return the state of all and the shapes of the raw database's tables."""
        migrations, raw = self.migrations, self._config.raw_database
        states, found = migrations.look(*ddl.SHAPES, database=raw)
        refuse(states)
        if not found or any(one.to_do for one in states):
            migrations.up()
            states, found = migrations.look(*ddl.SHAPES, database=raw)
        return states, ddl.shapes(*found)

    def published(self, table: Table, lake_id: str, /) -> Publication | None:
        """Return the last version that the warehouse holds completely."""
        [(count, version, fingerprint, epoch)] = self.query(
            "SELECT count(), argMax(version, (epoch, version)), argMax(fingerprint, (epoch, version, published_at)),"
            f" max(epoch) FROM {ddl.quoted(self._config.raw_database)}._publications"
            " WHERE table = {table:String} AND lake_id = {lake_id:String}",
            table=table.name,
            lake_id=lake_id,
        )
        if not count:
            return None
        return Publication(lake_id, int(version), 0, (), fingerprint=str(fingerprint), epoch=int(epoch))

    @contextmanager
    def lease(self, table: Table, lake_id: str, /) -> Iterator[Publication | None]:
        """Be the only one who changes a table; see ``headrace.warehouse.lease``.

        On a cluster, and on a ClickHouse without the engine ``Alias`` (before 26.5), nobody is kept away: there the
        file lock of one machine has to do.
        """
        with ExitStack() as held:
            if table.name not in self._doors and not self._unfenced:
                self._looked()  # the database is there then
                try:
                    self._doors[table.name] = held.enter_context(self._leases.held(table.name))
                    held.callback(self._doors.pop, table.name)
                except NoDoors as error:
                    log.warning("publishers on several machines are not kept apart: %s", error)
                    self._unfenced = True
            yield self.published(table, lake_id)

    @contextmanager
    def _through(self, table: Table) -> Iterator[str]:
        """Yield the quoted name under which a table is changed: that of the door, or its own without a lease."""
        door = self._doors.get(table.name)
        if door is None:
            yield self._name(table)
            return
        with self._leases.through(door, table.name):
            yield f"{ddl.quoted(self._config.raw_database)}.{ddl.quoted(door)}"

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        """Insert ``rows`` as one block per partition, once per token; columns that they lack take their defaults."""
        with self._through(table):
            self._insert(self._doors.get(table.name, table.name), table, rows, token)

    def _insert(self, name: str, table: Table, rows: Chunk, token: str) -> None:
        settings = {**_INSERT, "insert_deduplication_token": token}
        columns = list(rows.columns or table.schema)
        self._refuse_unknown(table, columns)
        shape = self._looked().get(table.name)
        if shape and (more := copies(table, shape.columns, columns)):
            rows, columns = with_copies(rows, more), [*columns, *more]
        if shape and rows.parquet is not None and lacks_members(table, shape.columns, columns):
            rows = replace(
                rows, parquet=None
            )  # of files the server asks for every member, of Arrow it does not
        try:
            self._server.insert(self._config.raw_database, name, columns, rows, settings)
        except Refused as error:
            if error.code != NO_SUCH_COLUMN:
                raise
            self._shapes = None
            raise Retriable(
                f"raw table {table.name} has changed while rows were on their way: {error}"
            ) from error

    def _refuse_unknown(self, table: Table, columns: Collection[str]) -> None:
        """Put off rows with columns that the warehouse has not got: leaving them out would lose their values."""

        def unknown() -> list[str]:
            shape = self._looked().get(table.name)
            known = shape.columns if shape else {}
            return [name for name in columns if name not in known or not known[name].takes_values]

        if unknown():
            self._shapes = None  # somebody else may have added them since
        if missing := unknown():
            raise Retriable(
                f"publishing {table.name} waits: the lake has column {missing[0]!r}, which neither the contract of this"
                f" process (version {table.version}) nor raw table {self._config.raw_database}.{table.name} knows;"
                f" {_NEWER}"
            )

    def record(self, table: Table, publication: Publication, /) -> None:
        """Record a version; the table keeps one row per version."""
        p = publication
        values = ", ".join(f"{{{name}:{kind}}} AS {name}" for name, kind in _PUBLICATION.items())
        with self._through(table) as door:
            # a table that is gone is found while the statement is made; nothing is read of it
            self._server.command(
                f"INSERT INTO {ddl.quoted(self._config.raw_database)}._publications ({', '.join(_PUBLICATION)})"
                f" SELECT {values} FROM system.one WHERE (SELECT count() FROM (SELECT 1 FROM {door} WHERE 0)) = 0",
                table=table.name,
                lake_id=p.lake_id,
                version=p.version,
                rows=p.rows,
                days=list(p.days),
                landed_days=list(p.landed_days),
                fingerprint=p.fingerprint,
                epoch=p.epoch,
            )

    def holds(self, table: Table, batches: Collection[str], days: Collection[date], /) -> bool:
        """Tell whether any row of these micro-batches exists on these days."""
        self.prepare(table)
        [(rows,)] = self.query(
            f"SELECT count() FROM (SELECT 1 FROM {self._name(table)}"
            f" WHERE {ddl.quoted(table.partition)} IN {{days:Array(Date)}}"
            " AND _batch_id IN {batches:Array(String)} LIMIT 1)",
            days=sorted(days),
            batches=sorted(batches),
        )
        return bool(rows)

    def restarted_since(self, moment: datetime, /) -> bool:
        """Compare the server's uptime with a moment (UTC)."""
        [(up,)] = self.query("SELECT uptime()")
        return datetime.now(UTC) - timedelta(seconds=int(up) + 1) > moment

    def replace_partition(self, table: Table, day: date, chunks: Iterable[Chunk], /) -> int:
        """Write the day into a staging table of its own, then swap its partition in.

        ``REPLACE PARTITION`` is atomic: readers see the old day or the new one. Empty ``chunks`` empty the day.
        """
        self.prepare(table)
        self._drop_abandoned()
        name, partition, place = self._name(table), ddl.literal(day.isoformat()), self._placement
        # two machines may replace days of one table at the same time
        own = f"{_STAGING}{table.name}_{uuid.uuid4().hex}"
        staging = f"{ddl.quoted(self._config.raw_database)}.{ddl.quoted(own)}"
        kept, staged_in = place.local(name), place.local(staging)
        try:
            self._server.command(f"CREATE TABLE IF NOT EXISTS {staged_in}{place.on} AS {kept}")
            if place.cluster:
                self._server.command(place.distributed("CREATE TABLE IF NOT EXISTS ", staging, "rand()"))
            for n, chunk in enumerate(chunks):
                self._insert(own, table, chunk, f"staging:{n}")
            [(staged,)] = self.query(f"SELECT count() FROM {staging}")
            # ClickHouse refuses to replace a partition by nothing
            swap = (
                f"REPLACE PARTITION {partition} FROM {staged_in}" if staged else f"DROP PARTITION {partition}"
            )
            # a shard for which the new day has no row drops the rows it had
            empty = (
                " SETTINGS allow_replace_partition_from_empty_source = 1" if place.cluster and staged else ""
            )
            with self._through(table) as door:
                changed = door if table.name in self._doors else kept
                self._server.command(f"ALTER TABLE {changed}{place.on} {swap}{empty}")
        except Refused as error:
            if error.code != INCOMPATIBLE_COLUMNS:
                raise
            raise Retriable(
                f"raw table {table.name} has changed while {day} was assembled: {error}"
            ) from error
        finally:
            self._drop(staging)
        [(rows,)] = self.query(
            f"SELECT count() FROM {name} WHERE {ddl.quoted(table.partition)} = {{day:Date}}", day=day
        )
        return int(rows)

    def _drop_abandoned(self) -> None:
        """Drop staging tables whose makers were killed. Looks once per process."""
        if self._looked_for_abandoned:
            return
        raw = self._config.raw_database
        found = self.query(
            "SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})"
            " AND metadata_modification_time < now() - toIntervalSecond({seconds:Int64})",
            database=raw,
            prefix=_STAGING,
            seconds=_ABANDONED_SECONDS,
        )
        for (name,) in found:
            self._server.command(
                f"DROP TABLE IF EXISTS {ddl.quoted(raw)}.{ddl.quoted(name)}{self._placement.on} SYNC"
            )
        self._looked_for_abandoned = True

    def _drop(self, name: str) -> None:
        for table in dict.fromkeys((name, self._placement.local(name))):
            self._server.command(f"DROP TABLE IF EXISTS {table}{self._placement.on} SYNC")

    def counts_by_day(self, table: Table, /) -> dict[date, int]:
        """Count rows by partition."""
        self.prepare(table)
        column = ddl.quoted(table.partition)
        rows = self.query(f"SELECT {column}, count() FROM {self._name(table)} GROUP BY {column}")
        return {day: int(count) for day, count in rows}

    def counts_by_batch(self, table: Table, days: Iterable[date], /) -> list[tuple[date, str, int]]:
        """Count the rows of these partitions by partition and micro-batch, all as of one moment."""
        self.prepare(table)
        column = ddl.quoted(table.partition)
        rows = self.query(
            f"SELECT {column}, _batch_id, count() FROM {self._name(table)}"
            f" WHERE {column} IN {{days:Array(Date)}} GROUP BY {column}, _batch_id",
            days=list(days),
        )
        return [(day, str(batch), int(count)) for day, batch, count in rows]

    def stale_days(self, table: Table, lake_id: str, /, *, by_landing: bool = False) -> list[StaleDay]:
        """List the days with rows that were published after their models were last built."""
        database = ddl.quoted(self._config.raw_database)
        days = "landed_days" if by_landing else "days"
        rows = self.query(
            f"""
            WITH
                (
                    SELECT max(epoch) FROM {database}._publications
                    WHERE table = {{table:String}} AND lake_id = {{lake_id:String}}
                ) AS present,
                fresh AS
                (
                    SELECT day, version, published_at FROM {database}._publications ARRAY JOIN {days} AS day
                    WHERE table = {{table:String}} AND lake_id = {{lake_id:String}} AND epoch = present
                ),
                built AS
                (
                    SELECT day, max(version) AS version FROM {database}._refreshes ARRAY JOIN days AS day
                    WHERE table = {{table:String}} AND lake_id = {{lake_id:String}} AND epoch = present GROUP BY day
                )
            SELECT fresh.day, min(fresh.published_at), max(fresh.published_at)
            FROM fresh LEFT JOIN built ON fresh.day = built.day
            WHERE fresh.version > built.version
            GROUP BY fresh.day ORDER BY fresh.day
            """,
            table=table.name,
            lake_id=lake_id,
        )
        # the driver returns the times of a UTC column without a time zone
        return [
            StaleDay(day, since.replace(tzinfo=UTC), latest.replace(tzinfo=UTC))
            for day, since, latest in rows
        ]

    def refreshed(
        self, table: Table, lake_id: str, version: int, days: Iterable[date], began_at: datetime, /
    ) -> None:
        """Record that the models of ``days`` were built from ``version``."""
        [(epoch,)] = self.query(  # a lake may have come back with another history while they were built
            f"SELECT max(epoch) FROM {ddl.quoted(self._config.raw_database)}._publications"
            " WHERE table = {table:String} AND lake_id = {lake_id:String} AND published_at <= {began:DateTime64(6)}",
            table=table.name,
            lake_id=lake_id,
            began=began_at,
        )
        row = {
            "table": table.name,
            "lake_id": lake_id,
            "version": version,
            "days": sorted(days),
            "began_at": began_at,
            "epoch": int(epoch),
        }
        self._server.append(self._config.raw_database, "_refreshes", row)

    def builds(self, table: Table, lake_id: str, /) -> Builds:
        """Count the builds of the models of a table."""
        [(count, days, latest)] = self.query(
            "SELECT count(), length(groupUniqArrayArray(days)), max(refreshed_at)"
            f" FROM {ddl.quoted(self._config.raw_database)}._refreshes"
            " WHERE table = {table:String} AND lake_id = {lake_id:String}",
            table=table.name,
            lake_id=lake_id,
        )
        return Builds(int(count), int(days), latest.replace(tzinfo=UTC) if count else None)

    def ever_refreshed(self, table: Table, lake_id: str, /) -> bool:
        """Tell whether the models of a table were ever built."""
        [(count,)] = self.query(
            f"SELECT count() FROM {ddl.quoted(self._config.raw_database)}._refreshes"
            " WHERE table = {table:String} AND lake_id = {lake_id:String}",
            table=table.name,
            lake_id=lake_id,
        )
        return bool(count)

    def erasing(self) -> AbstractContextManager[Callable[[], None]]:
        """Keep erasures of one installation apart, on whatever machines: a later one waits for three minutes.

        Yields a check that raises ``Retriable`` once another process has taken the lock.
        """
        self._looked()  # the database is there then
        return MigrationLock(self._server, self._config.raw_database, table=ERASURES, unlock="").held()

    def erase(self, database: str, column: str, value: str, *, only_count: bool = False) -> dict[str, int]:
        """Delete the rows with a value from every table of a database that has the column.

        Returns:
            Rows with that value by table, without tables that have none.
        """
        tables = self.query(
            """
            SELECT t.name, c.type LIKE '%String%' FROM system.tables AS t INNER JOIN system.columns AS c
            ON c.database = t.database AND c.table = t.name
            WHERE t.database = {database:String} AND c.name = {column:String} AND t.engine LIKE '%MergeTree'
            AND c.default_kind NOT IN ('EPHEMERAL', 'ALIAS')
            ORDER BY t.name
            """,
            database=database,
            column=column,
        )
        found: dict[str, int] = {}
        for name, text in tables:
            table = f"{ddl.quoted(database)}.{ddl.quoted(name)}"
            # an id that is a number or a UUID is compared by its text, without the help of an index
            own = ddl.quoted(column) if text else f"toString({ddl.quoted(column)})"
            where = f"{own} = {{value:String}}"
            everywhere = self._placement.everywhere(table)
            [(rows,)] = self.query(f"SELECT count() FROM {everywhere} WHERE {where}", value=value)
            if not rows:
                continue
            found[f"{database}.{name}"] = int(rows)
            if not only_count:
                # mutations take no parameters
                where = f"{own} = {ddl.literal(value)}"
                self._server.command(
                    f"ALTER TABLE {table}{self._placement.on} DELETE WHERE {where} SETTINGS mutations_sync = 2"
                )
        return found

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        self._server.close()
