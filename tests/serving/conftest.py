"""A built warehouse, and a server in front of it that listens: both are made once a session."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import uvicorn
from pydantic import SecretStr

from builders import eventually
from headrace.config.settings import Settings, load_settings
from headrace.contracts.events import EVENTS
from headrace.contracts.metrics import METRICS
from headrace.serving.app import application
from headrace.serving.base import Services
from headrace.serving.serve import opened
from headrace.warehouse import Publication
from marts.conftest import PASSWORD, Warehouse, clickhouse_port, new_warehouse
from metrics import landed

__all__ = ["clickhouse_port", "new_warehouse"]
WITHIN = 60
#: What is built by the day, and everything that the numbers of events need: other metrics have no models here.
DAILY = ("events_history", "event_metrics", "event_metrics_rollups")
MODELS = (*DAILY, "+event_metrics_live")


@dataclass
class Built:
    """A warehouse with events and measurements; all days but today's are built.

    Attributes:
        warehouse: The warehouse.
        events: Every raw row of events in it.
        now: When it was made.
    """

    warehouse: Warehouse
    events: pl.DataFrame
    now: datetime
    version: int = 1

    def settings(self, home: Path, **more: Any) -> Settings:
        return load_settings(
            with_stack=False,
            home=home,
            clickhouse_host="127.0.0.1",
            clickhouse_port=self.warehouse.port,
            clickhouse_user="headrace",
            clickhouse_password=SecretStr(PASSWORD),
            dbt_schema=self.warehouse.name,
            raw_database=self.warehouse.raw,
            **{"serve_version_ms": 0.0, **more},
        )

    def publish(self, rows: pl.DataFrame, days: list[date]) -> None:
        """Add events, and record that they were published."""
        self.version += 1
        self.warehouse.load(EVENTS.table, rows)
        noted = Publication("lake", self.version, len(rows), tuple(days), tuple(days))
        self.warehouse.adapter.record(EVENTS.table, noted)

    def build(self, first: date, last: date) -> None:
        """Build the marts of some days, and record it."""
        began = datetime.now(UTC)
        span = {"start_date": str(first), "end_date": str(last), "lateness_seconds": 0}
        assert self.warehouse.dbt("run", "--select", *DAILY, **span)
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        self.warehouse.adapter.refreshed(EVENTS.table, "lake", self.version, days, began)

    def events_of(self, day: date) -> int:
        """Events of a day, each once."""
        own = self.events.unique("event_id", keep="first", maintain_order=True)
        return own.filter(pl.col("occurred_at").dt.date() == day).height


@pytest.fixture(scope="session")
def built(new_warehouse: Callable[..., Warehouse]) -> Built:
    now = datetime.now(UTC).replace(microsecond=0)
    warehouse = new_warehouse("served")
    events, metrics = landed.events(now), landed.metrics(now)
    assert warehouse.dbt("run", "--select", *MODELS, lateness_seconds=0)
    days = sorted({(now - timedelta(days=n)).date() for n in range(landed.DAYS + 2)})
    before = [day for day in days if day != now.date()]
    for contract, rows in ((EVENTS, events), (METRICS, metrics)):
        warehouse.load(contract.table, rows)
        noted = Publication("lake", 1, len(rows), tuple(days), tuple(days))
        warehouse.adapter.record(contract.table, noted)
    span = {"start_date": str(min(before)), "end_date": str(max(before)), "lateness_seconds": 0}
    assert warehouse.dbt("run", "--select", *DAILY, **span)
    for contract in (EVENTS, METRICS):
        warehouse.adapter.refreshed(contract.table, "lake", 1, before, now)
    return Built(warehouse, events, now)


@dataclass
class Served:
    """A server that listens.

    Attributes:
        client: Asks it.
        services: What it is made of; of its own thread.
        loop: Its loop.
    """

    client: httpx.Client
    services: Services
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def run(self, coroutine: Any) -> Any:
        """Run something in its loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WITHIN)


@contextmanager
def serving(settings: Settings, host: str = "127.0.0.1") -> Iterator[Served]:
    """Serve in a thread, on a free port of loopback; ``host`` is what the server takes it for."""
    found: dict[str, Any] = {}
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]

    async def run() -> None:
        async with opened(settings, host) as services:
            config = uvicorn.Config(
                application(services), loop="none", http="httptools", ws="none", lifespan="off", log_config=None,
                timeout_graceful_shutdown=2,
            )  # fmt: skip
            server = uvicorn.Server(config)
            found.update(server=server, services=services, loop=asyncio.get_running_loop())
            await server.serve([listening])

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    eventually(lambda: found.get("server") and found["server"].started, WITHIN, "the server")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN, trust_env=False) as client:
        yield Served(client, found["services"], found["loop"])
    found["loop"].call_soon_threadsafe(found["services"].ending.set)
    found["server"].should_exit = True
    thread.join(WITHIN)
    assert not thread.is_alive(), "the server ends"


@pytest.fixture(scope="session")
def served(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(built.settings(tmp_path_factory.mktemp("served"))) as found:
        yield found
