"""Speak HTTP/1.1 with clients: llhttp parses, uvloop reads and writes, and no task is made for a request.

A request is handed to the service as a whole, and its answer is written when the service has one. So thousands of
requests may wait for one sync of the log, and each costs no more than a few objects.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol, cast
from urllib.parse import unquote

import httptools

from headrace.collector.base import Refused
from headrace.collector.http import Request, Response, refusal, too_long
from headrace.core.errors import Fatal

#: Connections that wait to be taken.
BACKLOG = 2_048
#: Seconds between two looks at who is too slow.
_LOOK_SECONDS = 1.0
#: Seconds for which a connection that is given up still reads, so that its client gets the answer first.
_LEAVING_SECONDS = 2.0
#: Seconds for which an answer may wait for its client to read it.
_UNREAD_SECONDS = 60.0
#: Seconds that the end waits for answers that are under way.
_STOP_SECONDS = 30.0
#: Requests of one connection that may wait for the one before them.
_MOST_PENDING = 16
_NO_BODY = (204, 304)


def no_address(host: str, port: int, error: OSError) -> Fatal:
    """Return the error of an address that cannot be had."""
    why = (error.strerror or str(error)).rpartition(": ")[2].lower()  # asyncio says the address before it
    return Fatal(
        f"the collector cannot listen on {host}:{port}: {why}; choose another --host or --port"
        " (HEADRACE_COLLECTOR_HOST, HEADRACE_COLLECTOR_PORT)"
    )


class Answers(Protocol):
    """Answers requests; see ``Service``."""

    def handle(self, request: Request, reply: Callable[[Response], None], /) -> None:
        """Answer a request, now or later, by one call of ``reply`` in this loop."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may hold and how long it may take.

    Attributes:
        body: Most bytes of a body.
        body_seconds: Seconds within which a whole body is to come. Who is slower keeps a connection for nothing.
        head: Most bytes of a request's line and headers.
        head_seconds: Seconds for them.
        idle_seconds: Seconds without a request after which a connection is closed.
        connections: Most of them at a time; those beyond are closed at once.
    """

    body: int = 4 << 20
    body_seconds: float = 30.0
    head: int = 65_536
    head_seconds: float = 30.0
    idle_seconds: float = 120.0
    connections: int = 16_384


class Wire:
    """All connections of a server. For one loop.

    Attributes:
        service: Answers the requests.
        bounds: What a connection may hold.
        open: The connections.
        ports: The ports that it listens on.
        now: Seconds of the loop's clock, a second old at most.
        date: Header ``date`` of answers, with its end of line.
        stopping: Whether a connection is to end with its present request.
    """

    def __init__(self, service: Answers, bounds: Bounds) -> None:
        """Serve nothing yet."""
        self.service, self.bounds = service, bounds
        self.open: set[Connection] = set()
        self.ports: list[int] = []
        self.stopping = False
        self._stop = asyncio.Event()
        self.now, self.date = 0.0, b""

    def stop(self) -> None:
        """End ``serve`` once what is under way has been answered."""
        self._stop.set()

    async def serve(self, host: str, port: int, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop``.

        Args:
            host: Address to listen on.
            port: Port to listen on.
            ready: Called once it listens.

        Raises:
            Fatal: The address cannot be had.
        """
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self), host, port, backlog=BACKLOG
            )
        except OSError as error:
            raise no_address(host, port, error) from error
        await self._serve([server], ready)

    async def serve_on(self, sockets: Sequence[socket.socket], ready: Callable[[], None]) -> None:
        """Serve on sockets that listen already, until ``stop``; see ``serve``."""
        made = asyncio.get_running_loop().create_server
        await self._serve([await made(lambda: Connection(self), sock=one) for one in sockets], ready)

    async def _serve(self, servers: Sequence[asyncio.Server], ready: Callable[[], None]) -> None:
        self._look()
        self.ports = [one.getsockname()[1] for server in servers for one in server.sockets]
        ready()
        await self._stop.wait()
        for server in servers:
            server.close()
        self.stopping = True
        for one in list(self.open):
            one.leave_if_idle()
        until = asyncio.get_running_loop().time() + _STOP_SECONDS
        while self.open and self.now < until:
            await asyncio.sleep(0.02)
            self.now = asyncio.get_running_loop().time()
        for one in list(self.open):
            one.abort()

    def _look(self) -> None:
        """Give up who is too slow, and look again in a moment."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        for one in list(self.open):
            one.look()
        loop.call_later(_LOOK_SECONDS, self._look)


class Connection(asyncio.Protocol):
    """One connection: parses requests, and writes answers in their order."""

    __slots__ = (
        "_address", "_blocked", "_body", "_busy", "_ends", "_head", "_headers", "_keep", "_leaving", "_method",
        "_parser", "_pending", "_refused", "_since", "_size", "_stage", "_transport", "_turning", "_url", "_wire",
    )  # fmt: skip

    #: Between requests, in a head, in a body.
    IDLE, HEAD, BODY = 0, 1, 2

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[tuple[Request, bool]] = deque()
        self._refused: Refused | None = None  # the answer to what is left, after which the connection ends
        self._busy = self._turning = self._leaving = self._ends = False
        self._blocked = 0.0  # since when the client does not read
        self._stage, self._since = self.IDLE, wire.now
        self._keep, self._method, self._url = True, "", b""
        self._head, self._size = 0, 0
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        if len(self._wire.open) >= self._wire.bounds.connections:
            self.abort()
        else:
            self._wire.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection; what it sent is committed all the same."""
        self._wire.open.discard(self)
        self._leaving = True
        self._pending.clear()

    def eof_received(self) -> bool:
        """Answer what is under way, then close."""
        self._ends = True
        return self._busy or bool(self._pending)

    def pause_writing(self) -> None:
        """Wait until the client has read its answers."""
        self._blocked = self._wire.now or 1.0

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = 0.0
        self._turn()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and answer the requests that are whole."""
        if self._leaving or self._refused is not None:
            return  # nothing behind an error can be trusted
        try:
            self._parser.feed_data(data)
        except (
            httptools.HttpParserUpgrade
        ):  # to what nobody speaks here: the request is answered, then it ends
            self._ends = True
        except httptools.HttpParserError as error:
            if self._refused is None:
                self._refused = Refused(400, f"this is no HTTP/1.1: {str(error)[:100]}; nothing was taken")
        self._turn()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._headers, self._body, self._url = {}, [], b""
        self._head = self._size = 0
        self._stage, self._since = self.HEAD, self._wire.now

    def on_url(self, url: bytes) -> None:
        """Take a part of its target."""
        self._url += url
        self._weigh(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; several of a name are one list."""
        self._weigh(len(name) + len(value))
        named, said = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(named)
        self._headers[named] = said if before is None else f"{before}, {said}"

    def _weigh(self, size: int) -> None:
        self._head += size
        if self._head > self._wire.bounds.head and self._refused is None:
            self._refused = Refused(431, f"the headers are longer than {self._wire.bounds.head:,} bytes")

    def on_headers_complete(self) -> None:
        """Refuse a body that will be too long, before it comes."""
        self._stage, self._since = self.BODY, self._wire.now
        said = self._headers.get("content-length")
        if said is not None and said.isdigit() and int(said) > self._wire.bounds.body:
            self._refused = self._refused or too_long(self._wire.bounds.body)
        elif (expected := self._headers.get("expect")) is not None and expected.lower() == "100-continue":
            self._go_on()

    def _go_on(self) -> None:
        """Tell a client that asks that its body may come, unless other answers are to come first."""
        if not self._busy and not self._pending and self._refused is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._size += len(part)
        if self._size > self._wire.bounds.body:
            self._refused = self._refused or too_long(self._wire.bounds.body)
            self._body = []
        elif self._refused is None:
            self._body.append(part)

    def on_message_complete(self) -> None:
        """Put the request at the end of those that wait."""
        self._stage, self._since = self.IDLE, self._wire.now
        if self._refused is not None:
            return
        parser, body = self._parser, self._body
        path, query = _target(self._url)
        request = Request(
            parser.get_method().decode(),
            path,
            query,
            self._headers,
            body[0] if len(body) == 1 else b"".join(body),
            self._address,
        )
        self._body = []
        self._pending.append((request, parser.should_keep_alive()))

    def _turn(self) -> None:
        """Hand over the next requests, one after the other; whatever is wrong is said after them."""
        if self._turning:
            return
        self._turning = True
        try:
            while self._pending and not (self._busy or self._blocked or self._leaving):
                request, self._keep = self._pending.popleft()
                self._busy, self._method = True, request.method
                self._wire.service.handle(request, self._reply)
        finally:
            self._turning = False
        if self._leaving or self._busy:
            if len(self._pending) >= _MOST_PENDING:
                self._transport.pause_reading()
            return
        if self._refused is not None and not self._pending:
            self._keep, self._busy, self._method = False, True, "POST"
            self._reply(refusal(self._refused))
        elif (self._ends or self._wire.stopping) and not self._pending and self._stage == self.IDLE:
            self._transport.close()
        elif not self._transport.is_reading() and not self._leaving:
            self._transport.resume_reading()

    def _reply(self, response: Response) -> None:
        """Write an answer, and go on with what waits."""
        if not self._busy:
            return  # given up meanwhile
        self._busy, self._since = False, self._wire.now
        if self._transport.is_closing():
            return
        keep = self._keep and not self._ends and not self._wire.stopping
        self._transport.write(_encoded(response, self._wire.date, keep, self._method == "HEAD"))
        if keep:
            self._turn()
        else:
            self._leave()

    def _leave(self) -> None:
        """End, but read on for a moment: who closes with something unread takes the answer back."""
        self._leaving, self._since = True, self._wire.now
        self._pending.clear()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    def leave_if_idle(self) -> None:
        """End a connection that has nothing under way."""
        if self._stage == self.IDLE and not self._busy and not self._pending:
            self._transport.close()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def look(self) -> None:
        """Give up a client that is too slow."""
        waited, bounds = self._wire.now - self._since, self._wire.bounds
        if self._leaving:
            if waited > _LEAVING_SECONDS:
                self.abort()
        elif self._blocked:
            if self._wire.now - self._blocked > _UNREAD_SECONDS:
                self.abort()
        elif self._busy or self._refused is not None:
            return
        elif self._stage == self.IDLE:
            if waited > bounds.idle_seconds:
                self._transport.close()
        elif waited > (seconds := bounds.body_seconds if self._stage == self.BODY else bounds.head_seconds):
            part = "body" if self._stage == self.BODY else "head"
            why = f"the {part} did not come within {seconds:g} s; send it again, or less at a time"
            self._refused = Refused(408, why, 1)
            self._turn()


