"""Measure how soon ``headrace serve`` answers: what is kept, what the client has, what is new, and what is streamed."""

from __future__ import annotations

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from rich.console import Console

from headrace.bench import http_load
from headrace.bench.listening import Heard, listened, value_of
from headrace.bench.queries import fill, filled
from headrace.contracts import EVENTS
from headrace.core.errors import Fatal
from headrace.local import serving
from headrace.local.platform import backing_services
from headrace.local.stack import status
from headrace.streams.stream import Stream, streams
from headrace.warehouse import Publication

#: Requests of one connection whose waits are measured, and of all connections that show the rate.
_ONE_BY_ONE, _TOGETHER, _CONNECTIONS = 3_000, 30_000, 8
_NEW_QUESTIONS, _PUBLICATIONS = 150, 40
_CSV_ROWS = 1_000_000
_WITHIN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ServingResult:
    """What was measured. Waits are those of a client on the same machine.

    Attributes:
        events: Events in the warehouse.
        kept_p50_ms, kept_p99_ms: Wait for an answer that is kept, one request at a time.
        not_modified_p99_ms: Wait for a 304.
        new_p50_ms, new_p95_ms: Wait for an answer that nobody has asked for.
        kept_per_core_second: Kept answers per second of the server's processor time.
        kept_per_second: Kept answers per second, with the client on the same machine.
        published_to_listener_p50_ms, published_to_listener_p95_ms: From the record of a publication to its event.
        heard: From a collector's acknowledgement to a listener, on a platform of its own.
        csv_rows, csv_seconds: A long table, streamed.
        csv_peak_mb: Most memory of the server meanwhile.
        memory_mb: Memory of the server after its start.
    """

    events: int
    kept_p50_ms: float
    kept_p99_ms: float
    not_modified_p99_ms: float
    new_p50_ms: float
    new_p95_ms: float
    kept_per_core_second: float
    kept_per_second: float
    published_to_listener_p50_ms: float
    published_to_listener_p95_ms: float
    csv_rows: int
    csv_seconds: float
    csv_peak_mb: float
    memory_mb: float
    heard: Heard


