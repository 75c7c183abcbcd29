"""Faults from outside the worker: a network that resets and lags, services that are killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

from headrace.config.settings import child_environment
from headrace.local import broker, probes, processes, stack
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service
from headrace.local.supervisor import Supervisor


class Network:
    """A TCP proxy before one service. Context manager; ``port`` is where clients connect.

    Args:
        upstream: Port of the service on loopback.
        resets: So many answers are swallowed and their connection reset: the service did what was asked, and
            the client does not know.
        every: Every so many answers.
        delay: Seconds that every answer takes longer.
    """

    def __init__(self, upstream: int, *, resets: int = 0, every: int = 9, delay: float = 0.0) -> None:
        self._upstream, self._resets, self._every, self._delay = upstream, resets, every, delay
        self._ended, self._lock = threading.Event(), threading.Lock()
        self._listener = socket.create_server((LOOPBACK, 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.answers = 0
        self.hits = 0
        self.enabled = threading.Event()

    def __enter__(self) -> Network:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
                service = socket.create_connection((LOOPBACK, self._upstream), 5)
                service.settimeout(None)
            except OSError:
                with contextlib.suppress(OSError, UnboundLocalError):
                    client.close()
                continue
            for pair, answers in (((client, service), False), ((service, client), True)):
                threading.Thread(target=self._pump, args=(*pair, answers), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self._strikes():
                    for end in (source, target):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        with contextlib.suppress(OSError):
                            end.shutdown(socket.SHUT_RD)
                        end.close()
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _strikes(self) -> bool:
        """Delay this answer, or say that it is to be swallowed."""
        if not self.enabled.is_set():
            return False
        with self._lock:
            self.answers += 1
            reset = self._resets > 0 and self.answers % self._every == 0
            self._resets -= reset
            self.hits += reset or self._delay > 0
        if self._delay:
            self._ended.wait(self._delay)
        return reset


@contextlib.contextmanager
def broker_behind(home: Path, network: Network, port: int) -> Iterator[None]:
    """An embedded broker on ``port`` that tells its clients to come through ``network``."""
    service = broker.broker_service(home, port, child_environment())
    words = list(service.argv)
    words[words.index("--advertised-listener-url") + 1] = f"tcp://{LOOPBACK}:{network.port}"
    behind = Service(
        name="broker-behind-a-network",
        argv=tuple(words),
        env=service.env,
        log=home / "logs" / "broker-behind.log",
        cwd=home,
        ready=lambda: probes.kafka_ok(port),
        port=port,
        stop_grace=2.0,
    )
    with Supervisor([behind]):
        yield


def free_port() -> int:
    """A port that nobody listens on now."""
    return processes.pick_port(29_092, set())


def kill_service(home: Path, name: str) -> int:
    """kill -9 of a service of the embedded stack; its supervisor starts it again. Returns its pid.

    Raises:
        LookupError: It does not run.
    """
    pid = next((row.pid for row in stack.status(home) if row.service == name and row.pid), None)
    if pid is None:
        raise LookupError(f"{name} does not run")
    os.kill(pid, signal.SIGKILL)
    return pid
