"""The dbt models as assets: views once per version of the project, marts by day."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
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
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, dbt_assets
from packaging.version import Version

from headrace.errors import Fatal
from headrace.locks import file_lock
from headrace.orchestration.partitions import days_of
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline
from headrace.settings import Settings, child_environment

#: Models that are rebuilt by day carry this tag in dbt_project.yml.
DAILY = "tag:daily"


class Translator(DagsterDbtTranslator):
    """dbt sources are the warehouse assets; models are ``<layer>/<name>``."""

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


def dbt_folder(settings: Settings) -> Path:
    """The dbt project."""
    return settings.project_dir / "dbt_project"


def target_folder(settings: Settings) -> Path:
    """Where dbt writes; never into the project."""
    return settings.home / "dbt" / "target"


def manifest(settings: Settings) -> Path:
    """Path of a manifest that is as new as the project; parses it if it is not.

    Raises:
        Fatal: The project does not parse; the message holds what dbt says.
    """
    project, target = dbt_folder(settings), target_folder(settings)
    path = target / "manifest.json"
    newest = max(
        (f.stat().st_mtime for f in project.rglob("*") if f.suffix in {".sql", ".yml"}), default=None
    )
    if newest is None:
        raise Fatal(f"there is no dbt project in {project}; set HEADRACE_PROJECT_DIR to the checkout")
    with file_lock(settings.home / "locks" / "dbt-parse.lock"):
        if not path.exists() or path.stat().st_mtime < newest:
            _parse(project, target, settings)
    return path


def _parse(project: Path, target: Path, settings: Settings) -> None:
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dbt.cli.main", "--quiet", "--log-path", str(target), "parse"]
    command += ["--project-dir", str(project), "--profiles-dir", str(project), "--target-path", str(target)]
    settings.export()
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Fatal("the dbt project does not parse: " + " ".join(said[-6:]))


def views_version(path: Path) -> str:
    """Checksum over the views, so that a changed view is deployed once."""
    nodes = json.loads(path.read_bytes())["nodes"].values()
    views = sorted(
        f"{n['unique_id']}:{n['checksum']['checksum']}"
        for n in nodes
        if n["resource_type"] == "model" and n["config"]["materialized"] == "view"
    )
    return hashlib.sha256("\n".join(views).encode()).hexdigest()[:16]


def reach(path: Path, pipeline: Pipeline) -> tuple[int, int]:
    """How many days before and after a changed day the marts of a stream change too.

    Each model declares it in its yml (``meta: days_back, days_ahead``), and nobody else does.
    """
    nodes = json.loads(path.read_bytes())["nodes"].values()
    metas = [
        n["config"]["meta"] for n in nodes if n["resource_type"] == "model" and pipeline.models in n["tags"]
    ]
    back = max((int(m.get("days_back", 0)) for m in metas), default=0)
    ahead = max((int(m.get("days_ahead", 0)) for m in metas), default=0)
    return back, ahead


class Dbt(DbtCliResource):
    """``DbtCliResource`` that knows the version of the dbt in its own environment without starting it."""

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))


def dbt_resource(settings: Settings) -> Dbt:
    """dbt as the assets call it."""
    project = str(dbt_folder(settings))
    return Dbt(
        project_dir=project,
        profiles_dir=project,
        dbt_executable=str(Path(sys.executable).with_name("dbt")),
        global_config_flags=["--no-use-colors", "--log-path", str(target_folder(settings))],
    )


_TRANSLATOR = Translator(settings=DagsterDbtTranslatorSettings(enable_source_tests_as_checks=True))


def views_asset(path: Path, pipelines: Mapping[str, Pipeline], settings: Settings) -> AssetsDefinition:
    """Staging and intermediate views, unpartitioned."""

    @dbt_assets(
        manifest=path, exclude=DAILY, dagster_dbt_translator=_TRANSLATOR, name="views", pool="models_views"
    )
    def views(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        for pipeline in pipelines.values():
            with streams.open(pipeline) as stream:
                stream.prepare()
        yield from dbt.cli(["run"], context=context, target_path=target_folder(settings)).stream()

    return views


def marts_asset(
    path: Path, pipeline: Pipeline, daily: DailyPartitionsDefinition, settings: Settings
) -> AssetsDefinition:
    """The marts of one stream, by day; a run rebuilds its whole range at once."""

    @dbt_assets(
        manifest=path,
        select=f"{DAILY},tag:{pipeline.models}",
        dagster_dbt_translator=_TRANSLATOR,
        name=f"{pipeline.name}_marts",
        partitions_def=daily,
        backfill_policy=BackfillPolicy.single_run(),
        pool=f"models_{pipeline.name}",
    )
    def marts(context: AssetExecutionContext, dbt: DbtCliResource, streams: Streams) -> Iterator[Any]:
        days = days_of(context)
        # a folder of its own: the marts of two streams may be built at the same time
        target = target_folder(settings).with_name(pipeline.name)
        arguments = [
            "build",
            "--exclude-resource-type",
            "unit_test",
            "--vars",
            json.dumps(variables(settings, days)),
        ]
        with streams.open(pipeline) as stream:
            version = stream.published_version()
            yield from dbt.cli(arguments, context=context, target_path=target).stream()
            if len(context.selected_asset_keys) == len(context.assets_def.keys):
                stream.refreshed(version, days)

    return marts


def variables(settings: Settings, days: list[Any]) -> dict[str, Any]:
    """dbt vars of a build of ``days``."""
    return {
        "start_date": min(days).isoformat(),
        "end_date": max(days).isoformat(),
        "window_seconds": settings.window_seconds,
        "slow_ms": settings.slow_ms,
    }
