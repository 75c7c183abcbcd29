"""Ask ClickHouse over HTTP: a pool of connections, parameters instead of text, a deadline on everything.

A question that is given up closes its connection, and the server ends the query then
(https://clickhouse.com/docs/interfaces/http).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from headrace.core.errors import BadData, Fatal, Retriable
from headrace.serving.base import Away, NotBuilt, TooMuch

#: Codes: a limit of time, rows or bytes.
_TOO_MUCH = {158, 159, 160, 396}
#: Codes after which a repeated call may succeed: memory, too many queries, shutdown.
_AWAY = {202, 209, 210, 241, 242, 252, 285, 394, 439, 999}
#: Codes of a value that a parameter cannot take.
_BAD_VALUE = {6, 26, 27, 38, 41, 53, 69, 72, 117, 457}
#: Codes of a table, database or column that is not there.
_NOT_BUILT = {47, 60, 81}
_SECONDS_TO_CONNECT = 2.0
#: Seconds that a question may wait for others to end.
_SECONDS_TO_WAIT = 5.0
#: Seconds after its own limit until the server is given up.
_MARGIN = 2.0
_PART_BYTES = 1 << 17


@dataclass(frozen=True, slots=True)
class Server:
    """Where ClickHouse is, and the limits of a question.

    Attributes:
        host, port, secure: Its HTTP interface.
        user, password: Who asks.
        queries: Questions at the same time.
        seconds: Longest time of a question, s.
        stream_seconds: Longest time of one that is streamed, s.
        rows: Longest answer of a question, rows.
    """

    host: str
    port: int
    user: str
    password: str
    secure: bool = False
    queries: int = 8
    seconds: float = 10.0
    stream_seconds: float = 300.0
    rows: int = 1_000_000


class ClickHouse:
    """Reads one ClickHouse server. Make it inside the event loop that uses it.

    Args:
        server: Where it is, and the limits.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.where = f"{server.host}:{server.port}"
        self._url = f"http{'s' if server.secure else ''}://{self.where}/"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, enable_cleanup_closed=False),
            headers={"X-ClickHouse-User": server.user, "X-ClickHouse-Key": server.password},
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        )
        self._turns = asyncio.Semaphore(server.queries)
        # a table that is streamed for minutes takes no turn of a question
        self._streams = asyncio.Semaphore(max(1, server.queries // 2))
        self._limits = {
            "readonly": "2",
            "cancel_http_readonly_queries_on_client_close": "1",
            "max_result_rows": str(server.rows),
            "result_overflow_mode": "throw",
            "date_time_output_format": "iso",
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_denormals": "0",
        }

    async def rows(self, sql: str, parameters: Mapping[str, str] | None = None, /) -> list[dict[str, Any]]:
        """Return the rows of a query by column."""
        found = await self.raw(sql, parameters or {}, "JSONEachRow")
        return msgspec.json.decode(b"[" + b",".join(found.splitlines()) + b"]", type=list[dict[str, Any]])

    async def raw(self, sql: str, parameters: Mapping[str, str], format: str, /) -> bytes:
        """Return a whole answer."""
        async with (
            _turn(self._turns),
            self._answer(sql, parameters, format, self._server.seconds, whole=True) as found,
        ):
            return await found.read()

    @asynccontextmanager
    async def stream(
        self, sql: str, parameters: Mapping[str, str], format: str, /
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream an answer."""
        async with (
            _turn(self._streams),
            self._answer(sql, parameters, format, self._server.stream_seconds, whole=False) as found,
        ):
            yield self._parts(found)

    async def _parts(self, found: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the body in parts; an error midway is written into it, below a mark that the head has announced."""
        mark = b"__exception__\r\n" + found.headers.get("X-ClickHouse-Exception-Tag", "-").encode()
        held = b""
        try:
            async for part in found.content.iter_chunked(_PART_BYTES):
                held += part
                if (at := held.find(mark)) >= 0:
                    said = held[at + len(mark) :] + await found.content.read()
                    raise _refused(self.where, {}, said.decode(errors="replace"))
                cut = max(0, len(held) - len(mark))
                if cut:
                    yield held[:cut]
                    held = held[cut:]
        except TimeoutError as error:
            raise Away(f"ClickHouse at {self.where} did not send the rest in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Away(f"ClickHouse at {self.where} broke off ({error!r:.120})") from error
        yield held

    async def ping(self, seconds: float, /) -> bool:
        """Tell whether the server answers, and takes user and password."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._answer("SELECT 1", {}, "TSV", seconds, whole=True) as found,
            ):
                return (await found.read()).strip() == b"1"
        except (Retriable, Fatal, BadData, TimeoutError):
            return False

    @asynccontextmanager
    async def _answer(
        self, sql: str, parameters: Mapping[str, str], format: str, seconds: float, *, whole: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        given = {
            **self._limits,
            "max_execution_time": f"{seconds:g}",
            "default_format": format,
            **({"wait_end_of_query": "1"} if whole else {"max_result_rows": "0"}),
            **{f"param_{name}": value for name, value in parameters.items()},
        }
        bounds = aiohttp.ClientTimeout(
            total=seconds + _MARGIN, sock_connect=_SECONDS_TO_CONNECT, sock_read=seconds + _MARGIN
        )
        try:
            async with self._session.post(
                self._url, params=given, data=sql.encode(), timeout=bounds
            ) as found:
                if found.status != 200:
                    raise _refused(self.where, found.headers, await found.text(errors="replace"))
                yield found
        except TimeoutError as error:
            raise Away(f"ClickHouse at {self.where} did not answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Away(f"ClickHouse at {self.where} does not answer ({error!r:.120})") from error

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_SECONDS_TO_WAIT):
            await turns.acquire()
    except TimeoutError:
        raise Away("the warehouse is busy with other questions; ask again") from None
    try:
        yield
    finally:
        turns.release()


def _refused(where: str, headers: Mapping[str, str], body: str) -> Exception:
    lines = body.strip().splitlines() or ["it gives no reason"]
    first = lines[0][:500]
    code = headers.get("X-ClickHouse-Exception-Code", "")
    number = int(code) if code.isdigit() else 0
    if number in _TOO_MUCH:
        return TooMuch("the question takes more time or rows than one may; ask for less, or in wider windows")
    if number in _BAD_VALUE:
        return BadData(f"a value of the question is not possible: {first}")
    if number in _AWAY:
        return Away(f"ClickHouse at {where} has no room for the question: {first}")
    if number in _NOT_BUILT:
        return NotBuilt(f"the models of this answer are not built yet; see 'headrace status' ({first[:200]})")
    return Fatal(f"ClickHouse at {where} refused: {first}")
