"""Topics, queues and folders, lake tables, warehouse tables: what a pipeline is in Dagster."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    DailyPartitionsDefinition,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)
from pydantic import Field

from headrace.lake import Extent
from headrace.locks import holder, introduce, turn
from headrace.orchestration import metadata, resume
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.orchestration.storage import report_materializations
from headrace.pipelines import Pipeline, Spec
from headrace.settings import Settings
from headrace.stream import Step

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
        started = time.monotonic()
        totals: dict[str, Step] = {}
        pace: list[float] = []
        with streams.open(pipeline) as stream:
            for name in config.sources or [spec.name for spec in pipeline.sources]:
                with turn(_lock(settings, pipeline, name, config.share), _HAND_OVER_SECONDS) as alone:
                    if not alone:
                        holds = holder(_lock(settings, pipeline, name, config.share))
                        context.log.warning(f"{name}: {holds} still reads; going on beside it")
                    before = (0, time.monotonic())
                    for step in stream.drain(name, share=config.share):
                        totals[name] = step
                        now = (step.landed.messages, time.monotonic())
                        pace += [(now[0] - before[0]) / max(now[1] - before[1], 1e-9)] * (now[0] > before[0])
                        before = now
                        context.log.info(_progress(name, step))
                for why in totals[name].landed.refused:
                    context.log.error(why)
            snapshot = stream.lake.good.open()
            version, extent = snapshot.version, stream.lake.good.extent()
            cursors = [c for name in totals for c in stream.source(name, config.share).cursors()]
            offsets = dict(snapshot.position(cursors))
        report_materializations(context.op_execution_context, list(_published(pipeline, totals, version)))
        found = _metadata(totals, version, extent, time.monotonic() - started)
        found["throughput"] = metadata.sparkline(pace, "messages/s, batch by batch")
        if offsets:
            found["offsets"] = _offsets(offsets)
        return MaterializeResult(metadata=found)

    return lake


def _lock(settings: Settings, pipeline: Pipeline, source: str, share: int | None) -> Path:
    label = f"{pipeline.name}-{source}" if share is None else f"{pipeline.name}-{source}-{share}"
    return settings.home / "locks" / f"ingest-{quote(label, safe='')}.lock"


def _progress(name: str, step: Step) -> str:
    got = step.landed
    erased = f", {got.erased:,} dropped of people who were erased" if got.erased else ""
    return f"{name}: {got.messages:,} messages, {got.good:,} rows landed, {got.rejected:,} rejected{erased}"


def _published(pipeline: Pipeline, totals: dict[str, Step], version: int) -> Iterator[AssetMaterialization]:
    days = {day for step in totals.values() for day in step.published.days}
    for day in sorted(days):
        yield AssetMaterialization(
            warehouse_key(pipeline), partition=day.isoformat(), metadata={"lake_version": version}
        )
    rejected = sum(step.landed.rejected for step in totals.values())
    if rejected:
        yield AssetMaterialization(rejected_key(pipeline), metadata={"rejected": rejected})


def _metadata(
    totals: dict[str, Step], version: int, extent: Extent, seconds: float
) -> dict[str, MetadataValue]:
    messages = sum(s.landed.messages for s in totals.values())
    gaps = [str(gap) for s in totals.values() for gap in s.landed.gaps]
    found: dict[str, MetadataValue] = {
        "dagster/row_count": MetadataValue.int(extent.rows),
        "size_bytes": MetadataValue.int(extent.bytes),
        "files": MetadataValue.int(extent.files),
        "lake_version": MetadataValue.int(version),
        "messages": MetadataValue.int(messages),
        "landed_rows": MetadataValue.int(sum(s.landed.good for s in totals.values())),
        "rejected": MetadataValue.int(sum(s.landed.rejected for s in totals.values())),
        "repeated": MetadataValue.int(sum(s.landed.repeated for s in totals.values())),
        "erased": MetadataValue.int(sum(s.landed.erased for s in totals.values())),
        "published_rows": MetadataValue.int(sum(s.published.rows for s in totals.values())),
        "messages_per_second": MetadataValue.float(round(messages / max(seconds, 1e-9), 1)),
    }
    if gaps:
        found["lost_offsets"] = MetadataValue.md("\n".join(f"- `{gap}`" for gap in gaps))
    refused = [why for s in totals.values() for why in s.landed.refused]
    if refused:
        found["refused_files"] = MetadataValue.md("\n".join(f"- {why}" for why in refused))
    return found


def _offsets(offsets: dict[str, int]) -> MetadataValue:
    schema = TableSchema([TableColumn("cursor", "string"), TableColumn("next_offset", "int")])
    records = [TableRecord({"cursor": c, "next_offset": n}) for c, n in sorted(offsets.items())]
    return MetadataValue.table(records, schema)


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
            version = stream.published_version()
        return MaterializeResult(
            metadata={
                "dagster/partition_row_count": sum(done.values()),
                "days": len(done),
                "lake_version": version,
                "rows_by_day": metadata.sparkline(list(done.values()), "rows, day by day"),
            }
        )

    return warehouse
