"""A warehouse in memory that treats tokens, publications and partitions as ClickHouse does.

Tests script its faults.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime

import polars as pl
import pyarrow as pa

from headrace.core.batch import Chunk, Table
from headrace.core.errors import Retriable
from headrace.warehouse.base import Builds, Publication, StaleDay


class MemoryWarehouse:
    """Rows by table.

    The next insert raises ``fail_next_insert``: before it takes effect, or after it if ``fail_after_insert`` is
    set.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[pl.DataFrame]] = {}
        self._newest: dict[str, Table] = {}
        self._columns: dict[str, set[str]] = {}
        self._tokens: set[tuple[str, str]] = set()
        self._publications: dict[tuple[str, str], dict[int, Publication]] = {}
        self._refreshes: dict[tuple[str, str], list[tuple[int, tuple[date, ...], datetime]]] = {}
        self._epochs: dict[tuple[str, str], list[int]] = {}  # of the refreshes
        self.fail_next_insert: Exception | None = None
        self.fail_after_insert = False

    def prepare(self, table: Table, /) -> None:
        """Make room for the table, and for columns that it has not got yet."""
        self._rows.setdefault(table.name, [])
        if table.version >= self._newest.setdefault(table.name, table).version:
            self._newest[table.name] = table
        earlier = (one for names in table.renamed.values() for one in names)
        self._columns.setdefault(table.name, set()).update(table.schema, earlier)

    def expect(self, rows: Table, /) -> None:
        """Take rows of any types."""

    def published(self, table: Table, lake_id: str, /) -> Publication | None:
        """Return the last recorded version."""
        known = self._publications.get((table.name, lake_id), {})
        return max(known.values(), key=lambda one: (one.epoch, one.version), default=None)

    def _epoch(self, table: Table, lake_id: str) -> int:
        last = self.published(table, lake_id)
        return 0 if last is None else last.epoch

    def lease(self, table: Table, lake_id: str, /) -> AbstractContextManager[Publication | None]:
        """Keep nobody away: there is one process."""
        return nullcontext(self.published(table, lake_id))

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        """Add rows once per token."""
        self._refuse_unknown(table, rows)
        fault, self.fail_next_insert = self.fail_next_insert, None
        if fault is not None and not self.fail_after_insert:
            raise fault
        if (table.name, token) not in self._tokens:
            self._tokens.add((table.name, token))
            self._rows[table.name].append(_frame(rows))
        if fault is not None:
            raise fault

    def _refuse_unknown(self, table: Table, rows: Chunk) -> None:
        unknown = [name for name in rows.columns if name not in self._columns[table.name]]
        if unknown:
            raise Retriable(f"publishing {table.name} waits: nobody who knows column {unknown[0]!r} was here")

    def record(self, table: Table, publication: Publication, /) -> None:
        """Record a version."""
        known = self._publications.setdefault((table.name, publication.lake_id), {})
        known[publication.version] = publication

    def holds(self, table: Table, batches: Collection[str], days: Collection[date], /) -> bool:
        """Search all rows."""
        rows = self.rows(table)
        return bool(rows.height) and bool(rows["_batch_id"].is_in(list(batches)).any())

    def restarted_since(self, moment: datetime, /) -> bool:
        """Answer that tokens may be lost: memory cannot tell."""
        return True

    def forget_tokens(self) -> None:
        """Lose all tokens but no row, like a ClickHouse whose machine lost power."""
        self._tokens.clear()

    def replace_partition(self, table: Table, day: date, chunks: Iterable[Chunk], /) -> int:
        """Swap one day."""
        self.prepare(table)
        fresh = []
        for chunk in chunks:
            self._refuse_unknown(table, chunk)
            fresh.append(_frame(chunk))
        kept = [rows.filter(pl.col(table.partition) != day) for rows in self._rows[table.name]]
        self._rows[table.name] = kept + fresh
        return sum(rows.height for rows in fresh)

    def stale_days(self, table: Table, lake_id: str, /, *, by_landing: bool = False) -> list[StaleDay]:
        """List the days whose rows are newer than their models."""
        built: dict[date, int] = {}
        key, epoch = (table.name, lake_id), self._epoch(table, lake_id)
        built_in = zip(self._refreshes.get(key, []), self._epochs.get(key, []), strict=True)
        for version, days, _ in (refresh for refresh, at in built_in if at == epoch):
            built.update({day: max(version, built.get(day, -1)) for day in days})
        now = datetime.now(UTC)
        fresh = [one for one in self._publications.get(key, {}).values() if one.epoch == epoch]
        touched = ((p.version, day) for p in fresh for day in (p.landed_days if by_landing else p.days))
        newer = {day for version, day in touched if version > built.get(day, -1)}
        return [StaleDay(day, now, now) for day in sorted(newer)]

    def refreshed(
        self, table: Table, lake_id: str, version: int, days: Iterable[date], began_at: datetime, /
    ) -> None:
        """Record a build."""
        self._refreshes.setdefault((table.name, lake_id), []).append((version, tuple(days), began_at))
        self._epochs.setdefault((table.name, lake_id), []).append(self._epoch(table, lake_id))

    def ever_refreshed(self, table: Table, lake_id: str, /) -> bool:
        """Tell whether a build was recorded."""
        return (table.name, lake_id) in self._refreshes

    def builds(self, table: Table, lake_id: str, /) -> Builds:
        """Count the recorded builds; each ended when it began."""
        found = self._refreshes.get((table.name, lake_id), [])
        days = {day for _, some, _ in found for day in some}
        return Builds(len(found), len(days), max((at for _, _, at in found), default=None))

    def rows(self, table: Table) -> pl.DataFrame:
        """Return all rows of a table, with the columns of the newest contract and those of older ones."""
        parts = self._rows.get(table.name, [])
        if not parts:
            return pl.DataFrame()
        newest = self._newest[table.name]
        filled = [rows.with_columns(pl.lit(v).alias(n) for n, v in newest.fills.items() if n not in rows.columns)
                  for rows in parts]  # fmt: skip
        found = pl.concat(filled, how="diagonal_relaxed")
        for name, earlier in newest.renamed.items():
            both = [one for one in (name, *earlier) if one in found.columns]
            found = found.with_columns(pl.coalesce(both).alias(name)).drop(*earlier, strict=False)
        return found

    def counts_by_day(self, table: Table, /) -> dict[date, int]:
        """Count rows by partition."""
        rows = self.rows(table)
        return dict(rows.group_by(table.partition).len().iter_rows()) if rows.height else {}

    def close(self) -> None:
        """Do nothing: memory holds no connection."""


def _frame(chunk: Chunk) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(pa.concat_tables(chunk)))
