"""Dagster's SQLite storages, with connections that are kept and events that come in batches written as batches.

Dagster's own make a new SQLAlchemy engine for each statement that they run: a new connection, and every statement
compiled again, which is most of what a daemon does all day. Here each database has one engine, and the statements
that it has compiled once.

A run over a year of daily partitions plans and reports thousands of materialisations at once.
Dagster hands them to ``store_event_batch``, which its event log answers with two connections and two synced commits
for each; the one here answers with two for all of them.

What is written again and again is packed, see ``headrace.core.packed``; a run's own database has small pages, because
most of its tables are empty.

The databases of runs, schedules and assets have ``synchronous=NORMAL``: under WAL, SQLite syncs at a checkpoint and not
at each commit, so that a power cut may cost the last events and never the file
(https://www.sqlite.org/pragma.html#pragma_synchronous). A run's own database has ``OFF``: its connections close after
each event, each time with a checkpoint, whose syncs would make an event three times as slow. A power cut may tear it
while the run goes on. The run is then over anyway, and ``code_server.py`` gives it up without its events.

Chosen in ``instance.py``, which ``dagster.yaml`` names, so every process of Dagster has them: code location, daemon,
webserver and runs. Files and schemas are Dagster's own, in their usual places, so that its own storages can take
over: ``instance.py`` chooses them where ``try_storages`` fails. What goes again, and when, is in ``retention.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from dagster import AssetKey, AssetMaterialization, DagsterEvent, DagsterRun
from dagster._core.events import ASSET_EVENTS, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import (
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.schedules.schema import JobTickTable
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Dialect, Engine, Text, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeDecorator

from headrace.config.settings import batch_dagster_events
from headrace.core.packed import packed, unpacked
from headrace.orchestration.runtime.trial import require

_ASSETS = ASSET_EVENTS & {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
}
_CHECK_PLANNED = DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
_BUSY_SECONDS = 60
_SMALL_PAGE = 512
_LARGEST_WAL = 8 << 20


class _Packed(TypeDecorator[str]):
    """A column of text that is packed in SQLite."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        return packed(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else unpacked(value)


def pack_columns() -> None:
    """Have the columns that hold Dagster's JSON packed by whatever storage writes them, in this process.

    Raises:
        AttributeError: A table has not such a column.
        LookupError: A column does not hold text.
    """
    columns = (
        SqlEventLogStorageTable.c.event,
        AssetCheckExecutionsTable.c.evaluation_event,
        RunsTable.c.run_body,
        JobTickTable.c.tick_body,
    )
    for column in columns:
        require(isinstance(column.type, Text | _Packed), f"{column} is {column.type}")
    for column in columns:
        column.type = _Packed()


class _Engines:
    """Hold one engine for each database of this process.

    Runs have a database each, so beyond a few the least recently used engine goes.
    """

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._open: OrderedDict[str, Engine] = OrderedDict()
        self._lock = Lock()

    def __call__(self, address: str, *, keep_connections: bool = True) -> Engine:
        with self._lock:
            engine = self._open.pop(address, None) or _engine(address, keep_connections)
            self._open[address] = engine
            if len(self._open) > self._most:
                self._open.popitem(last=False)[1].dispose()  # what is checked out closes when it comes back
            return engine

    def close(self, below: str) -> None:
        """Close the engines of the databases below a folder."""
        with self._lock:
            for address in [one for one in self._open if below in one]:
                self._open.pop(address).dispose()


def _engine(address: str, keep_connections: bool) -> Engine:
    pool: dict[str, Any] = {"max_overflow": -1} if keep_connections else {"poolclass": NullPool}
    engine = create_engine(address, connect_args={"timeout": _BUSY_SECONDS}, **pool)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA synchronous={'NORMAL' if keep_connections else 'OFF'}")
        # the next two are for files that are made now
        if keep_connections:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # so that upkeep can make them smaller
        else:
            connection.execute(f"PRAGMA page_size={_SMALL_PAGE}")  # a run's: most of its tables are empty
        connection.execute(f"PRAGMA journal_size_limit={_LARGEST_WAL}")

    return engine


_engines = _Engines()


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection, connection.begin():
        yield connection


class KeptSqliteRunStorage(SqliteRunStorage):
    """``SqliteRunStorage`` on one engine; ``base_dir`` is ``DAGSTER_HOME``."""

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # type: ignore[override]
    ) -> KeptSqliteRunStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        return cls.from_local(str(Path(config_value["base_dir"]) / "history"), inst_data)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a transaction."""
        with _transaction(_engines(self._conn_string)) as connection:
            yield connection


class KeptSqliteScheduleStorage(SqliteScheduleStorage):
    """``SqliteScheduleStorage`` on one engine; ``base_dir`` is ``DAGSTER_HOME``."""

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # type: ignore[override]
    ) -> KeptSqliteScheduleStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        made = cls.from_local(str(Path(config_value["base_dir"]) / "schedules"), inst_data)
        assert isinstance(made, cls)  # Dagster annotates the base
        return made

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Open a transaction."""
        with _transaction(_engines(self._conn_string)) as connection:
            yield connection


