"""Dagster's SQLite event log, with events that come in batches written as batches.

A run over a year of daily partitions reports hundreds of materialisations at once. Dagster hands them to
``store_event_batch``, which its SQLite storage answers with two connections and two synced commits for each; this
one answers with two for all of them. Named in ``dagster.yaml``; batches are on while
``DAGSTER_EVENT_BATCH_SIZE`` is set, which ``headrace.settings`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import AssetMaterialization, DagsterEvent, OpExecutionContext
from dagster._core.events import ASSET_EVENTS, DagsterEventBatchMetadata, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection

_BATCHED = ASSET_EVENTS & {
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_OBSERVATION,
}


class BatchingSqliteEventLogStorage(SqliteEventLogStorage):
    """``SqliteEventLogStorage`` with a ``store_event_batch`` of its own for asset events of one run.

    Args:
        base_dir: ``DAGSTER_HOME``; the files lie where Dagster's default puts them, in ``history/runs``.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(str(Path(base_dir) / "history" / "runs"), inst_data)

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # type: ignore[override]
    ) -> BatchingSqliteEventLogStorage:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
        return cls(config_value["base_dir"], inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store all of them, in order, in one transaction of the run's shard and one of the index."""
        if len({e.run_id for e in events}) != 1 or any(e.dagster_event_type not in _BATCHED for e in events):
            super().store_event_batch(events)
            return
        inserts = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(events[0].run_id) as shard:
            for insert in inserts:
                shard.execute(insert)
        with self.index_connection() as index:
            keys: list[Any] = [index.execute(insert).inserted_primary_key for insert in inserts]
            ids = [key[0] for key in keys]
            self._store_asset_event_tags(index, events, ids)
            latest = {e.get_dagster_event().asset_key: (e, i) for e, i in zip(events, ids, strict=True)}
            for event, event_id in latest.values():
                self._store_asset_event(index, event, event_id)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        """Without a disk sync per commit: with WAL, a power cut then costs the last events, never the file."""
        with super()._connect(shard) as connection:
            connection.exec_driver_sql("PRAGMA synchronous=OFF")
            yield connection


def report_materializations(context: OpExecutionContext, events: Sequence[AssetMaterialization]) -> None:
    """Log materialisations of other assets from within a run, as one batch."""
    step: Any = context.get_step_execution_context()
    batch_id = f"{context.run_id}:{step.step.key}"
    for n, event in enumerate(events):
        DagsterEvent.asset_materialization(
            step, event, DagsterEventBatchMetadata(batch_id, n == len(events) - 1)
        )
