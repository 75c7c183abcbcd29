"""The one frozen Settings, and the only reader of the environment.

Order of precedence: environment (``HEADRACE_*``), then ``stack.env`` of a running embedded stack in
``HEADRACE_HOME``, then the defaults below. Broker and warehouse have none: what happens to listen on this machine may
be somebody else's. Secrets come from these two, or from where a reference in them points
(``headrace.config.secrets``), and are never printed.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.config import stack_env
from headrace.config.secrets import is_reference, resolve
from headrace.core.errors import Fatal, HeadraceError, NotSet
from headrace.core.locks import Patience

if TYPE_CHECKING:
    from headrace.core.guard import RetryPolicy

PROJECT_ROOT = Path(__file__).resolve().parents[3]
PREFIX = "HEADRACE_"
_NOT_OURS = ("aws_", "dagster_home")  # settings whose variables have no prefix


class _StackEnv(PydanticBaseSettingsSource):
    """Settings of the embedded stack that runs in HEADRACE_HOME, if one does."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        return {_field(name): line.value for name, line in _of_stack().items()}


def home_folder() -> Path:
    """``HEADRACE_HOME``, for those who must find the folder whatever else is wrong with the settings."""
    return Path(os.environ.get(f"{PREFIX}HOME") or PROJECT_ROOT / ".headrace").expanduser().absolute()


def _of_stack() -> dict[str, stack_env.Line]:
    """Variables of the stack that runs in HEADRACE_HOME; none if none does."""
    return stack_env.variables(home_folder(), {_variable(name) for name in Settings.model_fields})


