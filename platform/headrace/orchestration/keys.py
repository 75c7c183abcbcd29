"""Asset keys and tags of a pipeline."""

from __future__ import annotations

from dagster import AssetKey

from headrace.pipelines import Pipeline, Spec

STREAM = "headrace/stream"


def source_key(spec: Spec) -> AssetKey:
    """Make the asset key of a topic, a queue or a folder."""
    return AssetKey(spec.name.split("/"))


def http_key(pipeline: Pipeline) -> AssetKey:
    """Make the asset key of what the collector takes of a stream."""
    return AssetKey(["http", pipeline.name])


def lake_key(pipeline: Pipeline) -> AssetKey:
    """Make the asset key of a lake table."""
    return AssetKey(["lake", pipeline.name])


def warehouse_key(pipeline: Pipeline) -> AssetKey:
    """Make the asset key of a raw warehouse table."""
    return AssetKey(["warehouse", pipeline.name])


def rejected_key(pipeline: Pipeline) -> AssetKey:
    """Make the asset key of the warehouse table of rejected rows."""
    return AssetKey(["warehouse", pipeline.contract.rejected_table.name])


def tags_of(pipeline: Pipeline) -> dict[str, str]:
    """Make the tags of a stream's assets."""
    return {**pipeline.tags, STREAM: pipeline.name}
