"""Audit a stream's lake: count its rows by origin, as of one pair of snapshots.

A commit of rejected rows precedes the commit of the good rows of the same messages. So the good table is opened first:
every message below its positions is then in one of the two snapshots, whoever writes meanwhile. The rejected snapshot
may be ahead; its messages beyond the good table's positions are on their way.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Protocol

import polars as pl

from headrace.core.batch import ORIGIN_KEY, Position
from headrace.core.errors import HistoryGone
from headrace.pipelines import Kafka

if TYPE_CHECKING:
    from headrace.flow.commit import StreamLake
    from headrace.lake.delta import DeltaLakeTable
    from headrace.streams.stream import Stream

#: Attempts to count: an erasure may remove files under an open snapshot, and the tables are then opened anew.
_ATTEMPTS = 3
#: Ranges that a broker is asked for at a time.
MOST_ASKED = 100
_MESSAGE = ORIGIN_KEY[:3]

Ranges = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Audit:
    """A stream's lake, counted by origin rather than by the writers' own figures.

    Attributes:
        messages: Distinct messages that left any row.
        messages_rejected: Distinct messages of which no record was good.
        good: Rows of the lake table.
        rejected: Rows of the rejected table.
        doubled: Rows whose origin is there more than once; always 0 unless exactly-once is broken.
        by_cursor: Distinct messages by cursor.
        reasons: Rejected rows by check.
        beyond: Messages at or beyond the position of their cursor, by cursor; they would land again.
        missing: Offsets below the good table's position that left no row, as (first, end) by cursor; empty if only
            some days were counted.
        erased: Messages that erasures may have removed, by cursor.
        restored: Messages that a restore took out and that are out still, by cursor.
        again: Messages left out because their sender sent them again, or is to do so, by cursor.
    """

    messages: int
    messages_rejected: int
    good: int
    rejected: int
    doubled: int
    by_cursor: dict[str, int]
    reasons: dict[str, int]
    beyond: dict[str, int] = field(default_factory=dict)
    missing: Ranges = field(default_factory=dict)
    erased: dict[str, int] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)

    @property
    def absent(self) -> dict[str, int]:
        """Messages that may be missing below the positions, by cursor: erased, restored away or sent again."""
        every = (self.erased, self.restored, self.again)
        return {c: sum(one.get(c, 0) for one in every) for c in set().union(*every)}


@dataclass(frozen=True, slots=True)
class Skipped:
    """The brokers' answers about offsets that left no row.

    Attributes:
        ranges: Ranges with messages that the broker still holds and no erasure has removed, by cursor.
        asked: Ranges that a broker was asked for.
        left: Ranges that no broker was asked for, because there are too many.
    """

    ranges: Ranges = field(default_factory=dict)
    asked: int = 0
    left: int = 0

    def __add__(self, other: Skipped) -> Skipped:
        return Skipped(self.ranges | other.ranges, self.asked + other.asked, self.left + other.left)


class Broker(Protocol):
    """A source whose messages have offsets and can be asked for again."""

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Ask for begin and end offset by cursor."""

    def count(self, cursor: str, first: int, end: int, most: int, /) -> int:
        """Count the messages with offsets from ``first`` to below ``end``, no further than ``most``."""


