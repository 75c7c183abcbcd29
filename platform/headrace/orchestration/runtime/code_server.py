"""The code location's server, with run workers that are forked instead of started from nothing.

``dagster api grpc`` starts a new interpreter for every run, which then imports Dagster, dbt and the definitions:
about five seconds of a core before a run does anything. Here they are imported once, and then this process, while
it has no threads yet, forks multiprocessing's fork server, from which every run worker is forked within
milliseconds. Takes the arguments of ``dagster api grpc``.

With ``--reloadable`` before them it serves through Dagster's proxy, as ``dagster code-server start`` does: the UI's
*Reload* starts a server with what the files say by then, and the one before it goes when its runs are done. That
server is forked too, from a process that has imported the libraries and nothing of ours, so that a reload takes as
long as our own files do.

Forking is chosen by ``HEADRACE_FORK_RUNS``, which ``headrace up`` sets. It takes the place of parts of multiprocessing
and of Dagster that are no public interface, so it is tried first, down to a process that is forked and answers. Where
it is not chosen, or where the trial fails, this process becomes Dagster's own server with the same arguments.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, process, resource_tracker, util
from multiprocessing.context import BaseContext
from typing import Any, NoReturn

from headrace.orchestration.runtime.trial import require, works

log = logging.getLogger(__name__)

#: What the definitions are made with, and what changes only with the installation.
LIBRARIES = [
    "dagster._cli.api",
    "dagster._grpc.server",
    "dagster_dbt",
    "boto3",
    "clickhouse_connect",
    "deltalake",
    "kafka",
    "pandera.polars",
    "sqlglot",
    "tenacity",
]
DEFINITIONS = "headrace.orchestration.definitions"
#: What runs need beyond them, imported while the server serves already.
RUNS = [
    "dagster_aws.utils",
    "dbt.adapters.clickhouse",
    "dbt.adapters.factory",
    "dbt.config.runtime",
    "headrace.contracts.wire.json_columns",
    "headrace.sources.kafka.columns",
]
_LOOK_SECONDS = 1.0
_RELOAD_SECONDS = 180
#: A forked process that does nothing ends within milliseconds, on a busy machine too.
_ANSWERS_SECONDS = 30
_INSTEAD = "Dagster starts a process for each run, which takes seconds"
#: What the fork server imports before it serves.
_preload: list[str] = []
_ENDED = "The process of this run ended with the platform that it was part of."
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
    multiprocessing.get_context = _get_context
    code = 1
    try:
        low, high = sorted((listener, alive))
        # as an exec would: above all the other end of ``alive``, whose closing ends the fork server
        for start, end in ((3, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(start, end)
        forkserver._forkserver._lock._at_fork_reinit()  # type: ignore[attr-defined]  # held while we were forked
        forkserver.main(listener, alive, _preload)
    except SystemExit:
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    """Serve until stopped."""
    from headrace.config.settings import load_settings

    reloadable = sys.argv[1:2] == ["--reloadable"]
    if reloadable:
        del sys.argv[1]
    if not load_settings().fork_runs or not works("forked runs", _try_forking, instead=_INSTEAD):
        _give_up_lost_runs()
        _become_stock(reloadable)
    elif reloadable:
        _proxy()
    else:
        _serve_definitions(_give_up_lost_runs)


def _become_stock(reloadable: bool) -> NoReturn:
    """Replace this process by Dagster's own server."""
    command = ["code-server", "start"] if reloadable else ["api", "grpc"]
    os.execv(sys.executable, [sys.executable, "-m", "dagster", *command, *sys.argv[1:]])


def _try_forking() -> None:
    """Compare what is replaced here with what it was written for; starts nothing.

    Raises:
        Exception: Something is not as expected.
    """
    import_once(LIBRARIES)
    from dagster._cli import api, code_server
    from dagster._grpc import server
    from dagster._grpc.client import DagsterGrpcClient

    inspect.signature(forkserver.main).bind(3, 4, [])
    inspect.signature(util.spawnv_passfds).bind(b"", [], [])
    require(forkserver.util is util, "the fork server is not started by multiprocessing.util")  # type: ignore[attr-defined]
    require(callable(forkserver._forkserver._lock._at_fork_reinit), "the fork server has no such lock")  # type: ignore[attr-defined]
    require(isinstance(process._children, set), "multiprocessing keeps its children otherwise")  # type: ignore[attr-defined]
    require(server.multiprocessing is multiprocessing, "Dagster starts runs without multiprocessing")  # type: ignore[attr-defined]
    inspect.signature(server.open_ipc_subprocess).bind([], cwd=None, env={})  # type: ignore[attr-defined]
    inspect.signature(DagsterGrpcClient.reload_code).bind(None, timeout=1)
    require(callable(api.grpc_command) and callable(code_server.start_command), "Dagster has other commands")


def _proxy() -> None:
    if not _forking_started():
        _give_up_lost_runs()
        _become_stock(reloadable=True)
    from dagster._cli import code_server
    from dagster._grpc import server

    server.open_ipc_subprocess = _Server  # type: ignore[assignment,attr-defined]
    _give_up_lost_runs()
    threading.Thread(target=_load_again, name="load-again", daemon=True).start()
    code_server.start_command()


