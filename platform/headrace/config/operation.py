"""Settings of operation: sensors, model builds, health thresholds, Dagster and alerts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode


class OperationSettings(BaseModel):
    """Settings of the running platform: sensors, models, health, Dagster and alerts."""

    sensor_seconds: int = Field(5, ge=1, le=3_600, description="how often sensors measure the backlogs")
    run_pause_seconds: float = Field(
        10.0, ge=0, le=86_400, description="first pause after a run that failed; doubles with each failure"
    )
    run_pause_max_seconds: float = Field(
        900.0, ge=0, le=86_400, description="longest pause before a failing job is launched again"
    )
    refresh_cooldown_seconds: int = Field(
        10, ge=0, description="refresh models after this long without new data"
    )
    refresh_max_wait_seconds: int = Field(
        120, ge=0, description="refresh models after this long even if new data keeps coming"
    )
    build_rows: int = Field(
        5_000_000, ge=1, description="most raw rows per build; a range with more is built in parts"
    )
    parse_seconds: float = Field(
        300.0, ge=1, le=86_400, description="stop dbt if it has not parsed the project by then"
    )
    model_query_seconds: int = Field(
        600, ge=1, le=86_400, description="longest time of one dbt query; the warehouse then ends it"
    )
    window_time: Literal["event", "processing"] = Field(
        "event", description="time axis of the models; a change needs a full refresh"
    )
    window_seconds: int = Field(
        60, ge=1, le=3_600, description="tumbling window of the marts; a change needs a full refresh"
    )
    lateness_seconds: int = Field(
        600,
        ge=0,
        le=864_000,
        description="events that land later than this after they occurred count as late",
    )
    speed_days: int = Field(3, ge=1, le=30, description="days that the speed layer covers")
    repeat_days: int = Field(
        7,
        ge=0,
        le=30,
        description="a producer's key counts once on days at most this far apart; a change needs a full refresh",
    )
    speed_repeat_days: int = Field(
        30,
        ge=0,
        le=30,
        description="live windows look repeat_days back for what was sent again, at most this far; 0: not at all",
    )
    slow_ms: float = Field(
        2_500.0, gt=0, description="threshold of the slow share in performance_metrics, ms"
    )
    max_reject_rate: float = Field(0.05, ge=0, le=1, description="share of rejected rows that is a warning")
    error_reject_rate: float = Field(
        0.5, ge=0, le=1, description="share of rejected rows that is an error, from 20 of them on"
    )
    reject_seconds: int = Field(
        900,
        ge=60,
        le=86_400,
        description="period of the reject rates, besides the whole day",
    )
    max_lag_messages: int = Field(
        1_000_000, ge=0, description="waiting messages of a source that fail its check"
    )
    max_behind_seconds: int = Field(
        900, ge=1, description="fail a check if data waits, is unpublished or is not rebuilt for this long"
    )

    fork_runs: bool = Field(
        False,
        description="fork each run from the code server, in a tenth of a second, instead of starting a process",
    )
    dagster_home: Path | None = Field(
        None,
        validation_alias=AliasChoices("dagster_home"),
        description="read from DAGSTER_HOME, which is Dagster's own; default: <home>/dagster",
    )
    machines: Literal["", "one", "several"] = Field(
        "",
        description="how many machines run this installation; default: several if Dagster is in Postgres and the lake"
        " on object storage, else one",
    )
    dagster_postgres: SecretStr | None = Field(
        None, description="postgresql://user:password@host:5432/database for Dagster; default: SQLite"
    )
    run_launcher: Literal["local", "celery"] = Field(
        "local",
        description="where runs run: beside the code location, or on the machines of 'headrace run worker'",
    )
    celery_broker: SecretStr = Field(
        SecretStr(""), description="redis://user:password@host:port/0 from which workers take runs"
    )
    worker_runs: int = Field(4, ge=1, le=64, description="runs that a worker runs at a time")
    max_concurrent_runs: int = Field(
        40, ge=1, le=10_000, description="runs at a time, over all machines; others wait in the queue"
    )
    code_host: str = Field("127.0.0.1", description="machine on which 'headrace run code' listens")
    code_port: int = Field(4266, ge=1, le=65_535, description="its port")
    compute_logs: str = Field(
        "",
        pattern=r"^(s3://[^/\s]+(/\S*)?)?$",
        description="s3://bucket/prefix for the runs' stdout and stderr; default: below DAGSTER_HOME",
    )

    alerts: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="addresses of the alert channels, separated by spaces or as a JSON list"
    )
    alert_reminder_seconds: int = Field(
        86_400, ge=0, description="remind a channel of an open alert after this long; 0: never"
    )
    silence_seconds: int = Field(
        0, ge=0, description="alert when nothing has landed in a stream for this long; 0: never"
    )
    telemetry_seconds: float = Field(
        10.0,
        ge=1,
        le=600,
        description="how often what /metrics tells is measured; what costs more, less often",
    )
    ui_url: str = Field(
        "http://127.0.0.1:3000",
        pattern=r"^https?://\S+$",
        description="address at which people reach the Dagster UI",
    )

    @field_validator("alerts", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        return listed(value)

    @field_validator("ui_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")


def listed(value: Any) -> Any:
    """Make a tuple of a text of words or of a JSON list; leave other values alone.

    Raises:
        ValueError: The text begins like a JSON list and is none.
    """
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return tuple(value.split())
    try:
        return tuple(json.loads(value))
    except ValueError:
        raise ValueError("it begins like a JSON list and is none") from None