class OnePlan(SqlEventLogStorage):
    """An event log in which a run plans a check once.

    Dagster plans it for each day of the run's range. A check of ours, and a test of dbt, judges the range as a whole:
    one of these plans would be fulfilled by that evaluation, and the UI would show the others as skipped.
    """

    def _store_asset_check_evaluation_planned(self, event: EventLogEntry, event_id: int | None) -> None:
        with self.index_connection() as index:
            row = _planned(event, self._event_to_row(event), event_id)
            index.execute(AssetCheckExecutionsTable.insert(), [row])


class BatchingSqliteEventLogStorage(OnePlan, SqliteEventLogStorage):
    """``SqliteEventLogStorage`` with a ``store_event_batch`` of its own for asset events of one run.

    Args:
        base_dir: ``DAGSTER_HOME``; the files lie where Dagster's default puts them, in ``history/runs``.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        batch_dagster_events()
        super().__init__(str(Path(base_dir) / "history" / "runs"), inst_data)

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # type: ignore[override]
    ) -> BatchingSqliteEventLogStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        return cls(config_value["base_dir"], inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        """Open a transaction on a run's database or on the index.

        Connections to a run's database are not kept: the UI watches its file, which changes when they close.
        """
        address = self.conn_string_for_shard(shard)
        engine = _engines(address, keep_connections=shard == INDEX_SHARD_NAME)
        with self._db_lock:
            # a run's file goes when it is old, see forget_runs
            gone = shard != INDEX_SHARD_NAME and not Path(self.path_for_shard(shard)).exists()
            if gone or shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with _transaction(engine) as connection:
                yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store them: asset events and planned checks of one run in one transaction of its shard and one of the index.

        Their order is the order given; what a batch holds besides them goes the ordinary way, after them.
        """
        assets = [e for e in events if e.dagster_event_type in _ASSETS]
        planned = [e for e in events if e.dagster_event_type == _CHECK_PLANNED]
        if len({e.run_id for e in events}) != 1 or len(assets) + len(planned) < 2:
            super().store_event_batch(events)
            return
        self._store_together(assets, planned)
        super().store_event_batch(
            [e for e in events if e.dagster_event_type not in {*_ASSETS, _CHECK_PLANNED}]
        )

    def _store_together(self, events: Sequence[EventLogEntry], planned: Sequence[EventLogEntry]) -> None:
        rows = [self._event_to_row(one) for one in (*events, *planned)]
        table = SqlEventLogStorageTable
        with self.run_connection(rows[0]["run_id"]) as shard:
            shard.execute(table.insert(), rows)
        with self.index_connection() as index:
            insert = table.insert().returning(table.c.id, sort_by_parameter_order=True)
            ids: list[int] = list(index.execute(insert, rows).scalars())
            self._store_planned_checks(index, planned, rows[len(events) :], ids[len(events) :])
            ids = ids[: len(events)]
            self._store_asset_event_tags(index, events, ids)
            latest = {
                (e.get_dagster_event().asset_key, e.dagster_event_type): (e, i)
                for e, i in zip(events, ids, strict=True)
            }
            for one, event_id in latest.values():
                self._store_asset_event(index, one, event_id)

    def _store_planned_checks(
        self,
        index: Connection,
        planned: Sequence[EventLogEntry],
        stored: Sequence[Mapping[str, Any]],
        ids: Sequence[int],
    ) -> None:
        rows = [_planned(one, row, event_id) for one, row, event_id in zip(planned, stored, ids, strict=True)]
        if rows:
            index.execute(AssetCheckExecutionsTable.insert(), rows)


def _planned(event: EventLogEntry, row: Mapping[str, Any], event_id: int | None) -> dict[str, Any]:
    """Make the row of a planned check from that of its event."""
    check: Any = event.get_dagster_event().event_specific_data
    return {
        "asset_key": check.asset_key.to_string(),
        "check_name": check.check_name,
        "partition": None,
        "run_id": event.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
    }


def try_storages(folder: str) -> None:
    """Write a run, its events and a planned check by the storages here, and read them by Dagster's own.

    Args:
        folder: An empty one, which the caller removes.

    Raises:
        Exception: Something is not as expected.
    """
    try:
        run = DagsterRun(job_name="tried")
        history = str(Path(folder) / "history")
        KeptSqliteRunStorage.from_local(history).add_run(run)
        read = [one.run_id for one in SqliteRunStorage.from_local(history).get_runs()]
        require(read == [run.run_id], "a run is lost")
        schedules = KeptSqliteScheduleStorage.from_config_value(None, {"base_dir": folder})
        require(schedules.all_instigator_state() == [], "there is a schedule")
        ours = BatchingSqliteEventLogStorage(folder)
        events = [_tried(run, day) for day in ("1", "2")]
        ours.store_event_batch(events)
        stock = SqliteEventLogStorage(str(Path(history) / "runs"))
        require([*stock.get_logs_for_run(run.run_id)] == events, "events are lost")
        require(
            stock.get_materialized_partitions(AssetKey("tried")) == {"1", "2"}, "materialisations are lost"
        )
        stock.dispose()
    finally:
        _engines.close(folder)


def _tried(run: DagsterRun, partition: str) -> EventLogEntry:
    materialization = AssetMaterialization("tried", partition=partition)
    event = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        run.job_name,
        event_specific_data=StepMaterializationData(materialization),
    )
    make: Any = EventLogEntry  # Dagster has no types for it
    entry: EventLogEntry = make(None, 10, "", run.run_id, 0.0, job_name=run.job_name, dagster_event=event)
    return entry
