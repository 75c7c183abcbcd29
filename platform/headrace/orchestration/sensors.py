"""Sensors only look: at backlogs, and at days whose models are older than their rows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Lock

from dagster import (
    AssetKey,
    AssetObservation,
    DagsterEventType,
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

from headrace.config.settings import Settings
from headrace.core.batch import Backlog, Position
from headrace.core.days import ranges
from headrace.core.errors import HeadraceError, Retriable
from headrace.health.freshness import unpublished_since
from headrace.health.run_pauses import apart
from headrace.models.project import reach, views_version
from headrace.orchestration import dbt, metadata
from headrace.orchestration.assets import STREAM, source_key, tags_of
from headrace.orchestration.backoff import Backoff
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline, Spec
from headrace.streams.stream import Stream
from headrace.warehouse import StaleDay

Job = JobDefinition | UnresolvedAssetJobDefinition

SOURCE = "headrace/source"
VIEWS = "headrace/views"
#: Runs of a deployment that are looked at, and ended runs whose assets are remembered.
_DEPLOYMENTS, _KEPT_RUNS = 5, 64
#: From a request to a run that reads: the queue's interval, a fork, the connections.
_STARTING_SECONDS = 5
_NOTED_SECONDS = 60.0
#: Models that were never built are, so long after the first rows, whether or not more arrive.
FIRST_BUILD_SECONDS = 30
_opened: list[tuple[InstanceRef, DagsterInstance]] = []
_opening = Lock()
_made: dict[str, frozenset[AssetKey]] = {}
_ACTIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def active(context: SensorEvaluationContext, tags: dict[str, str], job: str) -> bool:
    """Whether a run of the job with these tags is queued or goes on."""
    return instance_of(context).get_runs_count(RunsFilter(job_name=job, statuses=_ACTIVE, tags=tags)) > 0


def instance_of(context: SensorEvaluationContext) -> DagsterInstance:
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


def backlog_sensor(
    pipeline: Pipeline, job: Job, streams: Streams, settings: Settings, pauses: Backoff
) -> SensorDefinition:
    """Launches an ingest run for each source of the stream that has a backlog and no run yet.

    A run that will soon hand over gets its relief: the next run is started before it ends, and waits for it, so that
    what arrives meanwhile does not wait for a run to start.
    """
    observed: dict[str, tuple[float, int]] = {}  # by source: when it was noted last, and what waited
    look = _seconds(pipeline.cadence.look, settings.sensor_seconds)

    @sensor(
        name=f"{pipeline.name}_backlog",
        job=job,
        minimum_interval_seconds=look,
        default_status=DefaultSensorStatus.RUNNING,
        tags=tags_of(pipeline),
        description=f"Launches ingest runs of {pipeline.name} while messages wait.",
    )
    def backlog(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        requests: list[RunRequest] = []
        seen: list[str] = []
        events: list[AssetObservation] = []
        with streams.look(pipeline) as stream:
            for spec in pipeline.sources:
                looked: tuple[Backlog, Position] | None = None
                for share, label in _shares(spec):
                    tags = {STREAM: pipeline.name, SOURCE: label}
                    on_it, due = _on_it(context, tags, job.name, look, settings)
                    if on_it:
                        seen.append(f"{label}: {on_it}")
                        continue
                    if paused := pauses.pause(instance_of(context), job.name, tags):
                        seen.append(f"{label}: {paused}")
                        continue
                    if (
                        due and settings.ingest_linger_seconds
                    ):  # a run that is still there has had messages lately
                        seen.append(f"{label}: a run hands over")
                        requests.append(_ingest(pipeline, spec, share, {**tags, **pauses.tags}, settings))
                        continue
                    try:
                        looked = looked or stream.look(spec.name)
                    except HeadraceError as error:  # the other sources may well answer
                        seen.append(f"{label}: {error}")
                        continue
                    waiting = _waiting(looked[0], spec, share)
                    seen.append(f"{label}: {waiting}")
                    if waiting:
                        requests.append(_ingest(pipeline, spec, share, {**tags, **pauses.tags}, settings))
                if looked is not None and _worth_noting(observed, spec, looked[0].waiting):
                    events.append(AssetObservation(source_key(spec), metadata=metadata.backlog(*looked)))
            if not requests and _left_unpublished(context, stream, job.name, observed):
                spec = pipeline.sources[0]
                tags = {STREAM: pipeline.name, SOURCE: spec.name}
                seen.append("what has landed is not all published")
                if not pauses.pause(instance_of(context), job.name, tags):
                    requests.append(_ingest(pipeline, spec, None, {**tags, **pauses.tags}, settings))
        if requests or events:
            return SensorResult(run_requests=requests, asset_events=events)
        return SkipReason("; ".join(seen))

    return backlog


def _ingest(
    pipeline: Pipeline, spec: Spec, share: int | None, tags: dict[str, str], settings: Settings
) -> RunRequest:
    linger = settings.ingest_linger_seconds
    drain = {"sources": [spec.name], "share": share, "linger_seconds": linger}
    config = {"ops": {f"lake__{pipeline.name}": {"config": drain}}}
    return RunRequest(run_config=config, tags=tags)


def _seconds(given: timedelta | None, setting: int) -> int:
    return setting if given is None else max(1, round(given.total_seconds()))


def _on_it(
    context: SensorEvaluationContext, tags: dict[str, str], job: str, look: int, settings: Settings
) -> tuple[str, bool]:
    """Who reads a source already, so that no other run is needed, and whether that one is about to hand over.

    ``look`` is the time between two ticks, s: the relief has to be asked for at the last one that is early enough.
    """
    records = instance_of(context).get_run_records(
        RunsFilter(job_name=job, statuses=_ACTIVE, tags=tags), limit=2
    )
    if len(records) == 2:
        return "a run is on it, and the next one is ready", False
    if records:
        started = records[0].start_time
        lead = look + _STARTING_SECONDS
        if started is None or time.time() < started + settings.ingest_max_seconds - lead:
            return "a run is on it", False
    return "", bool(records)


def _worth_noting(observed: dict[str, tuple[float, int]], spec: Spec, waiting: int) -> bool:
    """Whether a source's backlog is worth an observation: at its first look, and then once a minute if it changed."""
    now, (at, before) = time.monotonic(), observed.get(spec.name, (-_NOTED_SECONDS, -1))
    if now - at < _NOTED_SECONDS or waiting == before:
        return False
    observed[spec.name] = (now, waiting)
    return True


