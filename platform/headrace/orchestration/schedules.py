"""Schedules: what cron does elsewhere."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, ScheduleDefinition

from headrace.orchestration.sensors import Job


def health_schedule(job: Job) -> ScheduleDefinition:
    """All health checks, hourly."""
    return ScheduleDefinition(
        name="hourly_health",
        job=job,
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Runs every health check of lake and warehouse.",
    )
