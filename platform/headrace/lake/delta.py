"""The lake on Delta Lake (delta-rs).

Exactly once: each commit carries, as Delta application transactions, the next offset of every cursor that it
moved. A transaction id by itself guards nothing in delta-rs (the same one is accepted twice); what guards is
that a ``_Snapshot`` writes through the very handle that it read the offsets from, so that a commit which
raced on the same cursor is refused (``Concurrent transaction failed``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, UTC_MICROS, Chunk, Position, Table, sent_stamp
from headrace.core.errors import Conflict, Fatal, HistoryGone, Retriable
from headrace.lake.arrow import arrow_schema
from headrace.lake.base import ERASED, Erased, Extent, LakeVersion, Staged
from headrace.lake.chunks import File, chunks
from headrace.lake.durable import ACTIONS, LocalDisk
from headrace.lake.local_log import shorten
from headrace.lake.parquet import StagedFiles, writer_properties
from headrace.lake.rewrite import Rewritten, without

#: A commit that only races with other cursors is retried inside delta-rs this often.
_COMMIT_RETRIES = 30
#: Opening a table reads every commit since the last checkpoint: at delta-rs' default of 100 that is most of what a
#: small commit costs.
_LOG = {
    "delta.checkpointInterval": "20",
    # delta-rs would remove old commits whether they are published or not
    "delta.enableExpiredLogCleanup": "false",
}
#: Marks the commits of erasures in the log.
_ERASURE = "headrace.erasure"
#: Names the micro-batches of a commit, with commas between them.
_BATCHES = "headrace.batch_id"
#: Property of a table that ``fence`` changes.
_MARK = "headrace.mark"
#: What delta-rs says of a commit that another one made impossible, by its cursors or by changing the table itself.
_RACED = ("oncurrent", "changed since last commit")
_ERASING = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.1, max=5),
    reraise=True,
)
#: Files that are smaller may be put together (delta-rs' default is 100 MiB).
_COMPACTED_BYTES = 256 << 20
#: Rows that ``batches`` gives at a time, at most.
_BATCH_ROWS = 16_384
#: Commits that are looked at for notes: a file each.
_NOTES_COMMITS = 500
#: Commits between two looks whether the log can be shortened.
_SHORTENED_EVERY = 100


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did to one table.

    Attributes:
        compacted: Small files whose rows were put together.
        written: Files that they became.
        removed: Old files that are gone from storage.
    """

    compacted: int = 0
    written: int = 0
    removed: int = 0


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """delta-rs' exceptions become ours, once, here."""
    try:
        yield
    except CommitFailedError as error:
        if any(said in str(error) for said in _RACED):
            raise Conflict(f"another writer committed to {uri} first") from error
        raise Retriable(f"the commit to {uri} failed: {error}") from error
    except (DeltaError, OSError) as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise Fatal(f"no space left for {uri}: free some, nothing was lost, then run again") from error
        if "ermission denied" in text or "ead-only file system" in text:
            raise Fatal(f"{uri} is not writable: check its owner, or set HEADRACE_LAKE_URI") from error
        raise Retriable(f"the lake at {uri} fails: {' '.join(text.split())[:400] or repr(error)}") from error


