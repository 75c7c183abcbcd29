"""The assets of a pipeline: topics, queues and folders, lake tables, warehouse tables."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    DailyPartitionsDefinition,
    MaterializeResult,
    asset,
)

from headrace.collector.topics import collected, topic_of
from headrace.config.settings import Settings
from headrace.core.locks import introduce
from headrace.orchestration import metadata, resume
from headrace.orchestration.ingest_report import IngestReport
from headrace.orchestration.ingest_run import Drain, ingest_run
from headrace.orchestration.keys import http_key, lake_key, rejected_key, source_key, tags_of, warehouse_key
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline
from headrace.pipelines.modules import written
from headrace.streams.stream import Stream


def source_specs(pipeline: Pipeline, file: Path) -> list[AssetSpec]:
    """Declare the external assets in which messages wait, and the collector in front of the topic to which it sends."""
    door = topic_of(pipeline) if collected(pipeline) else None
    found = [
        AssetSpec(
            source_key(spec),
            deps=[http_key(pipeline)] if spec is door else [],
            group_name="sources",
            kinds={spec.kind},
            owners=[pipeline.owner],
            tags=tags_of(pipeline),
            description=f"{spec.noun.capitalize()} with {pipeline.name}. Observed while the sensor looks at it.",
            metadata=metadata.code(file),
        )
        for spec in pipeline.sources
    ]
    return found if door is None else [_http_spec(pipeline, file), *found]


def _http_spec(pipeline: Pipeline, file: Path) -> AssetSpec:
    return AssetSpec(
        http_key(pipeline),
        group_name="sources",
        kinds={"http"},
        owners=[pipeline.owner],
        tags=tags_of(pipeline),
        description=f"What `headrace collect` takes of {pipeline.name} over HTTP, and keeps until the lake has it. "
        "Observed while its log holds any.",
        metadata=metadata.code(file),
    )


def rejected_spec(pipeline: Pipeline, file: Path, settings: Settings) -> AssetSpec:
    """Declare the external asset of rejected rows, which ingest runs publish, too."""
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
    """Make ``lake/<stream>``: it drains the sources, and publishes as it goes."""
    loaded = written(settings.pipeline_folders)

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
        report = IngestReport(context, lake_key(pipeline), warehouse_key(pipeline), rejected_key(pipeline))
        with streams.open(pipeline) as stream:
            return MaterializeResult(metadata=ingest_run(context, config, stream, report, settings, loaded))

    return lake


def warehouse_asset(
    pipeline: Pipeline, daily: DailyPartitionsDefinition, file: Path, settings: Settings
) -> AssetsDefinition:
    """Make ``warehouse/<stream>``: ingest runs publish to it, materialising replaces its days from the lake."""

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
        with streams.open(pipeline) as stream:
            done = _replaced(context, stream, warehouse_key(pipeline), days_of(context))
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


def _replaced(
    context: AssetExecutionContext, stream: Stream, key: AssetKey, days: Sequence[date]
) -> dict[str, int]:
    """Replace days from the lake, but for those that an earlier attempt has finished; returns the rows by day."""
    done = dict(resume.finished(context.instance, key, context.run.parent_run_id))
    if done:
        context.log.info(f"an earlier attempt has rebuilt {len(done):,} days already")
    for day, rows in stream.replace_days(day for day in days if day.isoformat() not in done):
        resume.rebuilt(context, key, day, rows)
        done[day.isoformat()] = rows
        context.log.info(f"{day}: {rows:,} rows, {len(done):,} of {len(days):,} days")
    return done
