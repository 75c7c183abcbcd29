"""Backfill: rebuild days from the lake, first the raw warehouse table, then its marts. Running it again is safe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from headrace.core.days import days_between, ranges
from headrace.models import project as models
from headrace.models import versions as dbt_versions
from headrace.streams.stream import Stream


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Outcome of a backfill.

    Attributes:
        rows: Rows of the raw table by day.
        built: Ranges of days whose marts were rebuilt, both ends inclusive. They hold the requested days and the days
            whose models change with them.
    """

    rows: dict[date, int]
    built: tuple[tuple[date, date], ...]


def backfill(
    stream: Stream, days: Sequence[date], *, tell: Callable[[str], None] = lambda line: None
) -> Backfilled:
    """Replace days of the raw table and rebuild their marts. Safe beside live ingestion and other builds.

    Readers see each day whole, old or new. Rows that land meanwhile are published on top, and their days are built
    again.

    Args:
        stream: The stream.
        days: UTC days.
        tell: Receives a line of progress for every step.

    Raises:
        Retriable: A service is away; run it again.
        Fatal: A model or a test of the marts failed; the raw table is rebuilt by then.
    """
    settings, pipeline = stream.settings, stream.pipeline
    rows = dict(stream.replace_days(days))
    tell(f"{stream.name}: {len(rows):,} days of the raw table replaced, {sum(rows.values()):,} rows")
    if pipeline.models is None:
        return Backfilled(rows, ())
    if complaint := dbt_versions.current(settings).complaint:
        tell(complaint)
    around = models.reach(models.manifest(settings), pipeline)
    built = tuple(ranges(days, settings.event_time_min.date(), *around))
    for start, end in built:
        began, version = datetime.now(UTC), stream.published_version()
        models.build(settings, pipeline, start, end)
        stream.refreshed(version, days_between(start, end), began)
        tell(f"{stream.name}: marts of {start} to {end} rebuilt")
    return Backfilled(rows, built)
