"""The lake on Delta Lake (delta-rs).

Exactly once: each commit carries, as Delta application transactions, the next offset of every cursor that it
moved. A transaction id by itself guards nothing in delta-rs (the same one is accepted twice); what guards is
that a ``_Snapshot`` writes through the very handle that it read the offsets from, so that a commit which
raced on the same cursor is refused (``Concurrent transaction failed``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from headrace.batch import Position, Table
from headrace.errors import Conflict, Fatal, Retriable
from headrace.lake.arrow import arrow_schema, to_arrow
from headrace.lake.base import LakeVersion

#: Level 1 costs as much time as snappy and saves a third of the bytes (measured on 500k events).
_WRITER = WriterProperties(compression="ZSTD", compression_level=1)
#: A commit that only races with other cursors is retried inside delta-rs this often.
_COMMIT_RETRIES = 30
#: Rows of one chunk: one insert block in the warehouse.
CHUNK_ROWS = 250_000


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    day: date | None
    rows: int


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """delta-rs' exceptions become ours, once, here."""
    try:
        yield
    except CommitFailedError as error:
        if "oncurrent" in str(error):
            raise Conflict(f"another writer committed to {uri} first") from error
        raise Retriable(f"the commit to {uri} failed: {error}") from error
    except (DeltaError, OSError) as error:
        text = str(error)
        if "No space left" in text or "os error 28" in text:
            raise Fatal(f"no space left for {uri}: free some, nothing was lost, then run again") from error
        if "ermission denied" in text or "ead-only file system" in text:
            raise Fatal(f"{uri} is not writable: check its owner, or set HEADRACE_LAKE_URI") from error
        raise Retriable(
            f"the lake at {uri} fails: {text.splitlines()[0][:300] if text else error!r}"
        ) from error


class DeltaLakeTable:
    """One Delta table. Creating the object touches nothing."""

    def __init__(self, root: str, table: Table, storage_options: Mapping[str, str] | None = None) -> None:
        """Args:
        root: Folder or URI of the lake; the table lives in ``<root>/<table name>``.
        table: Its columns and partition.
        storage_options: As delta-rs takes them; empty for the local disk.
        """
        self.table = table
        self.uri = f"{root.rstrip('/')}/{table.name}"
        self._options = dict(storage_options or {}) or None
        self._handle: DeltaTable | None = None

    def _newest(self) -> DeltaTable:
        """A fresh handle: an old one that is updated grows slower with every commit."""
        with _translated(self.uri):
            try:
                return DeltaTable(self.uri, storage_options=self._options)
            except TableNotFoundError:
                return self._created()

    def _created(self) -> DeltaTable:
        if "://" not in self.uri:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        # another process may be first; if it is something else, the last line says what
        with suppress(DeltaError):
            DeltaTable.create(
                self.uri,
                schema=Schema.from_arrow(arrow_schema(self.table)),
                partition_by=[self.table.partition],
                mode="error",
                name=self.table.name,
                description=" ".join(self.table.description.split()),
                storage_options=self._options,
            )
        return DeltaTable(self.uri, storage_options=self._options)

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

    def _filesystem(self) -> pafs.FileSystem:
        return pafs.PyFileSystem(DeltaStorageHandler(self.uri, self._options))

    def describe(self, version: int, /) -> LakeVersion:
        """Read one commit of the Delta log."""
        path = f"_delta_log/{version:020d}.json"
        with _translated(self.uri):
            try:
                with self._filesystem().open_input_stream(path) as stream:
                    actions = [json.loads(line) for line in stream.read().splitlines() if line]
            except FileNotFoundError:
                raise Fatal(
                    f"version {version} of {self.uri} is no longer in the Delta log;"
                    " keep delta.logRetentionDuration longer than the warehouse may be away"
                ) from None
        files = sorted(self._added(actions), key=lambda f: f.path)
        days = sorted({f.day for f in files if f.day is not None})
        return LakeVersion(version, sum(f.rows for f in files), tuple(days), tuple(files))

    def _added(self, actions: list[dict[str, dict[str, object]]]) -> Iterator[_File]:
        for action in actions:
            add = action.get("add")
            if add and add["dataChange"]:
                day = add["partitionValues"].get(self.table.partition)  # type: ignore[attr-defined]
                rows = json.loads(str(add["stats"]))["numRecords"] if add.get("stats") else self._rows(add)
                yield _File(unquote(str(add["path"])), date.fromisoformat(day) if day else None, rows)

    def _rows(self, add: dict[str, object]) -> int:
        with self._filesystem().open_input_file(unquote(str(add["path"]))) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    def read(self, added: LakeVersion, /) -> Iterator[pa.Table]:
        """Whole files in path order, put together to about ``CHUNK_ROWS``; large files by row group."""
        yield from self._chunks(added.files)  # type: ignore[arg-type]

    def read_day(self, day: date, version: int, /) -> Iterator[pa.Table]:
        """The partition's live files as of ``version``."""
        with _translated(self.uri):
            handle = DeltaTable(self.uri, version=version, storage_options=self._options)
            actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        column = f"partition.{self.table.partition}"
        chosen = actions.filter(pl.col(column) == day).sort("path") if actions.height else actions
        files = [_File(unquote(r["path"]), day, r["num_records"]) for r in chosen.iter_rows(named=True)]
        yield from self._chunks(tuple(files))

    def _chunks(self, files: tuple[_File, ...]) -> Iterator[pa.Table]:
        schema = arrow_schema(self.table)
        filesystem = self._filesystem()
        pending: list[pa.Table] = []
        rows = 0
        for file in files:
            for part in self._groups(filesystem, file, schema):
                pending.append(part)
                rows += part.num_rows
                if rows >= CHUNK_ROWS:
                    yield pa.concat_tables(pending)
                    pending, rows = [], 0
        if rows:
            yield pa.concat_tables(pending)

    def _groups(self, filesystem: pafs.FileSystem, file: _File, schema: pa.Schema) -> Iterator[pa.Table]:
        with _translated(self.uri), filesystem.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            for group in range(parquet.num_row_groups):
                part = parquet.read_row_group(group)
                day = pa.repeat(pa.scalar(file.day, pa.date32()), part.num_rows)
                columns = [
                    day if f.name == self.table.partition else part.column(f.name).cast(f.type)
                    for f in schema
                ]
                yield pa.table(columns, schema=schema)

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

    def scan(self) -> pl.LazyFrame:
        """The newest version as a lazy frame, for reading beside the protocol (counts, previews)."""
        # not pl.scan_delta: it takes the table's URI apart and does not find files below a folder with a space
        return pl.scan_pyarrow_dataset(self._dataset(self._newest()))

    def _dataset(
        self, handle: DeltaTable, since: datetime | None = None, cursor: str | None = None
    ) -> ds.FileSystemDataset:
        """The live files of a snapshot, without those that surely hold nothing ingested ``since`` or of ``cursor``.

        Built from the log's columns: delta-rs' own ``to_pyarrow_dataset`` converts the statistics of each column
        of each file to Python, milliseconds a file.
        """
        schema, day = arrow_schema(self.table), self.table.partition
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if since is not None and "max._ingested_at" in actions.columns:
            latest = pl.col("max._ingested_at").cast(pl.Datetime("us", "UTC"))
            actions = actions.filter((latest >= since).fill_null(value=True))
        if cursor is not None and {"min._cursor", "max._cursor"} <= set(actions.columns):
            within = pl.lit(cursor).is_between("min._cursor", "max._cursor")
            actions = actions.filter(within.fill_null(value=True))
        parquet, filesystem = ds.ParquetFileFormat(), self._filesystem()
        columns = ["path", f"partition.{day}"] if actions.height else []
        fragments = [
            parquet.make_fragment(
                unquote(path), filesystem, partition_expression=pc.field(day) == pa.scalar(of, pa.date32())
            )
            for path, of in actions.select(columns).iter_rows()
        ]
        return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


