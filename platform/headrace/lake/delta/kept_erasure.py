"""Erase rows from the versions that are kept by the day.

A kept version is a checkpoint, and a checkpoint may be written again. Each file that holds the rows is written anew
without them, and the checkpoint names the new file instead. So an erased person is in no version that can be read,
and everybody else stays in all of them.

Whoever opens a later version must not begin with such a checkpoint: commits after it replace the old files, not the
new ones. So before it is rewritten, the version after it gets a checkpoint of its own, where there is one.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import date
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA
from headrace.core.errors import HistoryGone
from headrace.lake.delta import history
from headrace.lake.delta.chunks import File, chunks
from headrace.lake.delta.storage import ERASURE, DeltaStorage, translated

_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}


def scan_kept(storage: DeltaStorage) -> pl.LazyFrame:
    """Return the rows of files that only kept versions name, as a lazy frame; rows may be there several times."""
    seen, found = history.files_of(storage.newest()), list[pl.LazyFrame]()
    for version in _versions(storage):
        handle = history.at_version(storage, version)
        whole = storage.dataset(handle)
        new = {one.path: one for one in whole.get_fragments() if one.path not in seen}
        there = [new[path] for path in _there(storage, sorted(new))]
        seen |= new.keys()
        if there:
            files = ds.FileSystemDataset(there, whole.schema, whole.format, whole.filesystem)
            found.append(history.scan(storage, handle, files))
    return pl.concat(found, how="diagonal_relaxed") if found else _nothing(storage)


def _nothing(storage: DeltaStorage) -> pl.LazyFrame:
    return pl.LazyFrame(schema=storage.layout(storage.newest()).view.schema)


def erase_kept(
    storage: DeltaStorage, gone: pl.DataFrame, days: Collection[date] | None, clean: Collection[str]
) -> list[str]:
    """Rewrite the kept versions that hold any of these rows.

    If it is interrupted, what is left is found by the next call with the same rows.

    Args:
        storage: The table, from whose newest version the rows have been erased.
        gone: ``ORIGIN_KEY`` of the rows.
        days: Their partitions; None if they are not known.
        clean: Paths of files that hold none of them.

    Returns:
        Existing files that kept versions named, and that hold erased rows of this or of an earlier erasure.
    """
    versions, found = _versions(storage), dict[str, AddAction | None]()
    looked_at = set(clean)
    if versions and gone.height:
        with translated(storage.uri):  # so that the hint is beyond all that is rewritten
            storage.newest().create_checkpoint()
    for version in versions if gone.height else ():
        files = _files(storage, version)
        if days is not None:
            files = files.filter(pl.col("day").is_in(list(days)))
        for path, day, height in files.iter_rows():
            if path not in looked_at:
                looked_at.add(path)
                found |= dict(_rewritten(storage, version, gone, path, day, height))
        hits = {path: found[path] for path in _files(storage, version)["path"] if path in found}
        if hits:
            _isolate(storage, version)
            _replace(storage, version, hits)
    return _there(storage, sorted({path for v in versions for path in _erased_in(storage, v)}))


def _versions(storage: DeltaStorage) -> list[int]:
    return history.openable(storage, history.kept(storage).versions)


def _files(storage: DeltaStorage, version: int) -> pl.DataFrame:
    """Return ``path``, ``day`` and ``rows`` of a version's files."""
    actions = pl.DataFrame(history.at_version(storage, version).get_add_actions(flatten=True))
    if not actions.height:
        return pl.DataFrame(schema={"path": pl.String, "day": pl.Date, "rows": pl.Int64})
    day = pl.col(f"partition.{storage.table.partition}").alias("day")
    return actions.select(pl.col("path").cast(pl.String), day, pl.col("num_records").alias("rows"))


