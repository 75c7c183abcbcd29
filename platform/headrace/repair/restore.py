"""Take a stream's lake back to a moment: both tables, by commits that take rows out or put them back.

1. Both tables are fenced: a commit that was prepared before it is refused, and starts over.
2. The rejected table is restored, then the good one, each in one commit.
3. Publishing replaces the days that changed, and their models are built again as those of any day with new rows.

Positions stay, so nothing lands again by itself. The rows that were taken out stay in the versions before, for as long
as versions are kept, and another restore puts them back. If it is interrupted, run it again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from headrace.core.batch import ORIGIN_KEY, REJECTED_SCHEMA
from headrace.core.errors import Fatal
from headrace.lake.delta import DeltaLakeTable, history
from headrace.lake.delta.restore import Drop, Taken, Target, fence, messages_in, restore
from headrace.lake.suppression import PERSON, person_columns
from headrace.streams.stream import Stream


@dataclass(frozen=True, slots=True)
class TableRestored:
    """What a restore did to a table, or would do.

    Attributes:
        table: Its name.
        out: Rows that were taken out.
        back: Rows that were put back.
        days: Days that changed.
        version: The version that it made; None for none.
    """

    table: str
    out: int
    back: int
    days: tuple[date, ...]
    version: int | None


@dataclass(frozen=True, slots=True)
class StreamRestored:
    """What a restore did to a stream, or would do.

    Attributes:
        stream: Its name.
        to: The moment (UTC); of an undone restore, its moment.
        undone: Whether it put back what the restore before had taken out.
        tables: The two tables.
        messages: Messages that are out now because of restores, by cursor; empty for a dry run.
    """

    stream: str
    to: datetime
    undone: bool
    tables: tuple[TableRestored, ...]
    messages: dict[str, int]


def restore_stream(stream: Stream, to: datetime | None, *, dry_run: bool = False) -> StreamRestored:
    """Restore both tables of a stream.

    Args:
        stream: The stream.
        to: The moment, with its time zone; None undoes the last restore: all that it took out is in again, and what has
            landed since stays.
        dry_run: Only say what would happen.

    Raises:
        Fatal: The moment lies ahead, or there is nothing to undo.
        HistoryGone: What is to be put back is no longer kept.
        Retriable: Others commit all the time, or the storage is away; run it again.
    """
    if to is not None and to > datetime.now(UTC):
        raise Fatal(f"{history.said(to)} lies ahead; restore to a moment that has passed")
    rejected, good = stream.lake.rejected, stream.lake.good
    targets = _targets((rejected, good), to)
    if not any(targets):
        raise Fatal(f"{stream.name} has no restore to undo; restore it to a moment with --to")
    if not dry_run:
        mark = uuid.uuid4().hex
        for table in (rejected, good):
            fence(table, mark)
    suppressed = stream.lake.suppressed((rejected.open(), good.open()))

    people = {PERSON, *person_columns(good.shape())}  # old files have old names

    def drop_good(rows: pl.DataFrame) -> pl.DataFrame:
        return suppressed.drop(pl.DataFrame(schema=REJECTED_SCHEMA), rows, people)[1] if suppressed else rows

    def drop_rejected(rows: pl.DataFrame) -> pl.DataFrame:
        return suppressed.drop(rows, pl.DataFrame(schema=_ORIGIN))[0] if suppressed else rows

    plans = ((rejected, targets[0], good, drop_rejected), (good, targets[1], rejected, drop_good))
    taken = [_restored(*plan, dry_run=dry_run) for plan in plans]
    return StreamRestored(
        stream.name,
        next(one.to for steps in targets for one in steps),
        to is None,
        tuple(_counted(table, one) for table, one in zip((rejected, good), taken, strict=True)),
        {} if dry_run else _messages(stream, taken),
    )


_ORIGIN = {name: REJECTED_SCHEMA[name] for name in ORIGIN_KEY}


def _targets(tables: Sequence[DeltaLakeTable], to: datetime | None) -> list[list[Target]]:
    """Say what each table is to hold, one step after the other; nothing for one that stays as it is."""
    if to is not None:
        return [[Target(to.astimezone(UTC))] for _ in tables]
    known = [history.restores(table.newest()) for table in tables]
    latest = max((one[-1] for one in known if one), key=lambda one: one.at, default=None)
    if latest is None:
        return [[] for _ in tables]
    # a table in which nothing had to be done does not know of the restore; one that is undone already was interrupted
    return [
        [Target(one.to, one) for one in _to_undo(known[n], latest.to, [*known[:n], *known[n + 1 :]])]
        for n in range(len(known))
    ]


def _to_undo(
    restores: Iterable[history.Restore], to: datetime, elsewhere: Iterable[Iterable[history.Restore]]
) -> list[history.Restore]:
    """Return the restores to a moment that are to be undone, the last one first.

    There are several if one was interrupted between the tables and was run again, or two were at it at once: the first
    one took out what the second one found no more. Of two in turns, the other table has a restore in between.
    """
    standing: list[history.Restore] = []
    for one in restores:
        if not one.undid:
            standing.append(one)
        elif standing:
            standing.pop()
    others = [one.at for table in elsewhere for one in table if not one.undid]
    found: list[history.Restore] = []
    while standing and standing[-1].to == to:
        if found and (not others or any(standing[-1].at < at < found[-1].at for at in others)):
            break
        found.append(standing.pop())
    return found


def _restored(
    table: DeltaLakeTable, targets: Sequence[Target], other: DeltaLakeTable, drop: Drop, *, dry_run: bool
) -> Taken:
    done = Taken()
    for target in targets:
        one = restore(table, target, lambda wanted: messages_in(other, wanted), drop, dry_run=dry_run)
        done = Taken(
            pl.concat([done.out, one.out]), pl.concat([done.back, one.back]), done.days | one.days,
            one.version if one.version is not None else done.version,
        )  # fmt: skip
    return done


def _counted(table: DeltaLakeTable, taken: Taken) -> TableRestored:
    days = tuple(sorted(taken.days))
    return TableRestored(table.table.name, taken.out.height, taken.back.height, days, taken.version)


def _messages(stream: Stream, taken: Iterable[Taken]) -> dict[str, int]:
    """Count the messages that are out now, by the cursors of the rows that went or came."""
    frames = (frame for one in taken for frame in (one.out, one.back))
    cursors = sorted({cursor for frame in frames for cursor in frame["_cursor"].unique()})
    good, rejected = stream.lake.good.open(), stream.lake.rejected.open()
    return {cursor: good.restored(cursor) + rejected.restored(cursor) for cursor in cursors}
