"""Settings of what serves numbers: its address, who may read, its cache, and the limits of a question."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from headrace.config.operation import listed


class ServingSettings(BaseModel):
    """Settings of ``headrace serve``."""

    serve_host: str = Field(
        "127.0.0.1",
        description="address that 'headrace serve' listens on; 0.0.0.0 for every one of this machine",
    )
    serve_port: int = Field(8383, ge=1, le=65_535, description="port that 'headrace serve' listens on")
    serve_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="address at which others find 'headrace serve'; default: host and port above",
    )
    serve_keys: bool = Field(
        False, description="ask for a read key on loopback, too; beyond loopback one is always asked for"
    )
    serve_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="web origins whose pages may read /v1; * for any; separated by spaces"
    )
    serve_key_rate: float = Field(
        0.0, ge=0, description="requests per second and read key that has no rate of its own; 0: no limit"
    )
    serve_address_rate: float = Field(
        0.0, ge=0, description="requests per second and address of a client; 0: no limit"
    )
    serve_proxies: int = Field(
        0, ge=0, le=10, description="proxies in front whose X-Forwarded-For says where a request came from"
    )
    serve_queries: int = Field(
        8, ge=1, le=256, description="questions that the warehouse is asked at the same time"
    )
    serve_query_seconds: float = Field(
        10.0, gt=0, le=600, description="longest time of a question; the warehouse then ends it"
    )
    serve_export_seconds: float = Field(
        300.0, gt=0, le=86_400, description="longest time of a table that is streamed as CSV or Arrow"
    )
    serve_version_ms: float = Field(
        100.0,
        ge=0,
        le=60_000,
        description="for how long what the warehouse holds is taken as known; 0: each question looks again",
    )
    serve_stale_seconds: float = Field(
        86_400.0, ge=0, description="oldest answer that is given, marked, while the warehouse is away"
    )
    serve_user: str = Field(
        "",
        description="ClickHouse user that asks, such as one of readonly=2; default: HEADRACE_CLICKHOUSE_USER",
    )
    serve_password: SecretStr = Field(SecretStr(""), description="its password")

    cache_url: SecretStr = Field(
        SecretStr(""),
        description="redis://user:password@host:port/0 of any Redis or Valkey for answers; default: that of the stack"
        " in HEADRACE_HOME, or memory alone",
    )
    cache_seconds: int = Field(86_400, ge=1, description="for how long an answer is kept")
    cache_answer_bytes: int = Field(
        2 << 20, ge=1_024, description="longest answer that is kept, compressed; longer ones are made anew"
    )
    cache_memory_bytes: int = Field(
        32 << 20, ge=0, description="bytes of answers that a process keeps in memory beside the cache"
    )

    @field_validator("serve_origins", mode="before")
    @classmethod
    def _web_origins(cls, value: Any) -> Any:
        found = listed(value)
        return tuple(one.rstrip("/") for one in found) if isinstance(found, tuple | list) else found

    @field_validator("serve_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("cache_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        known = ("redis://", "rediss://", "unix://", "file:", "secretsmanager:", "ssm:")
        if url and not url.startswith(known):
            raise ValueError("it must begin with redis://, rediss:// or unix://")
        return value
