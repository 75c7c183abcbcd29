"""Log and index in memory, with faults, and requests without a network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import msgspec
import numpy as np

from headrace.collector import description
from headrace.collector.about import Client
from headrace.collector.access import Access, Policy
from headrace.collector.base import Admits, Takes
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
from headrace.collector.workers.gate import Blocked, Gate
from headrace.collector.workers.messages import Commit, Done, NotDone
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
        all_new = set(number) | set(within) == {-1}
        return Looked(
            np.array(number, np.int64), np.array(within, np.int64), np.array(other, np.bool_), all_new
        )

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


class Across:
    """An owner of the log to whom gates speak in messages, as over a socket."""

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._committer, self._loop = committer, loop
        self.parcels = 0

    def gate(self, targets: Mapping[str, Target], blocked: Blocked, meters: Meters) -> Gate:
        """Return a worker's door; its judge is a thread, as in a worker."""

        async def made() -> Gate:
            return Gate(
                lambda message: self._loop.call_soon(self._commit, gate, msgspec.msgpack.encode(message)),
                targets,
                blocked,
                meters.refused,
                ThreadPoolExecutor(1),
                262_144,
            )

        gate = self._loop.run_until_complete(made())
        return gate

    def _commit(self, gate: Gate, message: bytes) -> None:
        self.parcels += 1
        parcel = msgspec.msgpack.decode(message, type=Commit).parcel
        try:
            answer: Done | NotDone = Done(self._committer.commit([parcel])[0])
        except Exception as error:
            refused = self._committer.refusal(error, parcel.size)
            answer = NotDone(refused.status, str(refused), refused.retry_after)
        told = msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Done | NotDone)
        if isinstance(told, Done):
            self._loop.call_soon(gate.done, told)
        else:
            self._loop.call_soon(gate.not_done, told)


class InTurn:
    """Several workers' services; each takes the next request."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = cycle(services)

    async def answer(self, request: Request) -> Response:
        """Let the next one answer."""
        return await next(self._services).answer(request)


@dataclass
class Room:
    """A collector without a server.

    Attributes:
        secret: A key for everything.
    """

    log: MemoryLog
    index: MemoryIndex
    service: Service | InTurn
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
    workers: int = 1,
) -> Iterator[Room]:
    """Open a collector without a server.

    Args:
        folder: For its keys.
        policy: Who may come.
        sizes: What a request may hold.
        client: What is said of clients.
        progress: Says how far entries are.
        streams: The streams.
        workers: With more than one, requests go in turn to so many services, which speak to one committer in messages.
    """
    log, index, meters = MemoryLog(), MemoryIndex(), Meters()
    found = STREAMS if streams is None else streams
    committer = Committer(log, index, meters)
    keys = Keys(folder / "keys.json")
    secret = keys.create("all")
    here = Here(lambda: meters.counts, dict, lambda: committer.broken, progress)
    document = description.described(found)
    client = client or Client("drop", False)
    loop = asyncio.new_event_loop()

    def service(door: Takes, rated: Admits | None = None) -> Service:
        access = Access(keys, policy or Policy(), rated)
        operation = Operation("log", here, access, lambda: document, lambda: description.page(document))
        return Service(door, Known(found), access, client, meters, "log", sizes or Sizes(), operation.pages)

    with ExitStack() as held:
        held.callback(loop.close)
        held.callback(log.gate.set)
        if workers == 1:
            door = Door(committer, found, meters, group_seconds=0.0)
            held.callback(door.close)
            yield Room(log, index, service(door), keys, secret, meters, loop)
            return
        across = Across(committer, loop)
        several = []
        for _ in range(workers):
            blocked = Blocked(time.monotonic)
            several.append(service(across.gate(found, blocked, meters), blocked))
        yield Room(log, index, InTurn(several), keys, secret, meters, loop)
        assert across.parcels or not log.entries


def now() -> datetime:
    return datetime.now(UTC)
