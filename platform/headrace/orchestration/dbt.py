"""The dbt models as assets: views once per version of the project, marts by day."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    DailyPartitionsDefinition,
    MetadataValue,
)
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliInvocation,
    DbtCliResource,
    DbtProject,
    dbt_assets,
)
from packaging.version import Version

from headrace.config.settings import Settings
from headrace.core.days import portions
from headrace.core.errors import Fatal
from headrace.core.locks import introduce
from headrace.health.parity import arriving_days
from headrace.models import lineage
from headrace.models import project as models
from headrace.models.composition import folder_of
from headrace.models.versions import GLOBAL_OPTIONS, target_folder, variables
from headrace.models.versions import Version as ProjectVersion
from headrace.orchestration import columns
from headrace.orchestration.keys import STREAM
from headrace.orchestration.metadata import code
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream

#: Tag of the models that are rebuilt by day, in dbt_project.yml.
DAILY = "tag:daily"


class Translator(DagsterDbtTranslator):
    """Names assets after dbt's nodes: its sources are the warehouse assets, its models ``<layer>/<name>``.

    Attributes:
        lineage: Lineage of the columns.
    """

    def __init__(self, path: Path, pipelines: Iterable[Pipeline], settings: Settings) -> None:
        """Read the lineage of the columns.

        Args:
            path: The manifest; the lineage is beside it.
            pipelines: Pipelines whose models these are.
            settings: Settings with the folder of the dbt project.
        """
        super().__init__(settings=DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))
        self.lineage = lineage.read(path)
        self._pipelines = [pipeline for pipeline in pipelines if pipeline.models]
        self._installation = settings

    def get_asset_spec(
        self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None
    ) -> AssetSpec:
        """Make a mart over views depend on the raw tables below them, too.

        The views hold no rows and are not part of a run that rebuilds days. Without this dependency, Dagster would not
        know that the raw table has to be replaced and checked before its marts are built.
        """
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["nodes"].get(unique_id)
        if node is None or "daily" not in node["tags"] or node["resource_type"] != "model":
            return spec
        raw = {self.get_asset_key(manifest["sources"][one]) for one in _below_views(manifest, unique_id)}
        known = {dep.asset_key for dep in spec.deps}
        return spec.replace_attributes(deps=[*spec.deps, *(AssetDep(key) for key in sorted(raw - known))])

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> AssetKey:
        """Give ``warehouse/<table>`` for a source, ``<folder>/<model>`` for a model."""
        return _asset_key(dbt_resource_props)

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> Sequence[str] | None:
        """Give the owners of the streams that the model is built from."""
        own = {p.owner for p in self._pipelines if p.models in dbt_resource_props.get("tags", [])}
        return sorted(own) or super().get_owners(dbt_resource_props)

    def get_tags(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, str]:
        """Add the stream to dbt's tags."""
        of = [p.name for p in self._pipelines if p.models in dbt_resource_props.get("tags", [])]
        return {**super().get_tags(dbt_resource_props), **({STREAM: of[0]} if len(of) == 1 else {})}

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """Give the folder of the model."""
        if dbt_resource_props["resource_type"] == "source":
            return "warehouse"
        return _layer(dbt_resource_props)

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        """Add the columns, and the columns that they are made of."""
        metadata = super().get_metadata(dbt_resource_props)
        found = columns.schema(dbt_resource_props, self.lineage.of(dbt_resource_props))
        shown = {"dagster/column_schema": found} if found.columns else {}
        return {**metadata, **shown, **_code(dbt_resource_props, self._installation)}

    def built(self, invocation: DbtCliInvocation) -> Iterator[Any]:
        """Stream the events of a dbt command, with the lineage of the models that it built."""
        return columns.with_lineage(
            invocation.stream(), invocation.manifest, self.lineage, self.get_asset_key
        )


def _asset_key(node: Mapping[str, Any]) -> AssetKey:
    if node["resource_type"] == "source":
        return AssetKey(["warehouse", node["name"]])
    return AssetKey([_layer(node), node["name"]])


def _layer(node: Mapping[str, Any]) -> str:
    """Return the first folder of a model below ``models/``; ``models`` for one that lies in no folder."""
    _, *folders, _ = node["fqn"]
    return str(folders[0]) if folders else "models"


