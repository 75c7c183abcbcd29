"""Every cache: values come back as they were put, or not at all."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from builders import eventually
from headrace.local import probes
from headrace.serving.cache import Cache, Layered, Memory
from headrace.serving.cache.redis import Redis

Opened = Callable[[], Cache]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """The embedded cache, which can be killed and started again on its port."""

    def __init__(self) -> None:
        self.port, self.password = free_port(), "p w'ü"[:2] + "secret"
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{self.password.replace(' ', '%20')}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headrace.local.cache_server", "--port", str(self.port)],
            env={"VALKEY_PASSWORD": self.password, "PYTHONPATH": ":".join(sys.path)},
        )
        eventually(self._answers, 30, "the cache")

    def _answers(self) -> bool:
        try:
            return probes.redis_ok(self.port, f'"{self.password}"')
        except OSError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.kill()


@pytest.fixture(params=["memory", "redis", "both"])
def opened(request: pytest.FixtureRequest, server: Server) -> Opened:
    makers: dict[str, Opened] = {
        "memory": lambda: Memory(1 << 20),
        "redis": lambda: Redis(server.url),
        "both": lambda: Layered(Memory(1 << 20), Redis(server.url), near_seconds=0.1),
    }
    return makers[request.param]


@asynccontextmanager
async def using(opened: Opened) -> AsyncIterator[Cache]:
    cache = opened()
    try:
        yield cache
    finally:
        await cache.close()


def within(opened: Opened, test: Callable[[Cache], Awaitable[None]]) -> None:
    async def run() -> None:
        async with using(opened) as cache:
            await test(cache)

    asyncio.run(run())


def test_a_value_comes_back_as_it_was_put(opened: Opened) -> None:
    async def test(cache: Cache) -> None:
        assert await cache.get("nothing") is None
        for value in (b"", b"\0\xff", b"x" * 100_000):
            await cache.put("one", value, 60)
            assert await cache.get("one") == value
        assert await cache.get("another") is None

    within(opened, test)


def test_a_value_ends(opened: Opened) -> None:
    async def test(cache: Cache) -> None:
        await cache.put("short", b"value", 0.05)

        async with asyncio.timeout(10):
            while await cache.get("short") is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    within(opened, test)


def test_one_makes_a_value_at_a_time(opened: Opened) -> None:
    async def test(cache: Cache) -> None:
        assert await cache.claim("made", 60)
        assert not await cache.claim("made", 60)
        assert await cache.claim("another", 60)
        await cache.release("made")
        assert await cache.claim("made", 60)
        for name in ("made", "another", "never claimed"):
            await cache.release(name)

    within(opened, test)


def test_memory_is_bounded_and_the_least_used_goes() -> None:
    async def test(cache: Cache) -> None:
        for n in range(20):
            await cache.put(f"{n}", b"x" * 1_000, 60)
            assert await cache.get("0") is not None, "it is used again and again"
        assert await cache.get("1") is None
        assert await cache.get("19") is not None
        await cache.put("too long", b"x" * 20_000, 60)
        assert await cache.get("too long") is None

    within(lambda: Memory(10_000), test)


def test_what_somebody_else_wrote_is_no_value(server: Server) -> None:
    async def test(cache: Cache) -> None:
        import redis.asyncio as driver

        await cache.put("mine", b"value", 60)
        async with driver.Redis.from_url(server.url) as other:
            [name] = [key async for key in other.scan_iter("*mine")]
            kept = await other.get(name)
            assert isinstance(kept, bytes)
            await other.set(name.replace(b"mine", b"yours"), kept)  # another key's value
            await other.set(name, kept[:-1] + b"E")
        assert await cache.get("mine") is None
        assert await cache.get("yours") is None

    within(lambda: Redis(server.url), test)


def test_a_server_that_is_away_is_said_once_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headrace")
    own = Server()
    now = 0.0

    async def test(cache: Cache) -> None:
        nonlocal now
        await cache.put("one", b"value", 60)
        own.kill()
        for _ in range(5):
            now += 10
            assert await cache.get("one") is None
            await cache.put("one", b"value", 60)
            assert await cache.claim("one", 60), "answers are made all the same"
        assert [r.levelname for r in caplog.records] == ["WARNING"]
        own.start()
        now += 10
        await cache.put("one", b"again", 60)
        assert await cache.get("one") == b"again"
        assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]

    try:
        within(lambda: Redis(own.url, lambda: now), test)
    finally:
        own.kill()
