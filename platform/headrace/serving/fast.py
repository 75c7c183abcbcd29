"""Give answers that are ready before any routing: what was asked in the very same words while nothing has changed."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.errors import HeadraceError
from headrace.serving.versions import Versions

Headers = list[tuple[bytes, bytes]]
Asked = tuple[str, bytes, bytes, bool]
#: Answers that are ready, and the longest of them.
_MOST, _LONGEST_BYTES = 1_000, 256 << 10


@dataclass(frozen=True, slots=True)
class Ready:
    """An answer as it goes out.

    Attributes:
        digest: Of what the warehouse held when it was made or found.
        until: When its range has moved on, s since 1970.
        tag: Its tag.
        full: Headers of the answer.
        short: Headers of a 304.
        body: The body.
    """

    digest: str
    until: float
    tag: str
    full: Headers
    short: Headers
    body: bytes


class Fast:
    """Answers that are ready, by what was asked; for one event loop.

    Args:
        versions: Knows what the warehouse holds.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._ready: OrderedDict[Asked, Ready] = OrderedDict()

    def keep(self, scope: Mapping[str, Any], ready: Ready) -> None:
        """Keep an answer to a request."""
        if len(ready.body) > _LONGEST_BYTES:
            return
        key = _asked(scope)
        self._ready[key] = ready
        self._ready.move_to_end(key)
        if len(self._ready) > _MOST:
            self._ready.popitem(last=False)

    def clear(self) -> None:
        """Forget all answers: their questions may mean something else now."""
        self._ready.clear()

    async def find(self, scope: Mapping[str, Any]) -> tuple[int, Headers, bytes] | None:
        """Return status, headers and body of a request's answer; None unless one is ready that is right now."""
        key = _asked(scope)
        found = self._ready.get(key)
        if found is None:
            return None
        try:
            held = self._versions.peek() or await self._versions.current()
        except HeadraceError:
            return None
        if held.digest != found.digest or time.time() >= found.until:
            self._ready.pop(key, None)
            return None
        for name, value in scope["headers"]:
            if name == b"if-none-match":
                wanted = value.decode("latin-1")
                if wanted.strip() == "*" or found.tag in (one.strip() for one in wanted.split(",")):
                    return 304, found.short, b""
        return 200, found.full, found.body


def _asked(scope: Mapping[str, Any]) -> Asked:
    accept, packed = b"", False
    for name, value in scope["headers"]:
        if name == b"accept":
            accept = value
        elif name == b"accept-encoding":
            packed = b"gzip" in value
    return scope["path"], scope["query_string"], accept, packed
