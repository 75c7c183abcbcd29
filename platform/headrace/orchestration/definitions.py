"""The Dagster definitions, built from the discovered pipelines. ``workspace.yaml`` names this module."""

from __future__ import annotations

import logging

from dagster import (
    AssetChecksDefinition,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    Definitions,
    SensorDefinition,
    define_asset_job,
    in_process_executor,
)

from headrace import models
from headrace.orchestration import assets, checks, dbt, partitions, schedules, sensors
from headrace.orchestration.resources import streams_resource
from headrace.pipelines import discover
from headrace.settings import Settings, settings

log = logging.getLogger(__name__)


def build(config: Settings) -> Definitions:
    """Everything that Dagster should know of this installation."""
    config.export()
    found = discover()
    streams = streams_resource(config)
    daily = partitions.daily(config)
    manifest = models.manifest(config)
    views = dbt.views_asset(manifest, found.pipelines, config)
    deploy = define_asset_job("deploy_views", AssetSelection.assets(views).without_checks())
    everything: list[AssetsDefinition | AssetSpec] = [views, *_broken(found.broken)]
    jobs = [deploy]
    watchers: list[SensorDefinition] = [sensors.views_sensor(deploy, manifest, config)]
    health: list[AssetChecksDefinition] = []
    for pipeline in found.pipelines.values():
        lake, warehouse = assets.lake_asset(pipeline), assets.warehouse_asset(pipeline, daily)
        marts = dbt.marts_asset(manifest, pipeline, daily, config)
        own_checks = checks.stream_checks(pipeline, config)
        ingest = define_asset_job(f"ingest_{pipeline.name}", AssetSelection.assets(lake).without_checks())
        refresh = define_asset_job(
            f"refresh_{pipeline.name}",
            AssetSelection.assets(marts) | AssetSelection.checks(*own_checks),
            partitions_def=daily,
        )
        everything += [*assets.source_specs(pipeline), lake, warehouse, marts]
        jobs += [ingest, refresh]
        watchers += [
            sensors.backlog_sensor(pipeline, ingest, streams, config),
            sensors.refresh_sensor(
                pipeline,
                refresh,
                ingest=ingest,
                views=deploy,
                manifest=manifest,
                streams=streams,
                settings=config,
            ),
        ]
        health += own_checks
    checkup = define_asset_job(
        "health", AssetSelection.checks(*health) | AssetSelection.checks_for_assets(views)
    )
    return Definitions(
        assets=everything,
        asset_checks=health,
        jobs=[*jobs, checkup],
        sensors=watchers,
        schedules=[schedules.health_schedule(checkup)],
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
