"""Lake versions to the warehouse, in order, each exactly once.

For each version after the last published one, its added rows go in with the token
``<table>:<lake id>:<version>:<n>``; then the version is recorded. A crash in between sends the same chunks with
the same tokens again, and the warehouse adds only what is missing. Commits that change no data add nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date

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
    """

    versions: int = 0
    rows: int = 0
    days: frozenset[date] = frozenset()

    def __add__(self, other: Published) -> Published:
        return Published(self.versions + other.versions, self.rows + other.rows, self.days | other.days)


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
        Fatal: The log no longer reaches back to the next version.
    """
    with alone or nullcontext():
        warehouse.prepare(table.table)
        newest = table.open().version
        last = warehouse.published(table.table, table.id)
        done = Published()
        for version in range(0 if last is None else last + 1, newest + 1):
            done += _publish_version(table, warehouse, version)
        return done


def _publish_version(table: LakeTable, warehouse: Warehouse, version: int) -> Published:
    added = table.describe(version)
    for n, chunk in enumerate(table.read(added)):
        warehouse.insert(table.table, chunk, f"{table.table.name}:{table.id}:{version}:{n}")
    warehouse.record(table.table, Publication(table.id, version, added.rows, added.days))
    log.debug("published %s version %d: %d rows", table.table.name, version, added.rows)
    return Published(1, added.rows, frozenset(added.days))


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
