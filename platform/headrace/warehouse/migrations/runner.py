"""Compare the migrations with the raw database's history, and apply the pending ones once.

The history is the table ``_migrations``, with one row per attempt. The row is written as ``started`` before the
first statement, and again as ``applied`` or ``failed`` after the last. A row that stays ``started`` belongs to
a process that died. Like a failed attempt it starts over, which is safe because every statement can be
repeated.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from headrace.core.errors import Fatal, HeadraceError, Retriable
from headrace.warehouse import ddl
from headrace.warehouse.cluster import ONE_SERVER, Placement
from headrace.warehouse.lock import MigrationLock
from headrace.warehouse.migrations.files import PROJECT, Migration, ProjectMigrations, read_migrations
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
    written_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(written_at)
ORDER BY (version, started_at)
COMMENT 'Migrations of this database, one row per attempt'
"""
#: For each version the attempt that applied it, or else the last attempt; one value, to be selected with others.
_ATTEMPTS = """
    SELECT groupArray((version, name, checksum, state, statement, error, finished_at, headrace_version))
    FROM (SELECT * FROM {name} FINAL ORDER BY version, state = 'applied' DESC, written_at DESC LIMIT 1 BY version)
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
        return self.state in ("pending", "failed", "interrupted")


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
            if attempt.state == "failed" and attempt.statement <= 1:
                continue  # the file was withdrawn before any of its statements had an effect
            found.append(_without_file(attempt, newest))
        elif attempt is None:
            found.append(MigrationState(number, file.name, "pending"))
        else:
            found.append(_with_both(file, attempt))
    return found


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
            for statement in self._placement.statements(_HISTORY.format(name=self._name)):
                self._server.command(statement)
            states = self.status()
            refuse(states)
            files = {one.version: one for one in self.known}
            to_do = [one for one in states if one.to_do]
            for one in to_do:
                if one.version >= PROJECT:
                    self._make_tables()
                self._apply(files[one.version], still_mine)
        return to_do

    def _make_tables(self) -> None:
        """Make the raw tables that do not exist yet, once: a migration of a project changes what is there."""
        project, self._project = self._project, None
        for table in project.tables() if project else ():
            for statement in self._placement.statements(
                ddl.create_table(self._database, table, self._ttl_days)
            ):
                self._server.command(statement)

    def _apply(self, migration: Migration, still_mine: Callable[[], None]) -> None:
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
                raise kind(
                    f"migration {migration.name} failed at statement {number} of {len(statements)}: {error};"
                    " the next 'headrace migrate up' starts this file over"
                ) from error
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
        }
        self._server.append(self._database, TABLE, row)


def refuse(states: Sequence[MigrationState]) -> None:
    """Raise for the first migration that somebody has to look at.

    Raises:
        Fatal: The migration was edited, its file is gone, or it is newer than this Headrace.
    """
    for one in states:
        if one.refused:
            raise Fatal(one.said)
