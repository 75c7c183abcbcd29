"""What a warehouse must be able to do for rows to arrive in it exactly once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from headrace.core.batch import Chunk, Table


@dataclass(frozen=True, slots=True)
class Publication:
    """One lake version that is in the warehouse.

    Attributes:
        lake_id: Id of the lake table, so that a recreated lake starts anew instead of being skipped.
        version: Version of the lake table.
        rows: Rows that the version added.
        days: Partitions that it touched.
        landed_days: UTC days of ``_ingested_at`` of the rows that it added.
        fingerprint: Of its commit in the lake's log (``LakeVersion``); empty where that was not noted yet.
        epoch: How often this lake has come back with another history, as after a restore.
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
        latest: When the last of them was.
    """

    day: date
    since: datetime
    latest: datetime


class Warehouse(Protocol):
    """Raw tables with idempotent inserts.

    Guarantee: ``insert`` with the token of an earlier, complete or partial, insert of the same rows adds only
    what is missing. ``replace_partition`` is atomic for readers.
    """

    def prepare(self, table: Table, /) -> None:
        """Make the table ready to be published to: migrated, there, and with the columns of its contract.

        Raises:
            Fatal: A person has to look at the migrations or at the table first.
        """

    def published(self, table: Table, lake_id: str, /) -> Publication | None:
        """Last lake version that is wholly in the warehouse, of the last epoch; None if there is none.

        Only ``lake_id``, ``version``, ``fingerprint`` and ``epoch`` of it.
        """

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        """Add rows once per token.

        Raises:
            Retriable: The warehouse is away or overloaded.
            Fatal: It refuses the rows.
        """

    def record(self, table: Table, publication: Publication, /) -> None:
        """Note that a version is wholly in; recording twice is a no-op."""

    def holds(self, table: Table, batches: Collection[str], days: Collection[date], /) -> bool:
        """Whether any row of these micro-batches is there, on these days."""

    def restarted_since(self, moment: datetime, /) -> bool:
        """Whether it may have lost tokens that it had seen before a moment (UTC): it has begun anew."""

    def replace_partition(self, table: Table, day: date, chunks: Iterable[Chunk], /) -> int:
        """Swap one day's partition for ``chunks``; returns the rows of the day afterwards."""

    def stale_days(self, table: Table, lake_id: str, /, *, by_landing: bool = False) -> list[StaleDay]:
        """Days with rows that were published after their models were last built.

        Args:
            table: The raw table.
            lake_id: Id of its lake table.
            by_landing: Days on which the rows landed, for models in processing time, instead of their partitions.
        """

    def refreshed(
        self, table: Table, lake_id: str, version: int, days: Iterable[date], began_at: datetime, /
    ) -> None:
        """Note that the models of ``days`` were built from ``version`` or later.

        Args:
            table: The raw table that they read.
            lake_id: Id of its lake table.
            version: The published version just after ``began_at``.
            days: Days whose models were built.
            began_at: When the build began (UTC): rows that were published later may be in it or not.
        """

    def ever_refreshed(self, table: Table, lake_id: str, /) -> bool:
        """Whether models of the table were built at least once."""

    def counts_by_day(self, table: Table, /) -> dict[date, int]:
        """Rows by partition."""

    def close(self) -> None:
        """Release connections."""
