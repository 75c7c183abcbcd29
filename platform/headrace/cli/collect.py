"""The command that takes events over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
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
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that speak HTTP; default HEADRACE_COLLECTOR_WORKERS."),
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines of JSON.")] = False,
) -> None:
    """Take events over HTTP, in the foreground, until Ctrl-C. A 2xx means that they are on this machine's disk."""
    extras.require("collector", "'headrace collect'")
    from headrace.collector.json_lines import JsonLines
    from headrace.config.settings import settings
    from headrace.core.locks import introduce

    introduce("headrace collect")
    logger = logging.getLogger("headrace")
    logger.setLevel(logging.INFO)
    if json_logs:
        for handler in logger.handlers:
            handler.setFormatter(JsonLines())
    config = settings()
    at, on = host or config.collector_host, port or config.collector_port
    several = workers or config.collector_workers

    def said(names: Iterable[str]) -> None:
        streams = ", ".join(sorted(names)) or "for no stream yet"
        by = f" by {several} workers" if several > 1 else ""
        logging.getLogger(__name__).info(
            "collecting %s on http://%s:%d%s; /docs lists the routes", streams, at, on, by
        )

    if several > 1:
        from headrace.collector.workers import keeper

        alive = keeper.watched()  # from here on it is another process
        from headrace.collector.workers import owner

        with owner.opened(config) as own:
            ready = partial(said, own.streams.targets)
            owner.run(own, config, at, on, several, ready, alive, json_logs=json_logs)
        return
    from headrace.collector import serve

    with serve.opened(config) as collector:
        serve.run(collector, at, on, partial(said, collector.targets))
