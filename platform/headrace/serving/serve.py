"""Run the server: open what it needs, and answer until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from headrace.collector.keys import Keys
from headrace.core.errors import Fatal
from headrace.metrics import Catalogue
from headrace.serving.access import Access, policy, session_secret
from headrace.serving.answers import Answers, Limits
from headrace.serving.app import application
from headrace.serving.base import Services
from headrace.serving.cache import Cache, Layered, Memory
from headrace.serving.clickhouse import ClickHouse, Server
from headrace.serving.definitions import Definitions
from headrace.serving.fast import Fast
from headrace.serving.looking import Looking
from headrace.serving.recent import Recent
from headrace.serving.versions import Versions

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

#: Seconds until requests that are under way are cut off, once the server is told to stop.
_GRACE_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75


@asynccontextmanager
async def opened(settings: Settings, host: str = "127.0.0.1") -> AsyncIterator[Services]:
    """Open the services of a server; close them when it is left.

    Args:
        settings: The settings.
        host: Address that it listens on, which decides whether a key is asked for.

    Raises:
        NotSet: No setting says where ClickHouse is.
        DefinitionError: Two files declare one name.
    """
    definitions = Definitions(settings)
    catalogue = definitions.load()
    async with AsyncExitStack() as held:
        warehouse = ClickHouse(asked_by(settings))
        held.push_async_callback(warehouse.close)
        cache = cache_of(settings)
        held.push_async_callback(cache.close)
        looking = Looking(warehouse, settings.raw_database, settings.dbt_schema, settings.warehouse_cluster)
        versions = Versions(looking, settings.serve_version_ms / 1_000)
        answers = Answers(catalogue, warehouse, versions, cache, _limits(settings))
        access = Access(
            Keys(settings.collector_keys_file),
            policy(settings, host),
            session_secret(settings.home / "serve" / "session.secret"),
        )
        services = Services(settings, warehouse, versions, answers, Recent(), Fast(versions), access)

        def use(found: Catalogue) -> None:
            answers.use(found)
            services.fast.clear()

        for beside in (services.recent.keep_ready(versions), definitions.follow(use)):
            held.callback(asyncio.create_task(beside).cancel)
        yield services


def cache_of(settings: Settings) -> Cache:
    """Return the cache that the settings name: memory, and behind it a server of Redis' protocol where there is one."""
    near = Memory(settings.cache_memory_bytes)
    url = settings.cache_url.get_secret_value()
    if not url:
        return near
    from headrace.serving.cache.redis import Redis

    return Layered(near, Redis(url))


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.serve_query_seconds + 5.0,
        settings.cache_seconds,
        settings.cache_answer_bytes,
        settings.serve_stale_seconds,
    )


def asked_by(settings: Settings) -> Server:
    """Return where the settings say that ClickHouse is, and its limits.

    Raises:
        NotSet: They do not say it.
    """
    settings = settings.with_warehouse()
    own = bool(settings.serve_user)
    password = settings.serve_password if own else settings.clickhouse_password
    return Server(
        settings.clickhouse_host,
        settings.clickhouse_port,
        settings.serve_user or settings.clickhouse_user,
        password.get_secret_value(),
        settings.clickhouse_secure,
        settings.serve_queries,
        settings.serve_query_seconds,
        settings.serve_export_seconds,
    )


class _Server(uvicorn.Server):
    """Says when it listens, and ends streams as soon as it is told to stop: they would otherwise be waited for."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ending, self._ready = ending, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending.set()
        super().handle_exit(sig, frame)


async def serve(settings: Settings, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first.

    Args:
        settings: The settings.
        host: Address to listen on.
        port: Port to listen on.
        ready: Called once it listens.

    Raises:
        Fatal: The address cannot be had.
        NotSet: No setting says where ClickHouse is.
    """
    async with opened(settings, host) as services:
        config = uvicorn.Config(
            application(services),
            host=host,
            port=port,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        server = _Server(config, services.ending, ready)
        try:
            await server.serve()
        except SystemExit:  # what uvicorn ends with where it cannot listen; its log has said why
            raise Fatal(
                f"http://{host}:{port} cannot be listened on; choose another port with HEADRACE_SERVE_PORT"
            ) from None


def run(settings: Settings, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve as ``serve`` does, in a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, host, port, ready))
