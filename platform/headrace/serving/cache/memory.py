"""Keep values in this process: the least used goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

#: What a value costs besides its bytes.
_OVERHEAD_BYTES = 300


class Memory:
    """A cache in memory, for one event loop.

    Args:
        most_bytes: Bytes of all values with their keys.
        clock: Seconds, monotonic.
    """

    def __init__(self, most_bytes: int = 32 << 20, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock, self._bytes = most_bytes, clock, 0
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._claims: dict[str, float] = {}

    async def get(self, key: str, /) -> bytes | None:
        """Return a value."""
        return self.now(key)

    def now(self, key: str) -> bytes | None:
        """Return a value without waiting."""
        found = self._values.get(key)
        if found is None:
            return None
        value, until = found
        if self._clock() >= until:
            self._remove(key)
            return None
        self._values.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, seconds: float, /) -> None:
        """Keep a value; one that is longer than all may be together is not kept."""
        self._remove(key)
        size = len(value) + len(key) + _OVERHEAD_BYTES
        if size > self._most:
            return
        self._values[key] = value, self._clock() + seconds
        self._bytes += size
        while self._bytes > self._most:
            self._remove(next(iter(self._values)))

    def _remove(self, key: str) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._bytes -= len(found[0]) + len(key) + _OVERHEAD_BYTES

    async def claim(self, key: str, seconds: float, /) -> bool:
        """Claim a key."""
        now = self._clock()
        if self._claims.get(key, 0.0) > now:
            return False
        self._claims[key] = now + seconds
        return True

    async def release(self, key: str, /) -> None:
        """End a claim."""
        self._claims.pop(key, None)

    async def close(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._claims.clear()
        self._bytes = 0
