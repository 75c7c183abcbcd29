"""Read the files of a Delta table for the warehouse, chunk by chunk, and each chunk row group by row group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.batch import Chunk, ParquetFile, Table
from headrace.lake.layout import conform, same_columns

#: Fewest rows of a chunk but the last; a chunk is one insert block in the warehouse.
CHUNK_ROWS = 250_000

_PIECE = 1 << 20

#: Opens a file of the table by its path.
Opened = Callable[[str], AbstractContextManager[pa.NativeFile]]


@dataclass(frozen=True, slots=True)
class File:
    """A file in the log.

    Attributes:
        path: Path within the table's folder.
        day: Partition of the file.
        rows: Number of rows.
    """

    path: str
    day: date | None
    rows: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Row groups of a file; None for all of them."""

    file: File
    groups: range | None = None


def chunks(files: Iterable[File], table: Table, opened: Opened) -> Iterator[Chunk]:
    """Group whole files in their order to chunks of about ``CHUNK_ROWS``; a large file is cut between row groups.

    The same files give the same chunks, whenever they are read.
    """
    parts: list[_Part] = []
    rows = 0
    for file in files:
        if rows + file.rows < CHUNK_ROWS:
            parts.append(_Part(file))
            rows += file.rows
            continue
        with opened(file.path) as source:
            metadata = pq.read_metadata(source)
        count, first = metadata.num_row_groups, 0
        for n in range(count):
            rows += metadata.row_group(n).num_rows
            if rows >= CHUNK_ROWS:
                groups = None if n + 1 - first == count else range(first, n + 1)
                yield _chunk(rows, [*parts, _Part(file, groups)], table, opened)
                parts, rows, first = [], 0, n + 1
        if first < count:
            parts.append(_Part(file, range(first, count) if first else None))
    if rows:
        yield _chunk(rows, parts, table, opened)


def _chunk(rows: int, parts: Sequence[_Part], table: Table, opened: Opened) -> Chunk:
    whole = _whole(parts[0].file, table, opened) if len(parts) == 1 and parts[0].groups is None else None
    return Chunk(rows, partial(_read, parts, table, opened), whole, tuple(table.schema))


def _whole(file: File, table: Table, opened: Opened) -> ParquetFile | None:
    """Return a file as it is if it has just the table's columns, and all its rows were ingested on one day.

    Files of other writers, such as those that delta-rs compacts, lack the partition's column. Those of older contracts
    lack others, or have narrower types or nulls that are filled.
    """
    with opened(file.path) as source:
        metadata = pq.read_metadata(source)
    if not same_columns(metadata.schema.to_arrow_schema(), table):
        return None
    days: set[date] = set()
    for n in range(metadata.num_row_groups):
        group = metadata.row_group(n)
        columns = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
        if any(_may_be_null(columns.get(name)) for name in table.fills):
            return None
        ingested = columns["_ingested_at"]
        if ingested.statistics is None or not ingested.statistics.has_min_max:
            return None
        days |= {ingested.statistics.min.date(), ingested.statistics.max.date()}
    return ParquetFile(partial(_pieces, file, opened), days.pop()) if len(days) == 1 else None


def _may_be_null(column: pq.ColumnChunkMetaData | None) -> bool:
    """Tell whether a column has nulls, or does not say; one of lists or structs does not."""
    told = column is not None and column.statistics is not None and column.statistics.has_null_count
    return not told or column.statistics.null_count > 0  # type: ignore[union-attr]


def _pieces(file: File, opened: Opened) -> Iterator[bytes]:
    with opened(file.path) as source:
        while piece := source.read(_PIECE):
            yield piece


def _read(parts: Sequence[_Part], table: Table, opened: Opened) -> Iterator[pa.Table]:
    for part in parts:
        with opened(part.file.path) as source:
            parquet = pq.ParquetFile(source)
            for n in part.groups or range(parquet.num_row_groups):
                yield conform(parquet.read_row_group(n), table, part.file.day)