class _Snapshot:
    """See ``headrace.lake.base.Snapshot``."""

    def __init__(self, owner: DeltaLakeTable, handle: DeltaTable) -> None:
        self._owner = owner
        self._handle = handle

    @property
    def version(self) -> int:
        return int(self._handle.version())

    def position(self, cursors: list[str], /) -> Position:
        found = {cursor: self._handle.transaction_version(cursor) for cursor in cursors}
        return Position({cursor: offset for cursor, offset in found.items() if offset is not None})

    def former(self, cursors: list[str], prefix: str, /) -> Position:
        with _translated(self._owner.uri):
            below = pc.starts_with(pc.field("_cursor"), prefix)
            table = self._owner._dataset(self._handle).to_table(columns=["_cursor"], filter=below)
        return self.position(sorted(set(table.column(0).unique().to_pylist()) - set(cursors)))

    def landed_ids(self, cursor: str, message_ids: pl.Series, within: timedelta | None, /) -> pl.Series:
        since = datetime.now(UTC) - within if within is not None else None
        wanted = pa.array(message_ids.to_list(), pa.string())
        with _translated(self._owner.uri):
            wanted_rows = (pc.field("_cursor") == cursor) & pc.field("_message_id").isin(wanted)
            if since is not None:
                wanted_rows &= pc.field("_ingested_at") >= pa.scalar(since, pa.timestamp("us", "UTC"))
            dataset = self._owner._dataset(self._handle, since, cursor)
            found = dataset.to_table(columns=["_message_id"], filter=wanted_rows)
        return pl.Series("message_id", found.column(0).to_pylist(), dtype=pl.String).unique()

    def append(self, rows: pl.DataFrame, advance: Mapping[str, int], batch_id: str, /) -> int:
        moves = [Transaction(cursor, offset) for cursor, offset in sorted(advance.items())]
        with _translated(self._owner.uri):
            write_deltalake(
                self._handle,
                to_arrow(rows, self._owner.table),
                mode="append",
                writer_properties=_WRITER,
                commit_properties=CommitProperties(
                    app_transactions=moves,
                    custom_metadata={"headrace.batch_id": batch_id},
                    max_commit_retries=_COMMIT_RETRIES,
                ),
            )
        return self.version
