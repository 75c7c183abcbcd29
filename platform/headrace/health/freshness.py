"""How far lake, warehouse and models are behind what waits in the sources."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from headrace.core.errors import HistoryGone
from headrace.flow.publish import unpublished_range
from headrace.lake.delta import DeltaLakeTable
from headrace.streams.stream import Stream

#: Versions among which the last one with rows is looked for.
_LOOK_BACK = 20
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far a stream is behind its sources.

    Attributes:
        waiting: Messages by source.
        landed_at: When rows last landed or were rejected; None if none were lately.
        unpublished_since: When the first lake version was committed that the warehouse lacks; None if it has all.
        stale_since: When the first row was published that the models lack; None if they have all.
    """

    waiting: dict[str, int]
    landed_at: datetime | None = None
    unpublished_since: datetime | None = None
    stale_since: datetime | None = None


def freshness(stream: Stream) -> Freshness:
    """Look at sources, lake, warehouse and models of a stream."""
    waiting = {spec.name: stream.backlog(spec.name).waiting for spec in stream.pipeline.sources}
    landed = [at for table in _tables(stream) if (at := _last_rows_at(table))]
    return Freshness(
        waiting=waiting,
        landed_at=max(landed, default=None),
        unpublished_since=unpublished_since(stream),
        stale_since=min((one.since for one in stream.stale_days()), default=None),
    )


def last_landed(stream: Stream) -> datetime | None:
    """Tell when anything last landed, good or rejected (UTC); None if nothing ever did."""
    return max((at for table in _tables(stream) if (at := table.latest())), default=None)


def unpublished_versions(stream: Stream) -> int:
    """Count the lake versions that are not in the warehouse yet."""
    return sum(len(unpublished_range(table, stream.warehouse)) for table in _tables(stream))


def unpublished_since(stream: Stream) -> datetime | None:
    """Tell when the first lake version with rows was committed that the warehouse lacks; None if it has all."""
    found = []
    for table in _tables(stream):
        added = next((v for v in unpublished_range(table, stream.warehouse) if _rows_of(table, v)), None)
        if added is not None:  # epoch: before all that the log still knows
            found.append(_committed_at(table, added) or _EPOCH)
    return min(found, default=None)


def needed_since(stream: Stream, table: DeltaLakeTable) -> datetime | None:
    """Tell when the version was committed that publishing resumes at, with or without rows.

    None if there is none, or if it is lost already: keeping the rest then helps nobody.
    """
    unpublished = unpublished_range(table, stream.warehouse)
    return _committed_at(table, unpublished[0]) if unpublished else None


def _tables(stream: Stream) -> tuple[DeltaLakeTable, DeltaLakeTable]:
    return stream.lake.good, stream.lake.rejected


def _rows_of(table: DeltaLakeTable, version: int) -> int:
    """Count the rows that a version added; one for a version that nobody can look at any more."""
    try:
        return table.describe(version).rows
    except HistoryGone:
        return 1


def _last_rows_at(table: DeltaLakeTable) -> datetime | None:
    """Tell when the last of the newest versions was committed that added rows; None if none did."""
    newest = table.open().version
    looked_at = range(newest, max(-1, newest - _LOOK_BACK), -1)
    added = next((version for version in looked_at if _rows_of(table, version)), None)
    return None if added is None else _committed_at(table, added)


def _committed_at(table: DeltaLakeTable, version: int) -> datetime | None:
    """Tell when; None for a version that nobody can look at any more."""
    try:
        return table.committed_at(version)
    except HistoryGone:
        return None
