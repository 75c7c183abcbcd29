"""Where Dagster keeps what it knows. ``dagster.yaml`` names these classes; the settings choose what they stand for.

So one ``dagster.yaml`` serves a laptop and a deployment, and what differs is where all else that differs is: in the
settings. The classes themselves are never made: Dagster asks them for the storage, and gets one of its own kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from dagster import Field, StringSource
from dagster._core.storage.compute_log_manager import ComputeLogManager
from dagster._core.storage.event_log import EventLogStorage
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.runs import RunStorage
from dagster._core.storage.schedules import ScheduleStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from headrace.config.settings import Settings, batch_dagster_events, settings
from headrace.core.errors import Fatal
from headrace.orchestration.runtime.storage import (
    BatchingSqliteEventLogStorage,
    KeptSqliteRunStorage,
    KeptSqliteScheduleStorage,
    OnePlan,
)

_CONNECT_SECONDS = 5
#: Seconds after which what a running step has written can be read by others.
_UPLOAD_SECONDS = 30


class _BelowDagsterHome:
    """Configured by ``base_dir`` alone, which is ``DAGSTER_HOME``."""

    @classmethod
    def config_type(cls) -> Any:
        """What ``dagster.yaml`` has to say."""
        return {"base_dir": Field(StringSource)}


class Runs(_BelowDagsterHome, RunStorage):
    """Runs: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> RunStorage:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresRunStorage

            return PostgresRunStorage(address, inst_data=inst_data)
        return KeptSqliteRunStorage.from_config_value(inst_data, config_value)


class Schedules(_BelowDagsterHome, ScheduleStorage):
    """Ticks of schedules and sensors: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ScheduleStorage:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresScheduleStorage

            return PostgresScheduleStorage(address, inst_data=inst_data)
        return KeptSqliteScheduleStorage.from_config_value(inst_data, config_value)


class Events(_BelowDagsterHome, EventLogStorage):
    """Events, asset checks and materialisations: SQLite, or Postgres by ``HEADRACE_DAGSTER_POSTGRES``."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> EventLogStorage:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
        if address := postgres(settings()):
            from dagster_postgres import PostgresEventLogStorage

            batch_dagster_events()
            kept = type("PostgresEvents", (OnePlan, PostgresEventLogStorage), {})
            return cast("EventLogStorage", kept(address, inst_data=inst_data))
        return BatchingSqliteEventLogStorage.from_config_value(inst_data, config_value)


def postgres(config: Settings) -> str | None:
    """Address of the Postgres database, as SQLAlchemy takes it; None if it is SQLite.

    Raises:
        Fatal: It does not let us in.
    """
    if config.dagster_postgres is None:
        return None
    return _let_in(config.dagster_postgres.get_secret_value())


@cache
def _let_in(url: str) -> str:
    """The address as SQLAlchemy takes it, after one connection.

    Dagster's own retry for some time and then raise the driver's words below three of their own.
    """
    try:
        import psycopg2
        from dagster_postgres import PostgresRunStorage  # noqa: F401  # tells whether it is installed
    except ImportError:
        raise Fatal(
            "HEADRACE_DAGSTER_POSTGRES needs dagster-postgres: install headrace[postgres], in a checkout with "
            "'uv sync --extra postgres'"
        ) from None
    try:
        address = make_url(url.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        address = make_url("none://")
    if address.drivername != "postgresql" or not address.host or not address.database:
        raise Fatal(
            "HEADRACE_DAGSTER_POSTGRES is no address: write postgresql://user:password@host:5432/database, with "
            "%-escapes in the password"
        )
    text = address.render_as_string(hide_password=False)
    place = f"{address.host}:{address.port or 5432}/{address.database} as {address.username}"
    try:
        psycopg2.connect(text, connect_timeout=_CONNECT_SECONDS).close()
    except psycopg2.Error as error:
        said = " ".join(str(error).split()).replace(text, "...")
        if address.password:
            said = said.replace(str(address.password), "...")
        raise Fatal(
            f"HEADRACE_DAGSTER_POSTGRES: no connection to {place}: {said}; check address and password, and that "
            "the database exists"
        ) from None
    # SQLAlchemy 2.1 would take another driver than the one that dagster-postgres brings
    return address.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def verify_postgres(config: Settings) -> str:
    """Where runs, schedules and events are; connects if it is Postgres.

    Raises:
        Fatal: It does not let us in; says what to do.
    """
    address = postgres(config)
    if address is None:
        return "in SQLite, below DAGSTER_HOME"
    place = make_url(address)
    return f"in Postgres, {place.host}:{place.port or 5432}/{place.database}"


class ComputeLogs(_BelowDagsterHome, ComputeLogManager, ConfigurableClass):  # type: ignore[type-arg]
    """What runs write to standard output and error: below ``base_dir``, or in S3 by ``HEADRACE_COMPUTE_LOGS``."""

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> ComputeLogManager[Any]:
        """Called by Dagster with the configuration in ``dagster.yaml``."""
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


def verify_compute_logs(config: Settings) -> str:
    """Where they are; asks S3 whether it has the bucket and lets us in.

    Raises:
        Fatal: It has not or does not; says what to do.
    """
    bucket = urlsplit(config.compute_logs).netloc
    if not bucket:
        return "below DAGSTER_HOME"
    import boto3  # every process of Dagster imports this module
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    short = Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 1})
    try:
        boto3.Session().client("s3", config=short).head_bucket(Bucket=bucket)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if status == 404:
            raise Fatal(
                f"HEADRACE_COMPUTE_LOGS: there is no bucket {bucket!r}; create it or correct the name"
            ) from None
        raise Fatal(
            f"HEADRACE_COMPUTE_LOGS: bucket {bucket!r} refuses these AWS credentials (HTTP {status}); grant them "
            "s3:ListBucket, s3:GetObject and s3:PutObject"
        ) from None
    except BotoCoreError as error:
        raise Fatal(
            f"HEADRACE_COMPUTE_LOGS: bucket {bucket!r} cannot be asked for: {' '.join(str(error).split())}"
        ) from None
    return f"on S3, in bucket {bucket!r}"
