"""The page: what Headrace knows, as HTML for people, on the server that answers programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from headrace.serving.base import Services


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the routes of the page."""
    from headrace.serving.page.asked import Asked
    from headrace.serving.page.beside import Worker
    from headrace.serving.page.http import routes_of
    from headrace.serving.page.site import Sources

    settings = services.settings
    looks, writes = (Worker("headrace.serving.page.reading.functions", settings) for _ in range(2))
    return routes_of(Sources(Asked(services.answers), looks, writes, settings.ui_url))
