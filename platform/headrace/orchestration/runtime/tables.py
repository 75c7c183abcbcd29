"""Rows that go from Dagster's own tables, by SQL: they are no public interface, and ``retention.py`` tries them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.storage.event_log import SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetEventTagsTable
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
from dagster._core.storage.schedules.schema import JobTickTable
from sqlalchemy import Column, Table, and_, func, or_, select
from sqlalchemy.engine import Connection

from headrace.orchestration.runtime.trial import require

if TYPE_CHECKING:
    from headrace.orchestration.runtime.retention import Keep

_FINISHED = [
    one.value for one in (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
]
_AT_ONCE = 500
#: Newest ticks of each sensor and schedule, of each outcome: half an hour of skipped ones at the usual interval.
_TICKS = 300
#: Largest SQLite file that is rewritten, once, so that it can shrink from then on; a larger one only reuses its room.
_SMALL_BYTES = 1 << 30


def try_tables(instance: DagsterInstance) -> None:
    """Ask every table for the columns that are used here; changes nothing.

    Raises:
        Exception: A table, a column or a way to them is missing.
    """
    events, checks, tags, ticks = (
        SqlEventLogStorageTable.c,
        AssetCheckExecutionsTable.c,
        AssetEventTagsTable.c,
        JobTickTable.c,
    )
    runs = RunsTable.c
    used = (
        (_runs, (runs.id, runs.run_id, runs.pipeline_name, runs.status, runs.update_timestamp)),
        (_runs, (RunTagsTable.c.run_id,)),
        (_index, (events.id, events.run_id, events.asset_key, events.partition, events.timestamp)),
        (_index, (events.dagster_event_type,)),
        (_index, (checks.id, checks.asset_key, checks.check_name, checks.partition, checks.create_timestamp)),
        (_index, (tags.event_id,)),
        (_ticks, (ticks.id, ticks.selector_id, ticks.status)),
    )
    for connect, columns in used:
        if connect is not _ticks or instance.schedule_storage is not None:
            with connect(instance) as connection:
                connection.execute(select(*columns).limit(1)).all()
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        require(Path(storage.path_for_shard("tried")).name == "tried.db", "the events of a run lie elsewhere")


def old_runs(instance: DagsterInstance, keep: Keep) -> tuple[list[str], list[str]]:
    """List the ids of ended runs that lose their events, and of those that are no longer listed."""
    table = RunsTable.c
    newest = (
        select(table.run_id, table.pipeline_name, table.status, table.update_timestamp)
        .where(table.status.in_(_FINISHED))
        .order_by(table.id.desc())
    )
    quiet: list[str] = []
    unlisted: list[str] = []
    seen: Counter[tuple[str, str]] = Counter()
    with _runs(instance) as connection:
        for run_id, job, status, updated in connection.execute(newest):
            kind = (str(job), str(status))
            seen[kind] += 1
            old = isinstance(updated, datetime) and _utc(updated) < keep.since
            if old or seen[kind] > keep.runs:
                quiet.append(str(run_id))
            if seen[kind] > max(keep.listed, keep.runs):
                unlisted.append(str(run_id))
    return quiet, unlisted


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def forget_events(instance: DagsterInstance, run_id: str) -> bool:
    """Remove events and captured logs of a run; returns whether it still had any."""
    storage: Any = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        shard = Path(storage.path_for_shard(run_id))
        known = shard.exists()
        for suffix in ("", "-wal", "-shm"):
            shard.with_name(shard.name + suffix).unlink(missing_ok=True)
    else:
        events = SqlEventLogStorageTable
        plain = events.delete().where(events.c.run_id == run_id, events.c.asset_key.is_(None))
        with storage.index_connection() as connection:
            known = bool(connection.execute(plain).rowcount)
    if known:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    return known


def forget_history(instance: DagsterInstance, keep: Keep, quiet: Sequence[str]) -> int:
    """Remove events of assets and evaluations of checks beyond the newest, and other events of ``quiet`` runs."""
    events, checks, tags = SqlEventLogStorageTable, AssetCheckExecutionsTable, AssetEventTagsTable
    about = (events.c.asset_key, events.c.partition, events.c.dagster_event_type)
    check = (checks.c.asset_key, checks.c.check_name, checks.c.partition)
    gone = 0
    for some in _portions(quiet):
        with _index(instance) as connection:
            plain = events.delete().where(events.c.run_id.in_(some), events.c.asset_key.is_(None))
            gone += connection.execute(plain).rowcount
    for table, kind, at in ((events, about, events.c.timestamp), (checks, check, checks.c.create_timestamp)):
        with _index(instance) as connection:
            ids = [*connection.execute(_beyond(table, kind, at, keep)).scalars()]
        for some in _portions(ids):
            with _index(instance) as connection:
                if table is events:
                    connection.execute(tags.delete().where(tags.c.event_id.in_(some)))
                gone += connection.execute(table.delete().where(table.c.id.in_(some))).rowcount
    return gone


def _beyond(table: Table, kind: Sequence[Column[Any]], at: Column[Any], keep: Keep) -> Any:
    """Select the ids of rows that are not among the newest of their kind, or are too old."""
    place = func.row_number().over(partition_by=[*kind], order_by=table.c.id.desc()).label("place")
    ranked = select(table.c.id, at.label("at"), place).where(kind[0].is_not(None)).subquery()
    # Dagster's timestamps are UTC without a zone
    old = and_(ranked.c.place > 1, ranked.c.at < keep.since.replace(tzinfo=None))
    return select(ranked.c.id).where(or_(ranked.c.place > keep.history, old))


def forget_runs(instance: DagsterInstance, run_ids: Sequence[str]) -> int:
    """Take runs off the list; returns how many."""
    gone = 0
    for some in _portions(run_ids):
        with _runs(instance) as connection:
            connection.execute(RunTagsTable.delete().where(RunTagsTable.c.run_id.in_(some)))
            gone += connection.execute(RunsTable.delete().where(RunsTable.c.run_id.in_(some))).rowcount
    return gone


def forget_ticks(instance: DagsterInstance) -> int:
    """Remove ticks beyond the newest of each sensor, schedule and outcome; returns how many."""
    if instance.schedule_storage is None:
        return 0
    ticks = JobTickTable
    kind = [ticks.c.selector_id, ticks.c.status]
    place = func.row_number().over(partition_by=kind, order_by=ticks.c.id.desc()).label("place")
    ranked = select(ticks.c.id, place).where(ticks.c.status != "STARTED").subquery()
    gone = 0
    with _ticks(instance) as connection:
        ids = [*connection.execute(select(ranked.c.id).where(ranked.c.place > _TICKS)).scalars()]
    for some in _portions(ids):
        with _ticks(instance) as connection:
            gone += connection.execute(ticks.delete().where(ticks.c.id.in_(some))).rowcount
    return gone


def _portions(ids: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))


def _runs(instance: DagsterInstance) -> AbstractContextManager[Connection]:
    storage: Any = instance.run_storage
    found: AbstractContextManager[Connection] = storage.connect()
    return found


def _index(instance: DagsterInstance) -> AbstractContextManager[Connection]:
    storage: Any = instance.event_log_storage
    found: AbstractContextManager[Connection] = storage.index_connection()
    return found


def _ticks(instance: DagsterInstance) -> AbstractContextManager[Connection]:
    storage: Any = instance.schedule_storage
    found: AbstractContextManager[Connection] = storage.connect()
    return found


def shrink(instance: DagsterInstance) -> None:
    """Give free room in SQLite's files back to the disk."""
    for connect in (_runs, _index, _ticks) if instance.schedule_storage else (_runs, _index):
        with connect(instance) as connection:
            address = connection.engine.url
        if address.get_backend_name() == "sqlite" and address.database and Path(address.database).is_file():
            _shrink_file(Path(address.database))


def _shrink_file(file: Path) -> None:
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:

        def told(statement: str) -> list[tuple[int, ...]]:
            return connection.execute(f"PRAGMA {statement}").fetchall()

        if told("auto_vacuum") == [(0,)] and file.stat().st_size < _SMALL_BYTES:
            told("auto_vacuum=INCREMENTAL")
            connection.execute("VACUUM")
        told("incremental_vacuum")
        told("wal_checkpoint(TRUNCATE)")
