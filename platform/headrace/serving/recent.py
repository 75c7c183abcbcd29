"""Keep ready what people look at: after each publication, what was asked lately is asked again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from headrace.core.errors import HeadraceError
from headrace.serving.versions import Versions

log = logging.getLogger(__name__)

#: Seconds for which a question counts as looked at, and how many are kept ready.
_LATELY, _MOST = 600.0, 48
#: A round rests so many times as long as it took: the warehouse has other work, too.
_REST, _SHORTEST_REST = 3.0, 0.2


class Recent:
    """What was asked lately; for one event loop."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, tuple[float, Callable[[], Awaitable[object]]]] = OrderedDict()
        self._any = asyncio.Event()

    def note(self, name: str, again: Callable[[], Awaitable[object]]) -> None:
        """Note that something was asked, and how it is asked again."""
        self._asked[name] = time.monotonic(), again
        self._asked.move_to_end(name)
        if len(self._asked) > _MOST:
            self._asked.popitem(last=False)
        self._any.set()

    async def keep_ready(self, versions: Versions) -> None:
        """Ask again at every change of what the warehouse holds, for ever; wait while nobody has asked lately."""
        seen = ""
        while True:
            if not self._lately():
                self._any.clear()
                await self._any.wait()
            seen = (await versions.change(seen)).digest
            began = time.monotonic()
            for again in self._lately():
                try:
                    await again()
                except (HeadraceError, TimeoutError) as error:
                    log.debug("an answer was not made ready: %s", error)
            await asyncio.sleep(max(_SHORTEST_REST, _REST * (time.monotonic() - began)))

    def _lately(self) -> list[Callable[[], Awaitable[object]]]:
        since = time.monotonic() - _LATELY
        for name in [name for name, (at, _) in self._asked.items() if at < since]:
            del self._asked[name]
        return [again for _, again in self._asked.values()]
