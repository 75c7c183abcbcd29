"""Answer scrapes of Prometheus with what was measured last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.serving.base import Services
from headrace.telemetry.beside import CONTENT_TYPE, Beside


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return ``/metrics``; nothing is measured before the first scrape."""
    return [Route("/metrics", _Measured(Beside(services.settings)).answer)]


class _Measured:
    def __init__(self, page: Beside) -> None:
        self._page = page

    async def answer(self, _request: Request) -> Response:
        body = await asyncio.to_thread(self._page.text)
        return Response(body, headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})
