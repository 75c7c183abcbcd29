"""What people and machines ask of the collector besides sending: health, measurements, receipts, its description."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headrace.collector.access import Access
from headrace.collector.base import Refused
from headrace.collector.http import Request, Response, answer
from headrace.collector.meters import Meters
from headrace.collector.receipts import Progress, Stage, numbers_of
from headrace.collector.routes import segment
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.collector.service import Handler

_RECEIPTS = "/v1/receipts/"
_PROJECTS = "/v1/projects/"
#: Longest and usual wait for a receipt, and the pause between two looks, in seconds.
_LONGEST, _USUAL, _PAUSE = 60.0, 30.0, 0.2
_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Gauges = Callable[[], Mapping[str, tuple[str, float]]]


class Operation:
    """Answers to everything that takes no events. For one loop.

    Args:
        log_id: Id of the log.
        progress: Says how far entries are; None if nobody can say.
        access: Lets requests in.
        meters: What was counted.
        gauges: What is measured at the moment, by name: description and value.
        unready: Why the collector cannot take events; empty if it can.
        described: The OpenAPI description.
        page: The same to be read.
    """

    def __init__(
        self,
        log_id: str,
        progress: Progress | None,
        access: Access,
        meters: Meters,
        gauges: Gauges,
        unready: Callable[[], str],
        described: Callable[[], dict[str, Any]],
        page: Callable[[], str],
    ) -> None:
        self._log_id, self._progress, self._access = log_id, progress, access
        self._meters, self._gauges, self._unready = meters, gauges, unready
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
        why = self._unready()
        return answer(503 if why else 200, {"status": "unready", "message": why} if why else {"status": "ok"})

    async def _measured(self, request: Request) -> Response:
        return Response(200, self._meters.text(self._gauges()).encode(), _TEXT)

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
        if self._progress is None:
            raise Refused(503, "nobody can say how far events are at the moment", 5)
        try:
            loop, stages = asyncio.get_running_loop(), self._progress.stages
            return [s for at in numbers.items() for s in await loop.run_in_executor(None, stages, *at)]
        except HeadraceError as error:
            raise Refused(503, str(error), 5) from error


def _summary(stages: Sequence[Stage]) -> dict[str, bool]:
    return {
        "topic": all(one.in_topic for one in stages),
        "lake": all(one.in_lake for one in stages),
        "warehouse": all(one.in_warehouse for one in stages),
    }
