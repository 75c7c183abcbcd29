"""Stand in front of all routes: who may come in, answers that are ready, and headers that every answer has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.serving import problem
from headrace.serving.access import Access, headers
from headrace.serving.fast import Fast
from headrace.serving.headers import SECURITY, SHARED

#: Paths that need no key.
OPEN = ("/healthz", "/readyz", "/login")
#: What a login form looks like, too, needs no key.
_OPEN_BELOW = "/static/"
API = "/v1/"
_EXPOSED = b"etag, age, warning, headrace-watermark, headrace-stale, retry-after"


class Front:
    """An ASGI application around another one.

    Args:
        app: Answers what is let in and not ready.
        access: Who may come in.
        fast: Answers that are ready.
    """

    def __init__(self, app: ASGIApp, access: Access, fast: Fast) -> None:
        self._app, self._access, self._fast = app, access, fast

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        shared = self._shared(scope) if path.startswith(API) else []
        more = [*(SHARED if shared else SECURITY), *shared]
        if shared and scope["method"] == "OPTIONS":
            await _preflight(more, send)
            return
        if path not in OPEN and not path.startswith(_OPEN_BELOW):
            try:
                self._access.admit(scope)
            except problem.Problem as refused:
                await _refused(scope, refused)(scope, receive, _with(more, send))
                return
            if scope["method"] == "GET" and path.startswith(API):
                found = await self._fast.find(scope)
                if found is not None:
                    status, own, body = found
                    await send({"type": "http.response.start", "status": status, "headers": [*own, *more]})
                    await send({"type": "http.response.body", "body": body})
                    return
        await self._app(scope, receive, _with(more, send))

    def _shared(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page of another origin read; none where it may not."""
        if not self._access.policy.origins:
            return []
        origin = headers(scope, (b"origin",)).get(b"origin")
        if origin is None or not self._access.allows(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
        ]


def _refused(scope: Mapping[str, Any], refused: problem.Problem) -> ASGIApp:
    wants = headers(scope, (b"accept",)).get(b"accept", "")
    if refused.status == 401 and scope["method"] == "GET" and "text/html" in wants:
        from urllib.parse import quote

        query = scope["query_string"].decode("latin-1")
        here = scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303, {"cache-control": "no-store"})
    return problem.answer(refused)


async def _preflight(more: list[tuple[bytes, bytes]], send: Send) -> None:
    own = [
        (b"access-control-allow-methods", b"GET"),
        (b"access-control-allow-headers", b"authorization, x-api-key, if-none-match, last-event-id"),
        (b"access-control-max-age", b"600"),
        (b"vary", b"origin"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": [*more, *own]})
    await send({"type": "http.response.body", "body": b""})


def _with(more: list[tuple[bytes, bytes]], send: Send) -> Send:
    """Return ``send`` with headers that every answer gets; those of a route's own stay."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(one for one in more if one[0] not in own)]
        await send(message)

    return sending
