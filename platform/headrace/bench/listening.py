"""Measure how soon an event that a collector has acknowledged is heard of, with the platform as under ``headrace up``.

Events go to the collector over HTTP, one by one. They pass its log, the broker, an ingest run, the lake and the
warehouse; the server looks what the warehouse holds, asks, and tells its listeners. An event counts as heard of at the
first server-sent event whose number has all events acknowledged up to it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from headrace.bench.freshness import latencies, quantile
from headrace.bench.load import live
from headrace.config.settings import Settings
from headrace.core.errors import Fatal, HeadraceError
from headrace.local.platform import backing_services, dagster_beside
from headrace.models import project as models
from headrace.producers.http import HttpProducer

_PER_SECOND = 4
_READY_SECONDS, _CATCH_UP_SECONDS = 300.0, 120.0
_PATH = "/v1/stream?metric=events&from=now-24h&window=all"


@dataclass(frozen=True, slots=True)
class Heard:
    """From the answer of a collector to a listener, s.

    Attributes:
        events: Events that were acknowledged.
        p50: Median.
        p95: 95th percentile.
        worst: Longest.
    """

    events: int
    p50: float
    p95: float
    worst: float


def listened(home: Path, console: Console, *, seconds: float) -> Heard:
    """Start a platform of its own with collector and server, post events, listen, and stop it.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        seconds: For how long events are posted.

    Raises:
        Fatal: The platform does not become ready, or events are not heard of.
    """
    with ExitStack() as stack:
        with console.status("starting the platform"):
            services, settings = stack.enter_context(backing_services(home, door="awaited", numbers=True))
            models.manifest(settings)
            platform = stack.enter_context(dagster_beside(services, settings, reloadable=True))
            platform.dagster.start()
        to = _producer(settings)
        stack.callback(to.close)
        ears = Listener(settings.serve_url)
        stack.callback(ears.close)
        with console.status("waiting for the first event"):
            _posted(to, 0, 1)
            ears.await_value(1, _READY_SECONDS)
        sent, began, never = [], time.monotonic(), threading.Event()
        with console.status(f"posting {_PER_SECOND} events a second for {seconds:,.0f} s"):
            for n in range(1, int(seconds * _PER_SECOND) + 1):
                never.wait(max(0.0, began + n / _PER_SECOND - time.monotonic()))
                _posted(to, n, n + 1)
                sent.append((time.monotonic(), n + 1))
            ears.await_value(sent[-1][1], _CATCH_UP_SECONDS)
        found = latencies(sent, ears.heard)
        return Heard(len(sent), quantile(found, 0.5), quantile(found, 0.95), found[-1])


def _producer(settings: Settings) -> HttpProducer:
    key = settings.collector_first_key.read_text().strip()
    return HttpProducer(settings.collector_url, "events", key)


def _posted(to: HttpProducer, first: int, end: int) -> None:
    to.send(live(first, end, datetime.now(UTC))["payload"].to_list())


class Listener:
    """Listens to the number of events, in the background, and notes when it heard which one."""

    def __init__(self, url: str) -> None:
        """Begin to listen."""
        self.heard: list[tuple[float, int]] = []
        self._told, self._over = threading.Condition(), threading.Event()
        self._where = urlsplit(url)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                self._hear()
            except (OSError, http.client.HTTPException):
                self._over.wait(0.5)  # it is not there yet

    def _hear(self) -> None:
        connection = http.client.HTTPConnection(
            self._where.hostname or "", self._where.port or 80, timeout=60
        )
        try:
            connection.request("GET", _PATH)
            answer: Iterable[bytes] = connection.getresponse()
            for line in answer:
                if self._over.is_set():
                    return
                if (value := value_of(line)) is not None:
                    with self._told:
                        self.heard.append((time.monotonic(), value))
                        self._told.notify_all()
        finally:
            connection.close()

    def await_value(self, value: int, seconds: float) -> None:
        """Wait until a number is heard.

        Raises:
            Fatal: It is not.
        """
        with self._told:
            if not self._told.wait_for(lambda: self.heard and self.heard[-1][1] >= value, seconds):
                last = self.heard[-1][1] if self.heard else 0
                raise Fatal(f"{last:,} of {value:,} events were heard of within {seconds:,.0f} s")

    def close(self) -> None:
        """Stop listening."""
        self._over.set()


def value_of(line: bytes) -> int | None:
    """Return the number in a line of server-sent events; None for one without."""
    if not line.startswith(b"data: "):
        return None
    try:
        rows = json.loads(line[6:]).get("rows")
    except ValueError:
        raise HeadraceError(f"the server sent what is no JSON: {line[:200]!r}") from None
    return int(rows[0]["value"] or 0) if rows else None
