"""Producers that go on while everything else fails, and keep what the broker acknowledged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from chaos.judge import Message, Records
from headrace.local.queue import sqs_client

PARTITIONS = 2
DAYS = 5
_CHUNK = 50
#: Seconds between chunks until ``Sender.enough``, and after it.
_QUICK, _TRICKLE = 0.04, 0.4
_READS_WITHIN = 30.0
_ANSWERS_WITHIN = 25.0

GOOD, BAD, BOTH = Records(1, 0), Records(0, 1), Records(1, 1)


def message(n: int, *, tombstones: bool) -> tuple[bytes | None, Records]:
    """The n-th message: every tenth is malformed, every tenth an array with one bad record, over five days."""
    good = {
        "event_id": f"e-{n}",
        "event_type": "page_view",
        "occurred_at": f"2025-03-0{1 + n % DAYS}T03:04:05.{n % 1_000_000:06d}Z",
        "session_id": f"s-{n % 7}",
        "channel": "web",
    }
    if n % 10 == 7:
        return (None, BAD) if tombstones and n % 50 == 7 else (b"not JSON %d" % n, BAD)
    if n % 10 == 4:
        return json.dumps([good, {**good, "event_id": f"b-{n}", "channel": "fax"}]).encode(), BOTH
    return json.dumps(good).encode(), GOOD


class Port(Protocol):
    """One connection to a broker, for one thread.

    Attributes:
        objections: What it was answered and must never be.
    """

    objections: Sequence[str]

    def send(self, payloads: list[tuple[bytes | None, Records]]) -> dict[Message, Records]:
        """Send all; returns those that were acknowledged. What was not may have arrived or not."""

    def close(self) -> None:
        """Release the connection."""


class KafkaPort:
    """Sends round the partitions of a topic."""

    objections: Sequence[str] = ()

    def __init__(self, servers: str, topic: str) -> None:
        self._topic, self._sent = topic, 0
        self._client = KafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            linger_ms=5,
            bootstrap_timeout_ms=10_000,
            request_timeout_ms=10_000,
            delivery_timeout_ms=20_000,
            max_block_ms=5_000,
            reconnect_backoff_max_ms=500,
            metrics_enabled=False,
        )

    def send(self, payloads: list[tuple[bytes | None, Records]]) -> dict[Message, Records]:
        waiting = []
        for payload, records in payloads:
            self._sent += 1
            try:
                partition = self._sent % PARTITIONS
                waiting.append(
                    (self._client.send(self._topic, payload, key=b"k", partition=partition), records)
                )
            except KafkaError:
                continue
        acknowledged: dict[Message, Records] = {}
        deadline = time.monotonic() + _ANSWERS_WITHIN
        for future, records in waiting:
            try:
                answer = future.get(timeout=max(0.0, deadline - time.monotonic()))
                if answer.offset >= 0:  # -1: the broker had it already, from an attempt before
                    acknowledged[(str(answer.partition), answer.offset)] = records
            except KafkaError:
                continue
        return acknowledged

    def close(self) -> None:
        self._client.close(timeout=1)


class SqsPort:
    """Sends to a queue in parallel batches of ten."""

    objections: Sequence[str] = ()

    def __init__(self, endpoint: str, queue: str) -> None:
        self._queue, self._client = queue, sqs_client(endpoint)
        self._url = self._client.get_queue_url(QueueName=queue)["QueueUrl"]
        self._pool = ThreadPoolExecutor(2)

    def send(self, payloads: list[tuple[bytes | None, Records]]) -> dict[Message, Records]:
        acknowledged: dict[Message, Records] = {}
        tens = [payloads[at : at + 10] for at in range(0, len(payloads), 10)]
        for part in self._pool.map(self._send, tens):
            acknowledged |= part
        return acknowledged

    def _send(self, part: list[tuple[bytes | None, Records]]) -> dict[Message, Records]:
        entries = [{"Id": str(n), "MessageBody": (body or b"-").decode()} for n, (body, _) in enumerate(part)]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
        except Exception:  # whatever it was, nothing was acknowledged
            return {}
        return {(self._queue, a["MessageId"]): part[int(a["Id"])][1] for a in answer.get("Successful", ())}

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()


class Sender(threading.Thread):
    """Sends until ``finish``: at least ``count`` messages quickly, then a trickle. May be paused."""

    def __init__(self, port: Port, count: int, *, tombstones: bool) -> None:
        super().__init__(daemon=True, name="producer")
        self.port, self._count, self._tombstones = port, count, tombstones
        self._finish, self._go = threading.Event(), threading.Event()
        self._idle = threading.Event()
        self._go.set()
        self.acknowledged: dict[Message, Records] = {}
        self.attempted = 0
        self.extra: list[tuple[bytes | None, Records]] = []  # sent with the next chunk
        self.failure: Exception | None = None

    @property
    def objections(self) -> Sequence[str]:
        """What it was answered and must never be."""
        return self.port.objections

    @property
    def enough(self) -> bool:
        """Whether ``count`` messages are acknowledged."""
        return len(self.acknowledged) >= self._count

    def run(self) -> None:
        try:
            self._send_all()
        except Exception as error:
            self.failure = error
        finally:
            self._idle.set()
            self.port.close()

    def _send_all(self) -> None:
        while not (self._finish.is_set() and self.enough and not self.extra):
            if not self._go.is_set():
                self._idle.set()
                self._go.wait()
                self._idle.clear()
                continue
            began = time.monotonic()
            numbers = range(self.attempted, self.attempted + _CHUNK)
            chunk = [*(message(n, tombstones=self._tombstones) for n in numbers), *self.extra]
            self.extra = []
            self.attempted += _CHUNK
            self.acknowledged |= self.port.send(chunk)
            pause = _TRICKLE if self.enough else _QUICK
            self._finish.wait(
                max(0.0, pause - (time.monotonic() - began)) if not self._finish.is_set() else 0
            )

    def pause(self) -> None:
        """Returns when nothing is under way."""
        self._go.clear()
        self._idle.wait(60)

    def resume(self) -> None:
        self._go.set()

    def finish(self, *, now: bool = False) -> None:
        """Send up to ``count`` (``now``: no more) and end; everything sent is answered afterwards."""
        if now:
            self._count = 0
        self._finish.set()
        self._go.set()
        self.join(90)


def held(servers: str, topic: str, acknowledged: dict[Message, Records]) -> int:
    """End minus begin offsets over all partitions, by reading the topic from its beginning to its end.

    Reading, because some brokers' ListOffsets names the last batch's first offset as the end. The end is past the
    last acknowledged offset, or this raises.
    """
    consumer = KafkaConsumer(bootstrap_servers=servers, bootstrap_timeout_ms=10_000, metrics_enabled=False)
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        begin = consumer.beginning_offsets(partitions)
        for at in partitions:
            consumer.seek(at, begin[at])
        needed = {at: _end(acknowledged, str(at.partition)) for at in partitions}
        deadline = time.monotonic() + _READS_WITHIN
        while consumer.poll(300) or any(consumer.position(at) < needed[at] for at in partitions):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} cannot be read up to {needed}")
        return sum(consumer.position(at) - begin[at] for at in partitions)
    finally:
        consumer.close()


def _end(acknowledged: dict[Message, Records], partition: str) -> int:
    return max((int(offset) + 1 for at, offset in acknowledged if at == partition), default=0)


def waiting(endpoint: str, queue: str) -> int:
    """Messages that a queue holds, in flight or not."""
    client: Any = sqs_client(endpoint)
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    try:
        url = client.get_queue_url(QueueName=queue)["QueueUrl"]
        answer = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(answer[name]) for name in names)
    finally:
        client.close()
