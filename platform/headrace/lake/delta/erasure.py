"""Delete rows from a Delta table by rewriting the files that hold them.

delta-rs has a DELETE, too. It stores strings as views, which pyarrow cannot compare. It leaves out the
partition's column (docs/adr/0022), and on a full disk its threads panic. So files are rewritten here like those
that are appended, and delta-rs commits what is added and removed. It refuses the commit if another writer
removed one of the files first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import date
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable, Transaction
from deltalake.transaction import RemoveAction

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Table
from headrace.core.errors import HistoryGone
from headrace.lake.base import ERASED, Erased
from headrace.lake.delta.chunks import File, chunks
from headrace.lake.delta.kept_erasure import erase_kept
from headrace.lake.delta.parquet import StagedFiles
from headrace.lake.delta.rewriting import REPLACING, ROWS_AT_ONCE, replace_files
from headrace.lake.delta.storage import ERASURE, DeltaStorage, translated

_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What one commit is to remove.

    Attributes:
        rows: Number of rows.
        messages: By cursor, the number of messages that then leave nothing.
        removed: The files that held the rows.
        kept: The other rows of those files.
    """

    rows: int
    messages: dict[str, int]
    removed: list[RemoveAction]
    kept: StagedFiles


def _without(
    live: pl.DataFrame,
    gone: pl.DataFrame,
    table: Table,
    opened: Callable[[str], AbstractContextManager[pa.NativeFile]],
    kept: StagedFiles,
    clean: set[str],
) -> Rewritten:
    """Stage the remaining rows of the first files that hold any of these rows.

    Args:
        live: Files of a snapshot, with ``path``, ``size``, ``day`` and ``rows``.
        gone: ``ORIGIN_KEY`` of the rows, and ``ends``: whether the message then leaves nothing.
        table: Their table, with the columns that rewritten files have.
        opened: Opens a file by its path.
        kept: Collects the other rows.
        clean: Paths of files without such rows; the function adds to them.
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
        if seen >= ROWS_AT_ONCE:
            break
    counts = pl.concat(messages).value_counts() if messages else pl.DataFrame()
    return Rewritten(rows, dict(counts.iter_rows()), removed, kept)


def _frame(rows: pa.Table, columns: Collection[str]) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(rows)).select(columns)


def erase(storage: DeltaStorage, origins: pl.DataFrame, tell: Callable[[Erased], object]) -> Erased:
    """Rewrite the files that hold these rows, commit by commit. See ``headrace.lake.base.LakeTable.erase``."""
    ends = pl.struct("_cursor", "_offset", "_message_id").is_first_distinct()
    gone = origins if "ends" in origins.columns else origins.with_columns(ends=ends)
    days = gone["day"].unique().to_list() if "day" in gone.columns else None
    gone, clean = gone.select(*ORIGIN_KEY, "ends").unique(ORIGIN_KEY), set[str]()
    erased = Erased()
    while gone.height:
        for attempt in REPLACING:
            with attempt:
                done = _erase_some(storage, gone, days, clean)
        if not done.rows:
            break
        erased = Erased(erased.rows + done.rows, (*erased.versions, *done.versions))
        tell(done)
    storage.sync(storage.newest().version())  # before the old files are removed
    kept = erase_kept(storage, gone.select(ORIGIN_KEY), days, clean)
    return replace(erased, files=tuple(dict.fromkeys([*_erased_files(storage), *kept])))


def _erase_some(
    storage: DeltaStorage, gone: pl.DataFrame, days: Collection[date] | None, clean: set[str]
) -> Erased:
    """Make one commit and return what it removed; no commit if there is nothing to remove."""
    handle, day = storage.newest(), f"partition.{storage.table.partition}"
    with translated(storage.uri):
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        if not actions.height:
            return Erased()
        live = actions.select("path", "size_bytes", pl.col(day).alias("day"), "num_records")
        if days is not None:
            live = live.filter(pl.col("day").is_in(days))
        kept_as = storage.layout(handle).kept
        found = _without(live, gone, kept_as, storage.opened, storage.staged(kept_as), clean)
        if not found.rows:
            return Erased()
    kept = storage.retry(lambda: storage.write_files(found.kept, handle)) if found.kept.height else []
    storage.retry(
        lambda: replace_files(
            storage, handle, found.removed, kept, {ERASURE: "true"}, lambda now: _moves(now, found.messages)
        )
    )
    return Erased(found.rows, versions=(int(handle.version()),))


def _moves(handle: DeltaTable, messages: dict[str, int]) -> list[Transaction]:
    """Count messages that leave nothing, beside those that left nothing before."""
    return [
        Transaction(ERASED + cursor, (handle.transaction_version(ERASED + cursor) or 0) + n)
        for cursor, n in sorted(messages.items())
    ]


def _erased_files(storage: DeltaStorage) -> list[str]:
    """List the files that erasures took out of the table and that still exist."""
    handle, filesystem = storage.newest(), storage.filesystem()
    with translated(storage.uri):
        versions = [c["version"] for c in handle.history() if c.get(ERASURE)]
    found = []
    for version in versions:
        with suppress(HistoryGone):
            found += [unquote(a["remove"]["path"]) for a in storage.actions(version) if "remove" in a]
    with translated(storage.uri):
        return [f.path for f in filesystem.get_file_info(found) if f.type == pafs.FileType.File]


def forget(storage: DeltaStorage, erased: Erased) -> int:
    """Remove files one by one; a vacuum would also remove files that writers have not committed yet."""
    filesystem = storage.filesystem()
    with translated(storage.uri):
        for path in erased.files:
            filesystem.delete_file(path)
    return len(erased.files)
