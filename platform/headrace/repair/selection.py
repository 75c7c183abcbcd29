"""Select rejected rows, and handle them in pages: a million of them take no more memory than some thousands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from headrace.repair.origins import ORIGIN, Origins, hashes, short_id

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

PAGE_BYTES = 64 << 20
PAGE_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on rejected rows; by default all that were not redriven.

    Attributes:
        reason: Only rows with a reason whose check or column contains this text.
        since: Only rows rejected on this UTC day or later.
        source: Only rows of this source, or of all sources of this kind (``kafka``).
        every: Also rows that were redriven.
    """

    reason: str | None = None
    since: date | None = None
    source: str | None = None
    every: bool = False

    def condition(self) -> pl.Expr:
        """Make the condition on columns of the rejected table. It leaves ``every`` to the caller."""
        wanted = pl.lit(value=True)
        if self.since is not None:
            wanted &= pl.col("rejected_date") >= self.since
        if self.source is not None:
            wanted &= (pl.col("_source") == self.source) | pl.col("_source").str.starts_with(
                f"{self.source}/"
            )
        if self.reason is not None:
            said = [
                pl.element().struct[part].str.contains(self.reason, literal=True)
                for part in ("check", "column")
            ]
            wanted &= pl.col("reasons").list.eval((said[0] | said[1]).fill_null(value=False)).list.any()
        return wanted


def redrive_cursor(stream: Stream) -> str:
    """Name the cursor under which a stream's redriven records land."""
    return f"redrive/{stream.name}"


def redriven_origins(stream: Stream) -> Origins:
    """Read the origins of the rejected rows that were redriven: a record made of each is among the good rows."""
    return Origins(stream.lake.good.open().message_ids(redrive_cursor(stream)))


def with_ids(rows: pl.DataFrame, redriven: Origins) -> pl.DataFrame:
    """Add ``origin``, short ``id`` and ``redriven`` to rows of the rejected table."""
    rows = rows.with_columns(origin=ORIGIN)
    return rows.with_columns(
        id=pl.Series([short_id(origin) for origin in rows["origin"]], dtype=pl.String),
        redriven=pl.Series(redriven.hold(hashes(rows["origin"])), dtype=pl.Boolean),
    )


def no_rows(stream: Stream) -> pl.DataFrame:
    """Make an empty frame with the columns of ``with_ids``."""
    return with_ids(pl.DataFrame(schema=stream.lake.rejected.table.schema), Origins())


def in_pages(parts: Iterable[pl.DataFrame], page_rows: int = PAGE_ROWS) -> Iterator[pl.DataFrame]:
    """Join frames to pages: a commit costs as much for one row as for thousands.

    Args:
        parts: Rejected rows.
        page_rows: Rows from which a page is full; ``PAGE_BYTES`` of payloads fill one, too.
    """
    waiting: list[pl.DataFrame] = []
    rows = size = 0
    for part in parts:
        if not part.height:
            continue
        waiting.append(part)
        rows, size = rows + part.height, size + int(part["payload"].bin.size().sum() or 0)
        if rows >= page_rows or size >= PAGE_BYTES:
            yield pl.concat(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pl.concat(waiting)