def skipped(broker: Broker, missing: Ranges, erased: Mapping[str, int]) -> Skipped:
    """Ask a broker for ranges that left no row.

    Compaction and transactions leave gaps, too, and possibly many. So it asks for the newest ranges, and for others by
    chance: in time, all of them have been asked for.

    Args:
        broker: The broker of the messages.
        missing: Ranges as (first, end), by cursor.
        erased: Messages that may be missing, by cursor, because erasures named them.
    """
    held = broker.offsets()
    ranges = [
        (cursor, max(first, held[cursor][0]), min(end, held[cursor][1]))
        for cursor, gaps in missing.items()
        if cursor in held
        for first, end in gaps
    ]
    ranges = [(cursor, first, end) for cursor, first, end in ranges if first < end]
    newest = sorted(ranges, key=lambda one: one[1], reverse=True)
    chosen, others = newest[: MOST_ASKED // 2], newest[MOST_ASKED // 2 :]
    chosen += random.sample(others, min(len(others), MOST_ASKED - len(chosen)))
    found: Ranges = {}
    left = dict(erased)
    for cursor, first, end in chosen:
        allowed = left.get(cursor, 0)
        if there := broker.count(cursor, first, end, allowed + 1):
            found.setdefault(cursor, []).append((first, end))
            left[cursor] = allowed - there
    found = {cursor: sorted(gaps) for cursor, gaps in found.items() if left[cursor] < 0}
    return Skipped(found, len(chosen), len(ranges) - len(chosen))


def skipped_by(stream: Stream, missing: Ranges, erased: Mapping[str, int]) -> Skipped:
    """Ask the brokers of a stream for offsets that left no row: those that they still hold have been skipped."""
    by_source: dict[str, Ranges] = {
        spec.name: {} for spec in stream.pipeline.sources if isinstance(spec, Kafka)
    }
    for cursor, ranges in missing.items():
        name = cursor.rpartition("/")[0].rpartition("/")[0]
        if name in by_source:
            by_source[name][cursor] = ranges
    found = Skipped()
    for name, asked in by_source.items():
        if asked:
            found += skipped(stream.kafka(name), asked, erased)
    return found


def newest_rows(stream: Stream, most: int) -> pl.DataFrame:
    """Read about ``most`` of the good rows that landed last, fewer where the log does not reach back so far."""
    good, schema = stream.lake.good, stream.contract.landed_schema
    found, rows = [pl.DataFrame(schema=schema)], 0
    for version in range(good.open().version, -1, -1):
        try:
            for chunk in good.read(good.describe(version)):
                found += [pl.DataFrame(pl.from_arrow(part)).cast(schema) for part in chunk]
                rows += chunk.num_rows
        except HistoryGone:
            break
        if rows >= most:
            break
    return pl.concat(found).head(most)


def audit(
    lake: StreamLake[DeltaLakeTable], days: Collection[date] | None = None, cursors: Collection[str] = ()
) -> Audit:
    """Count both tables of a lake, by the columns of the origin.

    Args:
        lake: The stream's tables.
        days: Partitions of the good table to count; None for all. The rejected table is counted whole.
        cursors: Cursors to look for missing offsets of, even if they have no row at all.

    Raises:
        HistoryGone: Files were removed under three pairs of snapshots in a row.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _audit(lake, days, cursors)
        except HistoryGone:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError  # the last attempt returns or raises


def _audit(lake: StreamLake[DeltaLakeTable], days: Collection[date] | None, more: Collection[str]) -> Audit:
    snapshot = lake.good.open()  # first, see the docstring of the module
    refused = lake.rejected.open()
    good, rejected = snapshot.rows(ORIGIN_KEY, days), refused.rows([*ORIGIN_KEY, "reasons"])
    rows = pl.concat([good, rejected.select(ORIGIN_KEY)])
    messages = rows.select(_MESSAGE).unique()
    landed = good.select(_MESSAGE).unique()
    cursors = sorted({*messages["_cursor"].unique(), *more})
    position = snapshot.position(cursors)
    ahead = refused.position(cursors)
    reasons = (
        rejected.explode("reasons").unnest("reasons").group_by("check").len().sort("len", descending=True)
    )
    return Audit(
        messages=messages.height,
        messages_rejected=messages.height - landed.height,
        good=good.height,
        rejected=rejected.height,
        doubled=rows.height - rows.unique().height,
        by_cursor=dict(messages.group_by("_cursor").len().sort("_cursor").iter_rows()),
        reasons=dict(reasons.iter_rows()),
        beyond=messages_beyond(messages, {c: max(position.get(c, 0), ahead.get(c, 0)) for c in cursors}),
        missing=missing_ranges(messages, position) if days is None else {},
        erased={c: n for c in cursors if (n := snapshot.erased(c) + refused.erased(c))},
        restored={c: n for c in cursors if (n := snapshot.restored(c) + refused.restored(c))},
        again={c: n for c in cursors if (n := snapshot.sent_again(c))},
    )


def messages_beyond(messages: pl.DataFrame, limits: Mapping[str, int]) -> dict[str, int]:
    """Count the messages at or beyond a limit, by cursor.

    Args:
        messages: ``_cursor`` and ``_offset`` of messages.
        limits: Offset by cursor.
    """
    ends = pl.DataFrame(
        {"_cursor": list(limits), "end": list(limits.values())}, {"_cursor": pl.String, "end": pl.Int64}
    )
    found = messages.join(ends, on="_cursor").filter(pl.col("_offset") >= pl.col("end"))
    return dict(found.group_by("_cursor").len().sort("_cursor").iter_rows())


def missing_ranges(messages: pl.DataFrame, position: Position) -> Ranges:
    """Find the ranges of offsets below each position that no message has.

    Args:
        messages: ``_cursor`` and ``_offset`` of messages.
        position: Next offset by cursor; a cursor whose messages have no offsets has no ranges.
    """
    found: Ranges = {}
    numberless = messages.filter(pl.col("_offset").is_null())["_cursor"].unique()
    landed = dict(
        messages.filter(pl.col("_offset").is_not_null()).partition_by("_cursor", as_dict=True).items()
    )
    for cursor, end in position.items():
        if cursor in numberless:
            continue
        part = landed.get((cursor,), messages.clear())["_offset"]
        edges = pl.concat([pl.Series([-1]), part.filter(part < end).unique().sort(), pl.Series([end])])
        gaps = pl.DataFrame({"first": edges[:-1] + 1, "end": edges[1:]}).filter(
            pl.col("first") < pl.col("end")
        )
        if gaps.height:
            found[cursor] = [(int(a), int(b)) for a, b in gaps.iter_rows()]
    return found
