"""The interface of a lake table in which every message lands exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

import polars as pl

from headrace.core.batch import Chunk, Position, Table

#: Prefix of a cursor that counts the messages of another one that left nothing, because their person was erased.
ERASED = "headrace.erased/"

#: Prefix of a cursor that counts the messages of another one that left nothing, because their sender sent them again,
#: or has yet to send them again after others (``headrace.core.lanes``).
AGAIN = "headrace.again/"

#: Prefix of a cursor that counts the messages of another one that left something before a restore took it out.
RESTORED = "headrace.restored/"


@dataclass(frozen=True, slots=True)
class LakeVersion:
    """One version of a lake table.

    Attributes:
        version: Number of the version.
        rows: Rows that it added; 0 for commits without data (compaction, positions only).
        days: Partitions that it changed.
        files: The added files in a fixed order, opaque to everybody else.
        rewritten: Whether it also removed rows (an erasure, or a delete by another program). Its added files
            then hold no new rows, and ``days`` are the days whose rows changed.
        batches: Ids of its micro-batches; none if its writer did not record them.
        fingerprint: Fingerprint of its commit. Another commit with the same number has another one.
    """

    version: int
    rows: int
    days: tuple[date, ...]
    files: tuple[object, ...]
    rewritten: bool = False
    batches: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did to one table.

    Attributes:
        rows: Number of rows removed.
        versions: Versions that removed them.
        files: Old files that still hold them, opaque to everybody else.
    """

    rows: int = 0
    versions: tuple[int, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a table.

    Attributes:
        rows: Live rows.
        bytes: Bytes of their files.
        files: Number of files.
    """

    rows: int = 0
    bytes: int = 0
    files: int = 0


class Staged(Protocol):
    """Rows on their way into a table, added part by part. They take little memory, and nobody sees them yet."""

    @property
    def height(self) -> int:
        """Number of rows so far."""

    def add(self, rows: pl.DataFrame, /) -> None:
        """Add rows with the table's columns."""


class Snapshot(Protocol):
    """A table as it was when it was opened, or after the last append through this snapshot.

    Guarantee: ``append`` succeeds only if no other writer has moved any of the same cursors since. So a
    decision made from this snapshot still holds at the commit.
    """

    @property
    def version(self) -> int:
        """Version of the table in this snapshot."""

    @property
    def mark(self) -> str:
        """Mark of the last ``fence``; empty if there was none."""

    @property
    def described(self) -> str:
        """Description of the contract that changed the table last; empty if none is recorded."""

    @property
    def columns(self) -> pl.Schema:
        """Columns of the table, of whatever contract, with their dtypes."""

    @property
    def view(self) -> Table:
        """Columns of the table as they are read; see ``LakeTable.shape``."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns of the table that its contract does not name, now or earlier."""

    @property
    def behind(self) -> tuple[str, ...]:
        """Columns of the contract that the table lacks or has in a narrower type."""

    def grow(self) -> None:
        """Give the table the columns and types of its contract, and record its description.

        Rows that are there stay as they are. What was opened before is refused from then on. The snapshot is at the
        newest version afterwards: positions that were asked for before may have moved.

        Raises:
            Conflict: Another process changed the table first.
            Fatal: A column has a type that does not widen to the contract's.
        """

    def position(self, cursors: list[str], /) -> Position:
        """Return the next offset of each cursor; a cursor from which nothing has landed is absent."""

    def below(self, prefix: str, /) -> Position:
        """Return the cursors with landed rows whose names begin with ``prefix``, with their next offsets."""

    def origins(self, cursor: str, first: int, end: int, /) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of a cursor's rows with offsets from ``first`` to below ``end``."""

    def origins_of(
        self, cursor: str, message_ids: pl.Series, sent: datetime | None, within: timedelta | None, /
    ) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of the rows of these messages, whenever they landed.

        Args:
            cursor: Cursor of the queue.
            message_ids: Ids of the messages to find.
            sent: When the first of them was sent, by the queue's clock. Batches whose messages were all sent
                before are skipped (``headrace.core.batch.new_batch_id``). None searches everything.
            within: How long after that a message may be redelivered. Only for rows that Headrace wrote before
                2026-12: their batch ids do not say when the messages were sent, so the time of landing decides.
        """

    def origins_sent(self, message_ids: pl.Series, /) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of the rows of messages that their senders number, from whatever cursor they came."""

    def sent_again(self, cursor: str, /) -> int:
        """Return how many messages of a cursor have left nothing because their sender sends them again."""

    def erased(self, cursor: str, /) -> int:
        """Return how many messages of a cursor have left nothing in this table because their person was erased."""

    def append(
        self,
        rows: pl.DataFrame | Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        """Add rows and move cursors in one atomic commit; the snapshot then has the returned version.

        Rows have the contract's columns. Where the table has more they are null, and it may have wider types.

        Then the commit survives a power cut, unless the lake is configured not to sync.

        Args:
            rows: A frame, or rows that the table has staged; no rows move only the cursors.
            advance: Next offset of each cursor that moves.
            batch_id: Recorded with the commit.
            notes: Texts by name, recorded with the commit; see ``LakeTable.notes``.

        Raises:
            Conflict: Another writer moved one of the cursors first, or the columns changed; nothing was added.
            Fatal: The storage refuses (full, not writable), or the table lacks columns of its contract.
        """


class LakeTable(Protocol):
    """An append-only table, partitioned by day."""

    table: Table

    @property
    def id(self) -> str:
        """Identity of this incarnation of the table: a recreated table has another one."""

    def open(self) -> Snapshot:
        """Open the newest snapshot; creates the table if it is missing."""

    def sync(self, version: int, /) -> None:
        """Make all commits up to a version survive a power cut.

        ``Snapshot.append`` has done so for its own commit. Call this before acting on the commits of other
        writers.
        """

    def stage(self) -> Staged:
        """Begin to stage rows of several micro-batches for one commit."""

    def describe(self, version: int, /) -> LakeVersion:
        """Describe what a version added.

        Raises:
            HistoryGone: The log no longer reaches back to it.
        """

    def read(self, added: LakeVersion, /) -> Iterator[Chunk]:
        """Read the rows that a version added, in chunks that are the same at every reading.

        They have the columns of ``shape``: the first value that is not null of a column's present and earlier names,
        widened, or else what rows of before have.

        Raises:
            HistoryGone: Its files were removed; may also be raised while a chunk is read.
        """

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """Read the rows of one partition as of ``version``, with the columns of ``shape``."""

    def shape(self) -> Table:
        """Return the columns of the newest version as they are read.

        They are the contract's, in the table's types where these are wider, and then those that only newer contracts
        name.
        """

    def erase(self, origins: pl.DataFrame, /, tell: Callable[[Erased], object] = ...) -> Erased:
        """Delete rows, commit by commit.

        Other writers lose nothing, and an erasure that was interrupted may start again. ``open`` shows the
        table without the rows at once. Their bytes stay in old files until ``forget``. The result also lists
        the old files of an earlier erasure that was not finished.

        Args:
            origins: ``ORIGIN_KEY`` of the rows. If it has ``day``, their partitions, no other day is searched.
                If ``ends`` is true, the row's message leaves nothing behind: the same commit adds one to
                ``erased`` of its cursor. Without that column, every message is taken to leave nothing behind.
            tell: Called with the result of each commit.
        """

    def forget(self, erased: Erased, /) -> int:
        """Remove the old files of an erasure from storage, and with them the versions before it.

        Returns:
            Number of files removed.
        """

    def fence(self, mark: str, /) -> None:
        """Refuse every commit from snapshots that are open now; later snapshots have this ``mark``."""

    def exists(self) -> bool:
        """Tell whether the table exists; ``open`` would create it."""

    def latest(self) -> datetime | None:
        """Return when the newest row was ingested (UTC); None if there never was one or nothing tells."""

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Count rows by partition as of ``version`` (default: the newest)."""

    def extent(self) -> Extent:
        """Return the size of the newest version."""

    def notes(self, name: str, since: datetime, /) -> list[tuple[datetime, str]]:
        """Return the notes of commits under a name since a moment, with their times (UTC), newest first.

        Reaches back some hundred commits at most.
        """

    def committed_at(self, version: int, /) -> datetime:
        """Return when ``version`` was committed (UTC).

        Raises:
            HistoryGone: The log no longer reaches back to it.
        """
