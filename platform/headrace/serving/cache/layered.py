"""Keep values in two caches: a near one, and a far one that several processes share."""

from __future__ import annotations

from headrace.serving.cache.base import Cache


class Layered:
    """Asks the near cache first, and puts there what the far one has.

    Args:
        near: In this process.
        far: Shared.
        near_seconds: For how long the near one keeps a value; one of the far one may outlive its time by so much.
    """

    def __init__(self, near: Cache, far: Cache, near_seconds: float = 60.0) -> None:
        self._near, self._far, self._seconds = near, far, near_seconds

    async def get(self, key: str, /) -> bytes | None:
        """Return a value."""
        if (found := await self._near.get(key)) is not None:
            return found
        if (found := await self._far.get(key)) is not None:
            await self._near.put(key, found, self._seconds)
        return found

    async def put(self, key: str, value: bytes, seconds: float, /) -> None:
        """Keep a value in both."""
        await self._near.put(key, value, min(seconds, self._seconds))
        await self._far.put(key, value, seconds)

    async def claim(self, key: str, seconds: float, /) -> bool:
        """Claim a key among all who share the far cache."""
        return await self._far.claim(key, seconds)

    async def release(self, key: str, /) -> None:
        """End a claim."""
        await self._far.release(key)

    async def close(self) -> None:
        """Close both."""
        await self._near.close()
        await self._far.close()
