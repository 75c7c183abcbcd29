"""Look into a Delta table as people do: the newest rows first, which files there are, what two versions differ in.

Everything here ends: it looks at the files with the newest rows first and stops when it has enough, or when it is told
to. It holds some thousands of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

from headrace.core.batch import ORIGIN_KEY, UTC_MICROS, Table
from headrace.core.errors import Fatal
from headrace.lake.delta import history
from headrace.lake.delta.storage import DeltaStorage
from headrace.lake.layout import conform

#: Most rows that are read at a time.
BATCH_ROWS = 16_384
#: Bytes of a column that are read at a time.
_BUFFER_BYTES = 1 << 18
#: Rows of the files in which two versions differ, up to which the rows are compared.
COMPARED_ROWS = 2_000_000
_NEWEST_FIRST = ["_ingested_at", "_offset", "_index"]


@dataclass(frozen=True, slots=True)
class Newest:
    """The rows that were ingested last.

    Attributes:
        rows: With the columns of ``LakeTable.shape``, the newest first.
        looked_at: Rows that were read.
        matching: Rows of those that were asked for.
        files: Files that were read.
        of_files: Files that may have such rows.
        enough: Whether ``rows`` are the newest for sure; False where the reading was ended before.
    """

    rows: pl.DataFrame
    looked_at: int
    matching: int
    files: int
    of_files: int
    enough: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed from one version to another.

    Attributes:
        files_added: Files that only the later one has.
        files_removed: Files that only the earlier one has.
        days: Rows by day in the earlier and in the later one, where they differ.
        columns: Columns whose types differ, with the earlier and the later one; None where there is no such column.
        rows_added: Rows that only the later one has; None if there are too many files to compare.
        rows_removed: Rows that only the earlier one has; likewise.
        added: Some of the former.
        removed: Some of the latter.
    """

    files_added: int
    files_removed: int
    days: dict[date, tuple[int, int]]
    columns: dict[str, tuple[str | None, str | None]]
    rows_added: int | None
    rows_removed: int | None
    added: pl.DataFrame
    removed: pl.DataFrame


def handle_of(storage: DeltaStorage, version: int | None, moment: datetime | None) -> DeltaTable:
    """Open a version, or the one that has what was known at a moment, or the newest.

    Raises:
        Fatal: Both are given.
        HistoryGone: It can no longer be read.
    """
    if version is not None and moment is not None:
        raise Fatal("a version and a moment exclude each other: give one of them")
    if version is not None:
        return history.at_version(storage, version)
    return storage.newest() if moment is None else history.known_at(storage, moment)


