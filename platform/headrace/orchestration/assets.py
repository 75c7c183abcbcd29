"""Topics, queues and folders, lake tables, warehouse tables: what a pipeline is in Dagster."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    DailyPartitionsDefinition,
    MaterializeResult,
    asset,
)
from pydantic import Field

from headrace.config.settings import Settings
from headrace.core.locks import Slots, holder, introduce, try_lock
from headrace.orchestration import metadata, resume
from headrace.orchestration.ingest_report import IngestReport
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline, Spec
from headrace.streams.drain import drain

STREAM = "headrace/stream"
#: A run is started before the one that it relieves ends, and waits for it so long: its last batch and publication.
_HAND_OVER_SECONDS = 60.0


class Drain(Config):
    """Run config of an ingest run."""

    sources: list[str] = Field(
        default_factory=list, description="sources to drain; none: all of the pipeline"
    )
    share: int | None = Field(
        None, description="only this run's share of a topic's partitions; none: all of them"
    )
    linger_seconds: float = Field(
        0.0, description="stay for what comes so soon after the last message; of one source only"
    )


def source_key(spec: Spec) -> AssetKey:
    """Asset key of a topic, a queue or a folder."""
    return AssetKey(spec.name.split("/"))


def lake_key(pipeline: Pipeline) -> AssetKey:
    """Asset key of a lake table."""
    return AssetKey(["lake", pipeline.name])


def warehouse_key(pipeline: Pipeline) -> AssetKey:
    """Asset key of a raw warehouse table."""
    return AssetKey(["warehouse", pipeline.name])


def rejected_key(pipeline: Pipeline) -> AssetKey:
    """Asset key of the warehouse table with what the contract refused."""
    return AssetKey(["warehouse", pipeline.contract.rejected_table.name])


def tags_of(pipeline: Pipeline) -> dict[str, str]:
    """Tags of a stream's assets."""
    return {**pipeline.tags, STREAM: pipeline.name}


def source_specs(pipeline: Pipeline, file: Path) -> list[AssetSpec]:
    """External assets: where messages wait."""
    return [
        AssetSpec(
            source_key(spec),
            group_name="sources",
            kinds={spec.kind},
            owners=[pipeline.owner],
            tags=tags_of(pipeline),
            description=f"{spec.noun.capitalize()} with {pipeline.name}. Observed while the sensor looks at it.",
            metadata=metadata.code(file),
        )
        for spec in pipeline.sources
    ]


def rejected_spec(pipeline: Pipeline, file: Path, settings: Settings) -> AssetSpec:
    """External asset: what the contract refused, published by the same runs."""
    table = pipeline.contract.rejected_table
    return AssetSpec(
        rejected_key(pipeline),
        deps=[lake_key(pipeline)],
        group_name="warehouse",
        kinds={"clickhouse"},
        owners=[pipeline.owner],
        tags=tags_of(pipeline),
        description=f"{table.description}. See `headrace rejects`.",
        metadata={
            "dagster/column_schema": metadata.columns_of(table),
            "dagster/table_name": f"{settings.raw_database}.{table.name}",
            **metadata.code(file),
        },
    )


