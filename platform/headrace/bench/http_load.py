"""Send requests over HTTP as cheaply as Python can: client and server share the processor, and the server is measured.

Keep-alive connections, one request at a time on each, no pipelining; an answer is read to its end and counts only
by what it says. One epoll loop over plain sockets: 10 to 15 microseconds of processor time per request.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from headrace.core.errors import Fatal, Retriable

_ACCEPTED = re.compile(rb'"accepted": ?(\d+)')
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_PIECE = 65_536
_SILENT_SECONDS = 30.0


@dataclass(slots=True)
class Sent:
    """What was sent, and what the server said.

    Attributes:
        requests: Requests that were answered with a 2xx.
        accepted: Events that the answers say were accepted.
        other: Answers by status, of those that are no 2xx.
        seconds: From the first request to the last answer.
        waits: Seconds from when each request was due to its answer.
    """

    requests: int = 0
    accepted: int = 0
    other: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    waits: array[float] = field(default_factory=lambda: array("d"))

    def wait(self, share: float) -> float:
        """Return the wait that this share of the requests did not exceed, in seconds; 0 without requests."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def request(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST."""
    said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{said}content-length: {len(body)}\r\n\r\n".encode() + body


def send(
    host: str, port: int, requests: Iterator[bytes], *, connections: int, per_second: float = 0.0
) -> Sent:
    """Send requests until there are no more.

    Args:
        host: Address of the server.
        port: Its port.
        requests: Whole requests.
        connections: How many at a time.
        per_second: How many are due per second, whether or not the server keeps up, so a wait also counts what a
            request stood in line; 0 for as many as the connections carry.

    Raises:
        Fatal: The server closes a connection, or answers what cannot be read.
        Retriable: It does not answer.
    """
    return _Sending(host, port, requests, connections, per_second).run()


class _Sending:
    def __init__(
        self, host: str, port: int, requests: Iterator[bytes], connections: int, per_second: float
    ) -> None:
        self._requests, self._per_second = requests, per_second
        self._sockets = [socket.create_connection((host, port)) for _ in range(connections)]
        self._idle = deque(self._sockets)
        self._due: dict[socket.socket, float] = {}
        self._sent = Sent()

    def run(self) -> Sent:
        """Send all, and read every answer."""
        sent = self._sent
        with selectors.DefaultSelector() as selector:
            for one in self._sockets:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(one, selectors.EVENT_READ)
            began = time.perf_counter()
            try:
                due, apart, more = began, 1 / self._per_second if self._per_second else 0.0, True
                while more or self._due:
                    while more and self._idle and (not apart or due <= time.perf_counter()):
                        more = self._begin(due if apart else time.perf_counter())
                        due += apart
                    if not (more or self._due):
                        break
                    patience = max(0.0, due - time.perf_counter()) if apart and self._idle and more else None
                    found = selector.select(_SILENT_SECONDS if patience is None else patience)
                    if not found and patience is None:
                        raise Retriable(
                            f"{len(self._due)} requests were not answered within {_SILENT_SECONDS:g} s"
                        )
                    for key, _ in found:
                        self._answered(key.fileobj)  # type: ignore[arg-type]
            finally:
                for one in self._sockets:
                    one.close()
            sent.seconds = time.perf_counter() - began
        return sent

    def _begin(self, due: float) -> bool:
        data = next(self._requests, None)
        if data is None:
            return False
        to = self._idle.popleft()
        self._due[to] = due
        to.sendall(data)
        return True

    def _answered(self, by: socket.socket) -> None:
        data = by.recv(_PIECE)
        while not (whole := _whole(data)):
            if not (piece := by.recv(_PIECE)):
                raise Fatal(f"the server closed a connection after {data[:200]!r}")
            data += piece
        sent, status = self._sent, int(data[9:12])
        sent.waits.append(time.perf_counter() - self._due.pop(by))
        if 200 <= status < 300:
            sent.requests += 1
            if (told := _ACCEPTED.search(data, whole)) is not None:
                sent.accepted += int(told[1])
        else:
            sent.other[status] = sent.other.get(status, 0) + 1
        self._idle.append(by)


def _whole(data: bytes) -> int:
    """Return where the body of an answer begins; 0 if not all of it is there."""
    end = data.find(b"\r\n\r\n")
    if end >= 0 and data[9:12] == b"304":  # has no body, and says no length
        return end + 4
    length = _LENGTH.search(data, 0, end) if end >= 0 else None
    return end + 4 if length is not None and len(data) >= end + 4 + int(length[1]) else 0
