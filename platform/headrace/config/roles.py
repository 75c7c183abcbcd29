"""Command lines of Dagster's processes: for ``headrace up``, and for ``headrace run`` on machines of their own."""

from __future__ import annotations

import sys
from pathlib import Path

_MODULE = "headrace.orchestration.definitions"
_RUNTIME = "headrace.orchestration.runtime"
_QUIET = ("--log-level", "warning")
_WORKSPACE = """\
load_from:
  - grpc_server:
      host: {host}
      port: {port}
      location_name: headrace
"""


def code(host: str, port: int, *, reloadable: bool = False) -> tuple[str, ...]:
    """Serve the code location: the definitions to the two below, and run what no worker does."""
    how = ("--reloadable",) if reloadable else ()
    where = ("--module-name", _MODULE, "--host", host, "--port", str(port), "--location-name", "headrace")
    return (sys.executable, "-m", f"{_RUNTIME}.code_server", *how, *where, *_QUIET)


def webserver(host: str, port: int, workspace: Path) -> tuple[str, ...]:
    """Serve the UI and its API."""
    return (_tool("dagster-webserver"), "--host", host, "--port", str(port), "-w", str(workspace), *_QUIET)


def daemon(workspace: Path, *, alone: bool = False) -> tuple[str, ...]:
    """Run sensors, schedules, the queue of runs and their monitor; ``alone``: refused beside another one."""
    own = (sys.executable, "-m", f"{_RUNTIME}.one_daemon") if alone else (_tool("dagster-daemon"),)
    return (*own, "run", "-w", str(workspace), *_QUIET)


def worker() -> tuple[str, ...]:
    """Take runs from Redis and run them."""
    return (sys.executable, "-m", f"{_RUNTIME}.worker")


def write_workspace(dagster_home: Path, host: str, port: int) -> Path:
    """Write where webserver and daemon find the code location; returns the file."""
    path = dagster_home / "workspace.yaml"
    path.write_text(_WORKSPACE.format(host=host, port=port))
    return path


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))
