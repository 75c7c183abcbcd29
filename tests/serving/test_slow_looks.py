"""Looks at the warehouse that take longer than they hold."""

from __future__ import annotations

import asyncio

import pytest

from headrace.serving.held import Held
from headrace.serving.versions import Versions

HOLDS = 1.0


class Slow:
    """Looks that end when they are told to."""

    def __init__(self) -> None:
        self.ends: list[asyncio.Future[None]] = []

    async def look(self, before: Held | None, /) -> Held:
        self.ends.append(asyncio.get_running_loop().create_future())
        await self.ends[-1]
        return Held(f"{len(self.ends)}")


@pytest.mark.timeout(60)  # a loop that stands still cannot be ended from inside
def test_who_asks_in_the_moment_in_which_a_look_ends_begins_another() -> None:
    """Waiting for what is done gives the loop no turn: the server would stand still for ever."""

    async def story() -> None:
        now = 0.0
        looking = Slow()
        versions = Versions(looking, HOLDS, lambda: now)
        first = asyncio.create_task(versions.current())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(looking.ends) == 1
        now += 10 * HOLDS
        looking.ends[0].set_result(None)
        look = versions._look
        assert look is not None
        for _ in range(10):
            if not look.done():
                await asyncio.sleep(0)
        assert look.done()
        # done, and nobody has been told yet
        second = asyncio.create_task(versions.current())
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(looking.ends) == 2
        looking.ends[1].set_result(None)
        async with asyncio.timeout(30):
            assert (await second).digest == "2"
            await first

    asyncio.run(story())