def _left_unpublished(
    context: SensorEvaluationContext, stream: Stream, job: str, observed: dict[str, tuple[float, int]]
) -> bool:
    """Whether the warehouse was away when the last run ended, and nothing new comes to make another; asked rarely."""
    now, (at, _) = time.monotonic(), observed.get("", (time.monotonic(), 0))
    observed.setdefault("", (now, 0))
    if now - at < _NOTED_SECONDS:
        return False
    observed[""] = (now, 0)
    if active(context, {STREAM: stream.name}, job):
        return False
    try:
        return unpublished_since(stream) is not None
    except HeadraceError:
        return False


def _shares(spec: Spec) -> Iterator[tuple[int | None, str]]:
    """Share and label of each run that drains a source at the same time."""
    if spec.runs == 1:
        yield None, spec.name
        return
    for number in range(spec.runs):
        yield number, f"{spec.name} {number + 1}/{spec.runs}"


def _waiting(backlog: Backlog, spec: Spec, share: int | None) -> int:
    """Messages that wait in a run's share of a source."""
    if share is None:
        return backlog.waiting
    return sum(n for c, n in backlog.by_cursor.items() if int(c.rpartition("/")[2]) % spec.runs == share)


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
    """Rebuilds the models of touched days once their data has been quiet for a while.

    Those before ``begin``, where the partitions begin, wait until the definitions have been loaded again.
    """
    version, around = views_version(manifest, settings), reach(manifest, pipeline)
    below = dbt.views_below(manifest, pipeline)

    @sensor(
        name=f"{pipeline.name}_refresh",
        job=job,
        minimum_interval_seconds=_seconds(pipeline.cadence.look, settings.sensor_seconds),
        default_status=DefaultSensorStatus.RUNNING,
        tags=tags_of(pipeline),
        description=f"Rebuilds the marts of days of {pipeline.name} that got new rows.",
    )
    def refresh(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        if missing := _not_deployed(instance_of(context), views.name, version, below):
            return SkipReason(f"views of this version are not deployed yet: {', '.join(missing)}")
        if active(context, {STREAM: pipeline.name}, job.name):
            return SkipReason("a refresh is running")
        with streams.look(pipeline) as stream:
            try:
                touched = stream.stale_days()
                built = not touched or stream.ever_refreshed()
                unpublished = bool(touched) and unpublished_since(stream) is not None
            except Retriable as error:
                return SkipReason(str(error))
        if not touched:
            return SkipReason("all models are as new as their rows")
        early = [one.day for one in touched if one.day < begin]
        touched = [one for one in touched if one.day >= begin]
        if not touched:
            return SkipReason(
                f"{early[0]} is before {begin}, where the partitions begin, until these are loaded again"
            )
        wait = _still_hot(touched, unpublished, pipeline, settings, datetime.now(UTC), built=built)
        if wait:
            return SkipReason(f"{len(touched)} days touched; {wait}")
        days = {t.day for t in touched}
        held = pauses.paused_days(instance_of(context), job.name, {STREAM: pipeline.name}, days)
        if held.keys() == days:
            return SkipReason(f"{len(days)} days touched; {max(held.values(), key=lambda p: p.next_try)}")
        groups = apart(days - held.keys(), held)
        chosen = [one for group in groups for one in ranges(group, begin, *around)]
        return SensorResult(run_requests=refreshes(pipeline, chosen, pauses.tags))

    return refresh


def _not_deployed(instance: DagsterInstance, job: str, version: str, views: frozenset[AssetKey]) -> list[str]:
    """Which of these views no run has deployed in this version. One that fails holds up those above it alone."""
    filters = RunsFilter(job_name=job, tags={VIEWS: version})
    runs = instance.get_runs(filters, limit=_DEPLOYMENTS)
    if any(run.status is DagsterRunStatus.SUCCESS for run in runs):
        return []
    made: set[AssetKey] = set()
    for run in runs:
        if run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            made |= _materialized(instance, run.run_id)
    return sorted(key.to_user_string() for key in views - made)


def _materialized(instance: DagsterInstance, run_id: str) -> frozenset[AssetKey]:
    """Assets that a run made; read once for a run that has ended."""
    if run_id not in _made:
        records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION).records
        events = [record.event_log_entry.dagster_event for record in records]
        _made[run_id] = frozenset(event.asset_key for event in events if event and event.asset_key)
        for old in list(_made)[:-_KEPT_RUNS]:
            _made.pop(old, None)
    return _made[run_id]


