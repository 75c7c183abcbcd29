"""A Delta table at one version: it knows what has landed, and its ``append`` fails if another writer came first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, timedelta
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, Transaction

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Position, Table
from headrace.core.errors import HistoryGone
from headrace.lake.base import AGAIN, ERASED, RESTORED, Staged
from headrace.lake.delta import growth
from headrace.lake.delta.history import RESTORES, before_restores
from headrace.lake.delta.mixed import by_types
from headrace.lake.delta.parquet import StagedFiles
from headrace.lake.delta.storage import (
    BATCHES,
    CONTRACT,
    MARK,
    DeltaStorage,
    SentSince,
    property_of,
    translated,
)


class DeltaSnapshot:
    """A Delta handle, for reading offsets and for writing. See ``headrace.lake.base.Snapshot``."""

    def __init__(self, owner: DeltaStorage, handle: DeltaTable) -> None:
        self._owner = owner
        self._handle = handle
        self._offsets: dict[str, int | None] = {}  # a cache: each look-up walks the log

    @property
    def version(self) -> int:
        """Version of the table in this snapshot."""
        return int(self._handle.version())

    def position(self, cursors: list[str], /) -> Position:
        """Return the next offset of each cursor, from the log's application transactions."""
        for cursor in cursors:
            if cursor not in self._offsets:
                self._offsets[cursor] = self._handle.transaction_version(cursor)
        found = {cursor: self._offsets[cursor] for cursor in cursors}
        return Position({cursor: offset for cursor, offset in found.items() if offset is not None})

    def below(self, prefix: str, /) -> Position:
        """Return the cursors with rows whose names begin with ``prefix``, with their next offsets."""
        with translated(self._owner.uri):
            batches = self._owner.dataset(self._handle).to_batches(columns=["_cursor"])
            found = {str(cursor) for batch in batches for cursor in pc.unique(batch.column(0)).to_pylist()}
        return self.position(sorted(cursor for cursor in found if cursor.startswith(prefix)))

    def rows(self, columns: Sequence[str], days: Collection[date] | None = None) -> pl.DataFrame:
        """Return columns of all rows of this snapshot, or of these partitions.

        Raises:
            HistoryGone: An erasure or a vacuum has removed one of its files.
        """
        with translated(self._owner.uri):
            dataset, layout = self._owner.dataset(self._handle, days=days), self._owner.layout(self._handle)
            needed, parts = layout.needed(columns), by_types(self._handle, dataset)
            plain = layout.simple and parts[0].schema == dataset.schema and len(parts) == 1
            wanted = list(columns) if plain else layout.select(columns)
            try:
                return pl.concat(
                    pl.DataFrame(pl.from_arrow(part.to_table(columns=needed))).select(wanted)
                    for part in parts
                )
            except FileNotFoundError as error:
                raise HistoryGone(f"{self._owner.uri} was rewritten while it was read: {error}") from None

    def arrived(self, since: datetime) -> int:
        """Count the rows that were ingested since a moment; reads data only of files that also hold older rows."""
        with translated(self._owner.uri):
            newer = self._newer(since)
            whole = (pl.col("min._ingested_at") >= since).fill_null(value=False)
            rows = int(newer.filter(whole)["num_records"].sum())
            mixed = self._files(newer.filter(~whole)["path"])
            return rows + int(mixed.count_rows(filter=pc.field("_ingested_at") >= pa.scalar(since)))

    def origins_since(self, since: datetime) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of the rows that were ingested since a moment."""
        with translated(self._owner.uri):
            files = self._files(self._newer(since)["path"])
            found = files.to_table(columns=ORIGIN_KEY, filter=pc.field("_ingested_at") >= pa.scalar(since))
        return pl.DataFrame(pl.from_arrow(found))

    def _newer(self, since: datetime) -> pl.DataFrame:
        """Return the files that may hold rows ingested since a moment.

        Returns:
            Columns ``path``, ``num_records``, smallest and largest ``_ingested_at``.
        """
        actions = pl.DataFrame(self._handle.get_add_actions(flatten=True))
        times = ["min._ingested_at", "max._ingested_at"]
        absent = [name for name in ("path", "num_records", *times) if name not in actions.columns]
        known = actions.with_columns(pl.lit(None).alias(name) for name in absent).with_columns(
            pl.col(times).cast(pl.Datetime("us", "UTC")), pl.col("path").cast(pl.String)
        )
        return known.filter((pl.col("max._ingested_at") >= since).fill_null(value=True))

    def _files(self, paths: pl.Series) -> ds.FileSystemDataset:
        """Return these files of the snapshot as a dataset."""
        every, wanted = self._owner.dataset(self._handle), {unquote(path) for path in paths}
        parts = [one for one in every.get_fragments() if one.path in wanted] if wanted else []
        return ds.FileSystemDataset(parts, every.schema, every.format, every.filesystem)

    def origins(self, cursor: str, first: int, end: int, /) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of a cursor's rows with offsets from ``first`` to below ``end``."""
        offset = pc.field("_offset")
        return self._found(cursor, (offset >= first) & (offset < end), None, pl.lit(value=True))

    def origins_of(
        self, cursor: str, message_ids: pl.Series, sent: datetime | None, within: timedelta | None, /
    ) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of the rows of these messages."""
        wanted = pl.col("_message_id").is_in(message_ids.implode())
        since = SentSince(sent, within) if sent is not None else None
        found = [self._found(cursor, None, since, wanted)]
        # a queue may hand out again what a restore took out; a redrive (without a window) may land it again
        for before in before_restores(self._owner, self._handle) if within is not None else ():
            found.append(self._found(cursor, None, since, wanted, before))
        return pl.concat(found)

    def origins_sent(self, message_ids: pl.Series, /) -> pl.DataFrame:
        """Return ``ORIGIN_KEY`` of the rows of messages; looks through all files."""
        return self._found(None, None, None, pl.col("_message_id").is_in(message_ids.implode()))

    def _found(
        self,
        cursor: str | None,
        within: pc.Expression | None,
        sent: SentSince | None,
        wanted: pl.Expr,
        handle: DeltaTable | None = None,
    ) -> pl.DataFrame:
        """Find rows of a cursor; None searches all cursors.

        pyarrow compares numbers and times; Polars compares strings, for the reason given in
        ``DeltaLakeTable.scan``.
        """
        found = [pl.DataFrame(schema={name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY})]
        with translated(self._owner.uri):
            dataset = self._owner.dataset(handle or self._handle, sent, cursor)
            for batch in dataset.to_batches(columns=ORIGIN_KEY, filter=within):
                rows = pl.DataFrame(pl.from_arrow(batch))
                of_cursor = pl.lit(value=True) if cursor is None else pl.col("_cursor") == cursor
                found.append(rows.filter(of_cursor & wanted))
        return pl.concat(found)

    @property
    def mark(self) -> str:
        """Mark of the last ``fence``; empty if there was none."""
        return str(self._handle.metadata().configuration.get(MARK, ""))

    @property
    def described(self) -> str:
        """Description of the contract that changed the table last; empty if none is recorded."""
        return property_of(self._handle, CONTRACT)

    @property
    def columns(self) -> pl.Schema:
        """Columns of the table, with their dtypes."""
        return self._owner.layout(self._handle).kept.schema

    @property
    def view(self) -> Table:
        """Columns of the table as they are read."""
        return self._owner.layout(self._handle).view

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns of the table that its contract does not name, now or earlier."""
        layout = self._owner.layout(self._handle)
        return tuple(name for name in layout.view.schema if name not in layout.own.schema)

    @property
    def behind(self) -> tuple[str, ...]:
        """Columns of the contract that the table lacks or has in a narrower type."""
        return self._owner.layout(self._handle).lacking

    def grow(self) -> None:
        """Give the table the columns and types of its contract, and record it."""
        self._offsets = {}  # the snapshot is then at a later version
        growth.grow(self._owner, self._handle)

    def message_ids(self, cursor: str) -> pl.Series:
        """Return the ids of a cursor's messages, each once."""
        found = [pl.Series("_message_id", [], pl.String)]
        with translated(self._owner.uri):
            dataset = self._owner.dataset(self._handle, cursor=cursor)
            for batch in dataset.to_batches(columns=["_cursor", "_message_id"]):
                found.append(
                    pl.DataFrame(pl.from_arrow(batch)).filter(pl.col("_cursor") == cursor)["_message_id"]
                )
        return pl.concat(found).unique()

    def sent_again(self, cursor: str, /) -> int:
        """Return how many messages of a cursor have left nothing because their sender sends them again."""
        return self.position([AGAIN + cursor]).get(AGAIN + cursor, 0)

    def erased(self, cursor: str, /) -> int:
        """Return how many messages of a cursor have left nothing because their person was erased."""
        return self.position([ERASED + cursor]).get(ERASED + cursor, 0)

    def restored(self, cursor: str) -> int:
        """Return how many messages of a cursor leave nothing in this table because a restore took them out."""
        if RESTORES not in self._handle.metadata().configuration:
            return 0
        return self.position([RESTORED + cursor]).get(RESTORED + cursor, 0)

    def append(
        self,
        rows: pl.DataFrame | Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        """Write the rows as files and commit them through this snapshot's handle."""
        owner, before = self._owner, self.version
        moves = [Transaction(cursor, offset) for cursor, offset in sorted(advance.items())]
        staged = owner.stage() if isinstance(rows, pl.DataFrame) else rows
        assert isinstance(staged, StagedFiles)
        if isinstance(rows, pl.DataFrame):
            staged.add(rows)
        added = owner.retry(lambda: owner.write_files(staged, self._handle)) if staged.height else []

        # if a commit raised although it succeeded, its repetition is refused, and the rows are found to have landed
        owner.retry(lambda: owner.commit(self._handle, added, moves, {BATCHES: batch_id, **(notes or {})}))
        with translated(owner.uri):
            self._handle.update_incremental()
        owner.sync(self.version)
        # if others committed meanwhile, they may have moved other cursors
        alone = self.version == before + 1
        self._offsets = {**self._offsets, **advance} if alone else {}
        return self.version
