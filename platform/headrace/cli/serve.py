"""The command that serves numbers over HTTP."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from headrace.core import extras


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default HEADRACE_SERVE_HOST.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port to listen on; default HEADRACE_SERVE_PORT.")
    ] = None,
) -> None:
    """Serve numbers over HTTP, in the foreground, until Ctrl-C: the metrics API and the page."""
    extras.require("serve", "'headrace serve'")
    from headrace.config.settings import settings
    from headrace.serving import serve as serving

    logging.getLogger("headrace").setLevel(logging.INFO)
    config = settings()
    at, on = host or config.serve_host, port or config.serve_port
    said = f"serving numbers on http://{at}:{on}; /docs lists the routes"
    serving.run(config, at, on, lambda: logging.getLogger(__name__).info(said))
