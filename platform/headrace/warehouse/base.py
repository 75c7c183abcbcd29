"""The interface of a warehouse that receives every row exactly once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from headrace.core.batch import Chunk, Table


@dataclass(frozen=True, slots=True)
class Publication:
    """One lake version that the warehouse holds completely.

    Attributes:
        lake_id: Id of the lake table. A recreated lake has another id and is published from its beginning.
        version: Version of the lake table.
        rows: Rows that the version added.
        days: Partitions that the version changed.
        landed_days: UTC days of ``_ingested_at`` of the rows that the version added.
        fingerprint: Fingerprint of the version's commit in the lake's log (``LakeVersion``); empty in records
            written before it was noted.
        epoch: How often this lake has come back with another history, for example after a restore.
    """

    lake_id: str
    version: int
    rows: int
    days: tuple[date, ...]
    landed_days: tuple[date, ...] = ()
    fingerprint: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class StaleDay:
    """A day whose models are older than its rows.

    Attributes:
        day: The partition.
        since: When the first of the newer rows was published (UTC).
        latest: When the last of the newer rows was published (UTC).
    """

    day: date
    since: datetime
    latest: datetime


@dataclass(frozen=True, slots=True)
class Builds:
    """What was built from a raw table.

    Attributes:
        count: Builds of models.
        days: Days whose models were built at least once.
        latest: When the last build ended (UTC); None if there was none.
    """

    count: int = 0
    days: int = 0
    latest: datetime | None = None


class Warehouse(Protocol):
    """Raw tables with idempotent inserts.

    Guarantee: a repeated ``insert`` with the same token and rows adds only the rows that are missing, whether
    the earlier insert was complete or partial. ``replace_partition`` is atomic for readers.
    """

    def prepare(self, table: Table, /) -> None:
        """Migrate the database and check that the table exists with every column of its contract.

        Raises:
            Fatal: Somebody has to look at the migrations or at the table first.
        """

    def expect(self, rows: Table, /) -> None:
        """Check that a prepared table takes rows of these columns and types, of whatever version of its contract.

        Raises:
            Retriable: Values would be changed on their way; a newer contract has to change the table first.
        """

    def published(self, table: Table, lake_id: str, /) -> Publication | None:
        """Return the last version of a lake that the warehouse holds completely, in its last epoch.

        Returns:
            A publication with ``lake_id``, ``version``, ``fingerprint`` and ``epoch`` alone; None if there is
                none.
        """

    def lease(self, table: Table, lake_id: str, /) -> AbstractContextManager[Publication | None]:
        """Be the only one who changes a table, on whatever machine; yields what ``published`` says then.

        Within it, ``insert``, ``record`` and ``replace_partition`` of the table change nothing once another process
        has taken over, however long this one was frozen. It may be taken again within itself.

        Raises:
            Busy: Another process has held it for too long.
            Retriable: The warehouse is away.
        """

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        """Add rows once per token.

        Raises:
            Retriable: The warehouse is away or overloaded, or the lease was lost.
            Fatal: The warehouse refuses the rows.
        """

    def record(self, table: Table, publication: Publication, /) -> None:
        """Record that the warehouse holds a version completely; recording it twice is a no-op."""

    def holds(self, table: Table, batches: Collection[str], days: Collection[date], /) -> bool:
        """Tell whether any row of these micro-batches exists on these days."""

    def restarted_since(self, moment: datetime, /) -> bool:
        """Tell whether a restart since a moment (UTC) may have cost the warehouse its tokens."""

    def replace_partition(self, table: Table, day: date, chunks: Iterable[Chunk], /) -> int:
        """Swap one day's partition for ``chunks``; return the day's rows afterwards."""

    def stale_days(self, table: Table, lake_id: str, /, *, by_landing: bool = False) -> list[StaleDay]:
        """List the days with rows that were published after their models were last built.

        Args:
            table: The raw table.
            lake_id: Id of its lake table.
            by_landing: Return the days on which the rows landed, for models in processing time, instead of
                their partitions.
        """

    def refreshed(
        self, table: Table, lake_id: str, version: int, days: Iterable[date], began_at: datetime, /
    ) -> None:
        """Record that the models of ``days`` were built from ``version`` or a later one.

        Args:
            table: The raw table that the models read.
            lake_id: Id of its lake table.
            version: The published version just after ``began_at``.
            days: Days whose models were built.
            began_at: When the build began (UTC). The models may or may not contain rows that were published
                later.
        """

    def ever_refreshed(self, table: Table, lake_id: str, /) -> bool:
        """Tell whether the models of a table were ever built."""

    def builds(self, table: Table, lake_id: str, /) -> Builds:
        """Count the builds of the models of a table, whatever epoch they were in."""

    def counts_by_day(self, table: Table, /) -> dict[date, int]:
        """Count rows by partition."""

    def close(self) -> None:
        """Release connections."""
