"""The code location's server, with run workers that are forked instead of started from nothing.

``dagster api grpc`` starts a new interpreter for every run, which then imports Dagster, dbt and the definitions:
about five seconds of a core before a run does anything. Here they are imported once, in multiprocessing's fork
server: a process of its own, without threads, from which every run worker is forked within milliseconds. Takes the
arguments of ``dagster api grpc``.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

PRELOAD = [
    "dagster._grpc.server",
    "dbt.adapters.clickhouse",
    "dbt.adapters.factory",
    "dbt.config.runtime",
    "headrace.orchestration.definitions",
]
_get_context = multiprocessing.get_context


def _forking(method: str | None = None) -> BaseContext:
    """``multiprocessing.get_context``, answering ``spawn`` with the fork server."""
    return _get_context("forkserver" if method == "spawn" else method)


def main() -> None:
    """Serve until stopped."""
    context = _get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    multiprocessing.get_context = _forking  # type: ignore[assignment]
    from multiprocessing import forkserver

    forkserver.ensure_running()  # now, before there are any threads, and while the server imports the same
    from dagster._cli.api import grpc_command

    grpc_command()


if __name__ == "__main__":
    main()
