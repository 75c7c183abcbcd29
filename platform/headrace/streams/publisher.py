"""Publish a stream's lake tables to the warehouse, one process at a time.

The warehouse's own lease keeps processes apart, on whatever machines. Those of one machine queue at a file lock first,
which costs the server nothing; nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import date

from headrace.config.settings import Settings
from headrace.core.locks import file_lock
from headrace.flow.commit import StreamLake
from headrace.flow.publish import Published, publish, replace_days
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse.clickhouse import ClickHouse

#: A version that is half published belongs to another publisher for so long, s.
_HALF_IN_SECONDS = 3.0


class Publisher:
    """Bring both warehouse tables of a stream up to its lake. For one thread."""

    def __init__(self, lake: StreamLake[DeltaLakeTable], warehouse: ClickHouse, settings: Settings) -> None:
        """Publish nothing yet.

        Args:
            lake: The stream's two tables.
            warehouse: Where they go.
            settings: Where locks are, how much of the log stays.
        """
        self._lake, self._warehouse, self._settings = lake, warehouse, settings
        #: Tables whose tokens the warehouse has kept since this process published.
        self._sure: set[str] = set()
        #: First version of each table that this process has not published.
        self._ends: dict[str, int] = {}

    def publish(self) -> Published:
        """Publish every new version; returns what became of the good rows.

        Raises:
            Retriable: Warehouse or lake are away.
            Busy: Another process has been publishing for too long; nothing is published beside it.
        """
        self._publish(self._lake.rejected)
        return self._publish(self._lake.good)

    def _publish(self, table: DeltaLakeTable) -> Published:
        name = table.table.name
        unsure = name not in self._sure
        # until it ends well: a warehouse that went away may come back without its tokens
        self._sure.discard(name)
        done = publish(
            table,
            self._warehouse,
            alone=self._alone(table),
            unsure=unsure,
            settle_seconds=_HALF_IN_SECONDS,
            surely_from=self._ends.get(name, 0),
        )
        self._sure.add(name)
        self._ends[name] = done.end
        if (
            self._settings.lake_log_commits
        ):  # checks compare lake and warehouse as of the last published version
            table.shorten_log(done.end - 1, self._settings.lake_log_commits)
        return done

    def replace_days(self, days: Iterable[date]) -> Iterator[tuple[date, int]]:
        """Rebuild days of the warehouse table from the lake, one after the other; yields each with its rows.

        Others may publish between two days, so that a long backfill does not hold up what lands meanwhile.
        """
        for day in days:
            done = replace_days(self._lake.good, self._warehouse, [day], alone=self._alone(self._lake.good))
            yield day, done[day]

    def _alone(self, table: DeltaLakeTable) -> AbstractContextManager[None]:
        name = table.table.name
        lock = self._settings.home / "locks" / f"warehouse-{name}.lock"
        return file_lock(lock, f"publishing {name}", self._settings.lock_patience)
