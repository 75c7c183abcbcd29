"""Starting workers, and what the parent may do to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

_STARTS_WITHIN = 60.0


class Refused(Exception):
    """This machine does not allow what the launcher was asked for (a file system of its own)."""


class Worker:
    """One worker process. ``state`` is running, stopped or exit; ``code`` is negative after a signal."""

    def __init__(self, pid: int, job: dict[str, Any], changed: threading.Condition) -> None:
        self.pid, self.job, self._changed = pid, job, changed
        self.state, self.code = "running", 0

    def wait(self, *states: str, within: float = 60.0) -> bool:
        """Whether it came to one of ``states`` in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state in states, within)

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.state != "exit":
            os.kill(self.pid, number)

    @property
    def result(self) -> dict[str, Any]:
        """What the worker wrote at its end; empty when it could not."""
        path = Path(self.job["result"])
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def said(self) -> str:
        """Its log, and the error that ended it."""
        path = Path(self.job["log"])
        log = path.read_text(errors="replace") if path.exists() else ""
        return f"{log}\n{self.result.get('error', '')}"


class Launcher:
    """Context manager over a warm process that forks workers (``worker.py``).

    Args:
        room: Folder and bytes of a file system that only its workers see.

    Raises:
        Refused: On entry.
    """

    def __init__(self, room: tuple[Path, int] | None = None) -> None:
        self._room = room
        self._changed = threading.Condition()
        self._workers: dict[int, Worker] = {}
        self._started: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Launcher:
        room = ["--room", str(self._room[0]), str(self._room[1])] if self._room else []
        tests = str(Path(__file__).resolve().parents[1])
        outer = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        paths = [tests, *filter(None, [outer.get("PYTHONPATH")])]  # whose code is tried is what runs here
        self._process = subprocess.Popen(
            (sys.executable, "-m", "chaos.worker", *room),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**outer, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        first = json.loads(self._process.stdout.readline() or b'{"event": "refused", "why": "it ended"}')
        if first["event"] != "ready":
            self.__exit__()
            raise Refused(first["why"])
        threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self, events: IO[bytes]) -> None:
        for line in events:
            event = json.loads(line)
            with self._changed:
                if event["event"] == "started":
                    self._started.append(event["pid"])
                elif event["pid"] in self._workers:
                    worker = self._workers[event["pid"]]
                    worker.state, worker.code = event["event"], event.get("code", 0)
                self._changed.notify_all()

    def start(self, job: dict[str, Any]) -> Worker:
        """Fork a worker."""
        assert self._process is not None and self._process.stdin is not None
        with self._starting, self._changed:
            self._process.stdin.write(json.dumps(job, default=str).encode() + b"\n")
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: bool(self._started), _STARTS_WITHIN):
                raise TimeoutError("the launcher does not fork")
            pid = self._started.pop()
            worker = self._workers[pid] = Worker(pid, job, self._changed)
            return worker

    def end_all(self) -> None:
        """Kill whatever still runs."""
        for worker in list(self._workers.values()):
            worker.send(signal.SIGKILL)
            worker.wait("exit")
        self._workers.clear()