class Settings(BaseSettings):
    """Everything that can be set, with its unit. Environment variable: ``HEADRACE_`` + the name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(PROJECT_ROOT / ".headrace", description="folder for state, logs and the local lake")
    project_dir: Path = Field(PROJECT_ROOT, description="the checkout: dbt_project/ and dagster_home/")

    pipelines: Path | None = Field(
        None, description="folder with *_pipeline.py files of your own, beside Headrace's streams"
    )

    pipeline_seconds: float = Field(
        20.0, ge=0.1, le=600, description="a pipeline file that takes longer to load is left out and named"
    )

    kafka_bootstrap_servers: str = Field(
        "",
        description="host:port, comma separated; without it, those of the stack that runs in HEADRACE_HOME",
    )
    kafka_security: dict[str, Any] = Field(
        default_factory=dict,
        description="JSON of kafka-python's security_protocol, sasl_* and ssl_* options",
        repr=False,
    )
    kafka_group: str = Field("headrace", description="group whose offsets show lag to Kafka's own tools")

    sqs_endpoint_url: str | None = Field(None, description="only for SQS look-alikes")
    sqs_region: str = Field("us-east-1")
    aws_access_key_id: str | None = Field(
        None,
        validation_alias=AliasChoices("aws_access_key_id"),
        description="read from AWS_ACCESS_KEY_ID; without it the usual AWS credential chain answers",
    )
    aws_secret_access_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("aws_secret_access_key")
    )
    sqs_receivers: int = Field(8, ge=1, le=64, description="parallel receivers of a queue")

    lake_uri: str = Field("", description="folder or s3:// URI; default <home>/lake")
    lake_storage_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="JSON, as delta-rs takes them"
    )
    lake_sync: bool = Field(
        True,
        description="false: a lake on a local disk is not synced before a source is told; a power cut then loses rows",
    )

    archive: str = Field("", description="folder or s3:// URI with files to land; default <home>/archive")
    archive_storage_options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="the same for the archive; default: the lake's"
    )
    archive_quiet_seconds: float = Field(
        2.0, ge=0, le=3_600, description="a file waits until nobody has written to it for so long"
    )

    clickhouse_host: str = Field(
        "127.0.0.1", description="without it and the port, that of the stack that runs in HEADRACE_HOME"
    )
    clickhouse_port: int = Field(8123, ge=1, le=65_535)
    clickhouse_user: str = "headrace"
    clickhouse_password: SecretStr = SecretStr("")
    clickhouse_secure: bool = False
    warehouse_cluster: str = Field(
        "",
        pattern=r"^([A-Za-z_]\w{0,62})?$",
        description="ClickHouse cluster that holds the tables, as in its remote_servers; empty for one server",
    )
    raw_database: str = Field("raw", pattern=r"^[A-Za-z_]\w{0,62}$", description="where messages land")
    dbt_schema: str = Field("analytics", pattern=r"^[A-Za-z_]\w{0,62}$", description="where the marts are")
    raw_ttl_days: int = Field(0, ge=0, description="days after which raw rows expire; 0 keeps them")

    batch_messages: int = Field(48_000, ge=1, le=1_000_000, description="messages of one micro-batch")
    batch_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="between two micro-batches that are not full: what arrives waits so long",
    )
    commit_batches: int = Field(
        5, ge=1, le=1_000, description="micro-batches that one commit takes at most, catching up"
    )
    ingest_idle_seconds: float = Field(
        2.0, ge=0.1, le=300, description="a run ends when idle this long, unless it stays"
    )
    ingest_linger_seconds: float = Field(
        180.0,
        ge=0,
        le=3_600,
        description="a run that Dagster launched stays for what comes so soon; 0: none stays",
    )
    ingest_lingering: int = Field(
        8, ge=0, le=256, description="runs of one machine that may stay at a time; the others end when idle"
    )
    ingest_max_seconds: float = Field(300.0, ge=1, le=86_400, description="a run hands over after this")
    max_message_bytes: int = Field(524_288, ge=1_024, description="longer messages are rejected")
    max_message_records: int = Field(
        100_000, ge=1, description="a message that is an array of more records is rejected whole"
    )
    event_time_min: datetime = Field(datetime(2000, 1, 1, tzinfo=UTC), description="earliest occurred_at")
    event_time_ahead: timedelta = Field(timedelta(hours=1), description="latest: this after ingestion")

    retry_attempts: int = Field(4, ge=1, le=100, description="of a call to a service that is away")
    retry_max_seconds: float = Field(10.0, ge=0.1, le=600, description="longest pause between two attempts")
    breaker_failures: int = Field(5, ge=1, le=1_000, description="in a row, until a service is left alone")
    breaker_seconds: float = Field(30.0, ge=0.1, le=3_600, description="for how long it is left alone")
    lock_seconds: float = Field(
        30.0,
        ge=0.1,
        le=3_600,
        description="to publish, build or parse: wait so long for another process that shows no sign of life",
    )
    lock_max_seconds: float = Field(
        900.0, ge=0.1, le=86_400, description="the same, for one that works; then give up and say for whom"
    )

    lake_keep_days: int = Field(
        7, ge=1, le=3_650, description="how long the lake keeps files that its newest version does not need"
    )
    lake_log_hours: int = Field(
        3, ge=1, le=87_600, description="how far back versions of a lake table can be asked for"
    )
    lake_log_commits: int = Field(
        500, ge=0, description="published versions that stay on a local disk; 0: all within lake_log_hours"
    )
    erased_keep_days: int = Field(
        400,
        ge=0,
        description="days for which an erased person is remembered, hashed, and dropped; 0: for ever",
    )
    runs_keep_days: int = Field(
        30, ge=1, le=3_650, description="how long Dagster keeps the events and logs of a run"
    )
    runs_keep: int = Field(
        50,
        ge=1,
        le=100_000,
        description="newest runs of each job and outcome that keep their events and logs",
    )
    runs_listed: int = Field(
        500, ge=1, le=1_000_000, description="newest runs of each job and outcome that Dagster lists"
    )
    asset_history: int = Field(
        10,
        ge=1,
        le=100_000,
        description="newest events of each kind that Dagster keeps of an asset's day, or a check",
    )

    sensor_seconds: int = Field(5, ge=1, le=3_600, description="how often backlogs are looked at")
    run_pause_seconds: float = Field(
        10.0, ge=0, le=86_400, description="first pause after a run that failed; doubles with each failure"
    )
    run_pause_max_seconds: float = Field(
        900.0, ge=0, le=86_400, description="longest pause before a job that fails is tried again"
    )
    refresh_cooldown_seconds: int = Field(10, ge=0, description="quiet time before models are refreshed")
    refresh_max_wait_seconds: int = Field(
        120, ge=0, description="models are refreshed after this even if data never pauses"
    )
    build_rows: int = Field(
        5_000_000, ge=1, description="raw rows whose days are built at once; a longer range is built in parts"
    )
    parse_seconds: float = Field(
        300.0, ge=1, le=86_400, description="dbt is stopped when it has not parsed the project after this"
    )
    model_query_seconds: int = Field(
        600, ge=1, le=86_400, description="longest that one query of dbt may take; the warehouse ends it then"
    )
    window_time: Literal["event", "processing"] = Field(
        "event", description="time axis of the models; a change needs a full refresh"
    )
    window_seconds: int = Field(
        60, ge=1, le=3_600, description="tumbling window of the marts; a change needs a full refresh"
    )
    lateness_seconds: int = Field(
        600, ge=0, le=864_000, description="what lands later than this after it happened is counted as late"
    )
    speed_days: int = Field(3, ge=1, le=30, description="how far back the speed layer reaches")
    slow_ms: float = Field(2_500.0, gt=0, description="threshold of performance_metrics' slow share, ms")
    max_reject_rate: float = Field(0.05, ge=0, le=1, description="share of rejected rows that is a warning")
    error_reject_rate: float = Field(
        0.5, ge=0, le=1, description="share of rejected rows that is an error, from 20 of them on"
    )
    reject_seconds: int = Field(
        900,
        ge=60,
        le=86_400,
        description="rows of so long are judged by these shares, besides those of a day",
    )
    max_lag_messages: int = Field(
        1_000_000, ge=0, description="messages waiting in one source that turn a check red"
    )
    max_behind_seconds: int = Field(
        900, ge=1, description="waiting, unpublished or not rebuilt for so long turns a check red"
    )

    dagster_home: Path | None = Field(
        None,
        validation_alias=AliasChoices("dagster_home"),
        description="read from DAGSTER_HOME, which is Dagster's own; default: <home>/dagster",
    )
    dagster_postgres: SecretStr | None = Field(
        None, description="postgresql://user:password@host:5432/database for Dagster; default: SQLite"
    )
    compute_logs: str = Field(
        "",
        pattern=r"^(s3://[^/\s]+(/\S*)?)?$",
        description="s3://bucket/prefix for what runs write to stdout and stderr; default: below DAGSTER_HOME",
    )

    alerts: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="addresses of the channels that are told what is wrong, by spaces or as a JSON list"
    )
    alert_reminder_seconds: int = Field(
        86_400, ge=0, description="a channel is told again of what goes on for so long; 0 for never"
    )
    silence_seconds: int = Field(
        0, ge=0, description="alert when nothing has landed in a stream for so long; 0 for never"
    )
    ui_url: str = Field(
        "http://127.0.0.1:3000", pattern=r"^https?://\S+$", description="where people reach Dagster's UI"
    )

    @field_validator("alerts", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.lstrip().startswith("["):
            return tuple(value.split())
        try:
            return tuple(json.loads(value))
        except ValueError:
            raise ValueError("it begins like a JSON list and is none") from None

    @field_validator("ui_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("event_time_min")
    @classmethod
    def _zoned(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("archive")
    @classmethod
    def _folder_or_s3(cls, value: str) -> str:
        if "://" in value and not value.startswith("s3://"):
            raise ValueError("it must be a folder or begin with s3://")
        return value

    @field_validator("home", "project_dir", "pipelines")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @property
    def kafka_servers(self) -> str:
        """Addresses of the brokers, as they are set.

        Raises:
            NotSet: Nobody has set any.
        """
        if not self.kafka_bootstrap_servers:
            raise self._not_set("HEADRACE_KAFKA_BOOTSTRAP_SERVERS")
        return self.kafka_bootstrap_servers

    @property
    def names_warehouse(self) -> bool:
        """Whether somebody has said where ClickHouse is."""
        return not {"clickhouse_host", "clickhouse_port"}.isdisjoint(self.model_fields_set)

    def with_warehouse(self) -> Settings:
        """These settings, which say where ClickHouse is.

        Raises:
            NotSet: They do not.
        """
        if not self.names_warehouse:
            raise self._not_set("HEADRACE_CLICKHOUSE_HOST")
        return self

    def _not_set(self, variable: str) -> NotSet:
        return NotSet(
            f"no stack runs in {self.home} and no {variable} is set: start one with 'headrace stack up', or set it"
        )

    @property
    def lock_patience(self) -> Patience:
        """How long other processes of this machine are waited for."""
        return Patience(self.lock_seconds, self.lock_max_seconds)

    @property
    def retry_policy(self) -> RetryPolicy:
        """How to call services that may be away; the state of their circuits is below ``home``."""
        from headrace.core.guard import RetryPolicy

        return RetryPolicy(
            self.home / "breakers",
            self.retry_attempts,
            self.retry_max_seconds,
            self.breaker_failures,
            self.breaker_seconds,
        )

    @property
    def pipeline_folders(self) -> tuple[Path, ...]:
        """Where pipeline files are looked for, besides Headrace's own."""
        return (self.pipelines,) if self.pipelines else ()

    @property
    def lake(self) -> str:
        """URI of the lake's root, without a trailing slash."""
        return (self.lake_uri or str(self.home / "lake")).rstrip("/")

    @property
    def archive_uri(self) -> str:
        """Folder or URI of the archive's root."""
        return self.archive or str(self.home / "archive")

    def export(self) -> None:
        """Put what dbt's profile and the AWS credential chain read into this process's environment.

        Needed where the settings came from ``stack.env`` rather than from the environment.
        """
        if self.aws_access_key_id and self.aws_secret_access_key:
            os.environ["AWS_ACCESS_KEY_ID"] = self.aws_access_key_id
            os.environ["AWS_SECRET_ACCESS_KEY"] = self.aws_secret_access_key.get_secret_value()
        if self.names_warehouse:  # else processes that are started from here would take the defaults for set
            os.environ["HEADRACE_CLICKHOUSE_HOST"] = self.clickhouse_host
            os.environ["HEADRACE_CLICKHOUSE_PORT"] = str(self.clickhouse_port)
        os.environ |= {
            "HEADRACE_CLICKHOUSE_USER": self.clickhouse_user,
            "HEADRACE_CLICKHOUSE_PASSWORD": self.clickhouse_password.get_secret_value(),
            # dbt keeps this name out of its logs and out of what makes it parse anew
            "DBT_ENV_SECRET_CLICKHOUSE_PASSWORD": self.clickhouse_password.get_secret_value(),
            "HEADRACE_CLICKHOUSE_SECURE": str(self.clickhouse_secure).lower(),
            "HEADRACE_WAREHOUSE_CLUSTER": self.warehouse_cluster,
            "HEADRACE_RAW_DATABASE": self.raw_database,
            "HEADRACE_DBT_SCHEMA": self.dbt_schema,
            "HEADRACE_MODEL_QUERY_SECONDS": str(self.model_query_seconds),
            # from where dagster-dbt takes what dbt has parsed already
            "DBT_TARGET_PATH": str(self.home / "dbt" / "target"),
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then a running stack."""
        return init_settings, env_settings, _StackEnv(settings_cls)


class _WithoutStack(Settings):
    """The settings without those of a running stack."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment alone."""
        return named["init_settings"], named["env_settings"]


def load_settings(*, with_stack: bool = True, **overrides: Any) -> Settings:
    """Read the settings afresh.

    Args:
        with_stack: Take what the environment does not set from a running stack.
        overrides: Values that come before all others.

    Raises:
        Fatal: A value is out of range or a ``HEADRACE_*`` name is unknown; the message names the variable,
            the value and what is expected.
        Damaged: ``stack.env`` is not what a stack wrote; the message names file and line.
    """
    _refuse_unknown(os.environ)
    return _with_secrets(_read(Settings if with_stack else _WithoutStack, overrides))


def _read(kind: type[Settings], overrides: dict[str, Any]) -> Settings:
    try:
        return kind(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = _variable(name)
        value = "(hidden)" if _is_secret(name) else repr(first.get("input"))
        said = f"{variable}={value} is not valid: {first['msg'].lower()}"
        if kind is Settings and name not in overrides and variable not in os.environ:
            line = _of_stack().get(variable)
            if line is not None:
                raise stack_env.damaged(stack_env.path_in(home_folder()), line.number, said) from None
        raise Fatal(said) from None
    except HeadraceError:
        raise
    except Exception as error:  # pydantic-settings' own error for JSON that does not parse
        raise Fatal(f"the settings cannot be read: {error}") from error


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load_settings()


def adopt(environment: dict[str, str]) -> Settings:
    """Make these variables part of this process's environment, for it and its children, and read it again."""
    os.environ |= environment
    settings.cache_clear()
    return settings()


@contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """These variables are part of this process's environment until the end, for the children started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def batch_dagster_events() -> None:
    """Let this process's Dagster hand events to its storage in batches; it reads the size from the environment."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")


def child_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with ``extra`` on top, for a child process."""
    return {**os.environ, **(extra or {})}


def _variable(name: str) -> str:
    return name.upper() if name.startswith(_NOT_OURS) else PREFIX + name.upper()


def _field(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower()


def _with_secrets(read: Settings) -> Settings:
    """The settings with the secrets that they name."""

    def resolved(name: str, value: Any) -> Any:
        if isinstance(value, SecretStr):
            return SecretStr(resolved(name, value.get_secret_value()))
        if isinstance(value, tuple):
            return tuple(resolved(name, one) for one in value)
        if isinstance(value, dict):
            return {key: resolved(name, one) for key, one in value.items()}
        if not isinstance(value, str) or not is_reference(value):
            return value
        try:
            return resolve(value, read.sqs_region)
        except Fatal as error:
            raise Fatal(f"{_variable(name)}: {error}") from None

    secret = {name: getattr(read, name) for name in Settings.model_fields if _is_secret(name)}
    found = {name: resolved(name, value) for name, value in secret.items()}
    return read.model_copy(update=found) if found != secret else read


def _is_secret(name: str) -> bool:
    """Whether a setting's value must not be shown."""
    known = Settings.model_fields.get(name)
    return known is not None and (not known.repr or "SecretStr" in str(known.annotation))


def _refuse_unknown(environment: os._Environ[str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see docs/operations.md for all of them"
            raise Fatal(f"{name} is not a setting of Headrace{hint}")
