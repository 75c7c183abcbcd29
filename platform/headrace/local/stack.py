"""Implement ``headrace stack up|down|status|env``.

``up`` leaves the supervisor ``python -m headrace.local.stack serve`` in the background.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import psutil

from headrace.config.settings import child_environment, load_settings
from headrace.core.errors import Fatal, HeadraceError
from headrace.local import collecting, processes, serving, stack_files
from headrace.local.embedded import FRONTS, USUAL_PORTS, AlreadyRuns, EmbeddedStack, Ports, supervisor_lives
from headrace.local.service import State, log_tail
from headrace.local.supervisor import stop_on_signals
from headrace.local.topology import topics_and_queues

__all__ = ["AlreadyRuns", "EmbeddedStack", "Ports", "Row", "down", "env", "healthy", "status", "up"]

_STOPS_WITHIN = 45.0  # seconds for an orderly stop, then SIGKILL; the guards end the services either way
_KILLED_WITHIN = 25.0
_INFO_WITHIN = 5.0  # a stack that holds the lock writes its stack.json at once
_PAUSE = 0.05


@dataclass(frozen=True)
class Row:
    """One service as ``status`` shows it. Times and sizes are None unless it runs."""

    service: str
    state: State
    address: str | None = None
    pid: int | None = None
    uptime_seconds: float | None = None
    memory_bytes: int | None = None
    restarts: int = 0


def up(
    home: Path, foreground: bool = False, *, ports: Ports | None = None, report: Callable[[str], None] = print
) -> list[Row]:
    """Start the stack, or report that it runs already.

    In the foreground, return when Ctrl-C, SIGTERM or a closed terminal ended the stack. Otherwise, return as soon as
    everything is ready; the stack continues without this process and its terminal.

    Raises:
        Fatal: The stack did not start, or (in the foreground) a service died too often.
    """
    home = home.expanduser().absolute()
    try:
        if foreground:
            _serve_here(home, ports, report)
        else:
            _serve_in_background(home, ports, report)
    except AlreadyRuns:
        report(f"the stack in {home} runs already")
    rows = status(home)
    for row in rows:
        if row.state is State.RUNNING:
            report(f"{row.service:<10} {row.address}")
    return rows


def down(home: Path, report: Callable[[str], None] = print) -> bool:
    """Stop the stack and wait until no process is left; return whether anything ran.

    Raises:
        Fatal: The stack belongs to a program that does not handle SIGTERM, or it does not end.
    """
    home = home.expanduser().absolute()
    if not stack_files.is_running(home):
        report(f"no stack runs in {home}")
        return False
    info = _info_of_running(home)
    if info and supervisor_lives(info):
        supervisor = psutil.Process(info["supervisor"]["pid"])
        if not info["handles_sigterm"]:
            raise Fatal(f"the stack in {home} belongs to {_describe(supervisor)}; end that program instead")
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()  # psutil checks the start time again, so the pid is never another's
        if not _ends_within(supervisor, _STOPS_WITHIN):
            report(f"the supervisor (pid {supervisor.pid}) does not react; killing it")
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor.kill()
    if not _free_within(home, _KILLED_WITHIN):
        raise Fatal(f"the stack in {home} does not end; see 'headrace stack status' and {home / 'logs'}")
    stack_files.is_running(home)  # removes the files of a killed supervisor
    report(f"the stack in {home} is stopped")
    return True


def status(home: Path) -> list[Row]:
    """Return a row for each service, all ``stopped`` when no stack runs in ``home``."""
    home = home.expanduser().absolute()
    info = stack_files.read_info(home) if stack_files.is_running(home) else None
    if info is None or not supervisor_lives(info):
        return [Row(name, State.STOPPED) for name in USUAL_PORTS]
    return [_row(**service) for service in info["services"]]


def healthy(rows: list[Row]) -> bool:
    """Tell whether all services run. ``headrace stack status`` exits with it."""
    return bool(rows) and all(row.state is State.RUNNING for row in rows)


def env(home: Path) -> dict[str, str]:
    """Return the environment variables that point other programs at the running stack.

    Raises:
        Fatal: No stack runs.
    """
    home = home.expanduser().absolute()
    if not stack_files.is_running(home):
        raise Fatal(f"no stack runs in {home}; start one with 'headrace stack up'")
    variables = stack_files.read_env(home)
    if not variables:
        raise Fatal(f"the stack in {home} is not ready; 'headrace stack status' shows what it waits for")
    return variables


def _row(
    *, name: str, state: str, address: str, guard: int | None, since: float | None, restarts: int
) -> Row:
    below = processes.tree(guard)[2:] if guard else []  # without the two guards
    if not below:
        shown = State.RESTARTING if state == State.RUNNING else State(state)  # it has just died
        return Row(name, shown, address, restarts=restarts)
    return Row(
        name,
        State(state),
        address,
        below[0].pid,
        time.time() - since if since else None,
        processes.memory(below[0].pid),
        restarts,
    )


def _embedded(home: Path, ports: Ports | None, report: Callable[[str], None]) -> EmbeddedStack:
    """Describe the stack, with the topics and queues of all streams, and a collector if it is installed."""
    wanted = partial(topics_and_queues, load_settings(with_stack=False))
    topics, queues = wanted()
    return EmbeddedStack(
        home,
        ports=ports,
        topics=topics,
        queues=queues,
        wanted=wanted,
        report=report,
        door=collecting.own_lake() if collecting.installed(report) else None,
        numbers=collecting.own_lake() if serving.installed(report) else None,
        handles_sigterm=True,
    )


def _serve_here(home: Path, ports: Ports | None, report: Callable[[str], None]) -> None:
    stack = _embedded(home, ports, report)
    with stop_on_signals(stack.request_stop), stack:
        for row in status(home):
            report(f"{row.service:<10} {row.address}")
        report(f"ready; logs are in {home / 'logs'}, Ctrl-C stops")
        stack.watch()
    report("stopped")


def _serve_in_background(home: Path, ports: Ports | None, report: Callable[[str], None]) -> None:
    if stack_files.is_running(home) and (info := stack_files.read_info(home)) and supervisor_lives(info):
        raise AlreadyRuns(str(home))
    log = home / "logs" / "stack.log"
    with stack_files.writing(home):
        log.parent.mkdir(parents=True, exist_ok=True)
        stderr = log.open("ab")
        stderr.truncate(0)
    numbers = asdict(ports or Ports())
    asked = [word for name, port in numbers.items() if port for word in (f"--{name}-port", str(port))]
    with stderr:
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "headrace.local.stack", "serve", "--home", str(home), *asked),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=child_environment(),
            cwd=home,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        with process.stdout:
            outcome = _outcome(process.stdout, report)
    except BaseException:
        process.terminate()  # our child, not yet collected, so the pid is not reused
        process.wait()
        raise
    if outcome == "ready":
        process.returncode = 0  # it outlives this process; silences Popen's warning
        return
    process.wait()
    if outcome == "already":
        raise AlreadyRuns(str(home))
    raise Fatal(outcome or f"the stack's supervisor ended: {log_tail(log) or 'without a word'}; see {log}")


def _outcome(events: IO[bytes], report: Callable[[str], None]) -> str:
    """Read the supervisor's events until the start is decided.

    Returns:
        ``ready``, ``already``, or the reason of a failure; empty when the supervisor ended without an event.
    """
    for line in events:
        event = json.loads(line)
        if event["event"] == "message":
            report(event["text"])
        elif event["event"] == "failed":
            return str(event["text"])
        else:
            return str(event["event"])
    return ""


def _serve(home: Path, ports: Ports) -> int:
    """Supervise in the background. Report the start to the parent, and everything after it to the log alone."""

    def tell(event: str, text: str = "") -> None:
        with contextlib.suppress(OSError):  # the parent may have ended
            os.write(1, (json.dumps({"event": event, "text": text}) + "\n").encode())

    def say(text: str) -> None:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr, flush=True)
        if not ready:
            tell("message", text)

    ready = False
    stack = _embedded(home, ports, say)
    try:
        with stop_on_signals(stack.request_stop), stack:
            ready = True
            say("ready")
            tell("ready")
            _detach_output()
            stack.watch()
        say("stopped")
        return 0
    except AlreadyRuns:
        tell("already")
        return 0
    except HeadraceError as error:
        say(f"stopped: {error}") if ready else tell("failed", str(error))
        return 1


def _detach_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _info_of_running(home: Path) -> dict[str, Any] | None:
    deadline = time.monotonic() + _INFO_WITHIN
    while (info := stack_files.read_info(home)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return info


def _free_within(home: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while stack_files.is_running(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _ends_within(process: psutil.Process, seconds: float) -> bool:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    return True


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.name()} (pid {process.pid})"
    return f"pid {process.pid}"


def main() -> int:
    """Run the background supervisor."""
    parser = argparse.ArgumentParser(description="the embedded stack's background supervisor")
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--home", type=Path, required=True)
    names = (*USUAL_PORTS, *FRONTS)
    for name in names:
        parser.add_argument(f"--{name}-port", type=int)
    given = parser.parse_args()
    return _serve(given.home, Ports(**{name: getattr(given, f"{name}_port") for name in names}))


if __name__ == "__main__":
    sys.exit(main())