def _rewritten(
    storage: DeltaStorage, version: int, gone: pl.DataFrame, path: str, day: date | None, height: int
) -> Iterator[tuple[str, AddAction | None]]:
    """Write a file anew if it holds any of the rows; yields its path and the action that adds the new one, if any.

    It has the columns of the first version that names it, so that later ones read it as they read the old one.
    """
    name = unquote(path)
    try:
        with storage.opened(name) as source:
            origins = pl.DataFrame(pl.from_arrow(pq.read_table(source, columns=ORIGIN_KEY)))
    except HistoryGone:  # an erasure of before was interrupted: what it held is nowhere
        yield path, None
        return
    origins = origins.select(ORIGIN_KEY).cast(_KEY)  # type: ignore[arg-type]
    if not origins.join(gone, on=ORIGIN_KEY, how="semi", nulls_equal=True).height:
        return
    handle = history.at_version(storage, version)
    table = storage.layout(handle).kept
    kept = storage.staged(table)
    for chunk in chunks([File(name, day, height)], table, storage.opened):
        for part in chunk:
            whole = pl.DataFrame(pl.from_arrow(part)).cast(table.schema)  # type: ignore[arg-type]
            others = whole.join(gone, on=ORIGIN_KEY, how="anti", nulls_equal=True, maintain_order="left")
            if others.height:
                kept.add(others)
    added = storage.write_files(kept, handle) if kept.height else []
    yield path, next(iter(added), None)


def _isolate(storage: DeltaStorage, version: int) -> None:
    """Give a version and the one after it checkpoints of their own."""
    history.checkpoint_at(storage, version)
    if version + 1 in history.read_log(storage).commits:
        with suppress(HistoryGone):  # it can no longer be opened either way
            history.checkpoint_at(storage, version + 1)


def _replace(storage: DeltaStorage, version: int, hits: dict[str, AddAction | None]) -> None:
    """Have the checkpoint of a version name new files; it marks the old ones as erased."""
    table = _checkpoint(storage, version)
    erased = pc.is_in(pc.struct_field(table["add"], "path"), pa.array(sorted(hits)))
    now, marked = time.time_ns() // 1_000_000, [(ERASURE, "true")]
    rows: list[dict[str, object]] = []
    for old in table.filter(erased)["add"].to_pylist():
        new = hits[old["path"]]
        removed = {"path": old["path"], "deletionTimestamp": now, "dataChange": True, "tags": marked}
        rows.append({"remove": removed | {"partitionValues": old["partitionValues"], "size": old["size"]}})
        if new is not None:
            added = {"path": new.path, "size": new.size, "modificationTime": new.modification_time}
            values = {"partitionValues": old["partitionValues"], "dataChange": True, "stats": new.stats}
            rows.append({"add": added | values})
    whole = pa.concat_tables(
        [table.filter(pc.invert(erased.fill_null(False))), pa.Table.from_pylist(rows, schema=table.schema)]
    )
    sink = io.BytesIO()
    pq.write_table(whole, sink, compression="zstd")
    history.put_log_file(storage, _name(version), sink.getvalue())


def _erased_in(storage: DeltaStorage, version: int) -> list[str]:
    """Return the files that a checkpoint marks as erased."""
    try:
        removed = _checkpoint(storage, version, ["remove"])["remove"]
    except HistoryGone:  # in the midst of the log, without a checkpoint: nothing was rewritten
        return []
    return [
        unquote(one["path"])
        for one in removed.drop_null().to_pylist()
        if one["tags"] and dict(one["tags"]).get(ERASURE)
    ]


def _checkpoint(storage: DeltaStorage, version: int, columns: list[str] | None = None) -> pa.Table:
    with storage.opened(f"_delta_log/{_name(version)}") as source:
        return pq.read_table(source, columns=columns)


def _name(version: int) -> str:
    return f"{version:020d}.checkpoint.parquet"


def _there(storage: DeltaStorage, paths: list[str]) -> list[str]:
    with translated(storage.uri):
        found = storage.filesystem().get_file_info(paths) if paths else []
    return [info.path for info in found if info.type == pafs.FileType.File]
