"""What people and machines ask of the collector besides sending: health, measurements, receipts, its description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from headrace.collector.access import Access
from headrace.collector.base import Refused
from headrace.collector.http import Request, Response, answer
from headrace.collector.meters import Counts
from headrace.collector.receipts import Progress, Stage, numbers_of
from headrace.collector.routes import segment
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.collector.service import Handler

_RECEIPTS = "/v1/receipts/"
_PROJECTS = "/v1/projects/"
#: Longest and usual wait for a receipt, and the pause between two looks, in seconds.
_LONGEST, _USUAL, _PAUSE = 60.0, 30.0, 0.2
#: Seconds after which one may ask again.
_AGAIN = 5
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Gauges = Callable[[], Mapping[str, tuple[str, float]]]


class State(Protocol):
    """Says how the collector as a whole is."""

    async def metrics(self) -> str:
        """Return what was counted and is measured, in Prometheus' text format.

        Raises:
            HeadraceError: Nobody answers.
        """

    async def unready(self) -> str:
        """Return why the collector cannot take events; empty if it can."""

    async def stages(self, stream: str, numbers: Sequence[int], /) -> list[Stage]:
        """Return how far each entry of a stream is.

        Raises:
            HeadraceError: Nobody can say.
        """


class Here:
    """The state of a collector whose log this process has.

    Args:
        counts: What was counted.
        gauges: What is measured at the moment, by name: description and value.
        broken: Why nothing can be committed; empty if it can.
        progress: Says how far entries are; None if nobody can say.
    """

    def __init__(
        self,
        counts: Callable[[], Counts],
        gauges: Gauges,
        broken: Callable[[], str],
        progress: Progress | None,
    ) -> None:
        self._counts, self._gauges, self._broken, self._progress = counts, gauges, broken, progress

    async def metrics(self) -> str:
        """Return what was counted and is measured."""
        return self._counts().text(self._gauges())

    async def unready(self) -> str:
        """Return why the collector cannot take events."""
        return self._broken()

    async def stages(self, stream: str, numbers: Sequence[int], /) -> list[Stage]:
        """Return how far each entry of a stream is; lake and warehouse are asked in a thread."""
        if self._progress is None:
            raise Refused(503, "nobody can say how far events are at the moment", _AGAIN)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._progress.stages, stream, numbers)


class Operation:
    """Answers to everything that takes no events. For one loop.

    Args:
        log_id: Id of the log.
        state: Says how the collector is.
        access: Lets requests in.
        described: The OpenAPI description.
        page: The same to be read.
    """

    def __init__(
        self,
        log_id: str,
        state: State,
        access: Access,
        described: Callable[[], dict[str, Any]],
        page: Callable[[], str],
    ) -> None:
        self._log_id, self._state, self._access = log_id, state, access
        self._described, self._page = described, page

    @property
    def pages(self) -> dict[tuple[str, str], Handler]:
        """The answers by method and path."""
        health = dict.fromkeys((("GET", p) for p in ("/healthz", "/v1/healthz", "/health")), self._alive)
        return {
            **health,
            ("GET", "/readyz"): self._ready,
            ("GET", "/metrics"): self._measured,
            ("GET", "/openapi.json"): self._description,
            ("GET", "/docs"): self._read,
            ("GET", "/"): self._read,
            ("GET", _RECEIPTS): self._receipt,
            ("GET", _PROJECTS): self._settings,
        }

    async def _alive(self, request: Request) -> Response:
        return answer(200, {"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        why = await self._state.unready()
        return answer(503 if why else 200, {"status": "unready", "message": why} if why else {"status": "ok"})

    async def _measured(self, request: Request) -> Response:
        try:
            return Response(200, (await self._state.metrics()).encode(), _TEXT)
        except HeadraceError as error:
            raise _unanswered(error) from error

    async def _description(self, request: Request) -> Response:
        return answer(200, self._described())

    async def _read(self, request: Request) -> Response:
        return Response(200, self._page().encode(), "text/html; charset=utf-8")

    async def _settings(self, request: Request) -> Response:
        key, _, rest = request.path.rstrip("/").removeprefix(_PROJECTS).partition("/")
        if rest != "settings":
            raise Refused(404, f"there is no {request.path[:100]}; /docs lists what there is")
        return segment.settings(request, key)

    async def _receipt(self, request: Request) -> Response:
        """Say how far the events of a receipt are; ``?wait=lake`` waits until they are so far."""
        self._access.key(request)
        told = request.path.removeprefix(_RECEIPTS)
        numbers = numbers_of(self._log_id, told)
        if numbers is None:
            raise Refused(404, f"{told[:60]!r} is no receipt; the answer to a POST has one")
        wait = request.parameters.get("wait", "")
        if wait not in ("", "topic", "lake", "warehouse"):
            raise Refused(400, f"wait={wait[:20]!r} is none of topic, lake, warehouse")
        until = asyncio.get_running_loop().time() + self._patience(request)
        while True:
            stages = await self._stages(numbers)
            found = _summary(stages)
            now = asyncio.get_running_loop().time()
            if not wait or found[wait] or now >= until:
                break
            await asyncio.sleep(min(_PAUSE, until - now))
        return answer(
            200 if not wait or found[wait] else 202,
            {"receipt": told, "durable": True, **found, "entries": [asdict(one) for one in stages]},
        )

    @staticmethod
    def _patience(request: Request) -> float:
        told = request.parameters.get("seconds")
        try:
            return min(max(float(told), 0.0), _LONGEST) if told else _USUAL
        except ValueError:
            raise Refused(400, f"seconds={told!r:.20} is no number") from None

    async def _stages(self, numbers: Mapping[str, Sequence[int]]) -> list[Stage]:
        try:
            return [one for at in numbers.items() for one in await self._state.stages(*at)]
        except HeadraceError as error:
            raise _unanswered(error) from error


def _unanswered(error: HeadraceError) -> Refused:
    return error if isinstance(error, Refused) else Refused(503, str(error), _AGAIN)


def _summary(stages: Sequence[Stage]) -> dict[str, bool]:
    return {
        "topic": all(one.in_topic for one in stages),
        "lake": all(one.in_lake for one in stages),
        "warehouse": all(one.in_warehouse for one in stages),
    }
