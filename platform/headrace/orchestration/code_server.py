"""The code location's server, with run workers that are forked instead of started from nothing.

``dagster api grpc`` starts a new interpreter for every run, which then imports Dagster, dbt and the definitions:
about five seconds of a core before a run does anything. Here they are imported once, and then this process, while
it has no threads yet, forks multiprocessing's fork server, from which every run worker is forked within
milliseconds. Takes the arguments of ``dagster api grpc``.

With ``--reloadable`` before them it serves through Dagster's proxy, as ``dagster code-server start`` does: the UI's
*Reload* starts a server with what the files say by then, and the one before it goes when its runs are done.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from typing import NoReturn

PRELOAD = [
    "dagster._grpc.server",
    "dagster._cli.api",
    "dbt.adapters.clickhouse",
    "dbt.adapters.factory",
    "dbt.config.runtime",
    "headrace.orchestration.definitions",
]
_get_context = multiprocessing.get_context
_spawn = util.spawnv_passfds


def _forking(method: str | None = None) -> BaseContext:
    """``multiprocessing.get_context``, answering ``spawn`` with the fork server."""
    return _get_context("forkserver" if method == "spawn" else method)


def _fork(_executable: bytes, _arguments: Sequence[str], fds: Sequence[int]) -> int:
    """In the place of ``spawnv_passfds``: the fork server as a fork of this process, which has imported it all."""
    pid = os.fork()
    if pid == 0:
        _serve(*fds)
    return pid


def _serve(listener: int, alive: int) -> NoReturn:
    util.spawnv_passfds = _spawn
    code = 1
    try:
        low, high = sorted((listener, alive))
        # as an exec would: above all the other end of ``alive``, whose closing ends the fork server
        for start, end in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(start, end)
        forkserver._forkserver._lock._at_fork_reinit()  # type: ignore[attr-defined]  # held while we were forked
        forkserver.main(listener, alive, [])
    except SystemExit:
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    """Serve until stopped."""
    if sys.argv[1:2] == ["--reloadable"]:
        del sys.argv[1]
        _proxy()
        return
    if sys.argv[1:3] == ["api", "grpc"]:  # started by the proxy
        del sys.argv[1:3]
        _serve_definitions()
        return
    _serve_definitions(_give_up_lost_runs)


def _proxy() -> None:
    from dagster._cli import code_server
    from dagster._grpc import server

    # the server that the proxy starts is this one: with its fork server
    server.get_python_environment_entry_point = lambda executable_path: [  # type: ignore[attr-defined]
        sys.executable,
        "-m",
        "headrace.orchestration.code_server",
    ]
    _give_up_lost_runs()
    code_server.start_command()


def _give_up_lost_runs() -> None:
    """Runs of a code server before this one are over: say so, or sensors would wait for them for ever.

    Dagster notices a run whose process died only while the server that started it lives.
    """
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

    lost = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    with DagsterInstance.get() as instance:
        for run in instance.get_runs(RunsFilter(statuses=lost)):
            instance.report_run_failed(
                run, "The process of this run ended with the platform that it was part of."
            )


def _serve_definitions(before: Callable[[], None] = lambda: None) -> None:
    for name in PRELOAD:
        importlib.import_module(name)
    if threading.active_count() == 1:
        resource_tracker.ensure_running()  # started by the fork server else, and not to be forked
        gc.freeze()  # what is shared now stays shared
        util.spawnv_passfds = _fork  # type: ignore[assignment]
        try:
            forkserver.ensure_running()
        finally:
            util.spawnv_passfds = _spawn
    else:  # a library has started a thread: a fork of this process could inherit its locks
        _get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    multiprocessing.get_context = _forking  # type: ignore[assignment]
    before()
    from dagster._cli.api import grpc_command

    grpc_command()


if __name__ == "__main__":
    main()
