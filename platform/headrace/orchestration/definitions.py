"""The Dagster definitions, built from the discovered pipelines. ``workspace.yaml`` names this module."""

from __future__ import annotations

import logging

from dagster import (
    AssetChecksDefinition,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    Definitions,
    ScheduleDefinition,
    SensorDefinition,
    define_asset_job,
    in_process_executor,
)

from headrace import models
from headrace.orchestration import alerts, assets, checks, dbt, partitions, schedules, sensors
from headrace.orchestration.resources import streams_resource
from headrace.orchestration.sensors import Job
from headrace.orchestration.upkeep import upkeep_job
from headrace.pipelines import discover
from headrace.settings import Settings, settings

log = logging.getLogger(__name__)


def build(config: Settings) -> Definitions:
    """Everything that Dagster should know of this installation."""
    config.export()
    found = discover(*config.pipeline_folders)
    pipelines = found.pipelines
    streams = streams_resource(config)
    daily = partitions.daily(config)
    manifest = models.manifest(config)
    views = dbt.views_asset(manifest, pipelines, config)
    deploy = define_asset_job("deploy_views", AssetSelection.assets(views).without_checks())
    everything: list[AssetsDefinition | AssetSpec] = [
        views,
        *dbt.exposures(manifest, pipelines.values(), config),
    ]
    everything += _broken(found.broken)
    jobs: list[Job] = [deploy]
    watchers: list[SensorDefinition] = [
        sensors.views_sensor(deploy, manifest, config),
        alerts.alerts_sensor(pipelines, streams, config),
    ]
    health: list[AssetChecksDefinition] = []
    plans: list[ScheduleDefinition] = []
    sources: dict[AssetKey, AssetSpec] = {}
    for pipeline in pipelines.values():
        file = found.files[pipeline.name]
        lake = assets.lake_asset(pipeline, file, config)
        warehouse = assets.warehouse_asset(pipeline, daily, file, config)
        own_checks = checks.stream_checks(pipeline, config)
        ingest = define_asset_job(
            f"ingest_{pipeline.name}",
            AssetSelection.assets(lake).without_checks(),
            tags=assets.tags_of(pipeline),
            description=f"Lands and publishes what waits in the sources of {pipeline.name}.",
        )
        sources |= {spec.key: spec for spec in assets.source_specs(pipeline, file)}
        everything += [lake, warehouse, assets.rejected_spec(pipeline, file, config)]
        jobs.append(ingest)
        watchers.append(sensors.backlog_sensor(pipeline, ingest, streams, config))
        health.append(own_checks)
        rebuilt = AssetSelection.assets(warehouse).without_checks() | AssetSelection.checks(own_checks)
        if pipeline.models is not None:
            marts = dbt.marts_asset(manifest, pipeline, daily, config)
            everything.append(marts)
            rebuilt |= AssetSelection.assets(marts)
            refresh = define_asset_job(
                f"refresh_{pipeline.name}",
                AssetSelection.assets(marts) | AssetSelection.checks(own_checks),
                tags=assets.tags_of(pipeline),
                description=f"Builds and tests the marts of {pipeline.name} for a range of days.",
            )
            jobs.append(refresh)
            watchers.append(
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
            plans.append(schedules.hourly_marts(pipeline, refresh, manifest, streams, config))
        rebuild = define_asset_job(
            f"rebuild_{pipeline.name}",
            rebuilt,
            tags=assets.tags_of(pipeline),
            description=f"Replaces days of {pipeline.name} from the lake, then builds and tests their marts.",
        )
        jobs.append(rebuild)
        plans.append(schedules.daily_close(pipeline, rebuild))
    checkup = define_asset_job(
        "health",
        AssetSelection.checks(*health) | AssetSelection.checks_for_assets(views),
        description="Every health check of lake, warehouse and the models that are no marts.",
    )
    upkeep = upkeep_job(pipelines, config)
    return Definitions(
        assets=[*everything, *sources.values()],
        asset_checks=health,
        jobs=[*jobs, checkup, upkeep],
        sensors=watchers,
        schedules=[schedules.health_schedule(checkup), schedules.upkeep_schedule(upkeep), *plans],
        resources={"streams": streams, "dbt": dbt.dbt_resource(config)},
        # a process for every step costs seconds at each run and buys these runs nothing
        executor=in_process_executor,
    )


def _broken(found: dict[str, str]) -> list[AssetSpec]:
    """A pipeline file that does not load is shown, by name, among the assets."""
    for name, why in found.items():
        log.error("pipeline file %s does not load: %s", name, why)
    return [
        AssetSpec(
            ["broken", name.removesuffix(".py")],
            group_name="broken",
            description=f"{name} does not load: {why}",
        )
        for name, why in found.items()
    ]


defs = build(settings())
