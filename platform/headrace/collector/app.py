"""The collector as an RSGI application, Granian's own protocol: reads bodies up to their limit, and sends answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from headrace.collector.base import Refused
from headrace.collector.http import Headers, Request, Response, refusal, too_long
from headrace.collector.service import Service


class Scope(Protocol):
    """What the server knows of a request before its body."""

    proto: str
    method: str
    path: str
    query_string: str
    client: str
    headers: Headers


class Exchange(Protocol):
    """Reads the body and sends the answer."""

    async def __call__(self) -> bytes:
        """Return the whole body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes, /) -> None:
        """Send an answer."""

    def response_empty(self, status: int, headers: list[tuple[str, str]], /) -> None:
        """Send an answer without a body."""


class App:
    """An RSGI application. Who serves it opens and closes the service.

    Args:
        service: Answers the requests.
        body_seconds: Seconds within which a whole body is to come. Who is slower keeps a connection for nothing.
    """

    def __init__(self, service: Service, body_seconds: float = 30.0) -> None:
        self._service, self._body_seconds = service, body_seconds

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one request."""
        if scope.proto != "http":
            return
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await _body(exchange, scope.headers, self._service.sizes.body)
        except TimeoutError:
            why = f"the body did not come within {self._body_seconds:g} s; send it again, or less at a time"
            _send(exchange, refusal(Refused(408, why, 1)))
            return
        except Refused as refused:
            _send(exchange, refusal(refused))
            return
        address = scope.client.rpartition(":")[0].strip("[]")
        request = Request(scope.method, scope.path, scope.query_string, scope.headers, body, address)
        _send(exchange, await self._service.answer(request))


async def _body(exchange: Exchange, headers: Headers, most: int) -> bytes:
    """Read a body.

    Raises:
        Refused: It is too long.
    """
    said = headers.get("content-length")
    if said is not None and said.isdigit():
        if int(said) > most:
            raise too_long(most)
        return await exchange()
    parts, size = [], 0
    async for part in exchange:
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_long(most)
    return b"".join(parts)


def _send(exchange: Exchange, response: Response) -> None:
    headers = list(response.headers.items())
    if not response.content_type:
        exchange.response_empty(response.status, headers)
        return
    headers.append(("content-type", response.content_type))
    exchange.response_bytes(response.status, headers, response.body)
