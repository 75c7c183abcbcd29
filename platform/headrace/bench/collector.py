"""Measure the collector: core seconds of its process per request and event, how soon it answers, memory, recovery.

Client and server share the cores, so what is quoted is the server's own core seconds and their ratio to a collector of
the usual kind in the same run. A busy machine makes a core second worth less: ``pace`` says by how much. Every run is
reconciled: what was acknowledged is in the log, and in the topic, once.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from headrace.bench.http_load import Sent, request, send
from headrace.bench.load import live
from headrace.bench.measure import in_own_process, interleaved
from headrace.bench.peers import require_collector
from headrace.bench.recovery import Recovery, recovered, written
from headrace.bench.servers import Server, fastapi, headrace
from headrace.config.settings import Settings
from headrace.local.broker import create_topics
from headrace.local.platform import backing_services

#: Events of a batch.
BATCH = 100
#: Descriptions of the servers.
NAMES = {
    "headrace": "headrace collect",
    "workers": "headrace collect --workers",
    "fastapi": "FastAPI, Pydantic, aiokafka (acks=all)",
}
_PATH = "/v1/analytics/track"
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
_CHUNK = 20_000
#: Requests that are sent before anything is measured: types are learnt, code is warm.
_FIRST = 200


@dataclass(frozen=True, slots=True)
class Cost:
    """One run against one server.

    Attributes:
        requests: Requests that it answered with a 2xx.
        events: Events that it acknowledged.
        seconds: Elapsed time.
        cpu_seconds: Core seconds of the server's process, until all is in the topic.
        p50: Seconds to an answer, median.
        p99: Seconds within which 99 of 100 were answered.
        pace: Core nanoseconds that a pass of an empty loop took just before and after.
        wrong: What does not reconcile.
    """

    requests: int
    events: int
    seconds: float
    cpu_seconds: float
    p50: float
    p99: float
    pace: float
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the collector's process.

    Attributes:
        events: Events that it has taken.
        bytes: Its resident memory then.
    """

    events: int
    bytes: int


@dataclass(slots=True)
class CollectorResult:
    """All measurements.

    Attributes:
        single: Runs with one event per request, as many as the connections carry, by server.
        half: The same at half of the requests per second that ``single`` reached.
        batch: Runs with 100 events per request.
        memory: Memory over the events of one long run.
        recovery: Opening the log again with its index lost.
        restart: The same with the index as kill -9 leaves it.
        load: Load of the machine before and after, which says whether it had other work.
    """

    single: dict[str, list[Cost]] = field(default_factory=dict)
    half: dict[str, list[Cost]] = field(default_factory=dict)
    batch: dict[str, list[Cost]] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    memory_wrong: tuple[str, ...] = ()
    recovery: Recovery | None = None
    restart: Recovery | None = None
    load: tuple[float, ...] = ()

    @property
    def wrong(self) -> list[str]:
        """What does not reconcile, a line each."""
        series = {"single": self.single, "half load": self.half, "batches": self.batch}
        lines = [
            f"{kind}, {server}: {line}"
            for kind, runs in series.items()
            for server, some in runs.items()
            for run in some
            for line in run.wrong
        ]
        lines += [f"memory: {line}" for line in self.memory_wrong]
        opened = {"recovery": self.recovery, "restart": self.restart}
        return lines + [f"{name}: {line}" for name, one in opened.items() if one for line in one.wrong]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {
            "single": {name: _shown(runs) for name, runs in self.single.items()},
            "half_load": {name: _shown(runs) for name, runs in self.half.items()},
            "batch": {name: _shown(runs) for name, runs in self.batch.items()},
            "to_fastapi": {
                kind: round(_core(runs["fastapi"]) / _core(runs["headrace"]), 2)
                for kind, runs in (("single", self.single), ("batch", self.batch))
                if "fastapi" in runs
            },
            "memory": [asdict(one) for one in self.memory],
            "recovery": asdict(self.recovery) if self.recovery else None,
            "restart": asdict(self.restart) if self.restart else None,
            "load": self.load,
            "wrong": self.wrong,
            "reconciles": not self.wrong,
        }


def _core(runs: list[Cost]) -> float:
    """Return the core seconds of an event, median."""
    return statistics.median(run.cpu_seconds / max(1, run.events) for run in runs)


def _shown(runs: list[Cost]) -> dict[str, Any]:
    requests = statistics.median(run.cpu_seconds / max(1, run.requests) for run in runs)
    return {
        "core_microseconds_per_request": round(requests * 1e6, 1),
        "core_microseconds_per_event": round(_core(runs) * 1e6, 2),
        "events_per_core_second": round(1 / _core(runs)) if _core(runs) else 0,
        "requests_per_second": round(statistics.median(run.requests / run.seconds for run in runs)),
        "p50_ms": round(statistics.median(run.p50 for run in runs) * 1e3, 1),
        "p99_ms": round(statistics.median(run.p99 for run in runs) * 1e3, 1),
        "pace_ns": round(statistics.median(run.pace for run in runs), 1),
        "runs": [asdict(run) for run in runs],
    }


def collector(
    home: Path,
    console: Console,
    *,
    requests: int,
    batches: int,
    connections: int,
    seconds: float,
    memory: int,
    undelivered: int,
    repetitions: int,
    peers: bool,
    workers: int = 1,
) -> CollectorResult:
    """Start a broker of its own, measure, and stop it; arguments as in ``measure``.

    Raises:
        Fatal: The peer is asked for and not installed.
    """
    if peers:
        require_collector()
    with backing_services(home) as (_, settings):
        return measure(
            settings,
            console,
            requests=requests,
            batches=batches,
            connections=connections,
            seconds=seconds,
            memory=memory,
            undelivered=undelivered,
            repetitions=repetitions,
            peers=peers,
            workers=workers,
        )


