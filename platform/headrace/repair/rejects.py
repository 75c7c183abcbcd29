"""Find rejected rows. ``edits`` repairs their payloads, ``redrive`` sends them through the contract once more.

A rejected row is known by its origin, and to people by the first digits of the origin's hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from headrace.core.errors import Fatal
from headrace.repair.index import RejectIndex
from headrace.repair.selection import (
    Selection,
    in_pages,
    no_rows,
    redrive_cursor,
    redriven_origins,
    with_ids,
)

if TYPE_CHECKING:
    from headrace.streams.stream import Stream


def find(
    stream: Stream,
    *,
    ids: Sequence[str] = (),
    reason: str | None = None,
    since: date | None = None,
    source: str | None = None,
    every: bool = False,
) -> pl.DataFrame:
    """Find rejected rows, newest first.

    Args:
        stream: The stream.
        ids: Only these rows, redriven or not: short ids, as far as they are unambiguous, or whole origins.
        reason: As of ``Selection``.
        since: As of ``Selection``.
        source: As of ``Selection``.
        every: As of ``Selection``.

    Returns:
        The rejected table's columns, ``origin``, short ``id`` and ``redriven``.

    Raises:
        BadData: An id names no rejected row, or more than one.
    """
    selection = Selection(reason, since, source, every or bool(ids))
    found = RejectIndex(stream).rows(RejectIndex.named(ids), selection) if ids else pages(stream, selection)
    rows = pl.concat([no_rows(stream), *found])
    return rows.sort("_ingested_at", "origin", descending=[True, False])


def pages(stream: Stream, selection: Selection) -> Iterator[pl.DataFrame]:
    """Read the rows that ``find`` gives, some thousands at a time, the newest day first."""
    done, table = redriven_origins(stream), stream.lake.rejected
    for day in sorted(table.counts_by_day(), reverse=True):
        if selection.since is None or day >= selection.since:
            parts = (with_ids(rows.filter(selection.condition()), done) for rows in table.batches([day]))
            if not selection.every:
                parts = (rows.filter(~pl.col("redriven")) for rows in parts)
            yield from in_pages(parts)


def newest(stream: Stream, selection: Selection, most: int) -> tuple[int, pl.DataFrame]:
    """Count the rows that ``find`` gives, and read the first ``most`` of them."""
    total, first = 0, no_rows(stream)
    for rows in pages(stream, selection):
        total += rows.height
        first = pl.concat([first, rows]).sort("_ingested_at", "origin", descending=[True, False]).head(most)
    return total, first


def known_source(stream: Stream, source: str | None) -> None:
    """Refuse a source that the stream does not have and of which nothing was rejected.

    Raises:
        Fatal: The source is unknown; the message names the known ones.
    """
    if source is None:
        return
    there = {spec.name for spec in stream.pipeline.sources} | {redrive_cursor(stream)}
    found = stream.lake.rejected.scan().select(pl.col("_source").unique()).collect().to_series()
    there |= {str(one) for one in found}
    if not any(one == source or one.startswith(f"{source}/") for one in there):
        raise Fatal(f"stream {stream.name!r} has no source {source!r}; it has {', '.join(sorted(there))}")
