"""Run ``headrace serve`` beside the embedded stack, so that its numbers can be read from the start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.config.settings import load_settings
from headrace.core import extras
from headrace.local import cache, probes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service

NAME = "serve"
_READY_SECONDS = 120.0  # on a busy machine most of it is imports
_GRACE_SECONDS = 8.0  # to answer what is under way


def installed(report: Callable[[str], None]) -> bool:
    """Tell whether the extra of what serves numbers is installed; report it if not."""
    return extras.installed("serve", "reading numbers over HTTP", report)


def usual_port() -> int:
    """Return the port that the settings name."""
    return load_settings(with_stack=False).serve_port


def address(port: int) -> str:
    """Return its address on a port."""
    return f"http://{LOOPBACK}:{port}"


def serving_service(home: Path, port: int, environment: Mapping[str, str], clickhouse: str) -> Service:
    """Describe ``headrace serve`` on ``127.0.0.1:port`` as a service.

    Args:
        home: Folder of the stack.
        port: Port to listen on.
        environment: Environment with the addresses of the stack's services, and of the lake.
        clickhouse: Name of the service that it asks.
    """
    command = ("serve", "--host", LOOPBACK, "--port", str(port))
    return Service(
        name=NAME,
        argv=(sys.executable, "-P", "-m", "headrace.cli", *command),
        env={**environment, "HEADRACE_HOME": str(home)},
        log=home / "logs" / f"{NAME}.log",
        cwd=home,
        ready=lambda: probes.http_ok(port, "/readyz"),
        alive=lambda: probes.http_ok(port, "/healthz"),
        port=port,
        needs=(clickhouse, cache.NAME),
        ready_within=_READY_SECONDS,
        stop_grace=_GRACE_SECONDS,
        vital=False,
    )
