"""Hourly upkeep of the lake's files and of the logs of Dagster's runs."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from dagster import In, JobDefinition, Nothing, OpExecutionContext, job, op

from headrace.config.settings import Settings
from headrace.core.errors import HeadraceError, Retriable
from headrace.health.freshness import needed_since
from headrace.lake.delta import DeltaLakeTable
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.retention import Keep, forget
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream


def upkeep_job(pipelines: Mapping[str, Pipeline], settings: Settings) -> JobDefinition:
    """Make the job that maintains the lake tables of every stream, then removes old logs."""

    @op(description="Puts small files together, removes old ones, checkpoints the log.")
    def maintain_lake(context: OpExecutionContext, streams: Streams) -> None:
        wrong, pruned = [], None
        keep, keep_log = timedelta(days=settings.lake_keep_days), timedelta(hours=settings.lake_log_hours)
        for pipeline in pipelines.values():
            with streams.open(pipeline) as stream:
                if pruned is None:  # the list belongs to the lake, which all streams share
                    pruned = stream.erasures.prune()
                for table in (stream.lake.good, stream.lake.rejected):
                    try:
                        done = table.maintain(keep, keep_log, log_needed_since(stream, table))
                    except HeadraceError as error:  # the other tables need it too
                        wrong.append(f"{table.table.name}: {error}")
                        continue
                    context.log.info(
                        f"{table.table.name}: {done.compacted:,} files became {done.written:,},"
                        f" {done.removed:,} old ones are gone"
                    )
        if wrong:
            raise Retriable("; ".join(wrong))

    @op(
        ins={"after": In(Nothing)},
        description="Removes what Dagster need not keep of runs, ticks and assets.",
    )
    def remove_old_logs(context: OpExecutionContext) -> None:
        keep = Keep.of(settings)
        gone = forget(context.instance, keep)
        context.log.info(
            f"gone are the logs of {gone.logs:,} runs before {keep.since:%Y-%m-%d %H:%M} UTC or beyond the newest"
            f" {keep.runs:,} of their job, {gone.runs:,} runs, {gone.events:,} events of assets, {gone.ticks:,} ticks"
        )

    @job(name="upkeep", description="Lake maintenance, and retention of the logs of runs.")
    def upkeep() -> None:
        remove_old_logs(maintain_lake())

    return upkeep


def log_needed_since(stream: Stream, table: DeltaLakeTable) -> datetime | None:
    """Give the commit time of the first unpublished version; long ago if the warehouse does not answer."""
    try:
        return needed_since(stream, table)
    except HeadraceError:
        return datetime.fromtimestamp(0, UTC)
