"""Sensors only look: at backlogs, and at days whose models are older than their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.instance.ref import InstanceRef

from headrace.days import ranges
from headrace.errors import Retriable
from headrace.models import reach, views_version
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline, Spec
from headrace.settings import Settings
from headrace.stream import Stream
from headrace.warehouse import Touched

Job = JobDefinition | UnresolvedAssetJobDefinition

STREAM, SOURCE = "headrace/stream", "headrace/source"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_opened: list[tuple[InstanceRef, DagsterInstance]] = []
_opening = Lock()
_ACTIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def _active(context: SensorEvaluationContext, tags: dict[str, str], job: str) -> bool:
    return _instance(context).get_runs_count(RunsFilter(job_name=job, statuses=_ACTIVE, tags=tags)) > 0


def _instance(context: SensorEvaluationContext) -> DagsterInstance:
    """Dagster's instance, opened once: ``context.instance`` opens it at every tick.

    Opening reads the migration history of three databases, which costs more than all that a tick looks at. That is
    also why sensors take the streams as an argument of their factory and not as a resource: building a resource
    opens the instance too.
    """
    ref = context.instance_ref
    if ref is None:  # in a test, with an instance of its own
        return context.instance
    with _opening:
        if not _opened or _opened[0][0] != ref:
            _opened[:] = [(ref, DagsterInstance.from_ref(ref))]
        return _opened[0][1]


def backlog_sensor(pipeline: Pipeline, job: Job, streams: Streams, settings: Settings) -> SensorDefinition:
    """Launches an ingest run for each source of the stream that has a backlog and no run yet."""

    @sensor(
        name=f"{pipeline.name}_backlog",
        job=job,
        minimum_interval_seconds=settings.sensor_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Launches ingest runs of {pipeline.name} while messages wait.",
    )
    def backlog(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        requests, seen = [], []
        with streams.look(pipeline) as stream:
            for spec in pipeline.sources:
                for share, label in _shares(spec):
                    tags = {STREAM: pipeline.name, SOURCE: label}
                    if _active(context, tags, job.name):
                        seen.append(f"{label}: a run is on it")
                        continue
                    waiting = _waiting(stream, spec, share)
                    seen.append(f"{label}: {waiting}")
                    if isinstance(waiting, int) and waiting:
                        drain = {"sources": [spec.name], "share": share}
                        config = {"ops": {f"lake__{pipeline.name}": {"config": drain}}}
                        requests.append(RunRequest(run_config=config, tags=tags))
        if requests:
            return SensorResult(run_requests=requests)
        return SkipReason("; ".join(seen))

    return backlog


def _shares(spec: Spec) -> Iterator[tuple[int | None, str]]:
    """Share and label of each run that drains a source at the same time."""
    if spec.runs == 1:
        yield None, spec.name
        return
    for number in range(spec.runs):
        yield number, f"{spec.name} {number + 1}/{spec.runs}"


def _waiting(stream: Stream, spec: Spec, share: int | None) -> int | str:
    """Messages that wait in a run's share of a source, or why that cannot be said now."""
    try:
        backlog = stream.backlog(spec.name)
    except Retriable as error:
        return str(error)
    if share is None:
        return backlog.waiting
    mine = (n for c, n in backlog.by_cursor.items() if int(c.rpartition("/")[2]) % spec.runs == share)
    return sum(mine)


def refresh_sensor(
    pipeline: Pipeline,
    job: Job,
    *,
    ingest: Job,
    views: Job,
    manifest: Path,
    streams: Streams,
    settings: Settings,
) -> SensorDefinition:
    """Rebuilds the models of touched days once their data has been quiet for a while."""
    version, around = views_version(manifest, settings), reach(manifest, pipeline)

    @sensor(
        name=f"{pipeline.name}_refresh",
        job=job,
        minimum_interval_seconds=settings.sensor_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Rebuilds the marts of days of {pipeline.name} that got new rows.",
    )
    def refresh(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        deployed = RunsFilter(
            job_name=views.name, tags={"headrace/views": version}, statuses=[DagsterRunStatus.SUCCESS]
        )
        if not _instance(context).get_runs_count(deployed):
            return SkipReason("the views of this version are not deployed yet")
        if _active(context, {STREAM: pipeline.name}, job.name):
            return SkipReason("a refresh is running")
        with streams.look(pipeline) as stream:
            try:
                touched = stream.touched()
            except Retriable as error:
                return SkipReason(str(error))
        if not touched:
            return SkipReason("all models are as new as their rows")
        landing = _active(context, {STREAM: pipeline.name}, ingest.name)
        wait = _still_hot(touched, landing, settings, datetime.now(UTC))
        if wait:
            return SkipReason(f"{len(touched)} days touched; {wait}")
        return SensorResult(
            run_requests=[
                RunRequest(
                    tags={STREAM: pipeline.name, RANGE_START: start.isoformat(), RANGE_END: end.isoformat()}
                )
                for start, end in ranges([t.day for t in touched], settings, *around)
            ]
        )

    return refresh


def _still_hot(touched: list[Touched], landing: bool, settings: Settings, now: datetime) -> str | None:
    """Why the touched days had better wait; None once they are quiet or have waited long enough."""
    latest = max(t.latest for t in touched)
    since = min(t.since for t in touched)
    if now - since >= timedelta(seconds=settings.refresh_max_wait_seconds):
        return None
    if landing:
        return "an ingest run is landing more"
    if now - latest < timedelta(seconds=settings.refresh_cooldown_seconds):
        return f"rows arrived within the last {settings.refresh_cooldown_seconds} s"
    return None


def views_sensor(job: Job, manifest: Path, settings: Settings) -> SensorDefinition:
    """Deploys the views once per version of the dbt project."""
    version = views_version(manifest, settings)

    @sensor(
        name="views_version",
        job=job,
        minimum_interval_seconds=max(30, settings.sensor_seconds),  # a project changes only with the code
        default_status=DefaultSensorStatus.RUNNING,
        description="Deploys staging and intermediate views when they changed.",
    )
    def views(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        tags = {"headrace/views": version}
        runs = _instance(context).get_runs(RunsFilter(job_name=job.name, tags=tags), limit=1)
        if runs and runs[0].status not in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            return SkipReason(f"version {version} is deployed or being deployed")
        return SensorResult(run_requests=[RunRequest(tags=tags)])

    return views