def _load_again() -> None:
    """Load the definitions again whenever one of their sensors asks for it, as the UI's *Reload* does."""
    from dagster._grpc.client import DagsterGrpcClient

    from headrace.config.settings import settings
    from headrace.orchestration import first_day

    port = int(sys.argv[sys.argv.index("--port") + 1])
    host = sys.argv[sys.argv.index("--host") + 1] if "--host" in sys.argv else "localhost"
    never = threading.Event()
    while not never.wait(_LOOK_SECONDS):
        if first_day.asked_to_load_again(settings()):
            try:
                DagsterGrpcClient(host=host, port=port).reload_code(timeout=_RELOAD_SECONDS)
            except Exception as error:  # the next tick asks again
                print(f"the definitions are not loaded again: {error}", file=sys.stderr)


class _Server:
    """The server that the proxy starts, forked; with what Dagster asks of the ``Popen`` that it is in the place of."""

    def __init__(self, command: Sequence[str], cwd: str | None, env: dict[str, str]) -> None:
        arguments = [*command[command.index("grpc") + 1 :]]
        self._process = _get_context("forkserver").Process(target=_forked, args=(arguments, cwd, env))
        self._process.start()
        # as a subprocess is: not waited for when this process ends; it goes when nobody sends it heartbeats
        process._children.discard(self._process)  # type: ignore[attr-defined]

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()


def _forked(arguments: list[str], cwd: str | None, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd or os.curdir)
    sys.argv[1:] = arguments
    from headrace.orchestration import first_day

    first_day.watched = True
    _serve_definitions()


def _give_up_lost_runs() -> None:
    """Report the runs of an earlier code server as over, or sensors would wait for them for ever.

    Dagster notices a run whose process died only while the server that started it lives. Runs of workers on other
    machines are none of this server's.
    """
    from headrace.config.settings import load_settings

    if load_settings().run_launcher != "local":
        return
    from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
    from sqlalchemy.exc import DatabaseError

    from headrace.orchestration.runtime.tables import forget_events

    lost = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    with DagsterInstance.get() as instance:
        for run in instance.get_runs(RunsFilter(statuses=lost)):
            try:
                instance.report_run_failed(run, _ENDED)
            except DatabaseError:  # a power cut has torn the run's own database, see storage.py
                log.warning("the events of run %s are damaged and go", run.run_id)
                forget_events(instance, run.run_id)
                instance.report_run_failed(run, _ENDED)


def _serve_definitions(before: Callable[[], None] = lambda: None) -> None:
    from headrace.orchestration.runtime.instance import own_storages

    import_once([*LIBRARIES, DEFINITIONS])
    own_storages()  # tried here, once, for all runs that are forked
    if _forking_started():
        multiprocessing.get_context = _forking  # type: ignore[assignment]
    before()
    from dagster._cli.api import grpc_command

    grpc_command()


def import_once(names: Sequence[str]) -> None:
    """Import modules that forked processes will share."""
    gc.disable()  # it would look through all that was imported, again and again: a fifth of the time
    for name in names:
        importlib.import_module(name)
    gc.freeze()  # what is shared now stays shared
    gc.enable()


def _left_behind() -> int:
    """Threads of pipeline files that hang: they wait at one place for ever, and what they hold nobody else asks for."""
    if DEFINITIONS not in sys.modules:
        return 0
    from headrace.pipelines.loading import left_behind

    return left_behind()


def _forking_started() -> bool:
    """Start multiprocessing's fork server, with all that this process has imported; whether it forks and answers."""
    return works(f"the fork server of process {os.getpid()}", _start_forking, instead=_INSTEAD)


def _start_forking() -> None:
    """Start it; before, one that has nothing to import shows whether all this works.

    Raises:
        Exception: It does not start.
        LookupError: What it forks does not end.
    """
    context = _get_context("forkserver")
    if threading.active_count() - _left_behind() > 1:
        # a library has started a thread: a fork of this process could inherit its locks
        context.set_forkserver_preload(
            [*LIBRARIES, DEFINITIONS, *RUNS] if DEFINITIONS in sys.modules else LIBRARIES
        )
        forkserver.ensure_running()
        return
    resource_tracker.ensure_running()  # started by the fork server else, and not to be forked
    _fork_server([])
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    forked = server._forkserver_pid
    probe = context.Process(target=_nothing)
    probe.start()
    probe.join(_ANSWERS_SECONDS)
    # multiprocessing replaces a server that has ended by one that is not forked
    require(server._forkserver_pid == forked, "a forked server ended at once")
    require(probe.exitcode == 0, f"a forked process ended with {probe.exitcode}")
    server._stop()
    _fork_server(RUNS if DEFINITIONS in sys.modules else [])


def _fork_server(preload: list[str]) -> None:
    _preload[:] = preload
    util.spawnv_passfds = _fork  # type: ignore[assignment]
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = _spawn


def _nothing() -> None:
    """Run by a process that is forked to see whether that works."""


if __name__ == "__main__":
    main()