def _target(url: bytes) -> tuple[str, str]:
    """Return path and query of a request's target."""
    if not url.startswith(b"/"):  # with the server's name, as to a proxy
        try:
            parsed = httptools.parse_url(url)
            url = (parsed.path or b"/") + (b"?" + parsed.query if parsed.query else b"")
        except httptools.HttpParserInvalidURLError:
            pass
    path, _, query = url.partition(b"?")
    said = path.decode("utf-8", "replace")
    return unquote(said) if "%" in said else said, query.partition(b"#")[0].decode("utf-8", "replace")


def _encoded(response: Response, date: bytes, keep: bool, head_only: bool) -> bytes:
    """Return the bytes of an answer."""
    status = response.status
    head = _BEGINNINGS.get((status, response.content_type))
    if head is None:
        head = _BEGINNINGS[status, response.content_type] = _beginning(status, response.content_type)
    more = b"" if keep else b"connection: close\r\n"
    if response.headers:
        said = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        more += said.encode("latin-1", "replace")
    if status in _NO_BODY:
        return b"%b%b%b\r\n" % (head, date, more)
    body = b"" if head_only else response.body
    return b"%b%b%bcontent-length: %d\r\n\r\n%b" % (head, date, more, len(response.body), body)


#: Beginnings of answers by status and media type.
_BEGINNINGS: dict[tuple[int, str], bytes] = {}


def _beginning(status: int, content_type: str) -> bytes:
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    return (line + (f"content-type: {content_type}\r\n" if content_type else "")).encode()
