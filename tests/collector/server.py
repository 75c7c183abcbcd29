"""A collector in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil

from builders import eventually
from headrace.collector.keys import Keys
from headrace.collector.log import DurableLog

DYING = str(Path(__file__).with_name("dying.py"))
#: Seconds within which a process of a busy machine starts and stops.
PATIENCE = 120.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Server:
    """A running ``headrace collect``.

    Attributes:
        home: Its ``HEADRACE_HOME``.
        url: Its address.
        key: A write key for everything.
        process: The process.
        said: File of its standard error.
    """

    home: Path
    url: str
    key: str
    process: subprocess.Popen[bytes]
    said: Path

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        given = {
            "authorization": f"Bearer {self.key}",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        asked = urllib.request.Request(self.url + path, body, given)
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return answer.status, bytes(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    @property
    def owner(self) -> psutil.Process:
        """The process with the log: with several workers, one that the started process watches."""
        first = psutil.Process(self.process.pid)
        alive = (one for one in first.children() if one.status() != psutil.STATUS_ZOMBIE)
        return next((one for one in alive if one.cmdline() == first.cmdline()), first)

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that speak HTTP in front of the one with the log, the oldest first."""
        found = self.owner.children()
        return sorted(
            (one for one in found if one.status() != psutil.STATUS_ZOMBIE), key=psutil.Process.create_time
        )

    def records(self, since: int = 0) -> list[dict[str, Any]]:
        """What the log holds, each record with its stream; looks at a copy, so the process may run on.

        Args:
            since: Leave so many records out.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(self.home / "collector" / "log", Path(folder) / "log")
            log = DurableLog(copy, limit_bytes=1 << 30)
            try:
                found = []
                for _, entry in log.read(log.oldest):
                    value = msgspec.json.decode(entry.payload)
                    items = value if isinstance(value, list) else [value]
                    found += [{"stream": entry.stream, **one} for one in items]
                return found[since:]
            finally:
                log.close()


@contextmanager
def collector(
    home: Path, *, window: str = "", nth: int = 1, workers: int = 1, **settings: str
) -> Iterator[Server]:
    """Run a collector; what it leaves running is killed.

    Args:
        home: Its ``HEADRACE_HOME``; may be that of one before.
        window: Where it dies, or its fault; see ``dying``.
        nth: At which call it dies.
        workers: How many processes speak HTTP.
        settings: Environment variables.
    """
    home.mkdir(parents=True, exist_ok=True)
    port, said = free_port(), home / "collect.log"
    arguments = ["collect", "--port", str(port), "--workers", str(workers)]
    keys = Keys(home / "collector" / "keys.json")
    # the same name each time: ids are unique below it
    key = keys.rotate("test", timedelta(0)) if keys.all() else keys.create("test")
    with said.open("ab") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                *(["-m", "headrace.cli"] if not window else [DYING, window, str(nth)]),
                *arguments,
            ],
            env={**environment(), "HEADRACE_HOME": str(home), **settings},
            stdout=file,
            stderr=file,
        )
    server = Server(home, f"http://127.0.0.1:{port}", key, process, said)
    try:
        eventually(lambda: _ready(server), PATIENCE, f"a collector, which said {said.read_text()[-500:]!r}")
        yield server
    finally:
        process.kill()
        process.wait()


def environment() -> Mapping[str, str]:
    """The environment without settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}


def _ready(server: Server) -> bool:
    assert server.process.poll() is None, server.said.read_text()
    try:
        return bool(server.get("/readyz"))
    except OSError:
        return False
