"""The page: what Headrace knows, as HTML for people, on the server that answers programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from headrace.serving.base import Services

#: Exports that are written at a time; each has a process of its own, of some 350 MB.
EXPORTS = 2
_FUNCTIONS = "headrace.serving.page.reading.functions"


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the routes of the page."""
    from headrace.serving.page.asked import Asked
    from headrace.serving.page.beside import Worker, Workers
    from headrace.serving.page.http import routes_of
    from headrace.serving.page.site import Sources

    settings = services.settings
    looks, writes = Worker(_FUNCTIONS, settings), Workers(EXPORTS, _FUNCTIONS, settings)
    return routes_of(Sources(Asked(services.answers), looks, writes, settings.ui_url))