def measure(
    settings: Settings,
    console: Console,
    *,
    requests: int,
    batches: int,
    connections: int,
    seconds: float,
    memory: int,
    undelivered: int,
    repetitions: int,
    peers: bool = False,
    workers: int = 1,
    run: Callable[..., Any] = in_own_process,
) -> CollectorResult:
    """Measure on the broker that ``settings`` name.

    Args:
        settings: Address of the broker, and a folder.
        console: Terminal that shows the progress.
        requests: Requests with one event, each time.
        batches: Requests with 100 events, each time.
        connections: Connections at a time.
        seconds: How long the half load lasts.
        memory: Events of the long run; 0 for none.
        undelivered: Events of the log that is opened again; 0 for none.
        repetitions: Repetitions, interleaved.
        peers: Measure the peer, too.
        workers: Measure so many workers, too, if it is more than one.
        run: Calls a task, by default in a process of its own.
    """
    found, load = CollectorResult(), os.getloadavg()[0]
    servers = ["headrace", *(["workers"] if workers > 1 else []), *(["fastapi"] if peers else [])]
    for name in interleaved(repetitions, servers):
        with console.status(f"{NAMES[name]}: single requests"), _started(name, settings, workers) as server:
            _warm(server)
            first = _cost(server, _requests(server, requests, 1), connections)
            found.single.setdefault(name, []).append(first)
            rate = first.requests / first.seconds / 2
            some = _requests(server, max(1, int(rate * seconds)), 1)
            found.half.setdefault(name, []).append(_cost(server, some, connections, rate))
        with (
            console.status(f"{NAMES[name]}: batches of {BATCH}"),
            _started(name, settings, workers) as server,
        ):
            _warm(server)
            cost = _cost(server, _requests(server, batches, BATCH), max(1, connections // 4))
            found.batch.setdefault(name, []).append(cost)
    if memory:
        with console.status(f"memory over {memory:,} events"), _started("headrace", settings) as server:
            found.memory, found.memory_wrong = _memory(server, memory, connections)
    if undelivered:
        with console.status(f"opening a log of {undelivered:,} undelivered events"):
            folder = settings.home / "bench" / uuid4().hex[:8]
            run(written, folder, undelivered)
            found.recovery = run(recovered, folder, undelivered, "lost")
            found.restart = run(recovered, folder, undelivered, "killed")
            shutil.rmtree(folder, ignore_errors=True)
    found.load = load, os.getloadavg()[0]
    return found


def _started(name: str, settings: Settings, workers: int = 1) -> Any:
    if name != "fastapi":
        return headrace(settings, workers if name == "workers" else 1)
    topic = f"bench_{uuid4().hex[:8]}"
    create_topics(settings.kafka_bootstrap_servers, {topic: 4})
    return fastapi(settings, topic)


def _warm(server: Server) -> None:
    sent = send(server.host, server.port, iter(_requests(server, _FIRST, 1)), connections=4)
    server.settled(sent.accepted)


def _requests(server: Server, number: int, events: int) -> list[bytes]:
    return list(_made(server, number, events))


def _made(server: Server, number: int, events: int) -> Iterator[bytes]:
    """Make requests of new events, some thousand at a time."""
    headers = {
        "host": f"{server.host}:{server.port}",
        "authorization": f"Bearer {server.key}",
        "content-type": "application/json",
        "user-agent": _AGENT,
    }
    at, most = 0, max(1, _CHUNK // events)
    while at < number:
        some = min(most, number - at)
        first = server.begun
        server.begun += some * events
        made = live(first, server.begun, datetime.now(UTC))["payload"].to_list()
        for place in range(0, len(made), events):
            body = made[place] if events == 1 else b"[" + b",".join(made[place : place + events]) + b"]"
            yield request(_PATH, headers, body)
        at += some


def _cost(server: Server, requests: list[bytes], connections: int, per_second: float = 0.0) -> Cost:
    """Send requests to a server and measure it, until what it acknowledged is in the topic."""
    before, pace = server.cpu_seconds(), _pace()
    sent = send(server.host, server.port, iter(requests), connections=connections, per_second=per_second)
    wrong = server.settled(sent.accepted)
    spent = server.cpu_seconds() - before
    return Cost(
        sent.requests,
        sent.accepted,
        sent.seconds,
        spent,
        sent.wait(0.5),
        sent.wait(0.99),
        (pace + _pace()) / 2,
        (*wrong, *_refused(sent, len(requests))),
    )


def _refused(sent: Sent, requests: int) -> tuple[str, ...]:
    """Say which requests were not answered with a 2xx."""
    lines = [f"{number:,} answers {status}" for status, number in sorted(sent.other.items())]
    if sent.requests + sum(sent.other.values()) != requests:
        lines.append(f"{sent.requests:,} answers to {requests:,} requests")
    return tuple(lines)


def _memory(server: Server, events: int, connections: int) -> tuple[list[Memory], tuple[str, ...]]:
    _warm(server)
    found: list[Memory] = []
    wrong: list[str] = []
    acknowledged = 0
    for _ in range(10):
        number = max(1, events // BATCH // 10)
        sent = send(
            server.host, server.port, _made(server, number, BATCH), connections=max(1, connections // 4)
        )
        wrong += _refused(sent, number)
        acknowledged += sent.accepted
        found.append(Memory(acknowledged, server.memory_bytes()))
    return found, (*wrong, *server.settled(acknowledged))


def _pace() -> float:
    """Return the core nanoseconds of one pass of an empty loop, which tell how busy the machine is."""
    passes, began = 300_000, time.thread_time()
    for _ in range(passes):
        pass
    return (time.thread_time() - began) / passes * 1e9
