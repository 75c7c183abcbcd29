"""The sensor that rebuilds the models of stale days, once their data has been quiet for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from headrace.config.settings import Settings
from headrace.core.days import ranges
from headrace.core.errors import Retriable
from headrace.health.backoff import split_at
from headrace.health.freshness import unpublished_since
from headrace.models.project import reach, views_version
from headrace.orchestration import dbt
from headrace.orchestration.backoff import Backoff
from headrace.orchestration.keys import STREAM, tags_of
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import Job
from headrace.orchestration.sensors import active, deployments, instance_of, seconds
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream
from headrace.warehouse import StaleDay

#: Ended runs whose assets are remembered.
_KEPT_RUNS = 64
#: Longest wait of models that were never built, seconds from the first rows: until then whoever asks gets an error.
FIRST_BUILD_SECONDS = 30
_made: dict[str, frozenset[AssetKey]] = {}


@dataclass(frozen=True, slots=True)
class Staleness:
    """The stale days of a stream, and what their rebuild depends on.

    Attributes:
        days: Days whose models are older than their rows.
        built: Whether the models were built at least once.
        unpublished: Whether rows that have landed are not all published.
    """

    days: Sequence[StaleDay]
    built: bool = True
    unpublished: bool = False

    @classmethod
    def of(cls, stream: Stream) -> Staleness:
        """Ask lake and warehouse of a stream."""
        days = stream.stale_days()
        if not days:
            return cls(days)
        return cls(days, stream.ever_refreshed(), unpublished_since(stream) is not None)

    def since(self, begin: date) -> Staleness:
        """Leave out the days before ``begin``."""
        return Staleness([one for one in self.days if one.day >= begin], self.built, self.unpublished)


def refresh_sensor(
    pipeline: Pipeline,
    job: Job,
    *,
    views: Job,
    begin: date,
    manifest: Path,
    streams: Streams,
    settings: Settings,
    pauses: Backoff,
) -> SensorDefinition:
    """Make the sensor that launches a run for each range of stale days.

    Args:
        pipeline: The stream.
        job: Its refresh job.
        views: The job that deploys the views below its marts.
        begin: First day of its partitions. Earlier days wait until the definitions have been loaded again.
        manifest: Manifest of the dbt project.
        streams: Opens the stream.
        settings: Settings of the installation.
        pauses: Backoff of the job.
    """
    version, around = views_version(manifest, settings), reach(manifest, pipeline)
    below = dbt.views_below(manifest, pipeline)

    @sensor(
        name=f"{pipeline.name}_refresh",
        job=job,
        minimum_interval_seconds=seconds(pipeline.cadence.look, settings.sensor_seconds),
        default_status=DefaultSensorStatus.RUNNING,
        tags=tags_of(pipeline),
        description=f"Rebuilds the marts of days of {pipeline.name} that got new rows.",
    )
    def refresh(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        instance = instance_of(context)
        if missing := undeployed(instance, views.name, version, below):
            return SkipReason(f"views of this version are not deployed yet: {', '.join(missing)}")
        if active(instance, {STREAM: pipeline.name}, job.name):
            return SkipReason("a refresh is running")
        with streams.look(pipeline) as stream:
            try:
                found = Staleness.of(stream)
            except Retriable as error:
                return SkipReason(str(error))
        if why := why_wait(found, pipeline, settings, begin, datetime.now(UTC)):
            return SkipReason(why)
        days = {one.day for one in found.since(begin).days}
        held = pauses.paused_days(instance, job.name, {STREAM: pipeline.name}, days)
        if held.keys() == days:
            return SkipReason(f"{len(days)} days touched; {max(held.values(), key=lambda p: p.next_try)}")
        groups = split_at(days - held.keys(), held)
        chosen = [one for group in groups for one in ranges(group, begin, *around)]
        return SensorResult(run_requests=refreshes(pipeline, chosen, pauses.tags))

    return refresh


def refreshes(
    pipeline: Pipeline, days: Iterable[tuple[date, date]], tags: Mapping[str, str]
) -> list[RunRequest]:
    """Request a run for each range of days.

    Args:
        pipeline: The stream.
        days: Ranges, both ends inclusive.
        tags: Tags of the runs.
    """
    own = {STREAM: pipeline.name, **tags}
    return [
        RunRequest(tags={**own, RANGE_START: start.isoformat(), RANGE_END: end.isoformat()})
        for start, end in days
    ]


def why_wait(
    found: Staleness, pipeline: Pipeline, settings: Settings, begin: date, now: datetime
) -> str | None:
    """Tell why no model is rebuilt now; None if stale days have been quiet, or have waited long enough.

    Quiet is judged by the data, not by the runs: a run that stays for a trickle is always there. Models that were
    never built wait less.

    Args:
        found: The stale days.
        pipeline: The stream.
        settings: Settings of the installation.
        begin: First day of the partitions.
        now: The time (UTC).
    """
    days = found.since(begin).days
    if not found.days:
        return "all models are as new as their rows"
    if not days:
        early = found.days[0].day
        return f"{early} is before {begin}, where the partitions begin, until these are loaded again"
    longest = seconds(pipeline.cadence.at_most, settings.refresh_max_wait_seconds)
    waited = (now - min(one.since for one in days)).total_seconds()
    if waited >= (longest if found.built else min(longest, FIRST_BUILD_SECONDS)):
        return None
    if found.unpublished:
        return f"{len(days)} days touched; what has landed is not all published"
    cooldown = seconds(pipeline.cadence.cooldown, settings.refresh_cooldown_seconds)
    if (now - max(one.latest for one in days)).total_seconds() < cooldown:
        return f"{len(days)} days touched; rows arrived within the last {cooldown} s"
    return None


def undeployed(instance: DagsterInstance, job: str, version: str, views: frozenset[AssetKey]) -> list[str]:
    """List the views that no run has deployed in this version. A view that fails holds up those above it alone.

    Args:
        instance: The instance that recorded the runs.
        job: The job that deploys views.
        version: Version of the views.
        views: The views to look for.
    """
    runs = deployments(instance, job, version)
    if any(run.status is DagsterRunStatus.SUCCESS for run in runs):
        return []
    made: set[AssetKey] = set()
    for run in runs:
        if run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            made |= _materialized(instance, run.run_id)
    return sorted(key.to_user_string() for key in views - made)


def _materialized(instance: DagsterInstance, run_id: str) -> frozenset[AssetKey]:
    """Read the assets that an ended run made, once."""
    if run_id not in _made:
        records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION).records
        events = [record.event_log_entry.dagster_event for record in records]
        _made[run_id] = frozenset(event.asset_key for event in events if event and event.asset_key)
        for old in list(_made)[:-_KEPT_RUNS]:
            _made.pop(old, None)
    return _made[run_id]
