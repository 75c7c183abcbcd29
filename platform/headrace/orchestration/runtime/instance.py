"""Where Dagster keeps what it knows. ``dagster.yaml`` names these classes; the settings choose what they stand for.

So one ``dagster.yaml`` serves a laptop and a deployment, and what differs is where all else that differs is: in the
settings. The classes themselves are never made: Dagster asks them for the storage, and gets one of its own kinds.

The base classes imported here are the ones that Dagster asks custom storages to have
(https://docs.dagster.io/guides/deploy/dagster-yaml). All else that is private to Dagster is in ``storage.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from urllib.parse import urlsplit

from dagster import Field, StringSource
from dagster._core.launcher import RunLauncher
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.event_log import EventLogStorage, SqliteEventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import RunStorage, SqliteRunStorage
from dagster._core.storage.schedules import ScheduleStorage, SqliteScheduleStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from headrace.clients.postgres import reachable
from headrace.config.settings import Settings, batch_dagster_events, settings
from headrace.orchestration.runtime.trial import works

#: Seconds after which what a running step has written can be read by others.
_UPLOAD_SECONDS = 30


class _BelowDagsterHome:
    """Configured by ``base_dir`` alone, which is ``DAGSTER_HOME``."""

    @classmethod
    def config_type(cls) -> Any:
        """Name what ``dagster.yaml`` has to say."""
        return {"base_dir": Field(StringSource)}


def own_storages() -> bool:
    """Whether the storages of ``storage.py`` fit this Dagster; tried once in a process, in a quarter of a second.

    What they pack is packed even where they do not fit, because Dagster's own storages have to read it.
    """
    works(
        "packed rows in Dagster's tables",
        _pack_columns,
        instead="new rows are not packed, and those that are cannot be read",
    )
    return works(
        "SQLite storages that keep their connections", _try_storages, instead="Dagster's own serve, slower"
    )


def _pack_columns() -> None:
    from headrace.orchestration.runtime.storage import pack_columns

    pack_columns()


def _try_storages() -> None:
    from headrace.orchestration.runtime.storage import try_storages

    with TemporaryDirectory(prefix="headrace-") as folder:
        try_storages(folder)


class Runs(_BelowDagsterHome, RunStorage):
    """Runs: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> RunStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresRunStorage

            return PostgresRunStorage(address, inst_data=inst_data)
        if own_storages():
            from headrace.orchestration.runtime.storage import KeptSqliteRunStorage

            return KeptSqliteRunStorage.from_config_value(inst_data, config_value)
        return SqliteRunStorage.from_local(str(Path(config_value["base_dir"]) / "history"), inst_data)


class Schedules(_BelowDagsterHome, ScheduleStorage):
    """Ticks of schedules and sensors: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ScheduleStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresScheduleStorage

            return PostgresScheduleStorage(address, inst_data=inst_data)
        if own_storages():
            from headrace.orchestration.runtime.storage import KeptSqliteScheduleStorage

            return KeptSqliteScheduleStorage.from_config_value(inst_data, config_value)
        return SqliteScheduleStorage.from_local(str(Path(config_value["base_dir"]) / "schedules"), inst_data)


class Events(_BelowDagsterHome, EventLogStorage):
    """Events, asset checks and materialisations: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> EventLogStorage:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresEventLogStorage

            if not own_storages():
                return PostgresEventLogStorage(address, inst_data=inst_data)
            from headrace.orchestration.runtime.storage import OnePlan

            batch_dagster_events()
            kept = type("PostgresEvents", (OnePlan, PostgresEventLogStorage), {})
            return cast("EventLogStorage", kept(address, inst_data=inst_data))
        if own_storages():
            from headrace.orchestration.runtime.storage import BatchingSqliteEventLogStorage

            return BatchingSqliteEventLogStorage.from_config_value(inst_data, config_value)
        return SqliteEventLogStorage(str(Path(config_value["base_dir"]) / "history" / "runs"), inst_data)


def postgres(config: Settings) -> str | None:
    """Address of the Postgres database, as SQLAlchemy takes it; None if it is SQLite.

    Raises:
        Fatal: It does not let us in.
    """
    return None if config.dagster_postgres is None else reachable(config.dagster_postgres.get_secret_value())


class Launcher(_BelowDagsterHome, RunLauncher, ConfigurableClass):  # type: ignore[type-arg]
    """Who runs runs: processes beside the code location, or workers, by ``HEADRACE_RUN_LAUNCHER``."""

    @classmethod
    def config_type(cls) -> Any:
        """Name what ``dagster.yaml`` has to say: nothing."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> RunLauncher[Any]:
        """Make it of the settings, when Dagster calls."""
        from headrace.orchestration.runtime.launchers import made_for

        return made_for(settings(), inst_data)


class ComputeLogs(_BelowDagsterHome, ComputeLogManager, ConfigurableClass):  # type: ignore[type-arg]
    """What runs write to standard output and error: below ``base_dir``, or in S3 by ``HEADRACE_COMPUTE_LOGS``."""

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ComputeLogManager[Any]:
        """Make it of the configuration in ``dagster.yaml``, when Dagster calls."""
        folder = str(Path(config_value["base_dir"]) / "storage")
        return _on_s3(settings(), folder, inst_data) or LocalComputeLogManager(folder, inst_data=inst_data)


def _on_s3(
    config: Settings, folder: str, inst_data: ConfigurableClassData | None
) -> ComputeLogManager[Any] | None:
    if not config.compute_logs:
        return None
    from dagster_aws.s3 import S3ComputeLogManager

    place = urlsplit(config.compute_logs)
    made = S3ComputeLogManager(
        bucket=place.netloc,
        prefix=place.path.strip("/") or "dagster",
        local_dir=folder,
        upload_interval=_UPLOAD_SECONDS,
        inst_data=inst_data,
    )
    return cast("ComputeLogManager[Any]", made)
