"""What a lake table must be able to do for messages to land exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

import polars as pl

from headrace.core.batch import Chunk, Position, Table

#: Before the name of a cursor: how many of its messages left nothing, because the person was erased.
ERASED = "headrace.erased/"


@dataclass(frozen=True, slots=True)
class LakeVersion:
    """One version of a lake table.

    Attributes:
        version: Its number.
        rows: Rows that it added; 0 for commits that change no data (compaction, positions only).
        days: Partitions that it touched.
        files: The added files in a fixed order, opaque to everybody else.
        rewritten: Whether it took rows away too (an erasure, a delete by somebody else): then what it added are
            not new rows, and ``days`` are those whose rows it changed.
        batches: Ids of the micro-batches that it holds; none where its writer did not say.
        fingerprint: Of its commit: another commit of the same number has another one.
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
        rows: Rows that are no longer there.
        versions: Versions without them.
        files: Old files that still hold them, opaque to everybody else.
    """

    rows: int = 0
    versions: tuple[int, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """How large a table is.

    Attributes:
        rows: Live rows.
        bytes: Of their files.
        files: Number of files.
    """

    rows: int = 0
    bytes: int = 0
    files: int = 0


class Staged(Protocol):
    """Rows on their way into a table, handed over part by part: they take little memory, and nobody sees them."""

    @property
    def height(self) -> int:
        """Rows so far."""

    def add(self, rows: pl.DataFrame, /) -> None:
        """Take more rows of the table's columns."""


class Snapshot(Protocol):
    """A table as it was when it was opened, or written through.

    Guarantee: ``append`` succeeds only if no other writer has moved any of the same cursors since, so what was
    decided from this snapshot still holds at the commit.
    """

    @property
    def version(self) -> int:
        """Version of the table in this snapshot."""

    @property
    def mark(self) -> str:
        """What the last ``fence`` said; empty if there was none."""

    def position(self, cursors: list[str], /) -> Position:
        """Next offset of each cursor that has landed anything; a cursor that has not is absent."""

    def below(self, prefix: str, /) -> Position:
        """Cursors whose names begin with ``prefix`` and that have landed rows, with their next offsets."""

    def origins(self, cursor: str, first: int, end: int, /) -> pl.DataFrame:
        """``ORIGIN_KEY`` of the rows of a cursor with offsets from ``first`` to below ``end``."""

    def origins_of(
        self, cursor: str, message_ids: pl.Series, sent: datetime | None, within: timedelta | None, /
    ) -> pl.DataFrame:
        """``ORIGIN_KEY`` of the rows of these messages, whatever the clock said when they landed.

        Args:
            cursor: Of the queue.
            message_ids: What to look for.
            sent: When the first of them was sent, by the queue's clock: what was sent wholly before is passed over
                (``headrace.core.batch.new_batch_id``). None looks at everything.
            within: How long after that a message may come again. Only for rows of Headrace before 2026-12, whose batch
                ids do not say when they were sent; those go by the clock at their landing.
        """

    def erased(self, cursor: str, /) -> int:
        """Messages of a cursor of which nothing is left because their person was erased, by the count of this table."""

    def append(
        self,
        rows: pl.DataFrame | Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        """Add rows and move cursors in one atomic commit; the snapshot is then of the version returned.

        What it holds survives a power cut then, unless the lake is told not to care.

        Args:
            rows: Those of a frame, or what the table has staged; none at all move only the cursors.
            advance: Next offset of each cursor that moves.
            batch_id: Kept with the commit.
            notes: Texts by name, kept with the commit too: see ``LakeTable.notes``.

        Raises:
            Conflict: Another writer moved one of the cursors first; nothing was added.
            Fatal: The storage refuses (full, not writable).
        """


class LakeTable(Protocol):
    """An append-only table, partitioned by day."""

    table: Table

    @property
    def id(self) -> str:
        """Identity of this incarnation of the table: a recreated one has another."""

    def open(self) -> Snapshot:
        """The newest snapshot; creates the table if it is missing."""

    def sync(self, version: int, /) -> None:
        """Make what is committed up to a version survive a power cut; ``Snapshot.append`` has done so for its own.

        For whoever acts on what another writer has committed.
        """

    def stage(self) -> Staged:
        """For rows of several micro-batches that one commit is to add."""

    def describe(self, version: int, /) -> LakeVersion:
        """What ``version`` added.

        Raises:
            HistoryGone: The log no longer reaches back to it.
        """

    def read(self, added: LakeVersion, /) -> Iterator[Chunk]:
        """Rows that a version added, in chunks that are the same whenever they are read again.

        Raises:
            HistoryGone: Its files have been removed; also while a chunk is read.
        """

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """Rows of one partition as of ``version``."""

    def erase(self, origins: pl.DataFrame, /, tell: Callable[[Erased], object] = ...) -> Erased:
        """Delete rows, commit by commit; other writers lose nothing, and who breaks off may begin again.

        ``open`` shows the table without them at once. Their bytes stay in old files until ``forget``; those of an
        earlier erasure that was not finished are among the result's files.

        Args:
            origins: ``ORIGIN_KEY`` of the rows. With ``day``, their partitions, no other day is looked at. Where
                ``ends`` is true, nothing is left of the message then: the same commit adds one to what ``erased`` says
                of its cursor. Without that column, nothing is taken to be left of any of the messages.
            tell: Called with what each commit took away.
        """

    def forget(self, erased: Erased, /) -> int:
        """Remove the old files of an erasure from storage; returns how many. Versions before it are gone then."""

    def fence(self, mark: str, /) -> None:
        """Refuse every commit of snapshots that are open now; those opened afterwards have this ``mark``."""

    def exists(self) -> bool:
        """Whether the table is there; ``open`` would create it."""

    def latest(self) -> datetime | None:
        """When the newest of its rows was ingested (UTC); None if it never held any or that cannot be told."""

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Rows by partition as of ``version`` (default: the newest)."""

    def extent(self) -> Extent:
        """Size of the newest version."""

    def notes(self, name: str, since: datetime, /) -> list[tuple[datetime, str]]:
        """What commits ``since`` then noted under a name, the newest first, each with its time (UTC).

        Reaches back some hundred commits at most.
        """

    def committed_at(self, version: int, /) -> datetime:
        """When ``version`` was committed (UTC).

        Raises:
            HistoryGone: The log no longer reaches back to it.
        """
