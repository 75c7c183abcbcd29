"""What Dagster knows because of the dbt project: assets, jobs, sensors and schedules of one version of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from dagster import (
    AssetChecksDefinition,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    ScheduleDefinition,
    SensorDefinition,
    define_asset_job,
)

from headrace.config.settings import Settings
from headrace.models.versions import Version
from headrace.orchestration import assets, dbt, schedules, sensors
from headrace.orchestration.backoff import backoff, beside
from headrace.orchestration.resources import Streams
from headrace.orchestration.sensors import Job
from headrace.pipelines import Pipeline


class Models:
    """The models of all streams; ``add`` collects those of a stream.

    Attributes:
        version: Of the dbt project.
        views: Staging and intermediate views and the speed layer.
        assets: All that were collected.
        jobs: Their jobs.
        sensors: Their sensors.
        schedules: Their schedules.
    """

    def __init__(
        self,
        version: Version,
        pipelines: Mapping[str, Pipeline],
        streams: Streams,
        settings: Settings,
    ) -> None:
        """Args:
        version: Of the dbt project.
        pipelines: By stream.
        streams: Opens them.
        settings: Of this installation.
        """
        self.version = version
        self._streams, self._settings = streams, settings
        manifest = version.manifest
        self.views = dbt.views_asset(manifest, pipelines, settings)
        self._deploy: Job = define_asset_job(
            "deploy_views", AssetSelection.assets(self.views).without_checks()
        )
        self.assets: list[AssetsDefinition | AssetSpec] = [
            self.views,
            *dbt.exposures(manifest, pipelines.values(), settings),
        ]
        self.jobs: list[Job] = [self._deploy]
        self.sensors: list[SensorDefinition] = [
            sensors.views_sensor(
                self._deploy, manifest, pipelines, streams, settings, backoff(settings, version.id)
            )
        ]
        self.schedules: list[ScheduleDefinition] = []

    def add(
        self,
        pipeline: Pipeline,
        file: Path,
        marts: AssetsDefinition,
        begin: date,
        checks: Sequence[AssetChecksDefinition],
    ) -> None:
        """Collect the marts of a stream with what refreshes them.

        Args:
            pipeline: The stream.
            file: Where it is declared.
            marts: Of this version.
            begin: The day with which its partitions begin.
            checks: Those of its lake and warehouse.
        """
        manifest = self.version.manifest
        pauses = backoff(self._settings, beside(file), self.version.id)
        refresh = define_asset_job(
            f"refresh_{pipeline.name}",
            AssetSelection.assets(marts) | AssetSelection.checks(*checks),
            tags=assets.tags_of(pipeline),
            description=f"Builds and tests the marts of {pipeline.name} for a range of days.",
        )
        self.assets.append(marts)
        self.jobs.append(refresh)
        self.sensors.append(
            sensors.refresh_sensor(
                pipeline,
                refresh,
                begin=begin,
                views=self._deploy,
                manifest=manifest,
                streams=self._streams,
                settings=self._settings,
                pauses=pauses,
            )
        )
        self.schedules.append(
            schedules.hourly_marts(pipeline, refresh, manifest, self._streams, self._settings, pauses, begin)
        )
