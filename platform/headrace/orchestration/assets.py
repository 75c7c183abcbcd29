"""Topics, queues and folders, lake tables, warehouse tables: what a pipeline is in Dagster."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import time
from collections.abc import Iterator

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
    TableSchema,
    asset,
)
from pydantic import Field

from headrace.batch import Table
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.orchestration.storage import report_materializations
from headrace.pipelines import Pipeline, Spec
from headrace.stream import Step


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


def source_specs(pipeline: Pipeline) -> list[AssetSpec]:
    """External assets: where messages wait."""
    return [
        AssetSpec(
            source_key(spec),
            group_name="sources",
            kinds={spec.kind},
            owners=[pipeline.owner],
            description=f"{spec.noun.capitalize()} with {pipeline.name}",
        )
        for spec in pipeline.sources
    ]


def column_schema(table: Table) -> TableSchema:
    """A table's columns for the catalogue."""
    columns = [
        TableColumn(name, str(dtype), description=table.comments.get(name))
        for name, dtype in table.schema.items()
    ]
    return TableSchema(columns)


def lake_asset(pipeline: Pipeline) -> AssetsDefinition:
    """``lake/<stream>``: drains the sources, and publishes as it goes."""

    @asset(
        key=lake_key(pipeline),
        deps=[source_key(spec) for spec in pipeline.sources],
        group_name="lake",
        kinds={"deltalake", "polars"},
        owners=[pipeline.owner],
        description=f"{pipeline.description}. Every acknowledged message exactly once, good or rejected.",
        metadata={"dagster/column_schema": column_schema(pipeline.contract.table)},
    )
    def lake(context: AssetExecutionContext, config: Drain, streams: Streams) -> MaterializeResult:  # type: ignore[type-arg]
        started = time.monotonic()
        totals: dict[str, Step] = {}
        with streams.open(pipeline) as stream:
            for name in config.sources or [spec.name for spec in pipeline.sources]:
                for step in stream.drain(name, share=config.share):
                    totals[name] = step
                    context.log.info(_progress(name, step))
                for why in totals[name].landed.refused:
                    context.log.error(why)
            version = stream.lake.good.open().version
        report_materializations(context.op_execution_context, list(_published(pipeline, totals)))
        return MaterializeResult(metadata=_metadata(totals, version, time.monotonic() - started))

    return lake


def _progress(name: str, step: Step) -> str:
    got = step.landed
    return f"{name}: {got.messages:,} messages, {got.good:,} rows landed, {got.rejected:,} rejected"


def _published(pipeline: Pipeline, totals: dict[str, Step]) -> Iterator[AssetMaterialization]:
    days = {day for step in totals.values() for day in step.published.days}
    for day in sorted(days):
        yield AssetMaterialization(warehouse_key(pipeline), partition=day.isoformat())


def _metadata(totals: dict[str, Step], version: int, seconds: float) -> dict[str, MetadataValue]:
    messages = sum(s.landed.messages for s in totals.values())
    gaps = [str(gap) for s in totals.values() for gap in s.landed.gaps]
    found: dict[str, MetadataValue] = {
        "dagster/row_count": MetadataValue.int(sum(s.landed.good for s in totals.values())),
        "messages": MetadataValue.int(messages),
        "rejected": MetadataValue.int(sum(s.landed.rejected for s in totals.values())),
        "repeated": MetadataValue.int(sum(s.landed.repeated for s in totals.values())),
        "published_rows": MetadataValue.int(sum(s.published.rows for s in totals.values())),
        "messages_per_second": MetadataValue.float(round(messages / max(seconds, 1e-9), 1)),
        "lake_version": MetadataValue.int(version),
    }
    if gaps:
        found["lost_offsets"] = MetadataValue.md("\n".join(f"- `{gap}`" for gap in gaps))
    refused = [why for s in totals.values() for why in s.landed.refused]
    if refused:
        found["refused_files"] = MetadataValue.md("\n".join(f"- {why}" for why in refused))
    return found


def warehouse_asset(pipeline: Pipeline, daily: DailyPartitionsDefinition) -> AssetsDefinition:
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
        description=f"Raw {pipeline.name}, published from the lake as they land. Materialising a day replaces it.",
        metadata={"dagster/column_schema": column_schema(pipeline.contract.table)},
    )
    def warehouse(context: AssetExecutionContext, streams: Streams) -> MaterializeResult:  # type: ignore[type-arg]
        with streams.open(pipeline) as stream:
            rows = stream.replace_days(days_of(context))
        return MaterializeResult(metadata={"dagster/row_count": sum(rows.values()), "days": len(rows)})

    return warehouse
