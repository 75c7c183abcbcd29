"""Assets, jobs, sensors and schedules of one version of the dbt project."""

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
from headrace.orchestration import dbt, schedules
from headrace.orchestration.backoff import backoff, checksum_beside
from headrace.orchestration.keys import tags_of
from headrace.orchestration.refresh import refresh_sensor
from headrace.orchestration.resources import Streams
from headrace.orchestration.runtime.types import Job
from headrace.orchestration.views import views_sensor
from headrace.pipelines import Pipeline


class Models:
    """The definitions of all streams' models; ``add`` collects those of a stream.

    Attributes:
        version: Version of the dbt project.
        views: Staging and intermediate views and the speed layer.
        assets: Assets that were collected.
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
        """Make the definitions that all streams share: the views, and their deployment.

        Args:
            version: Version of the dbt project.
            pipelines: Pipelines by stream.
            streams: Opens a stream.
            settings: Settings of the installation.
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
            views_sensor(self._deploy, manifest, pipelines, streams, settings, backoff(settings, version.id))
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
        """Collect the marts of a stream, and the job, sensor and schedule that refresh them.

        Args:
            pipeline: The stream.
            file: File that declares it.
            marts: Its marts in this version.
            begin: First day of its partitions.
            checks: Its health checks.
        """
        manifest = self.version.manifest
        pauses = backoff(self._settings, checksum_beside(file), self.version.id)
        refresh = define_asset_job(
            f"refresh_{pipeline.name}",
            AssetSelection.assets(marts) | AssetSelection.checks(*checks),
            tags=tags_of(pipeline),
            description=f"Builds and tests the marts of {pipeline.name} for a range of days.",
        )
        self.assets.append(marts)
        self.jobs.append(refresh)
        self.sensors.append(
            refresh_sensor(
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
