"""The sensor that completes the catalogue: days that ``headrace ingest`` or a backfill has filled.

Dagster knows what its own runs report. This sensor compares the warehouse with that, reports what is missing, and notes
the first day of a stream.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DefaultSensorStatus,
    MetadataValue,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from headrace.config.settings import Settings
from headrace.core.errors import HeadraceError
from headrace.orchestration import first_day
from headrace.orchestration.keys import STREAM, lake_key, rejected_key, tags_of, warehouse_key
from headrace.orchestration.resources import Streams
from headrace.orchestration.sensors import active, instance_of
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30
#: Most materializations of a tick; each is a row or two of Dagster's database.
_AT_ONCE = 500
#: Newest backfills among which one that goes on is looked for.
_BACKFILLS = 100


@dataclass(frozen=True, slots=True)
class Filled:
    """Contents of a stream's tables, as lake and warehouse say.

    Attributes:
        days: Rows of the warehouse table by day.
        built: Days of these whose models are as new as their rows.
        lake_version: Version of the lake table.
        lake_rows: Rows of the lake table.
        rejected_rows: Rows of the rejected table.
    """

    days: dict[date, int]
    built: frozenset[date]
    lake_version: int
    lake_rows: int
    rejected_rows: int

    @classmethod
    def of(cls, stream: Stream) -> Filled:
        """Ask lake and warehouse."""
        days = {day: rows for day, rows in stream.warehouse_counts().items() if rows}
        stale = {one.day for one in stream.stale_days()}
        built = frozenset() if stream.pipeline.models is None else frozenset(set(days) - stale)
        good, rejected = stream.lake.good, stream.lake.rejected
        version = good.open().version
        rejected.open()
        return cls(days, built, version, good.extent().rows, rejected.extent().rows)


def catalogue_sensor(
    pipeline: Pipeline, streams: Streams, marts: Sequence[AssetKey], begin: date, settings: Settings
) -> SensorDefinition:
    """Make the sensor that reports what others have filled.

    It asks for the definitions to be loaded again if the stream begins on another day than its partitions.

    Args:
        pipeline: The stream.
        streams: Opens the stream.
        marts: Its models that are built by day.
        begin: First day of its partitions.
        settings: Settings of the installation.
    """
    before: list[tuple[int, int, date | None]] = []

    @sensor(
        name=f"{pipeline.name}_catalogue",
        minimum_interval_seconds=max(_LOOK_SECONDS, settings.sensor_seconds),
        default_status=DefaultSensorStatus.RUNNING,
        tags=tags_of(pipeline),
        description=f"Shows what of {pipeline.name} was filled outside of Dagster, and where it begins.",
    )
    def catalogue(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        instance = instance_of(context)
        with streams.look(pipeline) as stream:
            try:
                filled = Filled.of(stream)
            except HeadraceError as error:
                return SkipReason(str(error))
        first = min(filled.days, default=None)
        now = (filled.lake_version, len(filled.built), first)
        said = _where_it_begins(
            pipeline, begin, first, first in {one[2] for one in before}, instance, settings
        )
        if before == [now]:
            return SkipReason(said or "nothing has changed")
        landing = active(instance, {STREAM: pipeline.name}, f"ingest_{pipeline.name}")
        missing = list(islice(unreported(instance, pipeline, marts, filled, landing), _AT_ONCE))
        before[:] = [now]
        if len(missing) == _AT_ONCE:  # there may be more
            before[:] = [(-1, -1, first)]
        if missing:
            return SensorResult(asset_events=missing)
        return SkipReason(said or "the catalogue shows all that is there")

    return catalogue


def _where_it_begins(
    pipeline: Pipeline,
    begin: date,
    first: date | None,
    twice: bool,
    instance: DagsterInstance,
    settings: Settings,
) -> str:
    """Note the first day with rows; ask for the definitions again once two looks have found the same day."""
    if first is None or pipeline.start is not None:
        return ""
    first_day.note(settings, pipeline.name, first)
    if not first_day.watched or first == begin or not twice:
        return ""
    if any(one.status.value == "REQUESTED" for one in instance.get_backfills(limit=_BACKFILLS)):
        return f"{pipeline.name} begins on {first}; the definitions are loaded again after the backfill"
    first_day.ask_to_load_again(settings)
    return f"{pipeline.name} begins on {first}, not on {begin}: the definitions are loaded again"


def unreported(
    instance: DagsterInstance,
    pipeline: Pipeline,
    marts: Sequence[AssetKey],
    filled: Filled,
    landing: bool = False,
) -> Iterator[AssetMaterialization]:
    """Make the materializations that Dagster lacks.

    Args:
        instance: Dagster's instance.
        pipeline: The stream.
        marts: Its models that are built by day.
        filled: Contents of its tables.
        landing: Whether an ingest run goes on, which reports the rows of the tables itself.
    """
    if filled.lake_rows or filled.rejected_rows:
        version = {"lake_version": filled.lake_version}
        yield from _table(instance, lake_key(pipeline), filled.lake_rows, version, landing)
    if filled.rejected_rows:
        yield from _table(instance, rejected_key(pipeline), filled.rejected_rows, {}, landing)
    total = sum(filled.days.values())
    key = warehouse_key(pipeline)
    for day in sorted(set(map(str, filled.days)) - instance.get_materialized_partitions(key)):
        rows = {
            "dagster/row_count": MetadataValue.int(total),
            "dagster/partition_row_count": MetadataValue.int(filled.days[date.fromisoformat(day)]),
        }
        yield AssetMaterialization(key, partition=day, metadata=rows, description=_SAID)
    built = set(map(str, filled.built))
    for mart in marts if built else ():
        for day in sorted(built - instance.get_materialized_partitions(mart)):
            yield AssetMaterialization(mart, partition=day, description=_SAID)


_SAID = "Filled outside of Dagster."


def _table(
    instance: DagsterInstance, key: AssetKey, rows: int, more: dict[str, int], landing: bool
) -> Iterator[AssetMaterialization]:
    """Make the materialization of a table, unless its newest one is of as many rows."""
    last = instance.get_latest_materialization_event(key)
    if last is not None and landing:
        return
    known = (
        last.asset_materialization.metadata.get("dagster/row_count")
        if last and last.asset_materialization
        else None
    )
    if known is None or known.value != rows:
        counts = {"dagster/row_count": rows, **more}
        shown = {name: MetadataValue.int(count) for name, count in counts.items()}
        yield AssetMaterialization(key, metadata=shown, description=_SAID)
