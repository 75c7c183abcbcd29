"""The Dagster definitions, built from the discovered pipelines. ``workspace.yaml`` names this module."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from dagster import (
    AssetCheckKey,
    AssetChecksDefinition,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    DailyPartitionsDefinition,
    Definitions,
    ScheduleDefinition,
    SensorDefinition,
    define_asset_job,
    in_process_executor,
)

from headrace.config.settings import Settings, settings
from headrace.models import versions as dbt_versions
from headrace.models.project import missing_tags
from headrace.models.versions import Project
from headrace.orchestration import (
    alerts,
    assets,
    backlog,
    catalogue,
    checks,
    dbt,
    first_day,
    metadata,
    partitions,
    schedules,
)
from headrace.orchestration.backoff import backoff, checksum_beside
from headrace.orchestration.keys import tags_of
from headrace.orchestration.model_definitions import Models
from headrace.orchestration.resources import Streams, streams_resource
from headrace.orchestration.runtime.types import Job
from headrace.orchestration.upkeep import upkeep_job
from headrace.pipelines import Pipeline, discover_for
from headrace.pipelines.loading import reason

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Parts:
    """The definitions of one stream, besides those of its models.

    Attributes:
        pipeline: The stream.
        file: File that declares it.
        assets: Its tables.
        sources: Its topics, queues and folders; streams may share them.
        marts: Its marts; None without usable models.
        begin: First day of its partitions.
        jobs: Its jobs.
        sensors: Its sensors.
        checks: Its health checks.
        schedule: Its nightly rebuild.
    """

    pipeline: Pipeline
    file: Path
    assets: list[AssetsDefinition | AssetSpec]
    sources: dict[AssetKey, AssetSpec]
    marts: AssetsDefinition | None
    begin: date
    jobs: list[Job]
    sensors: list[SensorDefinition]
    checks: list[AssetChecksDefinition]
    schedule: ScheduleDefinition


def build(config: Settings) -> Definitions:
    """Build the definitions of this installation.

    Ingestion does not depend on the dbt project. A project that cannot be used is shown as broken, and the models are
    those of its last good version, or none.
    """
    config.export()
    project = dbt_versions.current(config)
    while project.usable is not None:
        try:
            return _loadable(project, config)
        except Exception as error:  # dbt accepts the project and Dagster does not
            _loadable(Project(None), config)  # raises the same error if the models are not to blame
            said = f"{type(error).__name__}: {error}"
            log.error("the dbt project cannot be loaded: %s", said)
            project = dbt_versions.refuse(config, project.usable, said)
    return _loadable(project, config)


def _loadable(project: Project, config: Settings) -> Definitions:
    made = _build(project, config)
    Definitions.validate_loadable(made)
    return made


def _build(project: Project, config: Settings) -> Definitions:
    found = discover_for(config)
    streams = streams_resource(config)
    if project.usable is not None:
        for name, why in missing_tags(project.usable.manifest, found.pipelines).items():
            found.broken[found.files[name].name] = why  # the stream lands and publishes all the same
            found.pipelines[name] = replace(found.pipelines[name], models=None)
    parts: list[_Parts] = []
    wrong: dict[str, str] = {}
    for pipeline in found.pipelines.values():
        file, marts = found.files[pipeline.name], None
        begin = first_day.first_day(pipeline, config)
        daily = partitions.daily(begin)
        if project.usable is not None and pipeline.models is not None:
            marts = dbt.marts_asset(project.usable.manifest, pipeline, daily, config)
        try:
            parts.append(_parts(pipeline, file, daily, begin, marts, streams, config))
        except Exception as error:  # Dagster refuses this stream; the others go on
            wrong[pipeline.name] = reason(error, file)
    found = found.without(wrong)
    models = Models(project.usable, found.pipelines, streams, config) if project.usable else None
    for part in parts:
        if models is not None and part.marts is not None:
            models.add(part.pipeline, part.file, part.marts, part.begin, part.checks)
    health = [one for part in parts for one in part.checks]
    checked: AssetSelection = AssetSelection.checks(*health)
    resources: dict[str, Any] = {"streams": streams}
    if models is not None:
        checked |= AssetSelection.checks_for_assets(models.views)
        resources["dbt"] = dbt.dbt_resource(models.version, config)
    checkup = define_asset_job(
        "health",
        checked,
        description="Every health check of lake, warehouse and the models that are no marts.",
    )
    upkeep = upkeep_job(found.pipelines, config)
    sources = {key: spec for part in parts for key, spec in part.sources.items()}
    return Definitions(
        assets=[
            *(models.assets if models else ()),
            *_broken(found.broken),
            *_broken_models(project, config),
            *(one for part in parts for one in part.assets),
            *sources.values(),
        ],
        asset_checks=health,
        jobs=[
            *(models.jobs if models else ()),
            *(job for part in parts for job in part.jobs),
            checkup,
            upkeep,
        ],
        sensors=[
            *(models.sensors if models else ()),
            alerts.alerts_sensor(found.pipelines, streams, config),
            *(one for part in parts for one in part.sensors),
        ],
        schedules=[
            schedules.health_schedule(checkup),
            schedules.upkeep_schedule(upkeep),
            *(models.schedules if models else ()),
            *(part.schedule for part in parts),
        ],
        resources=resources,
        # a process for every step costs seconds at each run and buys these runs nothing
        executor=in_process_executor,
    )


def _parts(
    pipeline: Pipeline,
    file: Path,
    daily: DailyPartitionsDefinition,
    begin: date,
    marts: AssetsDefinition | None,
    streams: Streams,
    config: Settings,
) -> _Parts:
    """Make the definitions of one stream."""
    lake = assets.lake_asset(pipeline, file, config)
    warehouse = assets.warehouse_asset(pipeline, daily, file, config)
    own_checks = checks.stream_checks(pipeline, config, marts.keys if marts else ())
    rate = AssetSelection.checks(AssetCheckKey(lake.key, "reject_rate"))  # judged with each ingest run
    ingest = define_asset_job(
        f"ingest_{pipeline.name}",
        AssetSelection.assets(lake).without_checks() | rate,
        tags=tags_of(pipeline),
        description=f"Lands and publishes what waits in the sources of {pipeline.name}.",
    )
    rebuilt = AssetSelection.assets(warehouse).without_checks() | AssetSelection.checks(*own_checks)
    if marts is not None:
        rebuilt |= AssetSelection.assets(marts)
    rebuild = define_asset_job(
        f"rebuild_{pipeline.name}",
        rebuilt,
        tags=tags_of(pipeline),
        description=f"Replaces days of {pipeline.name} from the lake, then builds and tests their marts.",
    )
    pauses = backoff(config, checksum_beside(file))
    return _Parts(
        pipeline,
        file,
        assets=[lake, warehouse, assets.rejected_spec(pipeline, file, config)],
        sources={spec.key: spec for spec in assets.source_specs(pipeline, file)},
        marts=marts,
        jobs=[ingest, rebuild],
        begin=begin,
        sensors=[
            backlog.backlog_sensor(pipeline, ingest, streams, config, pauses),
            catalogue.catalogue_sensor(pipeline, streams, sorted(marts.keys) if marts else [], begin, config),
        ],
        checks=own_checks,
        schedule=schedules.daily_close(pipeline, rebuild, begin),
    )


def _broken(found: dict[str, str]) -> list[AssetSpec]:
    """Show the pipeline files that are broken, by name, among the assets."""
    for name, why in found.items():
        log.error("pipeline file %s is broken: %s", name, why)
    return [
        AssetSpec(
            ["broken", name.removesuffix(".py")],
            group_name="broken",
            description=f"{name} is broken: {why}",
        )
        for name, why in found.items()
    ]


def _broken_models(project: Project, config: Settings) -> list[AssetSpec]:
    """Show a dbt project that cannot be used among the assets, with the place of its fault."""
    if project.problem is None:
        return []
    log.error("dbt project: %s", project.complaint)
    return [
        AssetSpec(
            ["broken", "dbt_project"],
            group_name="broken",
            kinds={"dbt"},
            description=project.complaint,
            metadata=metadata.code_at(
                dbt_versions.dbt_folder(config).parent / project.problem.file, project.problem.line
            ),
        )
    ]


defs = build(settings())
