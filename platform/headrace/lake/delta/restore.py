"""Take a Delta table back to what was known at a moment, by a version more.

Files whose rows are all known at that moment stay as they are. The others are taken out, and their rows of that time
added anew, in one commit. The version before it stays as a kept version, with its files, so that one can go forward
again. Positions stay: whatever was taken out does not land again by itself. The commit counts the messages that then
leave nothing, by cursor, as the transactions ``headrace.restored/<cursor>``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Table
from headrace.core.errors import Conflict, Retriable
from headrace.lake.base import RESTORED
from headrace.lake.delta import history
from headrace.lake.delta.chunks import File, chunks
from headrace.lake.delta.rewriting import REPLACING
from headrace.lake.delta.storage import COMMIT_RETRIES, MARK, RESTORE, DeltaStorage, translated
from headrace.lake.layout import Layout

_MESSAGE = ORIGIN_KEY[:3]
_KEY = pl.Schema({name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY})
_AT = "headrace.at"
#: Rows that are held as Parquet before they are written to files.
_ROWS_AT_ONCE = 1_000_000
_FILES = pl.Schema(
    {
        "path": pl.String(),
        "size": pl.Int64(),
        "day": pl.Date(),
        "rows": pl.Int64(),
        "first": pl.Datetime("us", "UTC"),
        "last": pl.Datetime("us", "UTC"),
    }
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a table is to hold.

    Attributes:
        to: Rows that were known at this moment (UTC).
        undo: The restore to undo; None to go to ``to``. Then all rows of the version before it are in again, and
            those that have landed since stay; ``to`` is the moment of that restore.
    """

    to: datetime
    undo: history.Restore | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a restore does to one table.

    Attributes:
        out: ``ORIGIN_KEY`` of the rows that it takes out.
        back: ``ORIGIN_KEY`` of the rows that it puts back.
        days: Partitions that change.
        version: The version that it made; None if there was nothing to do, or nothing was to be done.
    """

    out: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_KEY))
    back: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_KEY))
    days: frozenset[date] = frozenset()
    version: int | None = None


#: Given origins of messages, returns those that leave a row in the stream's other table.
Elsewhere = Callable[[pl.DataFrame], pl.DataFrame]
#: Drops rows of people who were erased.
Drop = Callable[[pl.DataFrame], pl.DataFrame]


def fence(storage: DeltaStorage, mark: str) -> None:
    """Refuse every commit from snapshots that are open now, and note that the table has restores."""
    marks = {MARK: mark, history.RESTORES: "true"}
    for attempt in REPLACING:
        with attempt, translated(storage.uri):
            storage.newest().alter.set_table_properties(marks, raise_if_not_exists=False)


def restore(
    storage: DeltaStorage, target: Target, elsewhere: Elsewhere, drop: Drop, *, dry_run: bool = False
) -> Taken:
    """Take a table to its target in one commit; none if it is there already.

    Args:
        storage: The table, after ``fence``.
        target: What it is to hold.
        elsewhere: Tells which messages leave rows in the other table of the stream.
        drop: Applied to rows that come back.
        dry_run: Only say what would be taken out and put back.

    Raises:
        HistoryGone: The version that holds the rows is no longer kept.
        Conflict: Others commit all the time.
    """
    plan = _Plan(storage, target, drop)
    try:
        for _ in range(COMMIT_RETRIES):
            handle = storage.newest()
            out, stay = plan.against(handle)
            if not out and not plan.adds:
                return Taken()
            taken = plan.taken()
            if dry_run:
                return taken
            moves = _counted(storage, handle, taken, stay, plan, elsewhere)
            try:
                version = _commit(storage, handle, target, [*out, *plan.adds], moves)
            except (Conflict, Retriable) as error:
                if not isinstance(error.__cause__, CommitFailedError):
                    raise
                continue  # somebody came between: what they added goes with the next attempt
            plan.committed = True
            storage.sync(version)
            history.checkpoint_at(storage, version - 1)
            return replace(taken, version=version)
    finally:
        plan.close()
    raise Conflict(f"others commit to {storage.uri} all the time; restore it again")


class _Plan:
    """Files that go, and rows that are written anew; worked out once, and completed for what lands meanwhile."""

    def __init__(self, storage: DeltaStorage, target: Target, drop: Drop) -> None:
        self._storage, self._target, self._drop = storage, target, drop
        self.adds: list[AddAction] = []
        self.committed = False
        self._written: frozenset[str] = frozenset()
        self._added, self._removed = pl.DataFrame(schema=_KEY), dict[str, pl.DataFrame]()
        self._days: set[date] = set()

    def _source(self) -> pl.DataFrame:
        """Return the files that hold the target's rows."""
        if self._target.undo is None:
            return _files(history.known_at(self._storage, self._target.to), self._storage)
        before = _files(history.at_version(self._storage, self._target.undo.version - 1), self._storage)
        return before.with_columns(last=pl.lit(self._target.to))  # all of their rows

    def against(self, handle: DeltaTable) -> tuple[list[RemoveAction], set[str]]:
        """Return the files of a version to remove, and the paths of those that stay."""
        live, to, undo = _files(handle, self._storage), self._target.to, self._target.undo is not None
        source = self._source()
        known = source.filter((pl.col("last") <= to).fill_null(value=False))["path"]
        stay = pl.col("path").is_in(known.implode())
        if undo:
            stay |= (pl.col("first") > to).fill_null(value=False)
        gone, stays = live.filter(~stay), {*live.filter(stay)["path"]}
        again = source.filter(~pl.col("path").is_in(stays)).filter(
            pl.lit(value=undo) | (pl.col("first") <= to).fill_null(value=True)
        )
        since = gone.filter((pl.col("last") > to).fill_null(value=True)) if undo else gone.clear()
        needed = frozenset([*again["path"], *since["path"]])
        if needed != self._written or not self.adds:
            self._discard()
            self._write(again, since, stays)
            self._written = needed
        for path, day in gone.select("path", "day").iter_rows():
            if path not in self._removed:
                self._removed[path] = self._origins(path)
            self._days.add(day)
        self._removed = {path: self._removed[path] for path in gone["path"]}
        now, partition = time.time_ns() // 1_000_000, self._storage.table.partition
        removes = [
            RemoveAction(path, True, now, size, {partition: day and day.isoformat()})
            for path, size, day in gone.select("path", "size", "day").iter_rows()
        ]
        return removes, stays

    def _write(self, again: pl.DataFrame, since: pl.DataFrame, stays: set[str]) -> None:
        """Write the rows that belong to the target and are in no file that stays."""
        ingested, to, undo = pl.col("_ingested_at"), self._target.to, self._target.undo is not None
        handle = self._storage.newest()
        layout = self._storage.layout(handle)
        landed = [*self._rows(since, layout.kept, ingested > to)] if undo else []
        twice = pl.concat([pl.DataFrame(schema=_KEY), *(rows.select(ORIGIN_KEY) for rows in landed)])
        origins, staged = [pl.DataFrame(schema=_KEY)], self._storage.staged(layout.kept)

        def add(rows: pl.DataFrame) -> None:
            nonlocal staged
            if rows.height:
                staged.add(rows)
                origins.append(rows.select(ORIGIN_KEY))
                self._days.update(rows[self._storage.table.partition].unique())
            if staged.height >= _ROWS_AT_ONCE:
                self.adds += self._storage.write_files(staged, handle)
                staged = self._storage.staged(layout.kept)

        for rows in landed:
            add(rows)
        for rows in self._rows(again, layout.kept, pl.lit(value=True) if undo else ingested <= to):
            back = self._without_erased(rows, layout)
            if undo:
                there = _present(self._storage, handle, stays, back, ORIGIN_KEY)
                both = pl.concat([twice, there])
                back = back.join(both, on=ORIGIN_KEY, how="anti", nulls_equal=True, maintain_order="left")
            add(back)
        if staged.height:
            self.adds += self._storage.write_files(staged, handle)
        self._added = pl.concat(origins)

    def _without_erased(self, rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
        """Drop rows of people who were erased, by the columns as they are read."""
        missing = [name for name in layout.raw.schema if name not in rows.columns]
        raw = rows.with_columns(pl.lit(None, layout.raw.schema[name]).alias(name) for name in missing)
        stay = self._drop(raw.select(layout.select(layout.view.schema.names())).with_row_index(_AT))
        return rows[stay[_AT]] if stay.height < rows.height else rows

    def _rows(self, files: pl.DataFrame, table: Table, wanted: pl.Expr) -> Iterator[pl.DataFrame]:
        for path, day, height in files.sort("day", "path").select("path", "day", "rows").iter_rows():
            for chunk in chunks([File(unquote(path), day, height)], table, self._storage.opened):
                for part in chunk:
                    yield pl.DataFrame(pl.from_arrow(part)).cast(table.schema).filter(wanted)  # type: ignore[arg-type]

    def _origins(self, path: str) -> pl.DataFrame:
        with self._storage.opened(unquote(path)) as source:
            rows = pl.DataFrame(pl.from_arrow(pq.read_table(source, columns=ORIGIN_KEY)))
        return rows.select(ORIGIN_KEY).cast(_KEY)  # type: ignore[arg-type]

    def taken(self) -> Taken:
        """Say which rows go and come; rows that are only written anew do neither."""
        removed = pl.concat([pl.DataFrame(schema=_KEY), *self._removed.values()])
        on = {"on": ORIGIN_KEY, "how": "anti", "nulls_equal": True}
        gone, back = removed.join(self._added, **on), self._added.join(removed, **on)  # type: ignore[arg-type]
        return Taken(gone, back, frozenset(self._days))

    def only_rewritten(self, messages: pl.DataFrame) -> pl.DataFrame:
        """Return those of the messages that have rows which neither go nor come."""
        removed = pl.concat([pl.DataFrame(schema=_KEY), *self._removed.values()])
        both = self._added.join(removed, on=ORIGIN_KEY, how="semi", nulls_equal=True).select(_MESSAGE)
        return both.unique().join(messages, on=_MESSAGE, how="semi", nulls_equal=True)

    def _discard(self) -> None:
        filesystem = self._storage.filesystem()
        for add in self.adds:
            with suppress(FileNotFoundError):
                filesystem.delete_file(add.path)
        self.adds, self._days = [], set()

    def close(self) -> None:
        """Remove the files that no commit names."""
        if not self.committed:
            self._discard()


def _files(handle: DeltaTable, storage: DeltaStorage) -> pl.DataFrame:
    """Return a version's files, with the first and the last ``_ingested_at`` of their rows."""
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    if not actions.height:
        return pl.DataFrame(schema=_FILES)
    names = {
        "path": "path",
        "size": "size_bytes",
        "day": f"partition.{storage.table.partition}",
        "rows": "num_records",
        "first": "min._ingested_at",
        "last": "max._ingested_at",
    }
    there = {new: pl.col(old) if old in actions.columns else pl.lit(None) for new, old in names.items()}
    return actions.select(**there).cast(_FILES)


def _present(
    storage: DeltaStorage, handle: DeltaTable, paths: set[str], wanted: pl.DataFrame, key: list[str]
) -> pl.DataFrame:
    """Return those of the wanted rows or messages, by ``key``, that files of a version hold."""
    asked = wanted.select(key).unique()
    found = [asked.clear()]
    if not asked.height or not paths:
        return found[0]
    whole = storage.dataset(handle)
    names = {unquote(path) for path in paths}
    parts = [one for one in whole.get_fragments() if one.path in names]
    dataset = ds.FileSystemDataset(parts, whole.schema, whole.format, whole.filesystem)
    for batch in dataset.to_batches(columns=key):
        rows = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
        found.append(rows.cast(asked.schema).join(asked, on=key, how="semi", nulls_equal=True).unique())  # type: ignore[arg-type]
    return pl.concat(found).unique()


def messages_in(storage: DeltaStorage, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return those of these messages that leave a row in a table."""
    handle = storage.newest()
    return _present(storage, handle, {*_files(handle, storage)["path"]}, wanted, _MESSAGE)


def _counted(
    storage: DeltaStorage, handle: DeltaTable, taken: Taken, stay: set[str], plan: _Plan, elsewhere: Elsewhere
) -> list[Transaction]:
    """Count the messages that by this commit leave nothing any more, or something again, by cursor.

    Each of the stream's tables counts what its own commits change. A message with rows in both may go by one table and
    come back by the other, whose count is then negative; the sum of both is right in any order.
    """
    moves: dict[str, int] = {}
    for rows, other, sign in ((taken.out, taken.back, 1), (taken.back, taken.out, -1)):
        messages = rows.select(_MESSAGE).unique()
        others = [
            other.select(_MESSAGE),
            _present(storage, handle, stay, messages, _MESSAGE),
            plan.only_rewritten(messages),
            elsewhere(messages),
        ]
        alone = messages.join(pl.concat(others).unique(), on=_MESSAGE, how="anti", nulls_equal=True)
        for cursor, count in alone.group_by("_cursor").len().iter_rows():
            moves[cursor] = moves.get(cursor, 0) + sign * count
    return [
        Transaction(RESTORED + cursor, (handle.transaction_version(RESTORED + cursor) or 0) + change)
        for cursor, change in sorted(moves.items())
        if change
    ]


def _commit(
    storage: DeltaStorage,
    handle: DeltaTable,
    target: Target,
    actions: list[AddAction | RemoveAction],
    moves: list[Transaction],
) -> int:
    """Commit right after the version of the handle, or not at all; returns the new version."""
    version = int(handle.version()) + 1
    done = history.Restore(version, datetime.now(UTC), target.to, target.undo is not None)
    noted = history.noting(len(history.restores(handle)) + 1, done)
    said = "undone" if target.undo else target.to.isoformat()
    storage.commit(handle, actions, [*moves, *noted], {RESTORE: said}, retries=0)
    return version
