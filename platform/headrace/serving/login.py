"""Let people in with a read key: a small form, and a session in a cookie."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.serving.access import COOKIE, SESSION_SECONDS
from headrace.serving.base import Services
from headrace.serving.headers import policy

_LONGEST_BYTES = 4_096
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { display: grid; place-items: center; min-height: 90vh; margin: 0 }
form { display: grid; gap: .75rem; width: min(22rem, 90vw) }
input, button { font: inherit; padding: .5rem .75rem }
p { margin: 0 }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Headrace</title><style>{style}</style></head><body><form method="post" action="/login">
<h1>Headrace</h1><label for="key">Read key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{next}"><button>Enter</button>
<p role="alert">{said}</p><p><small>headrace keys create NAME --read</small></p></form></body></html>
"""


def routes(services: Services) -> list[BaseRoute]:
    """Return ``/login``."""

    async def form(request: Request) -> Response:
        return _form(request.query_params.get("next", "/"), "", 200)

    async def enter(request: Request) -> Response:
        given = await _given(request)
        wanted = _own(given.get("next", "/"))
        session = services.access.login(given.get("key", ""))
        if session is None:
            return _form(wanted, "This is no read key that is valid.", 401)
        response = RedirectResponse(wanted, 303, {"cache-control": "no-store"})
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        response.set_cookie(
            COOKIE, session, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
        )
        return response

    return [Route("/login", form, methods=["GET"]), Route("/login", enter, methods=["POST"])]


async def _given(request: Request) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_BYTES:
            return {}
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=10)
    except (UnicodeDecodeError, ValueError):
        return {}
    return {name: values[0] for name, values in found.items()}


def _own(path: str) -> str:
    """Return a path of this server: where one is sent after the login must not be a stranger's."""
    plain = path.isprintable() and "\\" not in path
    return path if plain and path.startswith("/") and not path.startswith("//") else "/"


def _form(wanted: str, said: str, status: int) -> Response:
    page = _PAGE.format(style=_STYLE, next=escape(_own(wanted), quote=True), said=escape(said))
    headers = {"cache-control": "no-store", "content-security-policy": policy(_STYLE)}
    return HTMLResponse(page, status, headers)
