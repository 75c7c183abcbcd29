"""The interface of a cache."""

from __future__ import annotations

from typing import Protocol


class Cache(Protocol):
    """Values below keys, for a while. It may lose any value at any time, and never gives another than was put.

    No call raises for a server that is away or slow: it then knows nothing, and says so once.
    """

    async def get(self, key: str, /) -> bytes | None:
        """Return a value; None if it is not there, or too old."""

    async def put(self, key: str, value: bytes, seconds: float, /) -> None:
        """Keep a value for at most some seconds; a later one takes its place."""

    async def claim(self, key: str, seconds: float, /) -> bool:
        """Say that this caller makes a value, for at most some seconds; False if another does.

        Only a hint that spares work: two may be told True.
        """

    async def release(self, key: str, /) -> None:
        """End a claim; a no-op without one."""

    async def close(self) -> None:
        """Release connections."""
