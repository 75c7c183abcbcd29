"""Settings of Metabase, and of the ClickHouse user of BI tools."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr, field_validator


class MetabaseSettings(BaseModel):
    """Where Metabase is, and how it reaches ClickHouse."""

    bi_user: str = Field(
        "headrace_bi",
        pattern=r"^[A-Za-z_]\w{0,62}$",
        description="ClickHouse user of Metabase and other BI tools: reads marts and live views, nothing else",
    )
    bi_password: SecretStr = Field(
        SecretStr(""), description="its password; default: the one that the stack in HEADRACE_HOME has made"
    )
    metabase_url: str = Field("", description="address of Metabase, such as https://metabase:3000")
    metabase_api_key: SecretStr = Field(
        SecretStr(""), description="API key of Metabase's group Administrators"
    )
    metabase_name: str = Field(
        "Headrace", min_length=1, max_length=100, description="its database connection and collection there"
    )
    metabase_clickhouse_host: str = Field(
        "", description="ClickHouse as Metabase reaches it; default: as Headrace does"
    )
    metabase_clickhouse_port: int | None = Field(None, ge=1, le=65_535)
    metabase_sync_seconds: float = Field(
        300.0, ge=1, le=86_400, description="how long to wait for Metabase to find the marts"
    )

    @field_validator("metabase_url")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must begin with http:// or https://")
        return value.rstrip("/")
