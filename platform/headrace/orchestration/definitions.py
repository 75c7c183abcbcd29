"""The Dagster definitions, built from the discovered pipelines. ``workspace.yaml`` names this module."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

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

from headrace import models
from headrace.orchestration import alerts, assets, checks, dbt, partitions, schedules, sensors
from headrace.orchestration.resources import Streams, streams_resource
from headrace.orchestration.sensors import Job
from headrace.orchestration.upkeep import upkeep_job
from headrace.pipelines import Pipeline, discover
from headrace.pipelines.loading import reason
from headrace.settings import Settings, settings

log = logging.getLogger(__name__)


@dataclass
class _Parts:
    """What a stream adds to the definitions."""

    assets: list[AssetsDefinition | AssetSpec] = field(default_factory=list)
    sources: dict[AssetKey, AssetSpec] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    sensors: list[SensorDefinition] = field(default_factory=list)
    checks: list[AssetChecksDefinition] = field(default_factory=list)
    schedules: list[ScheduleDefinition] = field(default_factory=list)


def build(config: Settings) -> Definitions:
    """Everything that Dagster should know of this installation."""
    config.export()
    found = discover(*config.pipeline_folders, seconds=config.pipeline_seconds)
    streams = streams_resource(config)
    daily = partitions.daily(config)
    manifest = models.manifest(config)
    parts: list[_Parts] = []
    wrong: dict[str, str] = {}
    untagged = models.untagged(manifest, found.pipelines)
    for name, why in untagged.items():  # lands and publishes all the same
        found.broken[found.files[name].name] = why
        found.pipelines[name] = replace(found.pipelines[name], models=None)
    views = dbt.views_asset(manifest, found.pipelines, config)
    deploy = define_asset_job("deploy_views", AssetSelection.assets(views).without_checks())
    for pipeline in found.pipelines.values():
        file = found.files[pipeline.name]
        try:
            parts.append(_parts(pipeline, file, daily, manifest, deploy, streams, config))
        except Exception as error:  # what Dagster refuses of it does not take the others down
            wrong[pipeline.name] = reason(error, file)
    found = found.without(wrong)
    health = [one for part in parts for one in part.checks]
    checkup = define_asset_job(
        "health",
        AssetSelection.checks(*health) | AssetSelection.checks_for_assets(views),
        description="Every health check of lake, warehouse and the models that are no marts.",
    )
    upkeep = upkeep_job(found.pipelines, config)
    sources = {key: spec for part in parts for key, spec in part.sources.items()}
    return Definitions(
        assets=[
            views,
            *dbt.exposures(manifest, found.pipelines.values(), config),
            *_broken(found.broken),
            *(one for part in parts for one in part.assets),
            *sources.values(),
        ],
        asset_checks=health,
        jobs=[deploy, *(job for part in parts for job in part.jobs), checkup, upkeep],
        sensors=[
            sensors.views_sensor(deploy, manifest, config),
            alerts.alerts_sensor(found.pipelines, streams, config),
            *(one for part in parts for one in part.sensors),
        ],
        schedules=[
            schedules.health_schedule(checkup),
            schedules.upkeep_schedule(upkeep),
            *(one for part in parts for one in part.schedules),
        ],
        resources={"streams": streams, "dbt": dbt.dbt_resource(config)},
        # a process for every step costs seconds at each run and buys these runs nothing
        executor=in_process_executor,
    )


def _parts(
    pipeline: Pipeline,
    file: Path,
    daily: DailyPartitionsDefinition,
    manifest: Path,
    deploy: Job,
    streams: Streams,
    config: Settings,
) -> _Parts:
    """What one stream adds."""
    lake = assets.lake_asset(pipeline, file, config)
    warehouse = assets.warehouse_asset(pipeline, daily, file, config)
    marts = None if pipeline.models is None else dbt.marts_asset(manifest, pipeline, daily, config)
    own_checks = checks.stream_checks(pipeline, config, marts.keys if marts else ())
    rate = AssetSelection.checks(AssetCheckKey(lake.key, "reject_rate"))  # judged as it happens
    ingest = define_asset_job(
        f"ingest_{pipeline.name}",
        AssetSelection.assets(lake).without_checks() | rate,
        tags=assets.tags_of(pipeline),
        description=f"Lands and publishes what waits in the sources of {pipeline.name}.",
    )
    parts = _Parts(
        assets=[lake, warehouse, assets.rejected_spec(pipeline, file, config)],
        sources={spec.key: spec for spec in assets.source_specs(pipeline, file)},
        jobs=[ingest],
        sensors=[sensors.backlog_sensor(pipeline, ingest, streams, config)],
        checks=own_checks,
    )
    rebuilt = AssetSelection.assets(warehouse).without_checks() | AssetSelection.checks(*own_checks)
    if marts is not None:
        parts.assets.append(marts)
        rebuilt |= AssetSelection.assets(marts)
        refresh = define_asset_job(
            f"refresh_{pipeline.name}",
            AssetSelection.assets(marts) | AssetSelection.checks(*own_checks),
            tags=assets.tags_of(pipeline),
            description=f"Builds and tests the marts of {pipeline.name} for a range of days.",
        )
        parts.jobs.append(refresh)
        parts.sensors.append(
            sensors.refresh_sensor(
                pipeline,
                refresh,
                ingest=ingest,
                views=deploy,
                manifest=manifest,
                streams=streams,
                settings=config,
            )
        )
        parts.schedules.append(schedules.hourly_marts(pipeline, refresh, manifest, streams, config))
    rebuild = define_asset_job(
        f"rebuild_{pipeline.name}",
        rebuilt,
        tags=assets.tags_of(pipeline),
        description=f"Replaces days of {pipeline.name} from the lake, then builds and tests their marts.",
    )
    parts.jobs.append(rebuild)
    parts.schedules.append(schedules.daily_close(pipeline, rebuild))
    return parts


def _broken(found: dict[str, str]) -> list[AssetSpec]:
    """A pipeline file with a fault is shown, by name, among the assets."""
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


defs = build(settings())
