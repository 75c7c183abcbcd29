"""Say whether the server lives, and whether it can answer."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.serving.base import Services

_PING_SECONDS = 1.0
#: For how long an answer about readiness holds: whoever asks often costs no question each.
_HOLDS_SECONDS = 1.0


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/healthz`` and ``/readyz``."""
    ready = _Ready(services)
    return [Route("/healthz", _healthz), Route("/readyz", ready.answer)]


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


class _Ready:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._until, self._answers = 0.0, False

    async def answer(self, _request: Request) -> Response:
        if time.monotonic() >= self._until:
            self._answers = await self._services.warehouse.ping(_PING_SECONDS)
            self._until = time.monotonic() + _HOLDS_SECONDS
        if self._answers:
            return JSONResponse({"status": "ready"})
        said = {
            "status": "away",
            "why": "the warehouse does not answer; cached answers are given, with their age",
        }
        return JSONResponse(said, 503, {"retry-after": "2"})
