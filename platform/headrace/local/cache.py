"""Run the embedded cache: Valkey below ``cache_server.py``, for answers of ``headrace serve``.

It keeps nothing on disk, has bounded memory, and is no vital service: without it, answers are made anew.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from headrace.local import probes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service

NAME = "cache"
USUAL_PORT = 6379


def cache_url(port: int, password: str) -> str:
    """Return the address of the cache on a port."""
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def cache_service(home: Path, port: int, environment: Mapping[str, str], password: str) -> Service:
    """Describe the cache on ``127.0.0.1:port`` as a service."""
    return Service(
        name=NAME,
        argv=(sys.executable, "-P", "-m", "headrace.local.cache_server", "--port", str(port)),
        # Not an argument, because every user of the machine can read arguments.
        env={**environment, "VALKEY_PASSWORD": password},
        log=home / "logs" / f"{NAME}.log",
        cwd=home,
        ready=lambda: probes.redis_ok(port, password),
        port=port,
        stop_grace=2.0,
        vital=False,
    )