class DeltaLakeTable:
    """One Delta table. Creating the object touches nothing."""

    def __init__(
        self,
        root: str,
        table: Table,
        storage_options: Mapping[str, str] | None = None,
        retry: Callable[[Callable[[], Any]], Any] = lambda call: call(),
        *,
        sync: bool = True,
    ) -> None:
        """Args:
        root: Folder or URI of the lake; the table lives in ``<root>/<table name>``.
        table: Its columns and partition.
        storage_options: As delta-rs takes them; empty for the local disk.
        retry: Makes the calls that open and commit, and may make one again that raised ``Retriable``.
        sync: Whether a commit on the local disk is synced before anybody acts on it.
        """
        self.table = table
        self.uri = f"{root.rstrip('/')}/{table.name}"
        self._options = dict(storage_options or {}) or None
        self._retry = retry
        self._handle: DeltaTable | None = None
        self._shortened_at = 0
        self._disk = None if "://" in self.uri else LocalDisk(Path(self.uri), sync=sync)
        self._repaired = False
        self._writer = writer_properties(table)
        self._schema = Schema.from_arrow(arrow_schema(table))

    def _newest(self) -> DeltaTable:
        """A fresh handle: an old one that is updated grows slower, by some milliseconds in a thousand commits."""
        handle: DeltaTable = self._retry(self._opened_anew)
        return handle

    def _opened_anew(self) -> DeltaTable:
        with _translated(self.uri):
            if self._disk is not None and not self._repaired:
                self._disk.repair()  # a power cut ends all processes, so each looks once
                self._repaired = True
            try:
                return DeltaTable(self.uri, storage_options=self._options)
            except TableNotFoundError:
                return self._created()
            except DeltaError:
                if self._disk is None or not (damage := self._disk.damage()):
                    raise
                raise Fatal(f"{damage}; restore that file, or the table, from a copy") from None

    def _created(self) -> DeltaTable:
        if "://" not in self.uri:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        # another process may be first; if it is something else, the last line says what
        with suppress(DeltaError):
            DeltaTable.create(
                self.uri,
                schema=self._schema,
                partition_by=[self.table.partition],
                mode="error",
                name=self.table.name,
                description=" ".join(self.table.description.split()),
                storage_options=self._options,
                # no personal values in the log, whose old entries outlive an erasure; these are what reads prune by
                configuration={
                    "delta.dataSkippingStatsColumns": ",".join(self._pruned_by()),
                    **_LOG,
                },
            )
        return DeltaTable(self.uri, storage_options=self._options)

    def _pruned_by(self) -> list[str]:
        times = [name for name, dtype in self.table.schema.items() if dtype == UTC_MICROS]
        return [*times, "_cursor", "_offset", "_batch_id"]

    @property
    def id(self) -> str:
        """The table's Delta id."""
        if self._handle is None:
            self._handle = self._newest()
        return str(self._handle.metadata().id)

    def open(self) -> _Snapshot:
        """The newest snapshot."""
        handle = self._newest()
        self._handle = handle
        return _Snapshot(self, handle)

    def sync(self, version: int, /) -> None:
        """Make what is committed up to a version survive a power cut; object storage has by then."""
        if self._disk is not None:
            with _translated(self.uri):
                self._disk.commits(version)

    def set_aside(self) -> list[str]:
        """Torn ends of the log that were set aside after a power cut, by name."""
        return self._disk.set_aside() if self._disk is not None else []

    def stage(self) -> StagedFiles:
        """Parquet in memory."""
        return StagedFiles(self.table, self._pruned_by())

    def _written(self, rows: StagedFiles, handle: DeltaTable) -> list[AddAction]:
        if handle.schema() != self._schema:
            there, wanted = ({f.name: str(f.type) for f in s.fields} for s in (handle.schema(), self._schema))
            other = [name for name in (*wanted, *there) if there.get(name) != wanted.get(name)]
            raise Fatal(
                f"{self.uri} has other columns than its contract: {', '.join(dict.fromkeys(other))}; change the table"
                " with a Delta client, or land in another place (HEADRACE_LAKE_URI)"
            )
        with _translated(self.uri):
            added = rows.write(self._filesystem())
            if self._disk is not None:  # before a commit names them
                self._disk.files([action.path for action in added])
            return added

    def _filesystem(self) -> pafs.FileSystem:
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    def describe(self, version: int, /) -> LakeVersion:
        """Read one commit of the Delta log."""
        commit = self._commit(version)
        actions = [json.loads(line) for line in commit.splitlines() if line]
        files = sorted(self._added(actions), key=lambda f: f.path)
        removed = [a["remove"] for a in actions if "remove" in a and a["remove"]["dataChange"]]
        touched = {f.day for f in files} | {self._day(remove) for remove in removed}
        days = sorted(day for day in touched if day is not None)
        rows = sum(f.rows for f in files)
        said = next((a["commitInfo"].get(_BATCHES) for a in actions if "commitInfo" in a), None)
        batches = tuple(said.split(",")) if isinstance(said, str) and said else ()
        name = hashlib.sha256(commit).hexdigest()[:32]
        return LakeVersion(version, rows, tuple(days), tuple(files), bool(removed), batches, name)

    def _actions(self, version: int) -> list[dict[str, dict[str, Any]]]:
        return [json.loads(line) for line in self._commit(version).splitlines() if line]

    def _commit(self, version: int) -> bytes:
        path = f"_delta_log/{version:020d}.json"
        with _translated(self.uri):
            try:
                with self._filesystem().open_input_stream(path) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                raise HistoryGone(f"version {version} of {self.uri} is no longer in the Delta log") from None

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
        with self._opened(unquote(str(add["path"]))) as source:
            return int(pq.read_metadata(source).num_rows)

    def read(self, added: LakeVersion, /) -> Iterator[Chunk]:
        """Files in path order."""
        yield from chunks(added.files, self.table, self._opened)  # type: ignore[arg-type]

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """The partition's live files as of ``version``."""
        with _translated(self.uri):
            handle = DeltaTable(self.uri, version=version, storage_options=self._options)
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        column = f"partition.{self.table.partition}"
        chosen = actions.filter(pl.col(column) == day).sort("path") if actions.height else actions
        files = [File(unquote(r["path"]), day, r["num_records"]) for r in chosen.iter_rows(named=True)]
        yield from chunks(files, self.table, self._opened)

    @contextmanager
    def _opened(self, path: str) -> Iterator[pa.NativeFile]:
        with _translated(self.uri):
            try:
                source = self._filesystem().open_input_file(path)
            except FileNotFoundError:
                raise HistoryGone(f"{path} of {self.uri} has been removed") from None
            with source:
                yield source

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Rows by partition, from the log's statistics: no data is read."""
        with _translated(self.uri):
            handle = (
                self._newest()
                if version is None
                else DeltaTable(self.uri, version=version, storage_options=self._options)
            )
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if not actions.height:
            return {}
        day = f"partition.{self.table.partition}"
        totals = actions.group_by(day).agg(pl.col("num_records").sum())
        return dict(totals.iter_rows())

    def latest(self) -> datetime | None:
        """When the newest of its rows was ingested, from the log's statistics: no data is read."""
        with _translated(self.uri):
            actions = pl.DataFrame(self._newest().get_add_actions(flatten=True))
        if "max._ingested_at" not in actions.columns:
            return None
        newest = actions["max._ingested_at"].cast(pl.Datetime("us", "UTC")).max()
        assert newest is None or isinstance(newest, datetime)
        return newest

    def extent(self) -> Extent:
        """From the log's statistics: no data is read."""
        with _translated(self.uri):
            actions = pl.DataFrame(self._newest().get_add_actions(flatten=True))
        if not actions.height:
            return Extent()
        return Extent(int(actions["num_records"].sum()), int(actions["size_bytes"].sum()), actions.height)

    def notes(self, name: str, since: datetime, /) -> list[tuple[datetime, str]]:
        """From the commits' custom metadata."""
        with _translated(self.uri):
            commits = self._newest().history(_NOTES_COMMITS)
        found = [
            (datetime.fromtimestamp(c["timestamp"] / 1000, UTC), str(c[name])) for c in commits if name in c
        ]
        return [(at, text) for at, text in found if at >= since]

    def committed_at(self, version: int, /) -> datetime:
        """By the clock of whoever committed."""
        said = next((a["commitInfo"] for a in self._actions(version) if "commitInfo" in a), None)
        if said is None or "timestamp" not in said:
            raise HistoryGone(f"version {version} of {self.uri} does not say when it was committed")
        return datetime.fromtimestamp(said["timestamp"] / 1000, UTC)

    def maintain(
        self, keep: timedelta, keep_log: timedelta, needed_since: datetime | None = None
    ) -> Maintained:
        """Put small files together, remove those that nothing has needed for ``keep``, and shorten the log.

        Rows, positions and what is published stay as they are. Safe beside writers: a day that one of them erases from
        meanwhile is left as it is until the next time. A reader of an old version that takes longer than ``keep``
        finds its files gone; so does a publisher that is further behind, which then takes the newest version whole.

        Args:
            keep: Age up to which files stay that the newest version does not need.
            keep_log: Age up to which versions can be asked for.
            needed_since: When the first version was committed that somebody still has to read: where that is longer ago
                than ``keep_log``, the log stays as it is.

        Raises:
            Fatal: There is no room to put files together; what could be removed has been.
        """
        hours = max(1, round(keep / timedelta(hours=1)))
        done = {"numFilesRemoved": 0, "numFilesAdded": 0}
        with _translated(self.uri):
            handle = self._newest()
            self._keep_log(handle, keep_log)
            needed = self._lacks_room(handle)
            if not needed:
                with suppress(CommitFailedError):  # an erasure was first
                    done = handle.optimize.compact(
                        writer_properties=self._writer,
                        commit_properties=CommitProperties(max_commit_retries=_COMMIT_RETRIES),
                    )
            self.sync(handle.version())  # before what it replaces is removed
            removed = handle.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False)
            handle.create_checkpoint()
            if self._disk is not None:
                self._disk.checkpoint(handle.version())
            if needed_since is None or needed_since > datetime.now(UTC) - keep_log:
                handle.cleanup_metadata()
        if needed:
            raise Fatal(
                f"no space left for {self.uri}: putting its small files together takes up to {needed >> 20:,} MiB; free"
                " some, nothing was lost, then run again"
            )
        return Maintained(done["numFilesRemoved"], done["numFilesAdded"], len(removed))

    def _lacks_room(self, handle: DeltaTable) -> int:
        """Bytes that compaction may write, if a local disk has not that many; else 0.

        Asked beforehand: on a disk that is full, delta-rs' threads panic, with a backtrace on stderr.
        """
        if self._disk is None:
            return 0
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if not actions.height:
            return 0
        day = f"partition.{self.table.partition}"
        small = actions.filter(pl.col("size_bytes") < _COMPACTED_BYTES)
        written = int(small.filter(pl.len().over(day) > 1)["size_bytes"].sum())
        return written if written > shutil.disk_usage(self.uri).free else 0

    def shorten_log(self, needed: int, keep: int) -> None:
        """On the local disk, remove commits from the log that are older than the last ``keep`` and than ``needed``.

        Looks once in a hundred commits. Erasures stay until ``maintain`` finds them old enough, so that what they
        removed can still be found.

        Args:
            needed: First version that somebody still has to read.
            keep: Commits that stay in any case.
        """
        if "://" in self.uri or needed - self._shortened_at < _SHORTENED_EVERY:
            return
        self._shortened_at = needed
        self.sync(needed)
        with _translated(self.uri):
            shorten(Path(self.uri) / "_delta_log", needed, keep, _ERASURE.encode())

    def _keep_log(self, handle: DeltaTable, keep: timedelta) -> None:
        """Say in the table's properties how much its log holds."""
        hours = max(1, round(keep / timedelta(hours=1)))
        wanted = {
            **_LOG,
            "delta.logRetentionDuration": f"interval {hours} hours",
            "delta.dataSkippingStatsColumns": ",".join(self._pruned_by()),
        }
        if wanted.items() - handle.metadata().configuration.items():
            with suppress(CommitFailedError):  # somebody else wrote meanwhile: the next time will do
                handle.alter.set_table_properties(wanted)

    def erase(self, origins: pl.DataFrame, /, tell: Callable[[Erased], object] = lambda done: None) -> Erased:
        """Rewrite the files that hold these rows, commit by commit."""
        ends = pl.struct("_cursor", "_offset", "_message_id").is_first_distinct()
        gone = origins if "ends" in origins.columns else origins.with_columns(ends=ends)
        days = gone["day"].unique().to_list() if "day" in gone.columns else None
        gone, clean = gone.select(*ORIGIN_KEY, "ends").unique(ORIGIN_KEY), set[str]()
        erased = Erased()
        while gone.height:
            for attempt in _ERASING:
                with attempt:
                    done = self._erase_some(gone, days, clean)
            if not done.rows:
                break
            erased = Erased(erased.rows + done.rows, (*erased.versions, *done.versions))
            tell(done)
        self.sync(self._newest().version())  # before the old files are removed
        return replace(erased, files=tuple(self._erased_files()))

    def _erase_some(self, gone: pl.DataFrame, days: Collection[date] | None, clean: set[str]) -> Erased:
        """What one commit took away; nothing without a commit."""
        handle, day = self._newest(), f"partition.{self.table.partition}"
        with _translated(self.uri):
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
            if not actions.height:
                return Erased()
            live = actions.select("path", "size_bytes", pl.col(day).alias("day"), "num_records")
            if days is not None:
                live = live.filter(pl.col("day").is_in(days))
            found = without(live, gone, self.table, self._opened, self.stage(), clean)
            if not found.rows:
                return Erased()
        kept = self._retry(lambda: self._written(found.kept, handle)) if found.kept.height else []
        self._retry(lambda: self._replace(handle, found, kept))
        return Erased(found.rows, versions=(int(handle.version()),))

    def _replace(self, handle: DeltaTable, found: Rewritten, kept: list[AddAction]) -> None:
        """Commit what is kept of the files that are removed.

        delta-rs does not see that a compaction removed one of them first, and both would add their rows. So nothing may
        come between the snapshot, in which they are all live, and the commit; what came is looked at.
        """
        gone = {action.path for action in found.removed}
        for _ in range(_COMMIT_RETRIES):
            with _translated(self.uri):
                live = pl.DataFrame(handle.get_add_actions(flatten=True))
                if not live.height or not gone <= {*live["path"]}:
                    raise Conflict(f"another writer rewrote files of {self.uri} first")
                moves = [
                    Transaction(ERASED + cursor, (handle.transaction_version(ERASED + cursor) or 0) + n)
                    for cursor, n in sorted(found.messages.items())
                ]
            try:
                self._write(handle, [*kept, *found.removed], moves, {_ERASURE: "true"}, retries=0)
            except (Conflict, Retriable) as error:
                if not isinstance(error.__cause__, CommitFailedError):
                    raise
                with _translated(self.uri):
                    handle.update_incremental()
            else:
                with _translated(self.uri):
                    handle.update_incremental()
                return
        raise Conflict(f"others commit to {self.uri} all the time")

    def _write(
        self,
        handle: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        moves: list[Transaction],
        said: Mapping[str, str],
        retries: int = _COMMIT_RETRIES,
    ) -> None:
        with _translated(self.uri):
            named = len(actions) + len(moves)
            handle.create_write_transaction(
                list(actions),
                "append",
                self._schema,
                partition_by=[self.table.partition],
                commit_properties=CommitProperties(
                    app_transactions=moves,
                    custom_metadata={**said, ACTIONS: str(named)},
                    max_commit_retries=retries,
                ),
            )

    def fence(self, mark: str, /) -> None:
        """A change of the table's properties, which no commit from an older snapshot passes."""
        for attempt in _ERASING:
            with attempt, _translated(self.uri):
                self._newest().alter.set_table_properties({_MARK: mark}, raise_if_not_exists=False)

    def exists(self) -> bool:
        """Whether anybody has created it."""

        def look() -> bool:
            with _translated(self.uri):
                return DeltaTable.is_deltatable(self.uri, self._options)

        return bool(self._retry(look))

    def _erased_files(self) -> list[str]:
        """Files that erasures took out of the table and that are still there."""
        handle, filesystem = self._newest(), self._filesystem()
        with _translated(self.uri):
            versions = [c["version"] for c in handle.history() if c.get(_ERASURE)]
        found = []
        for version in versions:
            with suppress(HistoryGone):
                found += [unquote(a["remove"]["path"]) for a in self._actions(version) if "remove" in a]
        with _translated(self.uri):
            return [f.path for f in filesystem.get_file_info(found) if f.type == pafs.FileType.File]

    def forget(self, erased: Erased, /) -> int:
        """Remove them one by one; a vacuum would also take what writers have not committed yet."""
        filesystem = self._filesystem()
        with _translated(self.uri):
            for path in erased.files:
                filesystem.delete_file(path)
        return len(erased.files)

    def scan(self, days: Collection[date] | None = None) -> pl.LazyFrame:
        """The newest version as a lazy frame, for reading beside the protocol (counts, previews).

        Args:
            days: Only these partitions.
        """
        # not pl.scan_delta: it takes the table's URI apart and does not find files below a folder with a space.
        # Filtered by Polars: pyarrow fails to compare strings with those that other writers stored as views.
        return pl.scan_pyarrow_dataset(self._dataset(self._newest(), days=days), allow_pyarrow_filter=False)

    def batches(
        self, days: Collection[date] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pl.DataFrame]:
        """Rows of the newest version, some thousands at a time, in an order of their own.

        Args:
            days: Only these partitions.
            columns: Only these columns.
        """
        names = list(columns or self.table.schema.names())
        dataset = self._dataset(self._newest(), days=days)
        with _translated(self.uri):
            for batch in dataset.to_batches(
                columns=names, batch_size=_BATCH_ROWS, batch_readahead=2, fragment_readahead=1
            ):
                rows = pl.DataFrame(pl.from_arrow(batch))
                yield rows.cast({name: self.table.schema[name] for name in names})  # type: ignore[arg-type]

    def _dataset(
        self,
        handle: DeltaTable,
        sent: _Sent | None = None,
        cursor: str | None = None,
        days: Collection[date] | None = None,
    ) -> ds.FileSystemDataset:
        """The live files of a snapshot, without those that surely hold nothing ``sent`` so late, of ``cursor`` or
        of ``days``.

        Built from the log's columns: delta-rs' own ``to_pyarrow_dataset`` converts the statistics of each column
        of each file to Python, milliseconds a file.
        """
        schema, day = arrow_schema(self.table), self.table.partition
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if sent is not None:
            actions = sent.maybe(actions)
        if cursor is not None and {"min._cursor", "max._cursor"} <= set(actions.columns):
            within = pl.lit(cursor).is_between("min._cursor", "max._cursor")
            actions = actions.filter(within.fill_null(value=True))
        if days is not None and actions.height:
            actions = actions.filter(pl.col(f"partition.{day}").is_in(list(days)))
        parquet, filesystem = ds.ParquetFileFormat(), self._filesystem()
        columns = ["path", f"partition.{day}"] if actions.height else []
        fragments = [
            parquet.make_fragment(
                unquote(path), filesystem, partition_expression=pc.field(day) == pa.scalar(of, pa.date32())
            )
            for path, of in actions.select(columns).iter_rows()
        ]
        return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


