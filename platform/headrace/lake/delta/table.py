"""A lake table on Delta Lake (delta-rs).

Exactly once: each commit carries the next offset of every cursor that it moved, as Delta application
transactions. A transaction id by itself guards nothing in delta-rs, which accepts the same id twice. The guard
is the handle: a ``DeltaSnapshot`` writes through the very handle from which it read the offsets. So delta-rs
refuses a commit that raced on the same cursor (``Concurrent transaction failed``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable

from headrace.core.batch import Chunk, Table
from headrace.lake.base import Erased, Extent, LakeVersion
from headrace.lake.delta import browse, erasure, history, kept_erasure, maintenance, versions
from headrace.lake.delta.chunks import File, chunks
from headrace.lake.delta.local_log import shorten
from headrace.lake.delta.rewriting import REPLACING
from headrace.lake.delta.snapshot import DeltaSnapshot
from headrace.lake.delta.storage import BATCHES, ERASURE, MARK, RESTORE, DeltaStorage, translated

#: Commits that are searched for notes, which reads a file each.
_NOTES_COMMITS = 500
#: Commits between two attempts to shorten the log.
_SHORTENED_EVERY = 100


class DeltaLakeTable(DeltaStorage):
    """One Delta table. Creating the object touches nothing. See ``DeltaStorage`` for the arguments."""

    def __init__(
        self,
        root: str,
        table: Table,
        storage_options: Mapping[str, str] | None = None,
        retry: Callable[[Callable[[], Any]], Any] = lambda call: call(),
        *,
        sync: bool = True,
        version_days: int = 30,
    ) -> None:
        super().__init__(root, table, storage_options, retry, sync=sync, version_days=version_days)
        self._shortened_at = 0

    @property
    def id(self) -> str:
        """The table's Delta id."""
        if self._handle is None:
            self._handle = self.newest()
        return str(self._handle.metadata().id)

    def open(self) -> DeltaSnapshot:
        """Open the newest snapshot."""
        handle = self.newest()
        self._handle = handle
        return DeltaSnapshot(self, handle)

    def set_aside(self) -> list[str]:
        """List the torn ends of the log that were set aside after a power cut, by name."""
        return self.disk.set_aside() if self.disk is not None else []

    def describe(self, version: int, /) -> LakeVersion:
        """Read one commit of the Delta log."""
        commit = self.read_commit(version)
        actions = [json.loads(line) for line in commit.splitlines() if line]
        files = sorted(self._added(actions), key=lambda f: f.path)
        removed = [a["remove"] for a in actions if "remove" in a and a["remove"]["dataChange"]]
        touched = {f.day for f in files} | {self._day(remove) for remove in removed}
        days = sorted(day for day in touched if day is not None)
        rows = sum(f.rows for f in files)
        said = next((a["commitInfo"].get(BATCHES) for a in actions if "commitInfo" in a), None)
        batches = tuple(said.split(",")) if isinstance(said, str) and said else ()
        # a restore may only put rows back: they are no new ones
        rewritten = bool(removed) or any(RESTORE in a.get("commitInfo", ()) for a in actions)
        name = hashlib.sha256(commit).hexdigest()[:32]
        return LakeVersion(version, rows, tuple(days), tuple(files), rewritten, batches, name)

    def _day(self, action: Mapping[str, Any]) -> date | None:
        day = action["partitionValues"].get(self.table.partition)
        return date.fromisoformat(day) if day else None

    def _added(self, actions: list[dict[str, dict[str, Any]]]) -> Iterator[File]:
        for action in actions:
            add = action.get("add")
            if add and add["dataChange"]:
                rows = json.loads(str(add["stats"]))["numRecords"] if add.get("stats") else self._rows(add)
                yield File(unquote(str(add["path"])), self._day(add), rows)

    def _rows(self, add: dict[str, Any]) -> int:
        with self.opened(unquote(str(add["path"]))) as source:
            return int(pq.read_metadata(source).num_rows)

    def read(self, added: LakeVersion, /) -> Iterator[Chunk]:
        """Read the added files in the order of their paths."""
        yield from chunks(added.files, self.seen().view, self.opened)  # type: ignore[arg-type]

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """Read the partition's live files as of ``version``."""
        with translated(self.uri):
            handle = DeltaTable(self.uri, version=version, storage_options=self.options)
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        column = f"partition.{self.table.partition}"
        chosen = actions.filter(pl.col(column) == day).sort("path") if actions.height else actions
        files = [File(unquote(r["path"]), day, r["num_records"]) for r in chosen.iter_rows(named=True)]
        yield from chunks(files, self.seen().view, self.opened)

    def shape(self) -> Table:
        """Return the columns of the newest version, as they are read."""
        self._handle = self.newest()
        return self.seen().view

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Count rows by partition from the log's statistics; reads no data."""
        with translated(self.uri):
            handle = (
                self.newest()
                if version is None
                else DeltaTable(self.uri, version=version, storage_options=self.options)
            )
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if not actions.height:
            return {}
        day = f"partition.{self.table.partition}"
        totals = actions.group_by(day).agg(pl.col("num_records").sum())
        return dict(totals.iter_rows())

    def latest(self) -> datetime | None:
        """Return when the newest row was ingested, from the log's statistics; reads no data."""
        with translated(self.uri):
            actions = pl.DataFrame(self.newest().get_add_actions(flatten=True))
        if "max._ingested_at" not in actions.columns:
            return None
        newest = actions["max._ingested_at"].cast(pl.Datetime("us", "UTC")).max()
        assert newest is None or isinstance(newest, datetime)
        return newest

    def extent(self) -> Extent:
        """Return the size from the log's statistics; reads no data."""
        with translated(self.uri):
            actions = pl.DataFrame(self.newest().get_add_actions(flatten=True))
        if not actions.height:
            return Extent()
        return Extent(int(actions["num_records"].sum()), int(actions["size_bytes"].sum()), actions.height)

    def notes(self, name: str, since: datetime, /) -> list[tuple[datetime, str]]:
        """Read notes from the custom metadata of commits."""
        with translated(self.uri):
            commits = self.newest().history(_NOTES_COMMITS)
        found = [
            (datetime.fromtimestamp(c["timestamp"] / 1000, UTC), str(c[name])) for c in commits if name in c
        ]
        return [(at, text) for at, text in found if at >= since]

    def committed_at(self, version: int, /) -> datetime:
        """Return when a version was committed, by the committer's clock."""
        return history.committed_at(self, version)

    def maintain(
        self, keep: timedelta, keep_log: timedelta, needed_since: datetime | None = None
    ) -> maintenance.Maintained:
        """Compact small files, remove old ones and shorten the log; see ``maintenance.maintain``."""
        return maintenance.maintain(self, keep, keep_log, needed_since)

    def shorten_log(self, needed: int, keep: int) -> None:
        """Remove commits older than the last ``keep`` and than ``needed`` from the log of a local table.

        Looks once in a hundred commits. Erasures stay until ``maintain`` finds them old enough, so that the
        files they removed can still be found.

        Args:
            needed: First version that somebody still has to read.
            keep: Commits that stay in any case.
        """
        if "://" in self.uri or needed - self._shortened_at < _SHORTENED_EVERY:
            return
        self._shortened_at = needed
        self.sync(needed)
        with translated(self.uri):
            log = Path(self.uri) / "_delta_log"
            shorten(log, needed, keep, ERASURE.encode(), lambda begin: history.keep_before(self, begin))

    def erase(self, origins: pl.DataFrame, /, tell: Callable[[Erased], object] = lambda done: None) -> Erased:
        """Rewrite the files that hold these rows, commit by commit."""
        return erasure.erase(self, origins, tell)

    def scan_kept(self) -> pl.LazyFrame:
        """Return the rows of files that only versions kept by the day name; rows may be there several times."""
        return kept_erasure.scan_kept(self)

    def forget(self, erased: Erased, /) -> int:
        """Remove the old files of an erasure from storage."""
        return erasure.forget(self, erased)

    def fence(self, mark: str, /) -> None:
        """Change a property of the table, which no commit from an older snapshot passes."""
        for attempt in REPLACING:
            with attempt, translated(self.uri):
                self.newest().alter.set_table_properties({MARK: mark}, raise_if_not_exists=False)

    def exists(self) -> bool:
        """Tell whether anybody has created the table."""

        def look() -> bool:
            with translated(self.uri):
                return DeltaTable.is_deltatable(self.uri, self.options)

        return bool(self.retry(look))

    def versions(self, most: int = 20) -> versions.Versions:
        """List the newest versions, ``most`` of them, and all that are kept; see ``versions.versions``."""
        return versions.versions(self, most)

    def at(self, version: int) -> pl.LazyFrame:
        """Return a version as a lazy frame.

        Raises:
            HistoryGone: It can no longer be read.
        """
        return self.scan(handle=history.at_version(self, version))

    def as_of(self, moment: datetime) -> pl.LazyFrame:
        """Return the rows as they were known at a moment, however long ago, as a lazy frame.

        A row is known from its ``_ingested_at`` on. Rows of people who were erased since are not there.

        Args:
            moment: With its time zone.

        Raises:
            HistoryGone: The table was restored since, and what it held at that moment is no longer kept.
        """
        rows = self.scan(handle=history.known_at(self, moment), until=moment)
        return rows.filter(pl.col("_ingested_at") <= moment.astimezone(UTC))

    def scan(
        self,
        days: Collection[date] | None = None,
        handle: DeltaTable | None = None,
        until: datetime | None = None,
    ) -> pl.LazyFrame:
        """Return a version as a lazy frame, for reading beside the protocol (counts, previews).

        Args:
            days: Only these partitions.
            handle: The version; None for the newest.
            until: Leaves out files whose rows were all ingested later.
        """
        # not pl.scan_delta: it splits the table's URI, and finds no files below a folder with a space in its name.
        handle = handle or self.newest()
        return history.scan(self, handle, self.dataset(handle, days=days, until=until))

    def batches(
        self, days: Collection[date] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of the newest version, some thousands at a time, in no particular order.

        Args:
            days: Only these partitions.
            columns: Only these columns.
        """
        handle = self.newest()
        names = list(columns or self.table.schema.names())
        yield from browse.batches(self, handle, self.dataset(handle, days=days), names)

    def batches_of(
        self,
        columns: Sequence[str] | None = None,
        *,
        version: int | None = None,
        moment: datetime | None = None,
        days: Collection[date] | None = None,
        at_once: int = browse.BATCH_ROWS,
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a version, or those known at a moment, some thousands at a time, in no particular order.

        Args:
            columns: Only these columns; None for all of ``shape``.
            version: The version; None for the newest.
            moment: With its time zone.
            days: Only these partitions.
            at_once: Most rows of a frame.

        Raises:
            HistoryGone: What is asked for can no longer be read.
        """
        handle = browse.handle_of(self, version, moment)
        every = None if columns is None else list(dict.fromkeys([*columns, "_ingested_at"]))
        dataset = self.dataset(handle, days=days, until=moment)
        for rows in browse.batches(self, handle, dataset, every, at_once):
            known = rows if moment is None else rows.filter(pl.col("_ingested_at") <= moment)
            yield known if columns is None else known.select(columns)
