"""Put the routes of all rooms together into one ASGI application."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from headrace.core.errors import HeadraceError
from headrace.serving import api, login, measured, operation, page, problem
from headrace.serving.base import Services
from headrace.serving.front import Front

#: Makes the routes of a room from the services.
Room = Callable[[Services], Sequence[BaseRoute]]
#: The rooms whose routes are served; the first route that fits a path answers.
ROOMS: tuple[Room, ...] = (operation.routes, measured.routes, login.routes, api.routes, page.routes)


def application(services: Services) -> ASGIApp:
    """Make the application of a server."""
    errors = (problem.Problem, HTTPException, HeadraceError, TimeoutError, Exception)
    app = Starlette(
        routes=[route for room in ROOMS for route in room(services)],
        exception_handlers=dict.fromkeys(errors, problem.handle),
    )
    app.state.services = services
    return Front(app, services.access, services.fast)
