"""Run the collector in front of the embedded broker, so that events may come over HTTP from the start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.config.settings import load_settings
from headrace.core import extras
from headrace.local import broker, probes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service

NAME = "collector"
_READY_SECONDS = 120.0  # on a busy machine most of it is imports
_GRACE_SECONDS = 10.0  # to answer what is under way, and to close log and index


def installed(report: Callable[[str], None]) -> bool:
    """Tell whether the collector's extra is installed; report it if not."""
    return extras.installed("collector", "taking events over HTTP", report)


def usual_port() -> int:
    """Return the port that the settings name."""
    return load_settings(with_stack=False).collector_port


def address(port: int) -> str:
    """Return the address of the collector on a port."""
    return f"http://{LOOPBACK}:{port}"


def own_lake() -> dict[str, str]:
    """Return the setting of a lake of one's own, as an environment variable; empty for that of the stack."""
    lake = load_settings(with_stack=False).lake_uri
    return {"HEADRACE_LAKE_URI": lake} if lake else {}


def collector_service(home: Path, port: int, environment: Mapping[str, str], *, awaited: bool) -> Service:
    """Describe the collector on ``127.0.0.1:port`` as a service, with log, index and keys in ``home/collector``.

    Args:
        home: Folder of the stack.
        port: Port to listen on.
        environment: Environment with the addresses of the stack's services, and of the lake.
        awaited: Whether a start waits until it takes events.
    """
    command = ("collect", "--host", LOOPBACK, "--port", str(port))
    return Service(
        name=NAME,
        argv=(sys.executable, "-P", "-m", "headrace.cli", *command),
        env={**environment, "HEADRACE_HOME": str(home)},
        log=home / "logs" / f"{NAME}.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/readyz"),
        alive=lambda: probes.http_ok(port, "/healthz"),
        port=port,
        needs=(broker.NAME,),
        ready_within=_READY_SECONDS,
        stop_grace=_GRACE_SECONDS,
        awaited=awaited,
        vital=False,
    )
