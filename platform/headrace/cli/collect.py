"""The command that takes events over HTTP."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from headrace.core import extras


def collect(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default HEADRACE_COLLECTOR_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Port to listen on; default HEADRACE_COLLECTOR_PORT."),
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines of JSON.")] = False,
) -> None:
    """Take events over HTTP, in the foreground, until Ctrl-C. A 2xx means that they are on this machine's disk."""
    extras.require("collector", "'headrace collect'")
    from headrace.collector import serve
    from headrace.config.settings import settings
    from headrace.core.locks import introduce

    introduce("headrace collect")
    own = logging.getLogger("headrace")
    own.setLevel(logging.INFO)
    if json_logs:
        for handler in own.handlers:
            handler.setFormatter(serve.JsonLines())
    config = settings()
    at, on = host or config.collector_host, port or config.collector_port
    with serve.opened(config) as collector:
        names = ", ".join(sorted(collector.targets)) or "for no stream yet"
        said = f"collecting {names} on http://{at}:{on}; /docs lists the routes"
        serve.run(collector, at, on, lambda: logging.getLogger(__name__).info(said))
