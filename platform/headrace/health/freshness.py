"""How far lake, warehouse and models are behind what waits in the sources."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from headrace.core.errors import HistoryGone
from headrace.flow.publish import unpublished_range
from headrace.lake.delta import DeltaLakeTable
from headrace.streams.stream import Stream

#: Newest versions among which the last one with rows is looked for.
_LOOK_BACK = 20
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far a stream is behind its sources.

    Attributes:
        waiting: Waiting messages by source.
        landed_at: Time of the last landing, good or rejected; None if nothing has landed lately.
        unpublished_since: Commit time of the first lake version that the warehouse lacks; None if it has all.
        stale_since: Publication time of the first row that the models lack; None if they have all.
    """

    waiting: dict[str, int]
    landed_at: datetime | None = None
    unpublished_since: datetime | None = None
    stale_since: datetime | None = None


def freshness(stream: Stream) -> Freshness:
    """Measure how far a stream is behind its sources."""
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
        if added is not None:  # the epoch: before all commits that the log still has
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
    """Count the rows that a version added; one if the log no longer has it."""
    try:
        return table.describe(version).rows
    except HistoryGone:
        return 1


def _last_rows_at(table: DeltaLakeTable) -> datetime | None:
    """Give the commit time of the newest version with rows among the last ones; None if there is none."""
    newest = table.open().version
    looked_at = range(newest, max(-1, newest - _LOOK_BACK), -1)
    added = next((version for version in looked_at if _rows_of(table, version)), None)
    return None if added is None else _committed_at(table, added)


def _committed_at(table: DeltaLakeTable, version: int) -> datetime | None:
    """Give the commit time of a version; None if the log no longer has it."""
    try:
        return table.committed_at(version)
    except HistoryGone:
        return None
