"""A built warehouse, and a server in front of it that listens: both are made once a session."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from builders import eventually
from headrace.config.settings import Settings
from headrace.serving.app import application
from headrace.serving.base import Services
from headrace.serving.serve import opened
from marts.conftest import PASSWORD, clickhouse_port

from .small import Small, filled

__all__ = ["clickhouse_port"]
WITHIN = 60


@dataclass
class Built:
    """A warehouse with events; all days but today's are built.

    Attributes:
        small: The warehouse.
        now: When it was made.
    """

    small: Small
    now: datetime

    def settings(self, home: Path, **more: Any) -> Settings:
        return self.small.settings(home, **more)

    def day(self, ago: int) -> date:
        return self.now.date() - timedelta(days=ago)


@pytest.fixture(scope="session")
def built(clickhouse_port: int) -> Built:
    now = datetime.now(UTC)
    return Built(filled(Small(clickhouse_port, PASSWORD, "served").create(), now.date()), now)


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
