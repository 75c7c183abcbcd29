"""HTTP on the wire: what clients may do with a connection, and what is refused before a route sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from builders import eventually
from headrace.collector.http import Request, Response
from headrace.collector.wire import Bounds, Wire
from headrace.core.errors import Fatal

BOUNDS = Bounds(body=100, body_seconds=60, head=1_000)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Echo:
    """Answers with what it got; holds back the answers to paths that begin with ``/later``."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.held: list[Callable[[], None]] = []

    def handle(self, request: Request, reply: Callable[[Response], None], /) -> None:
        self.seen.append(request)
        response = Response(
            204 if request.path == "/none" else 200, request.path.encode() + b"|" + request.body
        )
        if request.path.startswith("/later"):
            self.held.append(lambda: reply(response))
        else:
            reply(response)


async def until(happens: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, happens, 60.0, "what is waited for")


async def served(talk: Talk, bounds: Bounds, echo: Echo, wires: list[Wire]) -> None:
    wire = Wire(echo, bounds)
    wires.append(wire)
    serving = asyncio.ensure_future(wire.serve("127.0.0.1", 0, lambda: None))
    await until(lambda: wire.ports)
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.ports[0])
    try:
        await asyncio.wait_for(talk(reader, writer), 60)
    finally:
        writer.close()
        for answer in echo.held:
            answer()
        wire.stop()
        await asyncio.wait_for(serving, 60)


def talked(sent: bytes, bounds: Bounds = BOUNDS) -> tuple[bytes, Echo]:
    """Send bytes, say that no more come, and return all that is answered."""
    echo, told = Echo(), bytearray()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        writer.write_eof()
        told.extend(await reader.read())

    run(talk, bounds, echo)
    return bytes(told), echo


def run(
    talk: Talk, bounds: Bounds = BOUNDS, echo: Echo | None = None, wires: list[Wire] | None = None
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(served(talk, bounds, echo or Echo(), [] if wires is None else wires))


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def statuses(told: bytes) -> list[int]:
    return [int(part[:3]) for part in told.split(b"HTTP/1.1 ")[1:]]


def test_requests_of_a_connection_are_answered_in_their_order() -> None:
    told, echo = talked(post("/a", b"1") + post("/b%20c?x=%31", b"2") + post("/none") + post("/d", b"3"))
    assert statuses(told) == [200, 200, 204, 200]
    assert told.index(b"/a|1") < told.index(b"/b c|2") < told.index(b"/d|3")
    assert [request.query for request in echo.seen] == ["", "x=%31", "", ""]
    assert echo.seen[0].address == "127.0.0.1"


def test_one_that_is_answered_late_holds_those_behind_it() -> None:
    echo = Echo()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(post("/later") + post("/soon"))
        await until(lambda: echo.held)
        assert [request.path for request in echo.seen] == ["/later"]
        echo.held.pop()()
        await reader.readuntil(b"/later|")
        await reader.readuntil(b"/soon|")

    run(talk, echo=echo)


def test_a_body_may_come_in_chunks_and_in_pieces() -> None:
    echo = Echo()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = (
            b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
        )
        for at in range(len(whole)):
            writer.write(whole[at : at + 1])
            await writer.drain()
        await reader.readuntil(b"/c|abc")

    run(talk, echo=echo)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post("/a", b"x" * 101), 413),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413),
        (post("/a", b"", "x-long: " + "y" * 1_000), 431),
        (b"NONSENSE\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
    ],
)
def test_what_cannot_be_taken_is_refused_and_ends_the_connection(sent: bytes, status: int) -> None:
    told, echo = talked(post("/before", b"1") + sent + post("/behind"))
    assert statuses(told) == [200, status], "those before are answered, nothing behind is trusted"
    assert b"connection: close" in told
    assert [request.path for request in echo.seen] == ["/before"]


def test_a_body_at_the_limit_is_taken() -> None:
    assert statuses(talked(post("/a", b"x" * 100))[0]) == [200]


def test_head_has_no_body_and_an_old_client_is_closed() -> None:
    told, _ = talked(b"HEAD /h HTTP/1.1\r\nhost: x\r\n\r\n")
    assert told.endswith(b"content-length: 3\r\n\r\n")
    told, _ = talked(b"GET /h HTTP/1.0\r\n\r\n")
    assert b"connection: close" in told


def test_a_client_that_asks_is_told_to_go_on() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = post("/a", b"1", "expect: 100-continue")
        writer.write(whole[:-1])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(whole[-1:])
        await reader.readuntil(b"/a|1")

    run(talk)


def test_several_headers_of_a_name_are_one_list() -> None:
    _, echo = talked(post("/a", b"", "X-Forwarded-For: 1", "x-forwarded-for: 2"))
    assert echo.seen[0].headers.get("x-forwarded-for") == "1, 2"


def test_who_is_silent_is_closed() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""

    run(talk, replace(BOUNDS, idle_seconds=0.0))


def test_an_end_answers_what_is_under_way() -> None:
    echo, wires = Echo(), list[Wire]()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(post("/later"))
        await until(lambda: echo.held)
        wires[0].stop()
        await until(lambda: wires[0].stopping)
        echo.held.pop()()
        assert b"/later|" in await reader.read()

    run(talk, echo=echo, wires=wires)


def test_an_address_that_is_taken_is_named() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        with pytest.raises(Fatal, match=f"127.0.0.1:{port}"):
            await Wire(Echo(), BOUNDS).serve("127.0.0.1", port)

    run(talk)
