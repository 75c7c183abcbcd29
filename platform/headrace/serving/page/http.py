"""The routes of the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from headrace.serving.page.address import View, Wrong, view_of
from headrace.serving.page.beside import Pieces
from headrace.serving.page.screens import SCREENS, lake
from headrace.serving.page.site import POLICY, STATIC, THEMES, Renderer, Screen, Sources

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}
_THEME = "headrace-theme"
_YEAR = 31_536_000
#: Seconds after which whoever found no room may come again.
_RETRY_SECONDS = 15
#: Seconds for which one piece of an export may take.
_PIECE_SECONDS = 60.0
_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def routes_of(sources: Sources) -> list[BaseRoute]:
    """Return the routes of the page."""
    page = Page(Renderer(SCREENS, sources))
    return [
        *(Route(screen.path, page.screen(screen)) for screen in SCREENS),
        Route("/lake/{table}", page.screen(lake.TABLE)),
        Route("/lake/{table}/export.{form}", page.export),
        Route("/panels/lake/{table}/{panel}", page.panel),
        Route("/panels/{screen}/{panel}", page.panel),
        Route("/theme", page.theme),
        Mount("/static", _Static(directory=STATIC)),
    ]


class Page:
    """Answers requests for pages, panels and exports."""

    def __init__(self, renderer: Renderer) -> None:
        """Answer with what a renderer makes."""
        self._renderer = renderer

    def screen(self, screen: Screen) -> Any:
        """Return what answers requests for a screen."""

        async def answer(request: Request) -> Response:
            try:
                view = view_of(request.url.path, request.query_params.multi_items(), screen.parameters)
                body = await self._renderer.page(screen, view, _theme(request))
            except Exception as error:
                return self._wrong(request, error)
            return HTMLResponse(body, headers=_HEADERS)

        return answer

    async def panel(self, request: Request) -> Response:
        """Answer a request for one panel."""
        try:
            screen, path = self._screen_of(request.path_params)
            view = view_of(path, request.query_params.multi_items(), screen.parameters)
            status, body = await self._renderer.panel(screen, request.path_params["panel"], view)
        except Exception as error:
            return self._wrong(request, error)
        return HTMLResponse(body, status, headers=_HEADERS)

    def _screen_of(self, given: dict[str, str]) -> tuple[Screen, str]:
        if "table" in given:
            return lake.TABLE, f"/lake/{given['table']}"
        screen = self._renderer.screens.get(given["screen"])
        if screen is None:
            listed = ", ".join(self._renderer.screens)
            raise Wrong(f"there is no screen {given['screen']!r}; there are: {listed}", 404)
        return screen, screen.path

    async def export(self, request: Request) -> Response:
        """Stream rows of a lake table as a file."""
        try:
            path, form = f"/lake/{request.path_params['table']}", request.path_params["form"]
            if form not in _TYPES:
                raise Wrong(f"there is no export as {form!r}; there are: {', '.join(_TYPES)}", 404)
            view = view_of(path, request.query_params.multi_items(), lake.TABLE.parameters)
            which = lake.which(view)
            pieces = self._renderer.sources.writes.stream("export", which, form, seconds=_PIECE_SECONDS)
            # what is wrong is said before the answer begins
            first = await asyncio.to_thread(pieces.take)
        except Exception as error:
            return self._wrong(request, error)
        name = f"{which.table}.{form}"
        headers = {**_HEADERS, "content-disposition": f'attachment; filename="{name}"'}
        return _Export(first, pieces, headers, _TYPES[form])

    async def theme(self, request: Request) -> Response:
        """Keep the choice of colours, and go back to where it was made."""
        to, back = request.query_params.get("to", ""), request.query_params.get("back", "/")
        if to not in THEMES:
            return self._wrong(request, Wrong(f"there are no colours {to!r}; there are: {', '.join(THEMES)}"))
        own = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
        response = RedirectResponse(back if own else "/", 303, _HEADERS)
        response.set_cookie(_THEME, to, max_age=_YEAR, samesite="lax", httponly=False)
        return response

    def _wrong(self, request: Request, error: Exception) -> Response:
        status, body = self._renderer.wrong(error, _theme(request), "/")
        later = {"retry-after": str(_RETRY_SECONDS)} if status == 503 else {}
        return HTMLResponse(body, status, headers={**_HEADERS, **later})


class _Static(StaticFiles):
    """Files that are named by their content: browsers keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        kept = f"public, max-age={_YEAR}, immutable" if b"v=" in scope["query_string"] else "no-cache"
        response.headers["cache-control"] = kept
        response.headers["x-content-type-options"] = "nosniff"
        return response


class _Export(StreamingResponse):
    """Pieces as they come; who leaves early, also while one is made, ends the process that makes them."""

    def __init__(self, first: bytes, pieces: Pieces, headers: dict[str, str], kind: str) -> None:
        super().__init__(_all(first, pieces), headers=headers, media_type=kind)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.leave()


async def _all(first: bytes, pieces: Pieces) -> AsyncIterator[bytes]:
    yield first
    while piece := await asyncio.to_thread(pieces.take):
        yield piece


def _theme(request: Request) -> str:
    found = SimpleCookie(request.headers.get("cookie", "")).get(_THEME)
    return found.value if found is not None and found.value in THEMES else "auto"


__all__ = ["View", "routes_of"]
