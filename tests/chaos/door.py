"""A collector's door from outside: where it is, and clients who send until they are answered, some more than once."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos.faults import free_port
from chaos.judge import Message, Records
from chaos.rows import DOOR
from headrace.collector.keys import Keys

#: Seconds for which a client tries, and between two attempts.
_TRIES_FOR, _PAUSE = 60.0, 0.05
_CLIENTS = 4
_TOGETHER = 5
Payloads = list[tuple[bytes | None, Records]]


class Door:
    """Where a cell's collector is.

    Attributes:
        home: Its home folder; may be moved before it is started first.
        port: Its port, the same after a restart.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self._key = ""

    @property
    def url(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """A write key, made when it is asked for first."""
        if not self._key:
            self._key = Keys(self.home / "collector" / "keys.json").create("chaos")
        return self._key

    def waiting(self) -> int:
        """Entries that the lake does not have yet, as far as the collector knows; -1 if it does not answer."""
        said = self._get("/metrics")
        name = "headrace_collector_waiting_entries "
        return next(
            (int(float(line[len(name) :])) for line in said.splitlines() if line.startswith(name)), -1
        )

    def in_topic(self, receipt: str) -> bool:
        """Whether the broker has what a receipt is for."""
        said = self._get(f"/v1/receipts/{receipt}")
        return bool(said and json.loads(said)["topic"])

    def _get(self, path: str) -> str:
        """What a page says; empty if nobody answers."""
        client = http.client.HTTPConnection(self.url, timeout=10)
        try:
            client.request("GET", path, headers={"authorization": f"Bearer {self.key}"})
            return client.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            client.close()


class HttpPort:
    """Sends events one by one and in arrays, until each is acknowledged; every fifth request two or three times.

    Attributes:
        objections: What it was answered and must never be.
        refused: How often it was told to come again.
        receipt: The last receipt.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url, self._sent = url, 0
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.objections: list[str] = []
        self.refused = 0
        self.receipt = ""
        self._taken: Counter[str] = Counter()  # how often an event was told to be new
        self._lock = threading.Lock()
        self._here = threading.local()
        self._pool = ThreadPoolExecutor(_CLIENTS)

    def send(self, payloads: Payloads) -> dict[Message, Records]:
        """Send all, copies beside each other; returns the events that were acknowledged."""
        bodies = [body for request in _requests(payloads) for body in self._copies(request)]
        return {message: records for part in self._pool.map(self._send, bodies) for message, records in part}

    def _copies(self, body: bytes) -> list[bytes]:
        self._sent += 1
        return [body] * (1 if self._sent % 5 else 3 if self._sent % 10 else 2)

    def _send(self, body: bytes) -> list[tuple[Message, Records]]:
        deadline, never = time.monotonic() + _TRIES_FOR, threading.Event()
        while time.monotonic() < deadline:
            try:
                status, answer = self._post(body)
            except (OSError, http.client.HTTPException):
                self._here.client = None
                never.wait(_PAUSE)
                continue
            if status in (429, 503):
                self.refused += 1
                never.wait(_PAUSE)
                continue
            return self._heard(body, status, answer)
        return []

    def _post(self, body: bytes) -> tuple[int, bytes]:
        client = getattr(self._here, "client", None)
        if client is None:
            client = self._here.client = http.client.HTTPConnection(self._url, timeout=_TRIES_FOR)
        client.request("POST", "/v1/analytics", body, self._headers)
        answer = client.getresponse()
        return answer.status, answer.read()

    def _heard(self, body: bytes, status: int, answer: bytes) -> list[tuple[Message, Records]]:
        if not body.startswith((b"{", b"[")):
            self._object(status == 400, f"what is no JSON was answered with {status}")
            return []
        self._object(status == 202, f"{status}: {answer[:200]!r}")
        if status != 202:
            return []
        said = json.loads(answer)
        self.receipt = said["receipt"]
        events = json.loads(body)
        events = events if isinstance(events, list) else [events]
        acknowledged: list[tuple[Message, Records]] = []
        for event, told in zip(events, said["events"], strict=True):
            good = event["channel"] == "web"
            wanted = ("accepted" if good else "rejected", "repeated")
            self._object(told["status"] in wanted, f"{event['event_id']} was {told['status']}")
            with self._lock:
                self._taken[event["event_id"]] += told["status"] != "repeated"
            self._object(self._taken[event["event_id"]] <= 1, f"{event['event_id']} was taken as new twice")
            acknowledged.append(((DOOR, event["event_id"]), Records(int(good), int(not good))))
        return acknowledged

    def _object(self, holds: bool, what: str) -> None:
        if not holds and what not in self.objections and len(self.objections) < 5:
            self.objections.append(what)

    def close(self) -> None:
        self._pool.shutdown()


def _requests(payloads: Payloads) -> Iterator[bytes]:
    """Every second event comes by itself, the others five in an array; what is no JSON comes by itself."""
    together: list[str] = []
    for n, (payload, _) in enumerate(payloads):
        if payload is None:
            continue
        if n % 2 or not payload.startswith(b"{"):
            yield payload
            continue
        together.append(payload.decode())
        if len(together) == _TOGETHER:
            yield f"[{','.join(together)}]".encode()
            together = []
    if together:
        yield f"[{','.join(together)}]".encode()
