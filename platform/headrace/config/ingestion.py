"""Settings of ingestion: micro-batches, limits of a message, retries, locks and retention."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, Field, field_validator


class IngestSettings(BaseModel):
    """Settings of ingest runs: reading, landing, retries, waiting and retention."""

    batch_messages: int = Field(48_000, ge=1, le=1_000_000, description="messages per micro-batch")
    batch_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="interval between micro-batches that are not full; messages wait up to this long",
    )
    commit_batches: int = Field(
        5, ge=1, le=1_000, description="most micro-batches per commit while a run catches up"
    )
    ingest_idle_seconds: float = Field(
        2.0, ge=0.1, le=300, description="a run ends after this long without messages, unless it lingers"
    )
    ingest_linger_seconds: float = Field(
        180.0,
        ge=0,
        le=3_600,
        description="a run that Dagster launched waits this long for more messages; 0: ends at once",
    )
    ingest_lingering: int = Field(
        8, ge=0, le=256, description="runs per machine that may linger at a time; the others end when idle"
    )
    ingest_max_seconds: float = Field(
        300.0, ge=1, le=86_400, description="a run hands over to the next one after this"
    )
    max_message_bytes: int = Field(524_288, ge=1_024, description="longer messages are rejected")
    max_message_records: int = Field(
        100_000, ge=1, description="a message that is an array of more records is rejected as a whole"
    )
    event_time_min: datetime = Field(
        datetime(2000, 1, 1, tzinfo=UTC), description="earliest valid occurred_at"
    )
    event_time_ahead: timedelta = Field(
        timedelta(hours=1), description="latest valid occurred_at: this long after ingestion"
    )

    retry_attempts: int = Field(
        4, ge=1, le=100, description="attempts of a call to a service that does not answer"
    )
    retry_max_seconds: float = Field(10.0, ge=0.1, le=600, description="longest pause between two attempts")
    breaker_failures: int = Field(
        5, ge=1, le=1_000, description="failures in a row that open a service's circuit breaker"
    )
    breaker_seconds: float = Field(
        30.0, ge=0.1, le=3_600, description="how long the circuit breaker stays open"
    )
    lock_seconds: float = Field(
        30.0,
        ge=0.1,
        le=3_600,
        description="wait this long for a lock whose owner shows no sign of life: publishing, building, parsing",
    )
    lock_max_seconds: float = Field(
        900.0,
        ge=0.1,
        le=86_400,
        description="wait this long for a lock whose owner works; then fail and name the owner",
    )

    lake_keep_days: int = Field(
        7, ge=1, le=3_650, description="how long the lake keeps files that its newest version does not use"
    )
    lake_log_hours: int = Field(
        3, ge=1, le=87_600, description="how far back versions of a lake table can be read"
    )
    lake_log_commits: int = Field(
        500, ge=0, description="published versions to keep on a local disk; 0: all within lake_log_hours"
    )
    lake_version_days: int = Field(
        30,
        ge=0,
        le=3_650,
        description="for how many days the last version of each day of a lake table can be read; 0: none",
    )
    erased_keep_days: int = Field(
        400,
        ge=0,
        description="days to remember an erased person as a hash and drop new records; 0: for ever",
    )
    runs_keep_days: int = Field(
        30, ge=1, le=3_650, description="how long Dagster keeps the events and logs of a run"
    )
    runs_keep: int = Field(
        50,
        ge=1,
        le=100_000,
        description="newest runs per job and outcome that keep their events and logs",
    )
    runs_listed: int = Field(
        500, ge=1, le=1_000_000, description="newest runs per job and outcome that Dagster lists"
    )
    asset_history: int = Field(
        10,
        ge=1,
        le=100_000,
        description="newest events per kind that Dagster keeps of an asset's day or of a check",
    )

    @field_validator("event_time_min")
    @classmethod
    def _zoned(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
