"""A ClickHouse endpoint of one cell's own, which is killed with the machine that it runs on."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from chaos.faults import free_port
from headrace.config.settings import child_environment
from headrace.local.embedded import CLICKHOUSE_USER, clickhouse_service

_READY_WITHIN = 60.0


class Endpoint:
    """Context manager over the embedded endpoint with its data in ``home``.

    Attributes:
        settings: What points Headrace and the judge at it.
    """

    def __init__(self, home: Path) -> None:
        self._port, self._password = free_port(), "chaos"
        self._service = clickhouse_service(home, self._port, child_environment(), self._password)
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, Any] = {
            "clickhouse_host": "127.0.0.1",
            "clickhouse_port": str(self._port),
            "clickhouse_user": CLICKHOUSE_USER,
            "clickhouse_password": self._password,
        }

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._home.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            self._service.argv,
            env=dict(self._service.env or {}),
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline, never = time.monotonic() + _READY_WITHIN, threading.Event()
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill()  # nobody leaves a context that was not entered
                raise TimeoutError("the endpoint does not answer")
            never.wait(0.1)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self._service.ready()
        return False

    def kill(self) -> None:
        """kill -9, as the machine goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
