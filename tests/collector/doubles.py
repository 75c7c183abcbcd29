"""Log and index in memory, with faults, and requests without a network."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from headrace.collector import description
from headrace.collector.about import Client
from headrace.collector.access import Access, Policy
from headrace.collector.commit import Committer
from headrace.collector.door import Door
from headrace.collector.http import Request, Response
from headrace.collector.ids import Looked
from headrace.collector.keys import Keys
from headrace.collector.log import Entry
from headrace.collector.meters import Meters
from headrace.collector.prepare import Target, targets
from headrace.collector.receipts import Progress
from headrace.collector.routes.operation import Here, Operation
from headrace.collector.service import Service, Sizes
from headrace.contracts import EVENTS, METRICS, Limits


@dataclass
class MemoryLog:
    """A log that keeps entries in a list and can be made to fail."""

    entries: list[Entry] = field(default_factory=list)
    appends: list[int] = field(default_factory=list)
    fails: Exception | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    bytes: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    def append(self, entries: Sequence[Entry], /) -> range:
        self.gate.wait()
        if self.fails is not None:
            raise self.fails
        first = len(self.entries)
        self.entries += entries
        self.appends.append(len(entries))
        return range(first, len(self.entries))


@dataclass
class MemoryIndex:
    """An index in a dictionary that can be made to fail."""

    known: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    fails: Exception | None = None

    def look(self, digests: bytes, /) -> Looked:
        number, within, other = [], [], []
        first: dict[bytes, tuple[int, bytes]] = {}
        for place, at in enumerate(range(0, len(digests), 24)):
            key, body = digests[at : at + 16], digests[at + 16 : at + 24]
            earlier, first_body = first.setdefault(key, (place, body))
            found = self.known.get(key)
            number.append(-1 if found is None else found[0])
            within.append(-1 if earlier == place else earlier)
            other.append((found[1] if found else first_body) != body)
        return Looked(np.array(number, np.int64), np.array(within, np.int64), np.array(other, np.bool_))

    def add(self, entries: Iterable[tuple[int, bytes]], /) -> None:
        if self.fails is not None:
            raise self.fails
        for number, ids in entries:
            for at in range(0, len(ids), 24):
                self.known[ids[at : at + 16]] = (number, ids[at + 16 : at + 24])


@dataclass
class Known:
    """Streams that do not change."""

    targets: Mapping[str, Target]
    missing: frozenset[str] = frozenset()


STREAMS = targets({"events": (EVENTS, Limits()), "metrics": (METRICS, Limits())})


@dataclass
class Room:
    """A collector without a server.

    Attributes:
        secret: A key for everything.
    """

    log: MemoryLog
    index: MemoryIndex
    door: Door
    service: Service
    keys: Keys
    secret: str
    meters: Meters
    loop: asyncio.AbstractEventLoop

    def send(
        self,
        path: str,
        body: bytes | object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        query: str = "",
        key: str | None = "",
        address: str = "192.0.2.77",
    ) -> Response:
        """Send a request; an object is sent as JSON, and ``key=None`` sends no key."""
        request = self.request(path, body, headers, method=method, query=query, key=key, address=address)
        return self.answers([request])[0]

    def answers(self, requests: Sequence[Request]) -> list[Response]:
        """Send requests beside each other."""

        async def all_of_them() -> list[Response]:
            return list(await asyncio.gather(*map(self.service.answer, requests)))

        return self.loop.run_until_complete(all_of_them())

    def request(
        self,
        path: str,
        body: bytes | object = b"",
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "POST",
        query: str = "",
        key: str | None = "",
        address: str = "192.0.2.77",
    ) -> Request:
        """A request as ``send`` sends it."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = {"content-type": "application/json"} if body != b"" else {}
        if key is not None:
            given["authorization"] = f"Bearer {key or self.secret}"
        return Request(method, path, query, {**given, **(headers or {})}, data, address)

    def said(self, path: str, body: bytes | object = b"", **named: object) -> dict[str, object]:
        """Send a request that must be taken, and return its answer."""
        response = self.send(path, body, **named)  # type: ignore[arg-type]
        assert response.status in (200, 202, 207), response.body
        found: dict[str, object] = msgspec.json.decode(response.body)
        return found

    @property
    def records(self) -> list[dict[str, object]]:
        """All records in the log, in order."""
        found: list[dict[str, object]] = []
        for entry in self.log.entries:
            value = msgspec.json.decode(entry.payload)
            found += value if isinstance(value, list) else [value]
        return found


@contextmanager
def room(
    folder: Path,
    *,
    policy: Policy | None = None,
    sizes: Sizes | None = None,
    client: Client | None = None,
    progress: Progress | None = None,
    streams: Mapping[str, Target] | None = None,
    group_seconds: float = 0.0,
) -> Iterator[Room]:
    """Open a collector without a server; a small group time makes tests quick."""
    log, index, meters = MemoryLog(), MemoryIndex(), Meters()
    found = STREAMS if streams is None else streams
    committer = Committer(log, index, meters)
    door = Door(committer, found, meters, group_seconds=group_seconds)
    keys = Keys(folder / "keys.json")
    secret = keys.create("all")
    access = Access(keys, policy or Policy())
    here = Here(lambda: meters.counts, dict, lambda: committer.broken, progress)
    document = description.described(found)
    operation = Operation("log", here, access, lambda: document, lambda: description.page(document))
    client = client or Client("drop", False)
    service = Service(door, Known(found), access, client, meters, "log", sizes or Sizes(), operation.pages)
    loop = asyncio.new_event_loop()
    try:
        yield Room(log, index, door, service, keys, secret, meters, loop)
    finally:
        log.gate.set()
        door.close()
        loop.close()


def now() -> datetime:
    return datetime.now(UTC)
