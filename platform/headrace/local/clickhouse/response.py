"""Stream results to the client: out of the engine through a pipe, compressed, with constant memory.

The engine writes a result as one document only when it writes a file. So a read runs with ``INTO OUTFILE`` on one end
of a pipe of this process. Whatever the result's length or format, memory holds a few pieces of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import IO, Any

from headrace.local.clickhouse.compression import PIECE, Encoder
from headrace.local.clickhouse.engine import Engine, Lease
from headrace.local.clickhouse.errors import ClickHouseError, translate
from headrace.local.clickhouse.statement import Statement

_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which the fcntl module does not name
_LOOK_SECONDS = 0.25  # interval at which a silent query checks for its client

_JSON, _TEXT = "application/json; charset=UTF-8", "text/plain; charset=UTF-8"
_TSV, _NDJSON = "text/tab-separated-values; charset=UTF-8", "application/x-ndjson; charset=UTF-8"


def content_type(format_name: str) -> str:
    """Return ClickHouse's content type of a format."""
    if "EachRow" in format_name and format_name.startswith("JSON"):
        return _NDJSON
    if format_name.startswith("JSON"):
        return _JSON
    if format_name.startswith("CSV"):
        return f"text/csv; charset=UTF-8; header={'present' if 'Names' in format_name else 'absent'}"
    if format_name.startswith(("TabSeparated", "TSV")):
        return _TSV
    if format_name.startswith(("Pretty", "Vertical", "Values", "SQLInsert", "Markdown", "XML", "Template")):
        return _TEXT
    return "application/octet-stream"


def summary(result: Any) -> str:
    """Make ``X-ClickHouse-Summary`` of an engine result."""
    return summary_of(
        read=(result.storage_rows_read(), result.storage_bytes_read()),
        written=(result.rows_written(), result.bytes_written()),
        returned=(result.rows_read(), result.bytes_read()),
        seconds=result.elapsed(),
    )


def summary_of(
    read: tuple[int, int] = (0, 0),
    written: tuple[int, int] = (0, 0),
    returned: tuple[int, int] = (0, 0),
    seconds: float = 0.0,
) -> str:
    """Make ``X-ClickHouse-Summary`` from pairs of rows and bytes.

    Numbers are strings, so that 64 bits survive JavaScript. The result of an INSERT is its written rows.
    """
    result = written if written[0] else returned
    numbers = {
        "read_rows": read[0],
        "read_bytes": read[1],
        "written_rows": written[0],
        "written_bytes": written[1],
        "total_rows_to_read": read[0],
        "result_rows": result[0],
        "result_bytes": result[1],
        "elapsed_ns": int(seconds * 1e9),
    }
    return json.dumps({name: str(value) for name, value in numbers.items()})


class ResultPipe:
    """A running read. Iterate for its bytes, then look at ``error`` and ``result``.

    Args:
        engine: Runs the statement.
        lease: Lends the connection.
        statement: A statement of kind READ.
        format_name: Format of the result.
        parameters: Query parameters.
        client: The client's socket, watched while the query runs.
    """

    def __init__(
        self,
        engine: Engine,
        lease: Lease,
        statement: Statement,
        format_name: str,
        parameters: dict[str, str],
        client: socket.socket | None,
    ) -> None:
        self.result: Any = None
        self.error: ClickHouseError | None = None
        self._engine, self._client = engine, client
        self._reader, writer = os.pipe()
        with contextlib.suppress(
            OSError
        ):  # the user's limit on pipes is reached; the default size works, too
            fcntl.fcntl(writer, _SET_PIPE_SIZE, PIECE)
        self._fragment = f"'/proc/self/fd/{writer}' TRUNCATE"
        clause = f"\nINTO OUTFILE {self._fragment} FORMAT {format_name}"
        sql = f"{statement.head}{clause}{statement.tail}".encode("utf-8", "surrogateescape")

        def run() -> None:
            try:
                self.result = lease.connection.query(sql, "Null", params=parameters)
            except BaseException as error:
                self.error = translate(error, engine.version)
                self.error.text = self.error.text.replace(clause, "").replace(clause.strip(), "")
            finally:
                os.close(writer)

        self._query = engine.run(run)

    def read(self) -> bytes:
        """Return the next piece; empty when the query is over.

        Raises:
            ClickHouseError: Code 394: the client disconnected.
        """
        if self._reader < 0:
            return b""
        while not select.select([self._reader], [], [], _LOOK_SECONDS)[0]:
            if self._client is not None and is_gone(self._client):
                raise ClickHouseError(394, "The client closed the connection", "QUERY_WAS_CANCELLED", 499)
        piece = os.read(self._reader, PIECE)
        if not piece:
            self._close_reader()
            self._query.result()
        return piece

    def close(self) -> None:
        """Stop the query if it still runs."""
        self._close_reader()
        self._engine.stop(self._query, self._fragment)

    def _close_reader(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1


class StreamedResponse:
    """A body whose head has been sent: the bytes read ahead, then the rest as the engine delivers it.

    From here on, an error goes into the body, marked with the tag that the head announced. Clients look for it there.
    """

    def __init__(
        self, pipe: ResultPipe, ahead: list[bytes], encoder: Encoder, tag: str, done: Callable[[], None]
    ):
        self._pipe, self._ahead, self._encoder, self._tag, self._done = pipe, ahead, encoder, tag, done

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._ahead:
            if encoded := self._encoder.add(piece):
                yield encoded
        self._ahead = []
        while piece := self._pipe.read():
            if encoded := self._encoder.add(piece):
                yield encoded
        end = self._encoder.add(self._trailer()) if self._pipe.error else b""
        if end := end + self._encoder.finish():
            yield end

    def close(self) -> None:
        """Release everything. The server calls it when the body is sent or the client has disconnected."""
        try:
            self._pipe.close()
        finally:
            self._done()

    def _trailer(self) -> bytes:
        assert self._pipe.error is not None
        message = (self._pipe.error.text + "\n").encode("utf-8", "replace")
        tag = self._tag.encode()
        size = str(len(message)).encode()
        return b"\r\n__exception__\r\n%b\r\n%b%b %b\r\n__exception__\r\n" % (tag, message, size, tag)


class SpooledResponse:
    """A finished result in a file (``wait_end_of_query``)."""

    def __init__(self, spool: IO[bytes], encoder: Encoder) -> None:
        self._spool, self._encoder = spool, encoder

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._spool.read(PIECE):
            if encoded := self._encoder.add(piece):
                yield encoded
        if end := self._encoder.finish():
            yield end

    def close(self) -> None:
        """Close the file."""
        self._spool.close()


def is_gone(client: socket.socket) -> bool:
    """Tell whether the client has closed its connection."""
    try:
        readable = select.select([client], [], [], 0)[0]
        return bool(readable) and client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True