def batches(
    storage: DeltaStorage,
    handle: DeltaTable,
    dataset: ds.FileSystemDataset,
    columns: Sequence[str] | None = None,
    at_once: int = BATCH_ROWS,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of files of a version, as they are read now; no more of a file is held than some of its pages.

    Args:
        storage: The table.
        handle: The version.
        dataset: Files of it.
        columns: Only these columns.
        at_once: Most rows of a frame.
    """
    layout = storage.layout(handle)
    names = [n for n in columns or layout.view.schema.names() if n in layout.view.schema]
    needed = layout.needed(names)
    table = replace(layout.raw, schema=pl.Schema({n: layout.raw.schema[n] for n in needed}))
    typed = [pl.col(n).cast(layout.raw.schema[n]) for n in needed]
    for file in dataset.get_fragments():
        day = ds.get_partition_keys(file.partition_expression).get(table.partition)
        for rows in _rows_of(storage, file.path, table, day, at_once):
            yield pl.DataFrame(pl.from_arrow(rows)).select(typed).select(layout.select(names))


def _rows_of(
    storage: DeltaStorage, path: str, table: Table, day: date | None, at_once: int
) -> Iterator[pa.Table]:
    """Read a file piece by piece: Arrow's datasets decode whole row groups, of up to a million rows here."""
    with storage.opened(path) as source:
        file = pq.ParquetFile(source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        there = [n for n in table.schema if n in file.schema_arrow.names]
        for rows in file.iter_batches(at_once, columns=there):
            yield conform(pa.Table.from_batches([rows]), table, day)


def newest_rows(
    storage: DeltaStorage,
    most: int,
    condition: pl.Expr | None = None,
    *,
    version: int | None = None,
    moment: datetime | None = None,
    days: Collection[date] | None = None,
    over: Callable[[], bool] = lambda: False,
) -> Newest:
    """Find the rows that were ingested last, file by file, those with the newest rows first.

    Args:
        storage: The table.
        most: Rows to find.
        condition: Only rows of which it is true.
        version: As this version has them.
        moment: As they were known then.
        days: Only of these partitions.
        over: Asked between two pieces of a file; once it is true, the reading ends with what it has.

    Raises:
        HistoryGone: What is asked for can no longer be read.
    """
    handle = handle_of(storage, version, moment)
    dataset = storage.dataset(handle, days=days, until=moment)
    if moment is not None:
        known = pl.col("_ingested_at") <= moment
        condition = known if condition is None else known & condition
    files = _by_newest(handle, dataset)
    rows = pl.DataFrame(schema=storage.layout(handle).view.schema)
    looked = matching = read = 0
    for file, newest in files:
        full = rows.height >= most
        if full and newest is not None and newest < rows["_ingested_at"][-1]:
            return Newest(rows, looked, matching, read, len(files), enough=True)
        one = ds.FileSystemDataset([file], dataset.schema, dataset.format, dataset.filesystem)
        for batch in batches(storage, handle, one):
            looked += batch.height
            chosen = batch if condition is None else batch.filter(condition)
            matching += chosen.height
            # a slice would keep the whole batch
            rows = pl.concat([rows, chosen]).sort(_NEWEST_FIRST, descending=True, nulls_last=True).head(most)
            if over():
                return Newest(rows, looked, matching, read, len(files), enough=False)
        read += 1
    return Newest(rows, looked, matching, read, len(files), enough=True)


def _by_newest(
    handle: DeltaTable, dataset: ds.FileSystemDataset
) -> list[tuple[ds.ParquetFileFragment, datetime | None]]:
    """Pair files with the time of their newest row, the newest first; those that do not say come before all."""
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    if not actions.height:
        return []
    said = (
        pl.col("max._ingested_at").cast(UTC_MICROS)
        if "max._ingested_at" in actions.columns
        else pl.lit(None, UTC_MICROS)
    )
    at = {unquote(path): when for path, when in actions.select("path", said).iter_rows()}
    far = datetime.max.replace(tzinfo=UTC)
    paired = [(file, at.get(file.path)) for file in dataset.get_fragments()]
    return sorted(paired, key=lambda pair: pair[1] or far, reverse=True)


def files_of(storage: DeltaStorage, version: int | None = None) -> pl.DataFrame:
    """List the files of a version (default: the newest): ``path``, ``day``, ``rows``, ``bytes``, ``newest``."""
    actions = pl.DataFrame(handle_of(storage, version, None).get_add_actions(flatten=True))
    if not actions.height:
        kinds = (pl.String(), pl.Date(), pl.Int64(), pl.Int64(), UTC_MICROS)
        return pl.DataFrame(schema=dict(zip(("path", "day", "rows", "bytes", "newest"), kinds, strict=True)))
    newest = "max._ingested_at"
    return actions.select(
        pl.col("path"),
        pl.col(f"partition.{storage.table.partition}").alias("day"),
        pl.col("num_records").cast(pl.Int64).alias("rows"),
        pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
        (pl.col(newest).cast(UTC_MICROS) if newest in actions.columns else pl.lit(None, UTC_MICROS)).alias(
            "newest"
        ),
    ).sort("newest", descending=True, nulls_last=True)


def difference(storage: DeltaStorage, before: int, after: int, most: int) -> Difference:
    """Compare two versions: files, days, columns, and rows by where they came from.

    Args:
        storage: The table.
        before: The earlier version.
        after: The later one.
        most: Rows to show of each kind.

    Raises:
        HistoryGone: One of them can no longer be read.
    """
    handles = [history.at_version(storage, version) for version in (before, after)]
    sides = [_Side(storage, handle) for handle in handles]
    only = [sides[0].paths - sides[1].paths, sides[1].paths - sides[0].paths]
    counted = [side.days for side in sides]
    days = {
        day: (counted[0].get(day, 0), counted[1].get(day, 0)) for day in sorted({*counted[0], *counted[1]})
    }
    types = [{f.name: str(f.type.to_json()).strip('"') for f in h.schema().fields} for h in handles]
    columns = {n: (types[0].get(n), types[1].get(n)) for n in {**types[0], **types[1]}}
    none = pl.DataFrame(schema=storage.layout(handles[1]).view.schema)
    numbers: list[int | None] = [None, None]
    shown = [none, none]
    if sum(side.rows(paths) for side, paths in zip(sides, only)) <= COMPARED_ROWS:
        keys = [side.keys(paths) for side, paths in zip(sides, only)]
        for n in (0, 1):
            lone = keys[n].join(keys[1 - n], on=ORIGIN_KEY, how="anti", nulls_equal=True)
            numbers[n] = lone.height
            picked = lone.sort("_ingested_at", descending=True).head(most).select(ORIGIN_KEY)
            shown[n] = sides[n].of(only[n], picked) if picked.height else none
    return Difference(
        files_added=len(only[1]),
        files_removed=len(only[0]),
        days={day: pair for day, pair in days.items() if pair[0] != pair[1]},
        columns={name: pair for name, pair in columns.items() if pair[0] != pair[1]},
        rows_added=numbers[1],
        rows_removed=numbers[0],
        added=shown[1],
        removed=shown[0],
    )


class _Side:
    """One of two versions that are compared."""

    def __init__(self, storage: DeltaStorage, handle: DeltaTable) -> None:
        self._storage, self._handle = storage, handle
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        self._rows = dict(actions.select("path", "num_records").iter_rows()) if actions.height else {}
        self.paths = frozenset(self._rows)
        by = f"partition.{storage.table.partition}"
        grouped = actions.group_by(by).agg(pl.col("num_records").sum()) if actions.height else actions
        self.days: dict[date, int] = dict(grouped.iter_rows())

    def rows(self, paths: frozenset[str]) -> int:
        return int(sum(self._rows[path] for path in paths))

    def keys(self, paths: frozenset[str]) -> pl.DataFrame:
        columns = [*ORIGIN_KEY, "_ingested_at"]
        none = pl.DataFrame(schema={n: self._storage.table.schema[n] for n in columns})
        return pl.concat([none, *self._read(paths, columns)])

    def of(self, paths: frozenset[str], keys: pl.DataFrame) -> pl.DataFrame:
        """Read the rows of some keys."""
        parts = self._read(paths, None)
        found = pl.concat([p.join(keys, on=ORIGIN_KEY, how="semi", nulls_equal=True) for p in parts])
        return found.sort(_NEWEST_FIRST, descending=True, nulls_last=True)

    def _read(self, paths: frozenset[str], columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        wanted, dataset = {unquote(path) for path in paths}, self._storage.dataset(self._handle)
        files = [file for file in dataset.get_fragments() if file.path in wanted]
        chosen = ds.FileSystemDataset(files, dataset.schema, dataset.format, dataset.filesystem)
        yield from batches(self._storage, self._handle, chosen, columns)
