"""Run a collector in a process of its own, ours or a peer, and count what it has taken."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec
import psutil
from confluent_kafka import Consumer, Message, TopicPartition

from headrace.collector.keys import Keys
from headrace.collector.log.frames import ID_BYTES, entries_at
from headrace.collector.log.segments import Identity, identity_in, segments_in
from headrace.config.settings import Settings, child_environment
from headrace.core.errors import Fatal, Retriable
from headrace.core.lanes import LANE, SEQUENCE
from headrace.local.processes import pick_port

_READY_SECONDS, _SETTLED_SECONDS = 180.0, 300.0
_QUIET_SECONDS = 2.0
_AT_ONCE = 10_000
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_EVENTS = "analytics_events"


@dataclass(slots=True)
class Server:
    """A running server.

    Attributes:
        host: Address.
        port: Its port.
        key: A write key.
        process: Its process; others may be below it.
        servers: Kafka's addresses.
        topic: Where its events go.
        log: Folder of its log; None for one without.
        begun: Number of the next event that is made for it.
        logged: Events of its log that are accounted for.
        read: Offset of the topic from which on nothing is accounted for, by partition.
        numbers: Entries of its log that were found in the topic.
    """

    host: str
    port: int
    key: str
    process: psutil.Process
    servers: str
    topic: str
    log: Path | None
    begun: int
    logged: int = 0
    read: dict[int, int] = field(default_factory=dict)
    numbers: set[bytes] = field(default_factory=set)

    def cpu_seconds(self) -> float:
        """Return the core seconds that all its processes have used, in user mode and in the system."""
        times = [one.cpu_times() for one in (self.process, *self.process.children(recursive=True))]
        return float(sum(one.user + one.system for one in times))

    def memory_bytes(self) -> int:
        """Return the resident memory of all its processes."""
        processes = (self.process, *self.process.children(recursive=True))
        return int(sum(one.memory_info().rss for one in processes))

    def settled(self, acknowledged: int) -> tuple[str, ...]:
        """Wait until the topic has what was acknowledged, and say what does not reconcile.

        Args:
            acknowledged: Events that the server has acknowledged since the last call.

        Returns:
            Differences, a line each. An entry of the log that came to the topic twice, as after an error of the
            broker's, counts once: the lake knows its number. The peer has no numbers, so only what is lost is told.
        """
        wrong = []
        if self.log is not None:
            logged, self.logged = -self.logged, _logged(self.log)
            logged += self.logged
            if logged != acknowledged:
                wrong.append(f"{acknowledged:,} events acknowledged, {logged:,} in the log")
        sent = self._arrived(acknowledged)
        if sent < acknowledged or (sent > acknowledged and self.log is not None):
            wrong.append(f"{acknowledged:,} events acknowledged, {sent:,} in the topic")
        return tuple(wrong)

    def _arrived(self, events: int) -> int:
        """Count the events that have come to the topic, until there are so many and no more come."""
        count, until = 0, time.monotonic() + _SETTLED_SECONDS
        identity = identity_in(self.log) if self.log is not None else None
        with _consumer(self.servers) as consumer:
            consumer.assign([TopicPartition(self.topic, number, at) for number, at in self.read.items()])
            while time.monotonic() < until:
                found = consumer.consume(_AT_ONCE, _QUIET_SECONDS)
                count += sum(self._counted(message, identity) for message in found)
                if not found and count >= events:
                    break
        return count

    def _counted(self, message: Message, identity: Identity | None) -> int:
        """Return how many events of a message are new."""
        partition, offset = message.partition() or 0, message.offset() or 0
        if message.error() is not None or offset < self.read[partition]:
            return 0
        self.read[partition] = offset + 1
        if identity is not None:
            said = dict(message.headers() or [])
            number = said.get(SEQUENCE, b"").partition(b"-")[2]
            if not said.get(LANE, b"").startswith(identity.log.encode()) or number in self.numbers:
                return 0  # another log's, or sent again
            self.numbers.add(number)
        value = message.value() or b""
        return len(_ARRAY.decode(value)) if value.startswith(b"[") else 1


@contextmanager
def headrace(settings: Settings, workers: int = 1) -> Iterator[Server]:
    """Run ``headrace collect`` with a log of its own, which is deleted afterwards."""
    home = settings.home / "bench" / f"collector_{uuid4().hex[:8]}"
    key = Keys(home / "collector" / "keys.json").create("bench")
    # nothing is ingested here, so the log has to hold all of it
    environment = {
        "HEADRACE_HOME": str(home),
        "HEADRACE_COLLECTOR_LOG_BYTES": str(64 << 30),
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
    }
    command = ["-m", "headrace.cli", "collect", "--workers", str(workers)]
    with _running(settings, home, command, environment, key, _EVENTS, home / "collector" / "log") as server:
        yield server


@contextmanager
def fastapi(settings: Settings, topic: str) -> Iterator[Server]:
    """Run the peer."""
    from headrace.bench.peers.with_fastapi import KEY

    home = settings.home / "bench" / f"fastapi_{uuid4().hex[:8]}"
    command = ["-m", "headrace.bench.peers.with_fastapi", settings.kafka_bootstrap_servers, topic]
    with _running(settings, home, command, {}, KEY, topic, None) as server:
        yield server


@contextmanager
def _running(
    settings: Settings,
    home: Path,
    command: list[str],
    environment: Mapping[str, str],
    key: str,
    topic: str,
    log: Path | None,
) -> Iterator[Server]:
    home.mkdir(parents=True, exist_ok=True)
    port, said = pick_port(None), home / "server.log"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port)],
            env={**child_environment(), **environment},
            stdout=file,
            stderr=file,
        )
    try:
        _await_ready(process, port, said)
        found = Server(
            "127.0.0.1",
            port,
            key,
            psutil.Process(process.pid),
            settings.kafka_bootstrap_servers,
            topic,
            log,
            time.time_ns() // 1_000,  # nobody else's events have these numbers
        )
        with _consumer(found.servers) as consumer:
            found.read.update(_ends(consumer, topic))
        yield found
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _await_ready(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Fatal(f"the server ended with {process.returncode}: {said.read_text()[-500:].strip()}")
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.1)
    raise Retriable(
        f"the server was not ready within {_READY_SECONDS:g} s: {said.read_text()[-500:].strip()}"
    )


@contextmanager
def _consumer(servers: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"bench-{uuid4().hex[:8]}", "enable.auto.commit": False}
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _ends(consumer: Consumer, topic: str) -> dict[int, int]:
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    found = {}
    for number in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)
        found[number] = int(end)
    return found


def _logged(folder: Path) -> int:
    """Count the events of a log by its files: its owner runs."""
    count = 0
    for _, path in segments_in(folder):
        data = path.read_bytes()
        entries, _ = entries_at(data, 0, len(data) + 1)
        count += sum(len(entry.ids) for _, entry in entries) // ID_BYTES
    return count
