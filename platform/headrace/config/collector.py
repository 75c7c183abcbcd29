"""Settings of the collector: its address, its log, its keys, its limits, and what it notes of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from headrace.config.operation import listed
from headrace.core.origins import web_origin


class CollectorSettings(BaseModel):
    """Settings of ``headrace collect``."""

    collector_host: str = Field(
        "127.0.0.1",
        description="address that the collector listens on; 0.0.0.0 for every one of this machine",
    )
    collector_port: int = Field(8282, ge=1, le=65_535, description="port that the collector listens on")
    collector_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="address at which 'headrace send --to http' finds a collector; default: host and port above",
    )
    collector_workers: int = Field(
        1,
        ge=1,
        le=64,
        description="processes that speak HTTP; with more than one, another process has log and index",
    )
    collector_key: SecretStr = Field(SecretStr(""), description="write key of 'headrace send --to http'")
    collector_log: Path | None = Field(
        None, description="folder of the collector's log and index; default <home>/collector"
    )
    collector_log_bytes: int = Field(
        8 << 30,
        ge=16 << 20,
        description="most bytes of events that the lake does not have yet; beyond that the collector answers 503",
    )
    collector_repeat_days: int = Field(
        14, ge=7, le=400, description="for how many days an event's id is known, so that it is taken once"
    )
    collector_group_ms: float = Field(
        3.0, ge=0, le=100, description="shortest time from one sync of the log to the next"
    )

    collector_keys: Path | None = Field(
        None, description="file of the write keys' digests; default <home>/collector/keys.json"
    )
    collector_anonymous: bool = Field(False, description="take events without a write key, from anybody")
    collector_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="web origins whose pages may send, besides those of keys; * for any; separated by spaces",
    )

    collector_body_bytes: int = Field(
        4 << 20, ge=1_024, le=64 << 20, description="longest body of a request, decompressed"
    )
    collector_body_seconds: float = Field(
        30.0, gt=0, le=600, description="for how long a body may take to come; a slower one is refused"
    )
    collector_event_bytes: int = Field(
        131_072, ge=1_024, description="longest event; the whole request is refused for a longer one"
    )
    collector_batch_events: int = Field(
        10_000, ge=1, le=100_000, description="most events of a request; one with more is refused"
    )
    collector_key_rate: float = Field(
        0.0, ge=0, description="events per second and write key that has no rate of its own; 0: no limit"
    )
    collector_address_rate: float = Field(
        0.0, ge=0, description="events per second and address of a client; 0: no limit"
    )
    collector_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="proxies in front of the collector whose X-Forwarded-For says where a request came from",
    )

    collector_address: Literal["drop", "truncate", "keep"] = Field(
        "truncate",
        description="what is noted of a client's address: nothing, its network (/24 or /48), or all of it",
    )
    collector_user_agent: bool = Field(
        True, description="note browser, system and device of a client, by its User-Agent"
    )

    @field_validator("collector_log", "collector_keys")
    @classmethod
    def _whole_path(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator("collector_origins", mode="before")
    @classmethod
    def _origins(cls, value: Any) -> Any:
        found = listed(value)
        return tuple(map(web_origin, found)) if isinstance(found, tuple | list) else found
