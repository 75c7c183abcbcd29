"""Compare the migrations with the raw database's history, and apply the pending ones once.

The history is the table ``_migrations``, with one row per attempt. The row is written as ``started`` before the
first statement, and again as ``applied`` or ``failed`` after the last. A row that stays ``started`` belongs to
a process that died. Like a failed attempt it starts over, which is safe because every statement can be
repeated.

Migrations that are generated from contracts are in the same history and run under the same lock. They are compared
with the tables and not with files: what a table lacks still is generated anew, under the number of an attempt that
did not end.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from headrace.core.batch import Table
from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.warehouse import ddl, views
from headrace.warehouse.cluster import ONE_SERVER, Placement
from headrace.warehouse.growth import Growth, created, growth, readers_of
from headrace.warehouse.lock import MigrationLock
from headrace.warehouse.migrations.files import (
    GENERATED,
    PROJECT,
    Migration,
    ProjectMigrations,
    generated_for,
    generated_name,
    read_migrations,
)
from headrace.warehouse.server import UNKNOWN_DATABASE, UNKNOWN_TABLE, Refused, Server

log = logging.getLogger(__name__)

TABLE = "_migrations"
_HISTORY = """
CREATE TABLE IF NOT EXISTS {name}
(
    version UInt32 COMMENT 'number of the migration',
    name String COMMENT 'its file',
    checksum String COMMENT 'SHA-256 of the file as it was run',
    state Enum8('started' = 1, 'applied' = 2, 'failed' = 3),
    statement UInt32 COMMENT 'the statement that failed, from 1; else how many were run',
    error String COMMENT 'first line of what the server said',
    started_at DateTime64(6, 'UTC'),
    finished_at Nullable(DateTime64(6, 'UTC')),
    host String COMMENT 'who ran it',
    pid UInt32,
    headrace_version String,
    text String COMMENT 'its statements as they were run',
    written_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY (version, started_at)
COMMENT 'Migrations of this database, one row per attempt'
"""
#: Histories of before this was noted.
_TEXT = (
    "ALTER TABLE {name} ADD COLUMN IF NOT EXISTS text String COMMENT 'its statements as they were run'"
    " AFTER headrace_version"
)
#: For each version the attempt that applied it, or else the last attempt; one value, to be selected with others.
_ATTEMPTS = """
    SELECT groupArray((version, name, checksum, state, statement, error, finished_at, headrace_version))
    FROM (SELECT * FROM {name} FINAL ORDER BY version, state = 'applied' DESC, written_at DESC LIMIT 1 BY version)
"""


#: Views of all databases, with their texts and columns, and a table's projections.
_READERS = """
    SELECT concat(v.database, '.', v.name), concat(any(v.as_select), ' ', arrayStringConcat(groupArray(c.name), ' '))
    FROM system.tables AS v INNER JOIN system.columns AS c ON c.database = v.database AND c.table = v.name
    WHERE v.engine LIKE '%View' AND position(v.as_select, {table:String}) > 0
    GROUP BY v.database, v.name
    UNION ALL
    SELECT concat('projection ', name), concat(database, ' ', table, ' ', query) FROM system.projections
    WHERE database = {database:String} AND table = {table:String}
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to apply a migration, as the history records it."""

    version: int
    name: str
    checksum: str
    state: str
    statement: int
    error: str
    finished_at: datetime | None
    headrace_version: str


def _attempt(row: Sequence[Any]) -> Attempt:
    found = Attempt(*row)
    # the driver returns the times of a UTC column without a time zone
    return replace(found, finished_at=found.finished_at and found.finished_at.replace(tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration: its file compared with its history.

    Attributes:
        version: Number of the migration.
        name: Name of the file.
        state: ``applied``, ``pending``, ``failed``, ``interrupted`` (started; its process died or still runs),
            ``edited`` (applied, but the file has changed since), ``missing`` (applied, but the file is gone) or
            ``newer`` (applied by a later version of Headrace).
        finished_at: When the last attempt ended (UTC).
        said: What a person should know or do; empty if all is well.
    """

    version: int
    name: str
    state: str
    finished_at: datetime | None = None
    said: str = ""

    @property
    def refused(self) -> bool:
        """Whether somebody has to look before anything is applied or published."""
        return self.state in ("edited", "missing", "newer")

    @property
    def to_do(self) -> bool:
        """Whether ``up`` applies it."""
        return self.state in ("pending", "failed", "interrupted") and self.version < GENERATED

    @property
    def unfinished(self) -> bool:
        """Whether it is a generated one that whoever publishes next brings to its end."""
        return self.state in ("failed", "interrupted") and self.version >= GENERATED


def compare(known: Sequence[Migration], attempts: Sequence[Attempt]) -> list[MigrationState]:
    """Compare files with the history, in the order of their numbers."""
    last = {one.version: one for one in attempts}
    files = {one.version: one for one in known}
    newest = max((number for number in files if number < PROJECT), default=0)
    found = []
    for number in sorted({*files, *last}):
        file, attempt = files.get(number), last.get(number)
        if file is None:
            assert attempt is not None
            if number >= GENERATED:
                found.append(_generated(attempt))
                continue
            if attempt.state == "failed" and attempt.statement <= 1:
                continue  # the file was withdrawn before any of its statements had an effect
            found.append(_without_file(attempt, newest))
        elif attempt is None:
            found.append(MigrationState(number, file.name, "pending"))
        else:
            found.append(_with_both(file, attempt))
    return found


def _generated(attempt: Attempt) -> MigrationState:
    """Tell the state of a migration that has no file; one of a newer contract is nobody's mistake."""
    state, said = attempt.state, ""
    if state == "failed":
        said = f"failed at statement {attempt.statement}: {attempt.error}"
    elif state == "started":
        state, said = "interrupted", "its process died or is still at it; whoever publishes next goes on"
    return MigrationState(attempt.version, attempt.name, state, attempt.finished_at, said)


def _without_file(attempt: Attempt, newest: int) -> MigrationState:
    if attempt.version >= PROJECT:
        said = (
            f"{attempt.name} was run ({attempt.state}) and this project has no such file; update or restore it, or run"
            " this in the project that has it"
        )
        return MigrationState(attempt.version, attempt.name, "missing", attempt.finished_at, said)
    if attempt.version > newest:
        said = (
            f"migration {attempt.name} was run by Headrace {attempt.headrace_version}, which is newer than this"
            f" one ({version('headrace')}); update Headrace"
        )
        return MigrationState(attempt.version, attempt.name, "newer", attempt.finished_at, said)
    said = f"migration {attempt.name} was run ({attempt.state}) and its file is gone; restore the file"
    return MigrationState(attempt.version, attempt.name, "missing", attempt.finished_at, said)


def _with_both(file: Migration, attempt: Attempt) -> MigrationState:
    state, said = attempt.state, ""
    if state == "failed":
        said = f"failed at statement {attempt.statement}: {attempt.error}"
    elif state == "started":
        state, said = "interrupted", "its process died or is still at it; it starts over"
    elif attempt.checksum != file.checksum:
        state = "edited"
        said = (
            f"migration {file.name} was applied as {attempt.checksum[:12]} and is {file.checksum[:12]} now;"
            " restore the file and put the change into a new migration"
        )
    return MigrationState(file.version, file.name, state, attempt.finished_at, said)


class Migrations:
    """The migrations of one raw database.

    Args:
        server: Where the database is.
        database: Name of the database.
        known: The migrations; None for those that come with Headrace.
        lock: Lock against other processes; None for one with the default times.
        placement: On one server or on a cluster.
        project: The migrations of the user's project, which come after those; None for none.
        ttl_days: Days that rows are kept in tables that are made for them; 0 for ever.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        known: Sequence[Migration] | None = None,
        lock: MigrationLock | None = None,
        placement: Placement = ONE_SERVER,
        project: ProjectMigrations | None = None,
        ttl_days: int = 0,
    ) -> None:
        self._server, self._database = server, database
        self.known = read_migrations() if known is None else list(known)
        self.known += project.read() if project else []
        self._project, self._ttl_days = project, ttl_days
        self._placement = placement
        self.lock = lock or MigrationLock(server, database)
        self._name = f"{ddl.quoted(database)}.{ddl.quoted(TABLE)}"

    def look(self, *beside: str, **parameters: Any) -> tuple[list[MigrationState], tuple[Any, ...]]:
        """Return the state of every migration, and the values of further scalar queries in the same round trip.

        Without a history nothing was ever applied: all migrations are pending, and there are no further values.
        """
        history = _ATTEMPTS.format(name=self._name)
        columns = ", ".join(f"({query})" for query in (history, *beside))
        try:
            [(attempts, *values)] = self._server.query(f"SELECT {columns}", **parameters)
        except Refused as error:
            if error.code not in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
                raise
            return compare(self.known, []), ()
        return compare(self.known, [_attempt(one) for one in attempts]), tuple(values)

    def status(self) -> list[MigrationState]:
        """Return the state of every migration; changes nothing."""
        return self.look()[0]

    def up(self) -> list[MigrationState]:
        """Apply all pending migrations under the lock, and return those that were applied.

        Raises:
            Fatal: An applied migration was edited, is missing or is newer than this Headrace; or the server
                refused a statement. The history then names the statement, and the next call starts that file
                over.
            Retriable: The server went away, or another process holds the lock.
        """
        on = self._placement.on
        self._server.command(f"CREATE DATABASE IF NOT EXISTS {ddl.quoted(self._database)}{on}")
        with self.lock.held() as still_mine:
            self._make_history()
            states = self.status()
            refuse(states)
            files = {one.version: one for one in self.known}
            to_do = [one for one in states if one.to_do]
            for one in to_do:
                if one.version >= PROJECT:
                    self._make_tables(still_mine)
                self._apply(files[one.version], still_mine)
        return to_do

    def _make_history(self) -> None:
        for sql in (_HISTORY, _TEXT):
            for statement in self._placement.statements(sql.format(name=self._name)):
                self._server.command(statement)

    def _make_tables(self, still_mine: Callable[[], None]) -> None:
        """Make the raw tables that do not exist yet, once: a migration of a project changes what is there."""
        project, self._project = self._project, None
        tables = project.tables() if project else ()
        if not tables:
            return
        _, found = self.look(*ddl.SHAPES, database=self._database)
        there = ddl.shapes(*found)
        for table in tables:
            if table.name in there:
                continue
            if table.version > 1:
                self._grow(table, still_mine)
                continue
            for statement in self._placement.statements(
                ddl.create_table(self._database, table, self._ttl_days)
            ):
                self._server.command(statement)

    def plan(self, table: Table, states: Sequence[MigrationState], shapes: Mapping[str, ddl.Shape]) -> Growth:
        """Work out what a raw table lacks of its contract; changes nothing.

        Args:
            table: The table.
            states: What ``look`` returned.
            shapes: The shapes of the raw database's tables.
        """
        if table.name not in shapes:
            return created(table, self._ttl_days)
        before = max([1, *_versions(table, states, "applied")])
        parts = dict.fromkeys((self._placement.local(table.name), table.name))
        found = Growth(table.name, table.version)
        for name in parts:
            columns = shapes[name].columns if name in shapes else {}
            found += growth(
                table, columns, before=before, readers=self._readers, together=not self._placement.cluster
            )
        return found

    def _readers(self, table: str, column: str) -> Sequence[str]:
        """Name the views and projections of the server that read a column; asked for few columns."""
        found = self._server.query(_READERS, database=self._database, table=table)
        return readers_of(self._database, [(name, text) for name, text in found])(table, column)

    def grow(self, table: Table) -> list[MigrationState]:
        """Bring a raw table up to its contract, under the lock; returns what was applied, one at most.

        Raises:
            Fatal: Something cannot be done by itself, or the server refused a statement.
            Retriable: The server went away, or another process holds the lock; or a process with a newer contract
                died while it changed the table.
        """
        on = self._placement.on
        self._server.command(f"CREATE DATABASE IF NOT EXISTS {ddl.quoted(self._database)}{on}")
        with self.lock.held() as still_mine:
            self._make_history()
            return self._grow(table, still_mine)

    def _grow(self, table: Table, still_mine: Callable[[], None]) -> list[MigrationState]:
        states, found = self.look(*ddl.SHAPES, database=self._database)
        lacks = self.plan(table, states, ddl.shapes(*found))
        if lacks.refused:
            raise Fatal(lacks.named(self._database).refused[0])
        begun = [one for one in states if one.unfinished and generated_for(one.name)[0] == table.name]
        newer = [one for one in begun if generated_for(one.name)[1] > table.version]
        if lacks and newer:
            raise Retriable(
                f"raw table {self._database}.{table.name} is half way to a newer version of its contract"
                f" ({newer[-1].name} {newer[-1].state}), and this process has version {table.version}:"
                " 'headrace publish' with the newer one ends it"
            )
        if not lacks:
            for one in begun:
                if one not in newer:
                    self._refresh_views(table)
                    self._end(one)
            return []
        number = begun[-1].version if begun else max([GENERATED, *(one.version for one in states)]) + 1
        name = generated_name(number, table.name, table.version)
        self._apply(Migration(number, name, lacks.text), still_mine, lambda: self._refresh_views(table))
        for note in lacks.notes:
            log.warning("%s", note)
        return [MigrationState(number, name, "applied")]

    def _refresh_views(self, table: Table) -> None:
        if made := views.refresh(self._server, self._placement, self._database, table.name):
            log.info("made again over %s.%s: %s", self._database, table.name, ", ".join(made))

    def _end(self, begun: MigrationState) -> None:
        """Note that nothing is left to do of a migration whose process died, or whose contract was taken back."""
        [(text,)] = self._server.query(
            f"SELECT argMax(text, written_at) FROM {self._name} WHERE version = {{version:UInt32}}",
            version=begun.version,
        )
        migration = Migration(begun.version, begun.name, str(text))
        self._note(migration, "applied", 0, datetime.now(UTC))

    def _apply(
        self,
        migration: Migration,
        still_mine: Callable[[], None],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        statements = migration.statements(self._database, self._placement)
        started = datetime.now(UTC)
        self._note(migration, "started", 0, started)
        for number, statement in enumerate(statements, 1):
            try:
                still_mine()
                self._server.command(statement)
            except HeadraceError as error:
                # a server that is away cannot record the failure: the history then keeps "started"
                with suppress(HeadraceError):
                    self._note(migration, "failed", number, started, str(error))
                kind = Retriable if isinstance(error, Retriable) else Fatal
                what = "it" if migration.version >= GENERATED else "this file"
                raise kind(
                    f"migration {migration.name} failed at statement {number} of {len(statements)}: {error};"
                    f" the next 'headrace migrate up' starts {what} over"
                ) from error
        then()
        self._note(migration, "applied", len(statements), started)
        log.info("migrated %s to %s", self._database, migration.name)

    def _note(
        self, migration: Migration, state: str, statement: int, started: datetime, error: str = ""
    ) -> None:
        row = {
            "version": migration.version,
            "name": migration.name,
            "checksum": migration.checksum,
            "state": state,
            "statement": statement,
            "error": error,
            "started_at": started,
            "finished_at": None if state == "started" else datetime.now(UTC),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "headrace_version": version("headrace"),
            "text": migration.text,
        }
        self._server.append(self._database, TABLE, row)


def _versions(table: Table, states: Sequence[MigrationState], state: str) -> Iterator[int]:
    """Yield the versions of its contract to which generated migrations have brought a table."""
    for one in states:
        name, number = generated_for(one.name) if one.version >= GENERATED else ("", 0)
        if name == table.name and one.state == state:
            yield number


def refuse(states: Sequence[MigrationState]) -> None:
    """Raise for the first migration that somebody has to look at.

    Raises:
        Fatal: The migration was edited, its file is gone, or it is newer than this Headrace.
    """
    for one in states:
        if one.refused:
            raise Fatal(one.said)
