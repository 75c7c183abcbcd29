"""Write files of a Delta table again without some of their rows.

delta-rs has a DELETE, too. It stores strings as views, which pyarrow cannot compare, it leaves out the partition's
column (docs/adr/0022), and where the disk is full its threads panic. So files are rewritten like those that are
appended, and delta-rs commits what is added and removed: it refuses that where somebody else removed one of them first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.transaction import RemoveAction

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Table
from headrace.lake.chunks import File, chunks
from headrace.lake.parquet import StagedFiles

#: Rows of the files that are rewritten at once: they wait in memory, as Parquet, for their commit.
_ROWS_AT_ONCE = 4_000_000
_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What one commit is to take away.

    Attributes:
        rows: How many.
        messages: Of how many messages nothing is left then, by cursor.
        removed: The files that held them.
        kept: The other rows of those files.
    """

    rows: int
    messages: dict[str, int]
    removed: list[RemoveAction]
    kept: StagedFiles


def without(
    live: pl.DataFrame,
    gone: pl.DataFrame,
    table: Table,
    opened: Callable[[str], AbstractContextManager[pa.NativeFile]],
    kept: StagedFiles,
    clean: set[str],
) -> Rewritten:
    """Stage what is left of the first files that hold any of these rows.

    Args:
        live: Files of a snapshot, with ``path``, ``size``, ``day`` and ``rows``.
        gone: ``ORIGIN_KEY`` of the rows, and ``ends``: whether nothing is left of the message then.
        table: Their table.
        opened: Opens a file by its path.
        kept: Takes the other rows.
        clean: Paths of files that hold none of them; added to.
    """
    removed: list[RemoveAction] = []
    rows, seen, messages = 0, 0, []
    for path, size, day, height in live.sort("day", "path").iter_rows():
        if path in clean:
            continue
        name = unquote(path)
        with opened(name) as source:
            origins = _frame(pq.read_table(source, columns=ORIGIN_KEY), ORIGIN_KEY).cast(_KEY)  # type: ignore[arg-type]
        hits = origins.join(gone, on=ORIGIN_KEY, how="inner", nulls_equal=True)
        if not hits.height:
            clean.add(path)
            continue
        rows, seen = rows + hits.height, seen + height
        messages.append(hits.filter(pl.col("ends"))["_cursor"])
        now = time.time_ns() // 1_000_000
        removed.append(RemoveAction(path, True, now, size, {table.partition: day and day.isoformat()}))
        for chunk in chunks([File(name, day, height)], table, opened):
            for part in chunk:
                whole = pl.DataFrame(pl.from_arrow(part)).cast(table.schema)  # type: ignore[arg-type]
                kept.add(whole.join(gone, on=ORIGIN_KEY, how="anti", nulls_equal=True, maintain_order="left"))
        if seen >= _ROWS_AT_ONCE:
            break
    counts = pl.concat(messages).value_counts() if messages else pl.DataFrame()
    return Rewritten(rows, dict(counts.iter_rows()), removed, kept)


def _frame(rows: pa.Table, columns: Collection[str]) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows)).select(columns)
