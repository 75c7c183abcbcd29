"""Open a Delta table, write its files, commit to its log, and read log and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction

from headrace.core.batch import UTC_MICROS, Table, sent_stamp
from headrace.core.errors import Conflict, Fatal, HistoryGone, Retriable
from headrace.lake.arrow import arrow_schema
from headrace.lake.delta.durable import ACTIONS, LocalDisk
from headrace.lake.delta.parquet import StagedFiles, writer_properties
from headrace.lake.layout import Layout, layout_of, reading_of, stored

#: How often delta-rs itself retries a commit that races only with other cursors.
COMMIT_RETRIES = 30
#: Properties of every table. Opening a table reads every commit since the last checkpoint; with delta-rs' default
#: interval of 100, that is most of the cost of a small commit.
LOG = {
    "delta.checkpointInterval": "20",
    # otherwise delta-rs removes old commits, whether they are published or not
    "delta.enableExpiredLogCleanup": "false",
}
#: Marks the commits of erasures in the log.
ERASURE = "headrace.erasure"
#: Marks the commits of restores; says the moment.
RESTORE = "headrace.restore"
#: Names the micro-batches of a commit, with commas between them.
BATCHES = "headrace.batch_id"
#: Property of a table that ``fence`` changes.
MARK = "headrace.mark"
#: Property of a table: the description of the contract that changed it last.
CONTRACT = "headrace.contract"
#: Property of a table: how columns are read by those who do not know the contract that added them.
READING = "headrace.columns"
#: Property of a table: its columns whose old files are still to be rewritten, with commas between them.
REWRITING = "headrace.rewriting"
#: Parts of delta-rs' messages for a commit that another one made impossible, by its cursors or a change of the table.
_RACED = ("oncurrent", "changed since last commit")


def property_of(handle: DeltaTable, name: str) -> str:
    """Return a property of a table; empty if it has none."""
    return str(handle.metadata().configuration.get(name) or "")


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Translate delta-rs' exceptions into ours, here and nowhere else."""
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


@dataclass(frozen=True, slots=True)
class SentSince:
    """Selects the files that may hold redelivered messages of a queue (see ``Snapshot.origins_of``).

    Attributes:
        since: When the first of the messages was sent, by the queue's clock.
        within: How long after that a message may be redelivered.
    """

    since: datetime
    within: timedelta | None

    def prune(self, actions: pl.DataFrame) -> pl.DataFrame:
        """Keep the files of the log that may hold rows of messages sent since then."""
        maybe = pl.lit(value=None, dtype=pl.Boolean)
        if "max._batch_id" in actions.columns:
            maybe = pl.col("max._batch_id") >= sent_stamp(self.since)
        if self.within is not None and "max._ingested_at" in actions.columns:
            # for a file without statistics of its batch ids
            latest = pl.col("max._ingested_at").cast(pl.Datetime("us", "UTC"))
            now = pl.min_horizontal(pl.lit(min(self.since, datetime.now(UTC))), latest.max())
            maybe = maybe.fill_null(latest >= now - self.within)
        return actions.filter(maybe.fill_null(value=True))


