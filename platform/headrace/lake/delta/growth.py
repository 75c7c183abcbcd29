"""Change a Delta table after its contract: new columns, wider types, and the contract's description beside them.

One commit changes the columns. It names no file: old ones stay as they are, and every reader sees null for columns
that a file lacks, and the wider type. Another commit records the description. Either is refused if another process
changed the table first, and what was open before is refused from then on, so nothing is written by old columns. After
a crash between the two, whoever opens the table next goes on.

Polars' reader of Delta tables refuses files with integers for a column that has become one of doubles. Those are
rewritten, in commits that change no data, before the description is recorded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import RemoveAction

from headrace.core.errors import Conflict, Fatal
from headrace.lake.arrow import arrow_schema
from headrace.lake.delta.chunks import File, chunks
from headrace.lake.delta.durable import ACTIONS
from headrace.lake.delta.rewriting import REPLACING, ROWS_AT_ONCE, replace_files
from headrace.lake.delta.storage import READING, REWRITING, DeltaStorage, property_of, translated
from headrace.lake.layout import Layout, refused_by_readers, stored

log = logging.getLogger(__name__)

#: Attempts of delta-rs to commit a change beside commits that do not touch it.
_RETRIES = 30
#: Marks the commits that rewrite files in wider types.
_WIDENED = "headrace.widened"


def grow(storage: DeltaStorage, handle: DeltaTable) -> None:
    """Give a table the columns and types of its contract, and record its description.

    Args:
        storage: The table.
        handle: Opened when the change was judged; at the newest version afterwards.

    Raises:
        Conflict: Another process changed the table first.
        Fatal: A column has a type that does not widen to the contract's.
    """
    layout = storage.layout(handle)
    for name, (there, ours) in layout.refused.items():
        raise Fatal(
            f"column {name!r} of {storage.uri} is {there}, and its contract says {ours}, to which that does not widen;"
            " keep the old type, or declare a new column"
        )
    if layout.lacking:
        with translated(storage.uri):
            if layout.rewritten:
                names = {*property_of(handle, REWRITING).split(","), *layout.rewritten} - {""}
                _record(handle, {REWRITING: ",".join(sorted(names))})
            _change(storage, handle, layout)
        log.info("%s has grown: %s", storage.uri, ", ".join(layout.lacking))
    wanted = storage.recorded(property_of(handle, READING))
    if pending := property_of(handle, REWRITING):
        if not _rewritten(storage, pending.split(",")):
            return  # another process is at it, and records the contract
        wanted[REWRITING] = ""
    if any(property_of(handle, name) != text for name, text in wanted.items()):
        with translated(storage.uri):
            _record(handle, wanted)


def _record(handle: DeltaTable, properties: dict[str, str]) -> None:
    handle.alter.set_table_properties(properties, raise_if_not_exists=False)


def _change(storage: DeltaStorage, handle: DeltaTable, layout: Layout) -> None:
    """Commit the columns alone: a day that no file has is replaced by nothing."""
    ours, there = arrow_schema(layout.own), pa.schema(handle.schema().to_arrow())
    names = dict.fromkeys((*there.names, *ours.names))
    columns = [ours.field(name) if name in layout.lacking else there.field(name) for name in names]
    day = storage.table.partition
    write_deltalake(
        handle,
        pa.schema(columns).empty_table(),
        mode="overwrite",
        schema_mode="overwrite",
        predicate=f"{day} = '{_unused(handle, day).isoformat()}'",
        commit_properties=CommitProperties(custom_metadata={ACTIONS: "1"}, max_commit_retries=_RETRIES),
    )


def _unused(handle: DeltaTable, partition: str) -> date:
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    used = set(actions[f"partition.{partition}"]) if actions.height else set()
    day = date(1, 1, 1)
    while day in used:
        day += timedelta(days=1)
    return day


def _rewritten(storage: DeltaStorage, names: Sequence[str]) -> bool:
    """Write the files anew that have integers in these columns; False if others rewrite the same ones meanwhile."""
    clean: set[str] = set()
    try:
        more = True
        while more:
            for attempt in REPLACING:
                with attempt:
                    more = _rewrite_some(storage, names, clean)
    except Conflict as conflict:
        log.info("%s; its old files are rewritten later", conflict)
        return False
    return True


def _rewrite_some(storage: DeltaStorage, names: Sequence[str], clean: set[str]) -> bool:
    """Make one commit; False if there is nothing to rewrite. Adds to ``clean`` the paths of files that are in order."""
    handle, day = storage.newest(), f"partition.{storage.table.partition}"
    kept = storage.layout(handle).kept
    wanted = stored(arrow_schema(kept))
    with translated(storage.uri):
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    if not actions.height:
        return False
    staged, removed, seen = storage.staged(kept), [], 0
    live = actions.select("path", "size_bytes", pl.col(day).alias("day"), "num_records").sort("day", "path")
    for path, size, of, height in live.iter_rows():
        if path in clean:
            continue
        name = unquote(path)
        with storage.opened(name) as source:
            there = stored(pq.read_schema(source))
        if not any(refused_by_readers(there[one], wanted[one]) for one in names if one in there):
            clean.add(path)
            continue
        now, seen = time.time_ns() // 1_000_000, seen + height
        removed.append(RemoveAction(path, False, now, size, {storage.table.partition: of and of.isoformat()}))
        for chunk in chunks([File(name, of, height)], kept, storage.opened):
            for part in chunk:
                staged.add(pl.DataFrame(pl.from_arrow(part)).cast(kept.schema))  # type: ignore[arg-type]
        if seen >= ROWS_AT_ONCE:
            break
    if not removed:
        return False
    added = storage.retry(lambda: storage.write_files(staged, handle))
    same = [replace(one, data_change=False) for one in added]
    storage.retry(lambda: replace_files(storage, handle, removed, same, {_WIDENED: "true"}))
    return True
