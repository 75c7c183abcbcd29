"""Share what routes are made of: the services of a running server, and how the warehouse is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from headrace.core.errors import BadData, Retriable

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.serving.access import Access
    from headrace.serving.answers import Answers
    from headrace.serving.fast import Fast
    from headrace.serving.recent import Recent
    from headrace.serving.versions import Versions


class Away(Retriable):
    """The warehouse does not answer, or has no time for another question."""


class NotBuilt(Away):
    """A table or view of the answer is not there yet."""


class TooMuch(BadData):
    """A question takes longer, or has a larger answer, than the limits let it."""


class Asking(Protocol):
    """Read the warehouse. Every call ends within a deadline and changes nothing.

    Values are passed as server-side parameters (``{name:Type}``), given as text in ClickHouse's own form.
    """

    async def rows(self, sql: str, parameters: Mapping[str, str] | None = None, /) -> list[dict[str, Any]]:
        """Return the rows of a query by column; times are ISO 8601 texts.

        Raises:
            Away: The warehouse does not answer in time.
            TooMuch: The query is past a limit.
            Fatal: The warehouse refuses the query.
        """

    async def raw(self, sql: str, parameters: Mapping[str, str], format: str, /) -> bytes:
        """Return a whole answer in one of ClickHouse's formats; raises as ``rows``."""

    def stream(
        self, sql: str, parameters: Mapping[str, str], format: str, /
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream an answer, of any length, part by part; memory is bounded. Raises as ``rows``, also midway."""

    async def ping(self, seconds: float, /) -> bool:
        """Tell whether the warehouse answers within some seconds."""

    async def close(self) -> None:
        """Release connections."""


@dataclass(frozen=True, slots=True)
class Services:
    """What routes are given.

    Attributes:
        settings: The settings of this process.
        warehouse: Reads ClickHouse.
        versions: Knows what it holds.
        answers: Answers questions, from the cache where it can.
        recent: What was asked lately, which is kept ready.
        fast: Answers that are ready before any routing.
        access: Who may read.
        ending: Set once the server is told to stop: streams end then.
    """

    settings: Settings
    warehouse: Asking
    versions: Versions
    answers: Answers
    recent: Recent
    fast: Fast
    access: Access
    ending: asyncio.Event = field(default_factory=asyncio.Event)