def lake_asset(pipeline: Pipeline, file: Path, settings: Settings) -> AssetsDefinition:
    """``lake/<stream>``: drains the sources, and publishes as it goes."""

    @asset(
        key=lake_key(pipeline),
        deps=[source_key(spec) for spec in pipeline.sources],
        group_name="lake",
        kinds={"deltalake", "polars"},
        owners=[pipeline.owner],
        tags=tags_of(pipeline),
        description=f"{pipeline.description}. Every acknowledged message exactly once, good or rejected.",
        metadata={
            "dagster/column_schema": metadata.columns_of(pipeline.contract.table),
            "dagster/uri": f"{settings.lake}/{pipeline.contract.table.name}",
            **metadata.code(file),
        },
    )
    def lake(context: AssetExecutionContext, config: Drain, streams: Streams) -> MaterializeResult:  # type: ignore[type-arg]
        introduce(f"Dagster run {context.run.run_id[:8]} of {context.job_name}")
        names = config.sources or [spec.name for spec in pipeline.sources]
        linger = config.linger_seconds if len(names) == 1 else 0.0  # the next source would wait for its end
        report = IngestReport(context, lake_key(pipeline), warehouse_key(pipeline), rejected_key(pipeline))
        with streams.open(pipeline) as stream, _slot(settings) as slot:
            pace = replace(stream.pace, linger_seconds=linger)
            for name in names:
                with try_lock(_lock(settings, pipeline, name, config.share), _HAND_OVER_SECONDS) as alone:
                    if not alone:
                        holds = holder(_lock(settings, pipeline, name, config.share))
                        context.log.warning(f"{name}: {holds} still reads; going on beside it")
                    for step in drain(stream, name, pace, share=config.share, may_linger=slot.acquire):
                        report.step(name, step, stream)
                report.source_done(name)
            snapshot = stream.lake.good.open()
            cursors = [c for name in names for c in stream.source(name, config.share).cursors()]
            offsets = dict(snapshot.position(cursors))
            found = report.end(stream, offsets)
        return MaterializeResult(metadata=found)

    return lake


def _lock(settings: Settings, pipeline: Pipeline, source: str, share: int | None) -> Path:
    label = f"{pipeline.name}-{source}" if share is None else f"{pipeline.name}-{source}-{share}"
    return settings.home / "locks" / f"ingest-{quote(label, safe='')}.lock"


@contextmanager
def _slot(settings: Settings) -> Iterator[Slots]:
    """A slot among the runs of this machine that may linger; released at the end if it was acquired."""
    slot = Slots(settings.home / "locks" / "lingering", settings.ingest_lingering)
    try:
        yield slot
    finally:
        slot.release()


def warehouse_asset(
    pipeline: Pipeline, daily: DailyPartitionsDefinition, file: Path, settings: Settings
) -> AssetsDefinition:
    """``warehouse/<stream>``: ingest runs publish to it; materialising replaces days from the lake."""

    @asset(
        key=warehouse_key(pipeline),
        deps=[lake_key(pipeline)],
        partitions_def=daily,
        backfill_policy=BackfillPolicy.single_run(),
        pool=f"warehouse_{pipeline.name}",
        group_name="warehouse",
        kinds={"clickhouse"},
        owners=[pipeline.owner],
        tags=tags_of(pipeline),
        description=f"Raw {pipeline.name}, published from the lake as they land. Materialising a day replaces it.",
        metadata={
            "dagster/column_schema": metadata.columns_of(pipeline.contract.table),
            "dagster/table_name": f"{settings.raw_database}.{pipeline.contract.table.name}",
            **metadata.code(file),
        },
    )
    def warehouse(context: AssetExecutionContext, streams: Streams) -> MaterializeResult:  # type: ignore[type-arg]
        introduce(f"Dagster run {context.run.run_id[:8]} of {context.job_name}")
        key, days = warehouse_key(pipeline), days_of(context)
        done = dict(resume.finished(context.instance, key, context.run.parent_run_id))
        if done:
            context.log.info(f"an earlier attempt has rebuilt {len(done):,} days already")
        with streams.open(pipeline) as stream:
            for day, rows in stream.replace_days(day for day in days if day.isoformat() not in done):
                resume.rebuilt(context, key, day, rows)
                done[day.isoformat()] = rows
                context.log.info(f"{day}: {rows:,} rows, {len(done):,} of {len(days):,} days")
            version, whole = stream.published_version(), sum(stream.warehouse_counts().values())
        return MaterializeResult(
            metadata={
                "dagster/row_count": whole,
                "dagster/partition_row_count": sum(done.values()),
                "days": len(done),
                "lake_version": version,
                "rows_by_day": metadata.sparkline(list(done.values()), "rows, day by day"),
            }
        )

    return warehouse
