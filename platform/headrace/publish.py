"""Lake versions to the warehouse, in order, each exactly once.

For each version after the last published one, its added rows go in with the token
``<table>:<lake id>:<version>:<n>``; then the version is recorded. A crash in between sends the same chunks with
the same tokens again, and the warehouse adds only what is missing. Commits that change no data add nothing. A
version that took rows away (an erasure) replaces the days that it changed, which can be done any number of times.

Where the log or the files of the next version are gone (the warehouse was away for longer than the lake keeps its
history, or is new and somebody has been erased since), the newest version is taken whole: every day is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Chunk
from headrace.errors import HistoryGone
from headrace.lake import LakeTable
from headrace.warehouse import Publication, Warehouse

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What a publish did.

    Attributes:
        versions: Lake versions that were passed on.
        rows: Rows that they added.
        days: Partitions that were touched.
        end: First lake version that is not in yet.
    """

    versions: int = 0
    rows: int = 0
    days: frozenset[date] = frozenset()
    end: int = 0

    def __add__(self, other: Published) -> Published:
        return Published(
            self.versions + other.versions,
            self.rows + other.rows,
            self.days | other.days,
            max(self.end, other.end),
        )


def publish(
    table: LakeTable, warehouse: Warehouse, *, alone: AbstractContextManager[object] | None = None
) -> Published:
    """Bring the warehouse up to the newest lake version.

    Two publishers of one table at once add nothing twice (same tokens); a publisher beside
    ``replace_partition`` could, so both hold ``alone``.

    Args:
        table: The lake table.
        warehouse: Where its rows go.
        alone: Lock of the warehouse table.

    Raises:
        Retriable: The warehouse or the lake is away; the next call goes on from here.
    """
    with alone or nullcontext():
        warehouse.prepare(table.table)
        newest = table.open().version
        table.sync(newest)  # what is published must not be gone after a power cut, its number then another's
        last = warehouse.published(table.table, table.id)
        done = Published(end=0 if last is None else last + 1)
        for version in range(done.end, newest + 1):
            try:
                done += _publish_version(table, warehouse, version)
            except HistoryGone as gone:
                log.warning("%s; publishing version %d of %s whole", gone, newest, table.table.name)
                return done + _publish_whole(table, warehouse, newest)
        return done


def _publish_version(table: LakeTable, warehouse: Warehouse, version: int) -> Published:
    added = table.describe(version)
    if added.rewritten:
        return _replace(table, warehouse, version, added.days)
    landed: set[date] = set()
    for n, chunk in enumerate(table.read(added)):
        warehouse.insert(table.table, _noting(landed, chunk), f"{table.table.name}:{table.id}:{version}:{n}")
    warehouse.record(
        table.table, Publication(table.id, version, added.rows, added.days, tuple(sorted(landed)))
    )
    log.debug("published %s version %d: %d rows", table.table.name, version, added.rows)
    return Published(1, added.rows, frozenset(added.days), version + 1)


def _noting(landed: set[date], chunk: Chunk) -> Chunk:
    """The chunk as it is; the UTC days on which its rows were ingested end up in ``landed`` as it is read."""
    if chunk.parquet is not None:
        landed.add(chunk.parquet.ingested_on)
        return chunk

    def parts() -> Iterator[pa.Table]:
        for part in chunk:
            landed.update(pc.unique(part["_ingested_at"].cast(pa.date32())).to_pylist())
            yield part

    return replace(chunk, parts=parts)


def _publish_whole(table: LakeTable, warehouse: Warehouse, version: int) -> Published:
    days = {*table.counts_by_day(version), *warehouse.counts_by_day(table.table)}
    return _replace(table, warehouse, version, sorted(days))


def _replace(table: LakeTable, warehouse: Warehouse, version: int, days: Sequence[date]) -> Published:
    landed: set[date] = set()
    rows = sum(
        warehouse.replace_partition(
            table.table, day, (_noting(landed, chunk) for chunk in table.read_day(day, version))
        )
        for day in days
    )
    warehouse.record(table.table, Publication(table.id, version, rows, tuple(days), tuple(sorted(landed))))
    return Published(1, rows, frozenset(days), version + 1)


def replace_days(
    table: LakeTable,
    warehouse: Warehouse,
    days: Iterable[date],
    *,
    alone: AbstractContextManager[object] | None = None,
) -> dict[date, int]:
    """Rebuild whole days of the warehouse from the lake, however often; returns rows by day.

    The table is first published to its newest version, so that no version is half in, and the days are then
    read as of exactly that version: later versions are published on top as always.
    """
    with alone or nullcontext():
        publish(table, warehouse)
        version = warehouse.published(table.table, table.id)
        assert version is not None  # publish records at least version 0
        return {
            day: warehouse.replace_partition(table.table, day, table.read_day(day, version)) for day in days
        }