@dataclass(frozen=True, slots=True)
class _Sent:
    """What redelivered messages of a queue may be among (see ``Snapshot.origins_of``)."""

    since: datetime
    within: timedelta | None

    def maybe(self, actions: pl.DataFrame) -> pl.DataFrame:
        """Files in the log that may hold rows of messages that were sent since."""
        maybe = pl.lit(value=None, dtype=pl.Boolean)
        if "max._batch_id" in actions.columns:
            maybe = pl.col("max._batch_id") >= sent_stamp(self.since)
        if self.within is not None and "max._ingested_at" in actions.columns:
            # of a file without statistics of its batches
            latest = pl.col("max._ingested_at").cast(pl.Datetime("us", "UTC"))
            now = pl.min_horizontal(pl.lit(min(self.since, datetime.now(UTC))), latest.max())
            maybe = maybe.fill_null(latest >= now - self.within)
        return actions.filter(maybe.fill_null(value=True))


class _Snapshot:
    """See ``headrace.lake.base.Snapshot``."""

    def __init__(self, owner: DeltaLakeTable, handle: DeltaTable) -> None:
        self._owner = owner
        self._handle = handle
        self._offsets: dict[str, int | None] = {}  # asked for before; each question walks the log

    @property
    def version(self) -> int:
        return int(self._handle.version())

    def position(self, cursors: list[str], /) -> Position:
        for cursor in cursors:
            if cursor not in self._offsets:
                self._offsets[cursor] = self._handle.transaction_version(cursor)
        found = {cursor: self._offsets[cursor] for cursor in cursors}
        return Position({cursor: offset for cursor, offset in found.items() if offset is not None})

    def below(self, prefix: str, /) -> Position:
        with _translated(self._owner.uri):
            batches = self._owner._dataset(self._handle).to_batches(columns=["_cursor"])
            found = {str(cursor) for batch in batches for cursor in pc.unique(batch.column(0)).to_pylist()}
        return self.position(sorted(cursor for cursor in found if cursor.startswith(prefix)))

    def rows(self, columns: Sequence[str], days: Collection[date] | None = None) -> pl.DataFrame:
        """Columns of all rows of this snapshot, or of these partitions.

        Raises:
            HistoryGone: An erasure or a vacuum has removed a file of it.
        """
        with _translated(self._owner.uri):
            dataset = self._owner._dataset(self._handle, days=days)
            try:
                return pl.DataFrame(pl.from_arrow(dataset.to_table(columns=list(columns))))
            except FileNotFoundError as error:
                raise HistoryGone(f"{self._owner.uri} was rewritten while it was read: {error}") from None

    def arrived(self, since: datetime) -> int:
        """Rows that were ingested since then. Reads data only of files that hold older ones, too."""
        with _translated(self._owner.uri):
            newer = self._newer(since)
            whole = (pl.col("min._ingested_at") >= since).fill_null(value=False)
            rows = int(newer.filter(whole)["num_records"].sum())
            mixed = self._files(newer.filter(~whole)["path"])
            return rows + int(mixed.count_rows(filter=pc.field("_ingested_at") >= pa.scalar(since)))

    def origins_since(self, since: datetime) -> pl.DataFrame:
        """``ORIGIN_KEY`` of the rows that were ingested since then."""
        with _translated(self._owner.uri):
            files = self._files(self._newer(since)["path"])
            found = files.to_table(columns=ORIGIN_KEY, filter=pc.field("_ingested_at") >= pa.scalar(since))
        return pl.DataFrame(pl.from_arrow(found))

    def _newer(self, since: datetime) -> pl.DataFrame:
        """``path``, ``num_records``, least and greatest ``_ingested_at`` of files that may hold rows since then."""
        actions = pl.DataFrame(self._handle.get_add_actions(flatten=True))
        times = ["min._ingested_at", "max._ingested_at"]
        absent = [name for name in ("path", "num_records", *times) if name not in actions.columns]
        known = actions.with_columns(pl.lit(None).alias(name) for name in absent).with_columns(
            pl.col(times).cast(pl.Datetime("us", "UTC")), pl.col("path").cast(pl.String)
        )
        return known.filter((pl.col("max._ingested_at") >= since).fill_null(value=True))

    def _files(self, paths: pl.Series) -> ds.FileSystemDataset:
        """These files of the snapshot."""
        every, wanted = self._owner._dataset(self._handle), {unquote(path) for path in paths}
        parts = [one for one in every.get_fragments() if one.path in wanted] if wanted else []
        return ds.FileSystemDataset(parts, every.schema, every.format, every.filesystem)

    def origins(self, cursor: str, first: int, end: int, /) -> pl.DataFrame:
        offset = pc.field("_offset")
        return self._found(cursor, (offset >= first) & (offset < end), None, pl.lit(value=True))

    def origins_of(
        self, cursor: str, message_ids: pl.Series, sent: datetime | None, within: timedelta | None, /
    ) -> pl.DataFrame:
        wanted = pl.col("_message_id").is_in(message_ids.implode())
        return self._found(cursor, None, _Sent(sent, within) if sent is not None else None, wanted)

    def _found(
        self, cursor: str, within: pc.Expression | None, sent: _Sent | None, wanted: pl.Expr
    ) -> pl.DataFrame:
        """Rows of a cursor; pyarrow compares numbers and times, and Polars strings, for the reason ``scan`` gives."""
        found = [pl.DataFrame(schema={name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY})]
        with _translated(self._owner.uri):
            dataset = self._owner._dataset(self._handle, sent, cursor)
            for batch in dataset.to_batches(columns=ORIGIN_KEY, filter=within):
                rows = pl.DataFrame(pl.from_arrow(batch))
                found.append(rows.filter((pl.col("_cursor") == cursor) & wanted))
        return pl.concat(found)

    @property
    def mark(self) -> str:
        return str(self._handle.metadata().configuration.get(_MARK, ""))

    def message_ids(self, cursor: str) -> pl.Series:
        """Ids of the messages of a cursor, each once."""
        found = [pl.Series("_message_id", [], pl.String)]
        with _translated(self._owner.uri):
            dataset = self._owner._dataset(self._handle, cursor=cursor)
            for batch in dataset.to_batches(columns=["_cursor", "_message_id"]):
                found.append(
                    pl.DataFrame(pl.from_arrow(batch)).filter(pl.col("_cursor") == cursor)["_message_id"]
                )
        return pl.concat(found).unique()

    def erased(self, cursor: str, /) -> int:
        return self.position([ERASED + cursor]).get(ERASED + cursor, 0)

    def append(
        self,
        rows: pl.DataFrame | Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        owner, before = self._owner, self.version
        moves = [Transaction(cursor, offset) for cursor, offset in sorted(advance.items())]
        staged = owner.stage() if isinstance(rows, pl.DataFrame) else rows
        assert isinstance(staged, StagedFiles)
        if isinstance(rows, pl.DataFrame):
            staged.add(rows)
        added = owner._retry(lambda: owner._written(staged, self._handle)) if staged.height else []

        # a commit that succeeded although it raised is refused when it is made again, and then found to have landed
        owner._retry(lambda: owner._write(self._handle, added, moves, {_BATCHES: batch_id, **(notes or {})}))
        with _translated(owner.uri):
            self._handle.update_incremental()
        owner.sync(self.version)
        # others may have committed before or after
        alone = self.version == before + 1
        self._offsets = {**self._offsets, **advance} if alone else {}
        return self.version