def serve(home: Path, console: Console, *, events: int, seconds: float = 120.0) -> ServingResult:
    """Start backing services of its own with a server, fill the warehouse, ask, and stop the services.

    Before that a whole platform is started, to which events are posted.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        events: Events in the warehouse.
        seconds: For how long events are posted.

    Raises:
        Fatal: The server did not start, or answers what it should not.
    """
    heard = listened(home / "listened", console, seconds=seconds)
    with backing_services(home, numbers=True) as (_, settings):
        stream = streams(settings)["events"]
        try:
            filled(stream, console, events, max(1, events // 5))
            return _measured(home, stream, console, events, heard)
        finally:
            stream.close()


class _Server:
    """The server that is measured: its address, and what it costs."""

    def __init__(self, home: Path, url: str) -> None:
        found = next((row.pid for row in status(home) if row.service == serving.NAME), None)
        if found is None:
            raise Fatal(f"{serving.NAME} does not run; see {home / 'logs' / (serving.NAME + '.log')}")
        self._process = psutil.Process(found)
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 80

    @property
    def cpu_seconds(self) -> float:
        used = self._process.cpu_times()
        return float(used.user + used.system)

    @property
    def memory_mb(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_WITHIN_SECONDS)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def send(self, requests: list[bytes], many: int, connections: int) -> http_load.Sent:
        every: Iterator[bytes] = itertools.islice(itertools.cycle(requests), many)
        return http_load.send(self.host, self.port, every, connections=connections)


def _request(path: str, **headers: str) -> bytes:
    said = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept-encoding: gzip\r\n{said}\r\n".encode()


def _measured(home: Path, stream: Stream, console: Console, events: int, heard: Heard) -> ServingResult:
    server = _Server(home, stream.settings.serve_url)
    memory, today = server.memory_mb, datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in range(2, 22)]
    paths = [f"/v1/metrics/events?from={day}&to={day}&window=hour&dimensions=channel" for day in days]
    tags = []
    for path in paths:
        code, headers, body = server.get(path, {"accept-encoding": "gzip"})
        if code != 200:
            raise Fatal(f"{path} was answered by {code}: {body[:300]!r}")
        tags.append(headers["etag"])
    with console.status("asking for what is kept"):
        alone = server.send([_request(path) for path in paths], _ONE_BY_ONE, 1)
        before = server.cpu_seconds
        together = server.send([_request(path) for path in paths], _TOGETHER, _CONNECTIONS)
        cost = server.cpu_seconds - before
        had = [_request(path, if_none_match=tag) for path, tag in zip(paths, tags, strict=True)]
        unchanged = server.send(had, _ONE_BY_ONE, 1)
    if together.other or alone.other or set(unchanged.other) != {304}:
        raise Fatal(f"answers of other kinds came: {alone.other}, {together.other}, {unchanged.other}")
    with console.status("asking for what is new"):
        new = [_wait(server, path) for path in _new(today)]
    with console.status("listening"):
        told = _listened(server, stream)
    with console.status("streaming a long table"):
        rows, seconds, peak = _streamed(server, today)
    return ServingResult(
        events,
        alone.wait(0.5) * 1e3,
        alone.wait(0.99) * 1e3,
        unchanged.wait(0.99) * 1e3,
        _share(new, 50),
        _share(new, 95),
        _TOGETHER / max(cost, 1e-3),
        _TOGETHER / together.seconds,
        _share(told, 50),
        _share(told, 95),
        rows,
        seconds,
        peak,
        memory,
        heard,
    )


def _share(found: list[float], hundredth: int) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[hundredth - 1]


def _new(today: object) -> Iterator[str]:
    """Yield questions that nobody has asked: weeks that begin at another minute each."""
    for n in range(_NEW_QUESTIONS):
        start = datetime.fromisoformat(f"{today}") - timedelta(days=9, minutes=n)
        end = start + timedelta(days=7)
        yield f"/v1/metrics/events?from={start:%Y-%m-%dT%H:%M}&to={end:%Y-%m-%dT%H:%M}&window=hour&dimensions=channel"


def _wait(server: _Server, path: str) -> float:
    began = time.perf_counter()
    code, _, body = server.get(path)
    if code != 200:
        raise Fatal(f"{path} was answered by {code}: {body[:300]!r}")
    return (time.perf_counter() - began) * 1e3


def _listened(server: _Server, stream: Stream) -> list[float]:
    """Return the times from the record of a publication to the event of a listener, ms."""
    waits: list[float] = []
    connection = http.client.HTTPConnection(server.host, server.port, timeout=_WITHIN_SECONDS)
    connection.request("GET", "/v1/stream?metric=events&from=now-24h&window=all")
    answer = connection.getresponse()
    heard: list[tuple[float, int]] = []
    ready = threading.Event()

    over = threading.Event()

    def listen() -> None:
        for line in answer:
            if over.is_set():
                return
            if (value := value_of(line)) is not None:
                heard.append((time.perf_counter(), value))
                ready.set()

    threading.Thread(target=listen, daemon=True).start()
    for n in range(1, _PUBLICATIONS + 1):
        ready.wait(_WITHIN_SECONDS)
        known = heard[-1][1] if heard else 0
        ready.clear()
        today = datetime.now(UTC)
        fill(stream, today.date(), 100, 1_000, f"{n}-")
        noted = Publication(stream.lake.good.id, n, 100, (today.date(),), (today.date(),))
        stream.warehouse.record(EVENTS.table, noted)
        began, until = time.perf_counter(), time.monotonic() + _WITHIN_SECONDS
        while not (found := [at for at, value in heard if value > known]) and time.monotonic() < until:
            ready.wait(0.05)
        if not found:
            raise Fatal(f"publication {n} was not heard of within {_WITHIN_SECONDS:g} s")
        waits.append(max(0.0, found[0] - began) * 1e3)
    over.set()  # its connection ends with the next word, or with the server
    return waits


def _streamed(server: _Server, today: object) -> tuple[int, float, float]:
    """Return the rows of a long table, how long it took, and the most memory of the server meanwhile, MB."""
    start = datetime.fromisoformat(f"{today}") - timedelta(days=8)
    end = start + timedelta(days=7)
    path = (
        f"/v1/metrics/events?from={start:%Y-%m-%d}&to={end:%Y-%m-%dT00:00}&window=minute"
        f"&dimensions=event_type,channel,page&limit={_CSV_ROWS}&format=csv"
    )
    peak, rows, done = server.memory_mb, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, server.memory_mb)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    began = time.perf_counter()
    connection = http.client.HTTPConnection(server.host, server.port, timeout=300)
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != 200:
        raise Fatal(f"{path} was answered by {answer.status}: {answer.read()[:300]!r}")
    while part := answer.read(1 << 20):
        rows += part.count(b"\n")
    took = time.perf_counter() - began
    done.set()
    watching.join()
    connection.close()
    return rows - 1, took, peak