def refreshes(
    pipeline: Pipeline, days: Iterable[tuple[date, date]], tags: Mapping[str, str]
) -> list[RunRequest]:
    """A run for each range of days, both ends inclusive, with these tags."""
    own = {STREAM: pipeline.name, **tags}
    return [
        RunRequest(tags={**own, RANGE_START: start.isoformat(), RANGE_END: end.isoformat()})
        for start, end in days
    ]


def _still_hot(
    touched: list[StaleDay],
    unpublished: bool,
    pipeline: Pipeline,
    settings: Settings,
    now: datetime,
    *,
    built: bool = True,
) -> str | None:
    """Why the touched days had better wait; None once they are quiet or have waited long enough.

    Quiet is what the data say, not whether a run is there: one that stays for a trickle always is.
    Models that were never built wait less: until then, whoever asks for them gets an error.
    """
    latest = max(t.latest for t in touched)
    since = min(t.since for t in touched)
    cadence = pipeline.cadence
    longest = _seconds(cadence.at_most, settings.refresh_max_wait_seconds)
    if (now - since).total_seconds() >= (longest if built else min(longest, FIRST_BUILD_SECONDS)):
        return None
    if unpublished:
        return "what has landed is not all published"
    cooldown = _seconds(cadence.cooldown, settings.refresh_cooldown_seconds)
    if (now - latest).total_seconds() < cooldown:
        return f"rows arrived within the last {cooldown} s"
    return None


def views_sensor(
    job: Job,
    manifest: Path,
    pipelines: Mapping[str, Pipeline],
    streams: Streams,
    settings: Settings,
    pauses: Backoff,
) -> SensorDefinition:
    """Deploys the views once per version of the dbt project."""
    version = views_version(manifest, settings)

    @sensor(
        name="views_version",
        job=job,
        minimum_interval_seconds=max(10, settings.sensor_seconds),  # a project changes only with the code
        default_status=DefaultSensorStatus.RUNNING,
        description="Deploys staging and intermediate views when they changed.",
    )
    def views(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        tags, instance = {VIEWS: version}, instance_of(context)
        runs = instance.get_runs(RunsFilter(job_name=job.name, tags=tags), limit=1)
        if runs and runs[0].status not in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            return SkipReason(f"version {version} is deployed or being deployed")
        if paused := pauses.pause(instance, job.name, tags):
            return SkipReason(f"version {version}: {paused}")
        for pipeline in pipelines.values():  # all of them have the same warehouse
            try:
                with streams.look(pipeline) as stream:
                    stream.warehouse.query("SELECT 1")
            except Retriable as error:
                return SkipReason(str(error))
            break
        return SensorResult(run_requests=[RunRequest(tags={**tags, **pauses.tags})])

    return views
