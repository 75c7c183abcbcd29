"""The sensor that deploys the views, once per version of the dbt project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dagster import (
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
from headrace.core.errors import Retriable
from headrace.models.project import views_version
from headrace.orchestration.backoff import Backoff
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import Job
from headrace.orchestration.sensors import VIEWS, active, deployments, instance_of
from headrace.pipelines import Pipeline


def views_sensor(
    job: Job,
    manifest: Path,
    pipelines: Mapping[str, Pipeline],
    streams: Streams,
    settings: Settings,
    pauses: Backoff,
) -> SensorDefinition:
    """Make the sensor that deploys the views when they changed.

    Args:
        job: The job that deploys them.
        manifest: Manifest of the dbt project.
        pipelines: Pipelines by stream; all of them have the same warehouse.
        streams: Opens a stream.
        settings: Settings of the installation.
        pauses: Backoff of the job.
    """
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
        runs = deployments(instance, job.name, version)
        if runs and runs[0].status not in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
            return SkipReason(f"version {version} is deployed or being deployed")
        if active(instance, {}, job.name):
            return SkipReason("another version is being deployed")
        if paused := pauses.pause(instance, job.name, tags):
            return SkipReason(f"version {version}: {paused}")
        if away := _warehouse_is_away(pipelines, streams):
            return SkipReason(away)
        return SensorResult(run_requests=[RunRequest(tags={**tags, **pauses.tags})])

    return views


def _warehouse_is_away(pipelines: Mapping[str, Pipeline], streams: Streams) -> str:
    """Say why the warehouse does not answer; empty if it does."""
    for pipeline in [*pipelines.values()][:1]:
        try:
            with streams.look(pipeline) as stream:
                stream.warehouse.query("SELECT 1")
        except Retriable as error:
            return str(error)
    return ""