class DeltaStorage:
    """The files and the log of one Delta table. Creating the object touches nothing.

    Args:
        root: Folder or URI of the lake; the table lives in ``<root>/<table name>``.
        table: Columns and partition of the table.
        storage_options: Options as delta-rs takes them; empty for the local disk.
        retry: Makes the calls that open and commit, and may repeat one that raised ``Retriable``.
        sync: Whether a commit on the local disk is synced before anybody acts on it.
        version_days: For how many days the last version of each day stays readable; 0 for none.
    """

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
        self.table = table
        self.version_days = version_days
        self.uri = f"{root.rstrip('/')}/{table.name}"
        self.options = dict(storage_options or {}) or None
        self.retry = retry
        self.disk = None if "://" in self.uri else LocalDisk(Path(self.uri), sync=sync)
        self._repaired = False
        self.writer = writer_properties(table)
        self.schema = Schema.from_arrow(arrow_schema(table))
        self._handle: DeltaTable | None = None
        self._plain = layout_of(table, stored(arrow_schema(table)), "")
        self._layout: tuple[str, str, Layout] | None = None  # the last one, with what it was made of

    def newest(self) -> DeltaTable:
        """Open a fresh handle.

        A handle that is updated instead grows slower, by some milliseconds in a thousand commits.
        """
        handle: DeltaTable = self.retry(self._opened_anew)
        return handle

    def _opened_anew(self) -> DeltaTable:
        with translated(self.uri):
            if self.disk is not None and not self._repaired:
                self.disk.repair()  # a power cut ends all processes, so one look per process is enough
                self._repaired = True
            try:
                return DeltaTable(self.uri, storage_options=self.options)
            except TableNotFoundError:
                return self._created()
            except DeltaError:
                if self.disk is None or not (damage := self.disk.damage()):
                    raise
                raise Fatal(f"{damage}; restore that file, or the table, from a copy") from None

    def _created(self) -> DeltaTable:
        if "://" not in self.uri:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        # another process may have created it first; the last line raises any other error
        with suppress(DeltaError):
            DeltaTable.create(
                self.uri,
                schema=self.schema,
                partition_by=[self.table.partition],
                mode="error",
                name=self.table.name,
                description=" ".join(self.table.description.split()),
                storage_options=self.options,
                # statistics only of the columns that reads skip files by: the log outlives erasures, so it must
                # hold no personal values
                configuration={
                    "delta.dataSkippingStatsColumns": ",".join(self.pruned_by()),
                    **LOG,
                    **self.recorded(""),
                },
                raise_if_key_not_exists=False,  # of properties that are ours
            )
        return DeltaTable(self.uri, storage_options=self.options)

    def recorded(self, reading: str) -> dict[str, str]:
        """Return the properties that record the contract in the table, which has had this way of reading so far."""
        said = {CONTRACT: self.table.description_json, READING: reading_of(self.table, reading)}
        return {name: text for name, text in said.items() if text}

    def layout(self, handle: DeltaTable) -> Layout:
        """Compare the contract's columns with those of a handle's table; cheap while they stay the same."""
        schema = handle.schema()
        if schema == self.schema and not self.table.renamed and not self.table.fills:
            return self._plain
        made_of = schema.to_json(), property_of(handle, READING)
        if self._layout is None or self._layout[:2] != made_of:
            there = stored(pa.schema(schema.to_arrow()))
            self._layout = *made_of, layout_of(self.table, there, made_of[1])
        return self._layout[2]

    def seen(self) -> Layout:
        """Return the layout of the table as it was opened last; opens it if it never was."""
        if self._handle is None:
            self._handle = self.newest()
        return self.layout(self._handle)

    def pruned_by(self) -> list[str]:
        """Return the columns with statistics in the log, by which reads skip files."""
        times = [name for name, dtype in self.table.schema.items() if dtype == UTC_MICROS]
        return [*times, "_cursor", "_offset", "_batch_id"]

    def sync(self, version: int, /) -> None:
        """Make all commits up to a version survive a power cut; on object storage they do already."""
        if self.disk is not None:
            with translated(self.uri):
                self.disk.commits(version)

    def stage(self) -> StagedFiles:
        """Begin to stage rows as Parquet in memory, in the types of the table as it was opened last."""
        return self.staged(self.seen().own)

    def staged(self, table: Table) -> StagedFiles:
        """Begin to stage rows with these columns."""
        return StagedFiles(table, [name for name in self.pruned_by() if name in table.schema])

    def write_files(self, rows: StagedFiles, handle: DeltaTable) -> list[AddAction]:
        """Write staged rows as files, which no commit names yet, and return the actions that add them.

        Raises:
            Fatal: The table has not followed its contract (``headrace.lake.delta.growth``).
            Conflict: The table was changed after the rows were staged, or they after it was opened.
        """
        layout = self.layout(handle)
        if not layout.takes(rows.table):
            if wrong := [*layout.lacking, *layout.refused]:
                raise Fatal(
                    f"{self.uri} has other columns than its contract: {', '.join(wrong)}; a run that lands changes"
                    " it, if that breaks nobody: see 'headrace contracts check'"
                )
            raise Conflict(f"another process has changed the columns of {self.uri}")
        with translated(self.uri):
            added = rows.write(self.filesystem())
            if self.disk is not None:  # before a commit names them
                self.disk.files([action.path for action in added])
            return added

    def commit(
        self,
        handle: DeltaTable,
        actions: Sequence[AddAction | RemoveAction],
        moves: list[Transaction],
        said: Mapping[str, str],
        retries: int = COMMIT_RETRIES,
    ) -> None:
        """Commit actions and moved cursors through a handle, with notes in the commit's metadata.

        Raises:
            Conflict: Another writer made the commit impossible.
        """
        with translated(self.uri):
            named = len(actions) + len(moves)
            handle.create_write_transaction(
                list(actions),
                "append",
                self.schema,
                partition_by=[self.table.partition],
                commit_properties=CommitProperties(
                    app_transactions=moves,
                    custom_metadata={**said, ACTIONS: str(named)},
                    max_commit_retries=retries,
                ),
            )

    def filesystem(self) -> pafs.FileSystem:
        """Return the file system of the table's folder."""
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self.options))

    @contextmanager
    def opened(self, path: str) -> Iterator[pa.NativeFile]:
        """Open a file of the table by its path.

        Raises:
            HistoryGone: The file was removed.
        """
        with translated(self.uri):
            try:
                source = self.filesystem().open_input_file(path)
            except FileNotFoundError:
                raise HistoryGone(f"{path} of {self.uri} has been removed") from None
            with source:
                yield source

    def actions(self, version: int) -> list[dict[str, dict[str, Any]]]:
        """Return the actions of a commit."""
        return [json.loads(line) for line in self.read_commit(version).splitlines() if line]

    def read_commit(self, version: int) -> bytes:
        """Return the bytes of a commit in the log.

        Raises:
            HistoryGone: The log no longer has it.
        """
        path = f"_delta_log/{version:020d}.json"
        with translated(self.uri):
            try:
                with self.filesystem().open_input_stream(path) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                raise HistoryGone(f"version {version} of {self.uri} is no longer in the Delta log") from None

    def dataset(
        self,
        handle: DeltaTable,
        sent: SentSince | None = None,
        cursor: str | None = None,
        days: Collection[date] | None = None,
        until: datetime | None = None,
    ) -> ds.FileSystemDataset:
        """Return a snapshot's live files, without those that cannot hold rows of ``sent``, ``cursor`` or ``days``.

        Files whose rows were all ingested after ``until`` are left out, too.

        It is built from the log's columns: delta-rs' own ``to_pyarrow_dataset`` converts the statistics of each
        column of each file to Python, which takes milliseconds per file.
        """
        schema, day = arrow_schema(self.layout(handle).raw), self.table.partition
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if sent is not None:
            actions = sent.prune(actions)
        if cursor is not None and {"min._cursor", "max._cursor"} <= set(actions.columns):
            within = pl.lit(cursor).is_between("min._cursor", "max._cursor")
            actions = actions.filter(within.fill_null(value=True))
        if days is not None and actions.height:
            actions = actions.filter(pl.col(f"partition.{day}").is_in(list(days)))
        if until is not None and "min._ingested_at" in actions.columns:
            earliest = pl.col("min._ingested_at").cast(pl.Datetime("us", "UTC"))
            actions = actions.filter((earliest <= until).fill_null(value=True))
        parquet, filesystem = ds.ParquetFileFormat(), self.filesystem()
        columns = ["path", f"partition.{day}"] if actions.height else []
        fragments = [
            parquet.make_fragment(
                unquote(path), filesystem, partition_expression=pc.field(day) == pa.scalar(of, pa.date32())
            )
            for path, of in actions.select(columns).iter_rows()
        ]
        return ds.FileSystemDataset(fragments, schema, parquet, filesystem)
