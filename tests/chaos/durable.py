"""Brokers and a queue that keep what they acknowledged: their own ``kill -9`` must cost nothing, nowhere.

Headrace's embedded ones forget, and an orderly stop is the only moment at which the embedded queue can write. So
these are servers of their own, as ``tests/services`` starts them. One runs at a time: a machine of two cores has no
room for more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from headrace.local import processes, queue
from headrace.local.service import Service, State, Status
from headrace.local.supervisor import Supervisor
from services import servers

Settings = dict[str, str]


@dataclass(frozen=True)
class Durable:
    """One that runs.

    Attributes:
        settings: What points Headrace at it.
    """

    settings: Settings
    supervisor: Supervisor

    def kill(self) -> Callable[[], bool]:
        """kill -9; its supervisor starts it again on the same port. Returns a function: is it back?"""
        before = self._status()
        assert before.guard is not None
        service = processes.tree(before.guard)[2]  # below the two guards
        os.kill(service.pid, signal.SIGKILL)

        def back() -> bool:
            now = self._status()
            return now.state == State.RUNNING and now.restarts > before.restarts

        return back

    def _status(self) -> Status:
        [status] = self.supervisor.status()
        return status


class Durables:
    """Context manager: starts what a cell asks for and stops what the one before had asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running = ExitStack()
        self._started = 0
        self._name = ""
        self._durable: Durable | None = None

    def __enter__(self) -> Durables:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._running.close()
        self._name, self._durable = "", None

    def get(self, name: str) -> Durable:
        """The one of that name (``KINDS``), running.

        Raises:
            Missing: It is not at hand here; says why.
        """
        if self._durable is None or self._name != name:
            self._stop()
            self._started += 1
            home = self._root / f"{name}-{self._started}"
            home.mkdir(parents=True)
            service, settings = KINDS[name](home, self._running)
            supervisor = self._running.enter_context(Supervisor([service]))
            self._name, self._durable = name, Durable(settings, supervisor)
        return self._durable


def _apache(home: Path, _: ExitStack) -> tuple[Service, Settings]:
    service, address = servers.kafka_service(servers.at_hand(servers.KAFKA), home)
    return service, {"kafka_bootstrap_servers": address}


def _tansu_s3(home: Path, running: ExitStack) -> tuple[Service, Settings]:
    store = running.enter_context(servers.seaweedfs(servers.at_hand(servers.S3), home / "s3"))
    service, address = servers.tansu_on_s3(home, store)
    return service, {"kafka_bootstrap_servers": address}


def _elasticmq(home: Path, _: ExitStack) -> tuple[Service, Settings]:
    service, url = servers.elasticmq_service(servers.at_hand(servers.QUEUE), home)
    return service, {"sqs_endpoint_url": url, "sqs_region": queue.REGION}


#: What builds each, by the source that a cell names.
KINDS: dict[str, Callable[[Path, ExitStack], tuple[Service, Settings]]] = {
    "apache": _apache,
    "tansu-s3": _tansu_s3,
    "elasticmq": _elasticmq,
}
