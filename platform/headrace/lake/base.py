"""What a lake table must be able to do for messages to land exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

import polars as pl
import pyarrow as pa

from headrace.batch import Position, Table


@dataclass(frozen=True, slots=True)
class LakeVersion:
    """One version of a lake table.

    Attributes:
        version: Its number.
        rows: Rows that it added; 0 for commits that change no data (compaction, positions only).
        days: Partitions that it touched.
        files: The added files in a fixed order, opaque to everybody else.
    """

    version: int
    rows: int
    days: tuple[date, ...]
    files: tuple[object, ...]


class Snapshot(Protocol):
    """A table as it was when it was opened.

    Guarantee: ``append`` succeeds only if no other writer has moved any of the same cursors since, so what was
    decided from this snapshot still holds at the commit.
    """

    @property
    def version(self) -> int:
        """Version of the table in this snapshot."""

    def position(self, cursors: list[str], /) -> Position:
        """Next offset of each cursor that has landed anything; a cursor that has not is absent."""

    def former(self, cursors: list[str], prefix: str, /) -> Position:
        """Cursors below ``prefix`` that have landed rows and are not among ``cursors``, with their next offsets."""

    def landed_ids(self, cursor: str, message_ids: pl.Series, within: timedelta | None, /) -> pl.Series:
        """Those of ``message_ids`` whose rows are in the table, and landed ``within`` that time (None: ever)."""

    def append(self, rows: pl.DataFrame, advance: Mapping[str, int], batch_id: str, /) -> int:
        """Add rows and move cursors in one atomic commit; returns the new version.

        ``rows`` may be empty: then only the cursors move.

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

    def describe(self, version: int, /) -> LakeVersion:
        """What ``version`` added.

        Raises:
            Fatal: The log no longer reaches back to it.
        """

    def read(self, added: LakeVersion, /) -> Iterator[pa.Table]:
        """Rows that a version added, in chunks that are the same whenever they are read again."""

    def read_day(self, day: date, version: int, /) -> Iterator[pa.Table]:
        """Rows of one partition as of ``version``."""

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Rows by partition as of ``version`` (default: the newest)."""
