"""Know what the warehouse holds, at the price of one look for all who ask within a moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from headrace.core.errors import HeadraceError
from headrace.serving.held import Held

log = logging.getLogger(__name__)

#: Seconds between two looks while somebody listens, and after a look that failed.
_APART, _AFTER_FAILURE = 0.1, 1.0


class Looks(Protocol):
    """Looks at a warehouse."""

    async def look(self, before: Held | None, /) -> Held:
        """Return what it holds, at least all that it held when this was called."""


class Versions:
    """What the warehouse holds, as of a moment that is never longer ago than a bound.

    For one event loop.

    Args:
        looking: Looks at it.
        holds_seconds: For how long a look holds. With 0 each ``current`` waits for a look that began after it.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, looking: Looks, holds_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._looking, self._holds, self._clock = looking, holds_seconds, clock
        self._held: Held | None = None
        self._as_of = float("-inf")
        self._look: asyncio.Task[Held] | None = None
        self._changed = asyncio.Event()
        self._failed_at = float("-inf")
        self.looks = 0

    @property
    def last(self) -> Held | None:
        """What the last look found, however long ago; None before the first."""
        return self._held

    def peek(self) -> Held | None:
        """Return what is held if a look still holds; begins the next one in time."""
        age = self._clock() - self._as_of
        looking = self._look is not None and not self._look.done()
        if age > self._holds / 2 and not looking and self._held is not None:
            self._begin()
        return self._held if age <= self._holds and self._holds else None

    async def current(self) -> Held:
        """Return what is held, as of at most ``holds_seconds`` before this call.

        Raises:
            Away: The warehouse does not answer.
        """
        if (held := self.peek()) is not None:
            return held
        asked = self._clock()
        while self._as_of < asked - self._holds:
            # one that began before may have read too early: it is waited for, and another one begun
            await asyncio.shield(self._look if self._look and not self._look.done() else self._begin())
        assert self._held is not None
        return self._held

    def _begin(self) -> asyncio.Task[Held]:
        self._look = asyncio.create_task(self._once())
        self._look.add_done_callback(self._ended)
        return self._look

    def _ended(self, task: asyncio.Task[Held]) -> None:
        if self._look is task:  # another may have begun in the same turn of the loop
            self._look = None
        if not task.cancelled():
            task.exception()  # whoever waits is told

    async def _once(self) -> Held:
        began, before = self._clock(), self._held
        self.looks += 1
        held = await self._looking.look(before)
        self._held, self._as_of = held, began
        if before is None or before.digest != held.digest:
            self._changed.set()
            self._changed = asyncio.Event()
        return held

    async def change(self, seen: str) -> Held:
        """Wait until what is held is another than what had a digest; looks while it waits.

        Outages are waited through.
        """
        while True:
            try:
                held = await self.current()
                if held.digest != seen:
                    return held
                pause = max(self._holds / 2, _APART)
            except HeadraceError as error:
                log.debug("looking at the warehouse: %s", error)
                pause = _AFTER_FAILURE
            await asyncio.sleep(pause)
