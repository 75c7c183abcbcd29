"""Schedules, all in UTC. ``docs/operations.md`` lists them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster import (
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)

from headrace.config.settings import Settings
from headrace.core.days import ranges
from headrace.core.errors import Retriable
from headrace.models.project import reach
from headrace.orchestration.backoff import Backoff
from headrace.orchestration.keys import STREAM, tags_of
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.refresh import refreshes
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import Job
from headrace.pipelines import Pipeline

_ON = DefaultScheduleStatus.RUNNING


def health_schedule(job: Job) -> ScheduleDefinition:
    """Make the schedule that runs all health checks, hourly."""
    return ScheduleDefinition(
        name="hourly_health",
        job=job,
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=_ON,
        description="Runs every health check of lake, warehouse and models.",
    )


def upkeep_schedule(job: Job) -> ScheduleDefinition:
    """Make the schedule of lake maintenance and retention.

    It is hourly because a commit costs more with every small file that the table holds.
    """
    return ScheduleDefinition(
        name="hourly_upkeep",
        job=job,
        cron_schedule="40 * * * *",
        execution_timezone="UTC",
        default_status=_ON,
        description="Compacts, vacuums and checkpoints the lake; removes the logs of old runs.",
    )


def hourly_marts(
    pipeline: Pipeline,
    job: Job,
    manifest: Path,
    streams: Streams,
    settings: Settings,
    pauses: Backoff,
    begin: date,
) -> ScheduleDefinition:
    """Make the schedule that rebuilds days still stale after an hour: the sensor was off, or their rebuild failed."""
    around = reach(manifest, pipeline)

    @schedule(
        name=f"{pipeline.name}_hourly",
        job=job,
        cron_schedule="37 * * * *",
        execution_timezone="UTC",
        default_status=_ON,
        tags=tags_of(pipeline),
        description="Rebuilds the marts of days that have been waiting for more than an hour.",
    )
    def hourly(context: ScheduleEvaluationContext) -> list[RunRequest] | SkipReason:
        with streams.look(pipeline) as stream:
            try:
                stale = stream.stale_days()
            except Retriable as error:
                return SkipReason(str(error))
        old = context.scheduled_execution_time - timedelta(hours=1)
        days = [one.day for one in stale if one.since < old and one.day >= begin]
        if not days:
            return SkipReason("no day has been waiting for an hour")
        return refreshes(pipeline, ranges(days, begin, *around), pauses.tags)

    return hourly


def daily_close(pipeline: Pipeline, job: Job, begin: date) -> ScheduleDefinition:
    """Make the schedule that rebuilds yesterday from the lake, whether it is stale or not."""

    @schedule(
        name=f"{pipeline.name}_daily",
        job=job,
        cron_schedule="20 1 * * *",
        execution_timezone="UTC",
        default_status=_ON,
        tags=tags_of(pipeline),
        description="Rebuilds yesterday from the lake, raw rows and marts, and checks it.",
    )
    def daily(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        now: datetime = context.scheduled_execution_time.astimezone(UTC)
        yesterday = now.date() - timedelta(days=1)
        if yesterday < begin:
            return SkipReason(f"the stream begins on {begin}")
        day = yesterday.isoformat()
        return RunRequest(run_key=day, tags={STREAM: pipeline.name, RANGE_START: day, RANGE_END: day})

    return daily
