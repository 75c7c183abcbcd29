"""The dbt models as assets: views once per version of the project, marts by day."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    BackfillPolicy,
    DailyPartitionsDefinition,
)
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliInvocation,
    DbtCliResource,
    dbt_assets,
)
from packaging.version import Version

from headrace import lineage, models
from headrace.orchestration import columns
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline
from headrace.settings import Settings

#: Models that are rebuilt by day carry this tag in dbt_project.yml.
DAILY = "tag:daily"


class Translator(DagsterDbtTranslator):
    """dbt sources are the warehouse assets; models are ``<layer>/<name>``."""

    def __init__(self, path: Path) -> None:
        """Args:
        path: The manifest, beside which the lineage of the columns is.
        """
        super().__init__(settings=DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))
        self.lineage = lineage.read(path)

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        """``warehouse/<table>`` for sources, ``<folder>/<model>`` for models."""
        if dbt_resource_props["resource_type"] == "source":
            return AssetKey(["warehouse", dbt_resource_props["name"]])
        return AssetKey([dbt_resource_props["fqn"][1], dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """The folder of the model."""
        if dbt_resource_props["resource_type"] == "source":
            return "warehouse"
        return str(dbt_resource_props["fqn"][1])

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the columns, and which columns they are made of."""
        metadata = super().get_metadata(dbt_resource_props)
        found = columns.schema(dbt_resource_props, self.lineage.of(dbt_resource_props))
        return {**metadata, "dagster/column_schema": found} if found.columns else metadata

    def built(self, invocation: DbtCliInvocation) -> Iterator[Any]:
        """The events of a dbt command, with the lineage of what it built."""
        return columns.with_lineage(
            invocation.stream(), invocation.manifest, self.lineage, self.get_asset_key
        )


class Dbt(DbtCliResource):
    """``DbtCliResource`` that knows the version of the dbt in its own environment without starting it."""

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))


def dbt_resource(settings: Settings) -> Dbt:
    """dbt as the assets call it."""
    project = str(models.dbt_folder(settings))
    return Dbt(
        project_dir=project,
        profiles_dir=project,
        dbt_executable=str(Path(sys.executable).with_name("dbt")),
        global_config_flags=["--no-use-colors", "--log-path", str(models.target_folder(settings))],
    )


def views_asset(path: Path, pipelines: Mapping[str, Pipeline], settings: Settings) -> AssetsDefinition:
    """Staging and intermediate views and the speed layer, unpartitioned. Their checks read yesterday and today."""
    translator = Translator(path)

    @dbt_assets(
        manifest=path, exclude=DAILY, dagster_dbt_translator=translator, name="views", pool="models_views"
    )
    def views(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        for pipeline in pipelines.values():
            with streams.open(pipeline) as stream:
                stream.prepare()
        today = datetime.now(UTC).date()
        # checks alone are not built: dbt build leaves out the tests that come after one that failed
        command = "build" if context.selected_asset_keys else "test"
        arguments = [command, "--exclude-resource-type", "unit_test", *models.variables(settings)]
        with models.building([today - timedelta(days=1), today]):
            yield from translator.built(
                dbt.cli(arguments, context=context, target_path=models.target_folder(settings))
            )

    return views


def marts_asset(
    path: Path, pipeline: Pipeline, daily: DailyPartitionsDefinition, settings: Settings
) -> AssetsDefinition:
    """The marts of one stream, by day; a run rebuilds its whole range at once."""
    translator = Translator(path)

    @dbt_assets(
        manifest=path,
        select=f"{DAILY},tag:{pipeline.models}",
        dagster_dbt_translator=translator,
        name=f"{pipeline.name}_marts",
        partitions_def=daily,
        backfill_policy=BackfillPolicy.single_run(),
        pool=f"models_{pipeline.name}",
    )
    def marts(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        days = days_of(context)
        # a folder of its own: the marts of two streams may be built at the same time
        target = models.target_folder(settings).with_name(pipeline.name)
        arguments = ["build", "--exclude-resource-type", "unit_test", *models.variables(settings)]
        with streams.open(pipeline) as stream, models.alone(settings, pipeline), models.building(days):
            began_at = datetime.now(UTC)
            version = stream.published_version()
            yield from translator.built(dbt.cli(arguments, context=context, target_path=target))
            if len(context.selected_asset_keys) == len(context.assets_def.keys):
                stream.refreshed(version, days, began_at)

    return marts
