"""The sensor that launches ingest runs while messages wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from dagster import (
    AssetObservation,
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from headrace.collector.held import held
from headrace.config.settings import Settings
from headrace.core.batch import Backlog, Position
from headrace.core.errors import HeadraceError
from headrace.health.freshness import unpublished_since
from headrace.orchestration import metadata
from headrace.orchestration.backoff import Backoff
from headrace.orchestration.keys import STREAM, http_key, source_key, tags_of
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import Job
from headrace.orchestration.sensors import ACTIVE, SOURCE, active, instance_of, seconds
from headrace.pipelines import Pipeline, Spec
from headrace.streams.stream import Stream

#: From a request to a run that reads: the queue's interval, a fork, the connections.
_STARTING_SECONDS = 5
#: Seconds between two observations of a source, and between two looks for unpublished versions.
_NOTED_SECONDS = 60.0


def backlog_sensor(
    pipeline: Pipeline, job: Job, streams: Streams, settings: Settings, pauses: Backoff
) -> SensorDefinition:
    """Make the sensor that launches an ingest run for each source with a backlog and no run yet.

    A run that will soon hand over gets its relief: the next run is started before it ends, and waits for it. So
    messages that arrive meanwhile do not wait for a run to start.

    Args:
        pipeline: The stream.
        job: Its ingest job.
        streams: Opens the stream.
        settings: Settings of the installation.
        pauses: Backoff of the job.
    """
    noted = _Noted()

    @sensor(
        name=f"{pipeline.name}_backlog",
        job=job,
        minimum_interval_seconds=_interval(pipeline, settings),
        default_status=DefaultSensorStatus.RUNNING,
        tags=tags_of(pipeline),
        description=f"Launches ingest runs of {pipeline.name} while messages wait.",
    )
    def backlog(context: SensorEvaluationContext) -> SensorResult | SkipReason:
        with streams.look(pipeline) as stream:
            tick = _Tick(instance_of(context), job.name, stream, settings, pauses, noted)
            for spec in pipeline.sources:
                tick.look_at(spec)
            tick.look_at_door()
            if not tick.requests:
                tick.look_for_unpublished()
        return tick.result()

    return backlog


def _interval(pipeline: Pipeline, settings: Settings) -> int:
    return seconds(pipeline.cadence.look, settings.sensor_seconds)


class _Noted:
    """What earlier ticks noted, so that it is noted once a minute at most."""

    def __init__(self) -> None:
        self._observed: dict[str, tuple[float, int]] = {}
        self._looked_at: float | None = None
        self._asked_at: float | None = None

    def worth_observing(self, source: str, waiting: int) -> bool:
        """Tell whether a backlog is worth an observation: at its first look, then once a minute if it changed."""
        now, (at, before) = time.monotonic(), self._observed.get(source, (-_NOTED_SECONDS, -1))
        if now - at < _NOTED_SECONDS or waiting == before:
            return False
        self._observed[source] = (now, waiting)
        return True

    def worth_asking(self) -> bool:
        """Tell whether the collector's log was not looked at within the last minute."""
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < _NOTED_SECONDS:
            return False
        self._asked_at = now
        return True

    def worth_looking(self) -> bool:
        """Tell whether a minute has passed since the first look for unpublished versions, or the last."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at >= _NOTED_SECONDS:
            self._looked_at = now
            return True
        self._looked_at = self._looked_at or now
        return False


class _Tick:
    """One tick: the runs to request, the observations to report, and a line about each source.

    Attributes:
        requests: Runs to launch.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        job: str,
        stream: Stream,
        settings: Settings,
        pauses: Backoff,
        noted: _Noted,
    ) -> None:
        self.requests: list[RunRequest] = []
        self._seen: list[str] = []
        self._events: list[AssetObservation] = []
        self._instance, self._job, self._stream, self._noted = instance, job, stream, noted
        self._settings, self._pauses = settings, pauses

    def look_at(self, spec: Spec) -> None:
        """Request a run for each share of a source that needs one; asks the source once, and only if it has to."""
        looked: tuple[Backlog, Position] | None = None
        for share, label in _shares(spec):
            started = self._started(label)
            if why := self._why_not(label, started):
                self._seen.append(f"{label}: {why}")
                continue
            # a run that has stayed until now has had messages lately
            if started and self._settings.ingest_linger_seconds:
                self._request(spec, share, label, "a run hands over")
                continue
            try:
                looked = looked or self._stream.look(spec.name)
            except HeadraceError as error:  # the other sources may well answer
                self._seen.append(f"{label}: {error}")
                continue
            if waiting := _waiting(looked[0], spec, share):
                self._request(spec, share, label, str(waiting))
            else:
                self._seen.append(f"{label}: 0")
        if looked is not None and self._noted.worth_observing(spec.name, looked[0].waiting):
            self._events.append(AssetObservation(source_key(spec), metadata=metadata.backlog(*looked)))

    def look_at_door(self) -> None:
        """Note what the collector's log holds, once a minute at most, because that reads the log."""
        if not self._noted.worth_asking():
            return
        try:
            found = held(self._stream)
        except HeadraceError as error:
            self._seen.append(str(error))
            return
        if found is not None and self._noted.worth_observing("http", found.entries):
            key = http_key(self._stream.pipeline)
            self._events.append(AssetObservation(key, metadata=metadata.held(found)))

    def look_for_unpublished(self) -> None:
        """Request a run if the warehouse was away when the last one ended, and no message makes another."""
        if not self._left_unpublished():
            return
        spec = self._stream.pipeline.sources[0]
        self._seen.append("what has landed is not all published")
        if not self._pauses.pause(self._instance, self._job, self._tags(spec.name)):
            self.requests.append(self._run(spec, None, spec.name))

    def result(self) -> SensorResult | SkipReason:
        """Give Dagster's result of the tick."""
        if self.requests or self._events:
            return SensorResult(run_requests=self.requests, asset_events=self._events)
        return SkipReason("; ".join(self._seen))

    def _started(self, label: str) -> list[float | None]:
        """Read when the runs began that read this share, two at most."""
        filters = RunsFilter(job_name=self._job, statuses=ACTIVE, tags=self._tags(label))
        return [record.start_time for record in self._instance.get_run_records(filters, limit=2)]

    def _why_not(self, label: str, started: Sequence[float | None]) -> str:
        # the relief has to be asked for at the last tick that is early enough
        lead = _interval(self._stream.pipeline, self._settings) + _STARTING_SECONDS
        relief_after = self._settings.ingest_max_seconds - lead
        if why := why_no_run_needed(started, relief_after, time.time()):
            return why
        paused = self._pauses.pause(self._instance, self._job, self._tags(label))
        return str(paused) if paused else ""

    def _request(self, spec: Spec, share: int | None, label: str, why: str) -> None:
        self._seen.append(f"{label}: {why}")
        self.requests.append(self._run(spec, share, label))

    def _run(self, spec: Spec, share: int | None, label: str) -> RunRequest:
        linger = self._settings.ingest_linger_seconds
        drain = {"sources": [spec.name], "share": share, "linger_seconds": linger}
        config = {"ops": {f"lake__{self._stream.name}": {"config": drain}}}
        return RunRequest(run_config=config, tags={**self._tags(label), **self._pauses.tags})

    def _tags(self, label: str) -> dict[str, str]:
        return {STREAM: self._stream.name, SOURCE: label}

    def _left_unpublished(self) -> bool:
        if not self._noted.worth_looking():
            return False
        if active(self._instance, {STREAM: self._stream.name}, self._job):
            return False
        try:
            return unpublished_since(self._stream) is not None
        except HeadraceError:
            return False


def why_no_run_needed(started: Sequence[float | None], relief_after: float, now: float) -> str:
    """Tell why a source needs no run besides those that read it already; empty if it needs one.

    Args:
        started: Begin of each of these runs, seconds since 1970; None for one that has not begun.
        relief_after: Age at which a run needs its relief, seconds.
        now: The time, seconds since 1970.
    """
    if len(started) > 1:
        return "a run is on it, and the next one is ready"
    if started and (started[0] is None or now < started[0] + relief_after):
        return "a run is on it"
    return ""


def _shares(spec: Spec) -> Iterator[tuple[int | None, str]]:
    """List the runs that drain a source at the same time: share and label of each."""
    if spec.runs == 1:
        yield None, spec.name
        return
    for number in range(spec.runs):
        yield number, f"{spec.name} {number + 1}/{spec.runs}"


def _waiting(backlog: Backlog, spec: Spec, share: int | None) -> int:
    """Count the messages that wait in a run's share of a source."""
    if share is None:
        return backlog.waiting
    return sum(n for c, n in backlog.by_cursor.items() if int(c.rpartition("/")[2]) % spec.runs == share)