def _code(node: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Link a node to its file, which people edit or which Headrace brings along."""
    return code(folder_of(node["package_name"], settings) / node["original_file_path"])


def _below_views(manifest: Mapping[str, Any], unique_id: str) -> Iterator[str]:
    """List the sources that a model reads through models that are not built by day."""
    for parent in manifest["parent_map"][unique_id]:
        if parent.startswith("source."):
            yield parent
        elif parent.startswith("model.") and "daily" not in manifest["nodes"][parent]["tags"]:
            yield from _below_views(manifest, parent)


class Dbt(DbtCliResource):
    """A ``DbtCliResource`` that starts dbt once.

    It reads the version of the dbt in its own environment without asking dbt. It loads no dbt into the run itself,
    which takes seconds and serves only ``fetch_row_counts`` and ``fetch_column_metadata``. These two cannot be used
    with this class; the manifest says what they would ask the warehouse for, see ``columns``.
    """

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
        return None


def dbt_resource(version: ProjectVersion, settings: Settings) -> Dbt:
    """Make the dbt that the assets call, on the files that their definitions were made from."""
    return Dbt(
        project_dir=str(version.project),
        profiles_dir=str(version.profiles),
        profile="headrace",
        dbt_executable=str(Path(sys.executable).with_name("dbt")),
        global_config_flags=[*GLOBAL_OPTIONS, "--log-path", str(target_folder(settings))],
    )


def exposures(path: Path, pipelines: Iterable[Pipeline], settings: Settings) -> list[AssetSpec]:
    """Declare the external assets that read the marts."""
    translator = Translator(path, pipelines, settings)
    manifest = models.read(path)
    specs = []
    for one in manifest["exposures"].values():
        owner = one["owner"].get("email") or one["owner"].get("name")
        url = {"url": MetadataValue.url(one["url"])} if one.get("url") else {}
        file = _code(one, settings)
        specs.append(
            AssetSpec(
                AssetKey(["exposures", one["name"]]),
                deps=[translator.get_asset_key(manifest["nodes"][n]) for n in one["depends_on"]["nodes"]],
                group_name="exposures",
                kinds={one["type"]},
                owners=[owner] if owner else [],
                description=f"{one['label'] or one['name']}: {one['description']}",
                metadata={"maturity": one["maturity"] or "unknown", **url, **file},
            )
        )
    return specs


def views_asset(path: Path, pipelines: Mapping[str, Pipeline], settings: Settings) -> AssetsDefinition:
    """Make the assets of the staging and intermediate views and the speed layer.

    They have no partitions. Their checks read yesterday and today.
    """
    translator = Translator(path, pipelines.values(), settings)

    @dbt_assets(
        manifest=models.read(path),
        exclude=DAILY,
        dagster_dbt_translator=translator,
        name="views",
        pool="models_views",
    )
    def views(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        for pipeline in pipelines.values():
            with streams.open(pipeline) as stream:
                try:
                    stream.prepare()
                except Fatal as error:  # the views of the other streams can be made
                    context.log.error(f"{pipeline.name}: {error}")
        today = datetime.now(UTC).date()
        # checks alone need no build, and dbt build leaves out the tests that come after one that failed
        command = "build" if context.selected_asset_keys else "test"
        arguments = [command, "--exclude-resource-type", "unit_test", *variables(settings)]
        with models.build_days([today - timedelta(days=1), today]):
            yield from translator.built(
                dbt.cli(arguments, context=context, target_path=target_folder(settings))
            )

    return views


def views_below(path: Path, pipeline: Pipeline) -> frozenset[AssetKey]:
    """List the views that the marts of a stream are made of, directly or not."""
    manifest = models.read(path)
    marts = [n for n in manifest["nodes"].values() if "daily" in n["tags"] and pipeline.models in n["tags"]]
    found: set[str] = set()
    left = [parent for mart in marts for parent in mart["depends_on"]["nodes"]]
    while left:
        node = manifest["nodes"].get(left.pop())
        if node and node["resource_type"] == "model" and node["unique_id"] not in found:
            left += node["depends_on"]["nodes"]
            found.add(node["unique_id"])
    return frozenset(
        _asset_key(manifest["nodes"][one]) for one in found if "daily" not in manifest["nodes"][one]["tags"]
    )


def marts_asset(
    path: Path, pipeline: Pipeline, daily: DailyPartitionsDefinition, settings: Settings
) -> AssetsDefinition:
    """Make the assets of a stream's marts, by day; a run rebuilds its whole range at once."""
    translator = Translator(path, [pipeline], settings)

    @dbt_assets(
        manifest=models.read(path),
        select=f"{DAILY},tag:{pipeline.models}",
        dagster_dbt_translator=translator,
        name=f"{pipeline.name}_marts",
        partitions_def=daily,
        backfill_policy=BackfillPolicy.single_run(),
        pool=f"models_{pipeline.name}",
    )
    def marts(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        introduce(f"Dagster run {context.run.run_id[:8]} of {context.job_name}")
        with streams.open(pipeline) as stream, models.build_lock(settings, pipeline):
            yield from _built_in_parts(context, dbt, translator, stream, settings)

    return marts


def _built_in_parts(
    context: AssetExecutionContext,
    dbt: DbtCliResource,
    translator: Translator,
    stream: Stream,
    settings: Settings,
) -> Iterator[Any]:
    """Build the marts of a run's days, in parts of so many rows; gives the events of the last part."""
    # a folder of its own: the marts of two streams may be built at the same time
    target = target_folder(settings).with_name(stream.name)
    arguments = ["build", "--exclude-resource-type", "unit_test", *variables(settings)]
    whole = len(context.selected_asset_keys) == len(context.assets_def.keys)
    parts = portions(days_of(context), stream.warehouse_counts(), settings.build_rows)
    for n, days in enumerate(parts, 1):
        began_at = datetime.now(UTC)
        version = stream.published_version()
        arriving = arriving_days(stream, version)
        models.share_parsing(settings, target)
        with models.build_days(days, arriving):
            invocation = dbt.cli(arguments, context=context, target_path=target)
            if n == len(parts):  # an asset can be yielded once in a run
                yield from translator.built(invocation)
            else:
                invocation.wait()
                context.log.info(f"{days[0]} to {days[-1]} built, {n} of {len(parts)} parts")
        if whole:
            stream.refreshed(version, days, began_at)
