"""Keep values in a server of Redis' protocol: Redis, Valkey, or the one of the embedded stack."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio as driver
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Seconds for one call: an answer can be made anew in little more.
_SECONDS = 0.25
#: Seconds for which a server that failed is not asked.
_PAUSE_SECONDS = 2.0
_CONNECTIONS = 32
#: What begins every key of ours; another form of values gets another one.
_PREFIX = "headrace:1:"
_DIGEST_BYTES = 16
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class Redis:
    """A cache in a server of Redis' protocol, for one event loop.

    A value carries a digest of itself and its key: what a server or a network damaged, or another program put there,
    is no value. A server that fails is left alone for two seconds, and its failure is logged once until it is back.

    Args:
        url: ``redis://user:password@host:port/0``, ``rediss://`` or ``unix://``.
        clock: Seconds, monotonic.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = driver.Redis.from_url(
            url,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            max_connections=_CONNECTIONS,
            health_check_interval=0,
        )
        self._clock, self._closed_until, self._said = clock, 0.0, False
        self._token = secrets.token_hex(8)

    async def get(self, key: str, /) -> bytes | None:
        """Return a value."""
        found = await self._call(lambda: self._client.get(_PREFIX + key), None)
        if not isinstance(found, bytes) or len(found) < _DIGEST_BYTES:
            return None
        digest, value = found[:_DIGEST_BYTES], found[_DIGEST_BYTES:]
        return value if digest == _digest(key, value) else None

    async def put(self, key: str, value: bytes, seconds: float, /) -> None:
        """Keep a value."""
        framed = _digest(key, value) + value
        await self._call(lambda: self._client.set(_PREFIX + key, framed, px=_ms(seconds)), None)

    async def claim(self, key: str, seconds: float, /) -> bool:
        """Claim a key; True where the server is away."""
        name = f"{_PREFIX}claim:{key}"
        found = await self._call(lambda: self._client.set(name, self._token, px=_ms(seconds), nx=True), True)
        return bool(found)

    async def release(self, key: str, /) -> None:
        """End a claim of this process."""
        name = f"{_PREFIX}claim:{key}"
        await self._call(lambda: self._client.eval(_RELEASE, 1, name, self._token), None)

    async def _call(self, call: Callable[[], Any], otherwise: T) -> T | Any:
        if self._clock() < self._closed_until:
            return otherwise
        try:
            async with asyncio.timeout(2 * _SECONDS):
                made: Awaitable[Any] = call()
                found = await made
        except (RedisError, OSError, TimeoutError) as error:
            self._closed_until = self._clock() + _PAUSE_SECONDS
            if not self._said:
                self._said = True
                log.warning("the cache does not answer, answers are made anew: %s", _brief(error))
            return otherwise
        if self._said:
            self._said = False
            log.info("the cache answers again")
        return found

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _digest(key: str, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=_DIGEST_BYTES, key=key.encode()[:64]).digest()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()[:160]
