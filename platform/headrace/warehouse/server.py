"""Send every statement of the warehouse to one ClickHouse server, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Protocol

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError

from headrace.core.batch import Chunk
from headrace.core.errors import Fatal, Retriable
from headrace.warehouse.ddl import quoted

#: Server codes after which a repeated call may succeed: timeouts, memory, too many queries or parts, shutdown.
_RETRIABLE = {159, 160, 202, 209, 210, 236, 241, 242, 252, 285, 394, 439, 999}
_IPC = pa.ipc.IpcWriteOptions(compression="lz4")
_PART_BYTES = 1 << 20
#: Server codes that a caller may expect.
TABLE_EXISTS, UNKNOWN_TABLE, UNKNOWN_DATABASE = 57, 60, 81
NO_SUCH_COLUMN, INCOMPATIBLE_COLUMNS = 16, 122


class Refused(Fatal):
    """The server refuses a statement.

    Attributes:
        code: ClickHouse's error code; -1 if it gave none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class ClickHouseConfig(Protocol):
    """The settings that this adapter reads."""

    clickhouse_host: str
    clickhouse_port: int
    clickhouse_user: str
    clickhouse_secure: bool
    warehouse_cluster: str
    raw_database: str
    raw_ttl_days: int
    lock_max_seconds: float

    @property
    def clickhouse_password(self) -> Any:
        """The password, as an object with ``get_secret_value``."""


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Translate the driver's exceptions into ours, here and nowhere else."""
    try:
        yield
    except OperationalError as error:
        hint = "is it up? See 'headrace stack status'"
        raise Retriable(
            f"ClickHouse at {where} does not answer; {hint} ({_first_line(error)[-120:]})"
        ) from error
    except DatabaseError as error:
        code, said = _code(error), f"ClickHouse at {where} refused: {_first_line(error)}"
        raise (Retriable(said) if code in _RETRIABLE else Refused(said, code)) from error
    except ClickHouseError as error:
        raise Fatal(f"ClickHouse at {where}: {_first_line(error)}") from error


def _code(error: Exception) -> int:
    text = str(error)
    digits = text.partition("Code: ")[2] or text.partition("code ")[2] or text.partition("code: ")[2]
    number = "".join(c for c in digits[:6] if c.isdigit())
    return int(number) if number else -1


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition("server response: ")[2][:500] or lines[0][:500]


class _ArrowStream:
    """The body of a request, encoded part by part while it is sent.

    It is no generator: if the client sends the request again, the body must not be empty.
    """

    def __init__(self, rows: Chunk) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[bytes]:
        buffer = BytesIO()
        writer: pa.ipc.RecordBatchStreamWriter | None = None
        for part in self._rows:
            writer = writer or pa.ipc.new_stream(buffer, part.schema, options=_IPC)
            writer.write_table(part)
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
        if writer is not None:
            writer.close()
            yield buffer.getvalue()


class Server:
    """A connection to one server. Connects on first use; safe for one thread.

    Args:
        config: Where the server is.
        retry: Makes every call, and may repeat one that raised ``Retriable``: every call can be repeated.
    """

    def __init__(
        self, config: ClickHouseConfig, retry: Callable[[Callable[[], Any]], Any] = lambda call: call()
    ) -> None:
        self._config = config
        self._retry = retry
        self.where = f"{config.clickhouse_host}:{config.clickhouse_port}"
        self._client: Client | None = None
        #: Calls that did not end well as far as this side knows; the server may still be at them.
        self.failures = 0

    def _connected(self) -> Client:
        if self._client is None:
            with _translated(self.where):
                self._client = clickhouse_connect.get_client(
                    host=self._config.clickhouse_host,
                    port=self._config.clickhouse_port,
                    username=self._config.clickhouse_user,
                    password=self._config.clickhouse_password.get_secret_value(),
                    secure=self._config.clickhouse_secure,
                    autogenerate_session_id=False,
                    connect_timeout=5,
                    send_receive_timeout=600,
                )
        return self._client

    def _call(self, call: Callable[[Client], Any]) -> Any:
        def once() -> Any:
            return self._tried(call)

        return self._retry(once)

    def _tried(self, call: Callable[[Client], Any]) -> Any:
        client = self._connected()
        try:
            with _translated(self.where):
                return call(client)
        except BaseException as error:
            if not isinstance(error, Refused):
                self.failures += 1
            raise

    def command(self, sql: str, **parameters: Any) -> None:
        """Run a statement that returns nothing; values are passed as of ``query``."""
        self._call(lambda c: c.command(sql, parameters=parameters or None))

    def once(self, sql: str) -> None:
        """Run a statement that returns nothing, and never repeat it."""
        self._tried(lambda c: c.command(sql))

    def query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Run a query and return its rows; values are passed as server-side parameters (``{name:Type}``)."""
        rows = self._call(lambda c: c.query(sql, parameters=parameters or None).result_rows)
        return [tuple(row) for row in rows]

    def read_only(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a person's query; the server refuses any statement that changes something.

        Returns:
            Column names and rows.
        """
        found = self._call(lambda c: c.query(sql, settings={"readonly": 2}))
        return list(found.column_names), [tuple(row) for row in found.result_rows]

    def stream(self, sql: str, format: str | None) -> Iterator[bytes]:
        """Stream the answer to a person's query as the server writes it; it refuses any change.

        The server completes the answer before it sends the first part, so a failure raises instead of cutting
        it off.

        Args:
            sql: The query.
            format: One of ClickHouse's formats; None if the query names one itself.
        """
        waiting = {"readonly": 2, "wait_end_of_query": 1}
        answer = self._call(lambda c: c.raw_stream(sql, settings=waiting, fmt=format))
        with answer, _translated(self.where):
            while part := answer.read(_PART_BYTES):
                yield part

    def append(self, database: str, table: str, row: Mapping[str, Any]) -> None:
        """Add one row; columns that it lacks take their defaults."""
        columns, values = list(row), [list(row.values())]
        self._call(lambda c: c.insert(table, values, column_names=columns, database=database))

    def insert(
        self, database: str, table: str, columns: Sequence[str], rows: Chunk, settings: Mapping[str, Any]
    ) -> None:
        """Stream rows into a table, all of them or none.

        Args:
            database: Database of the table.
            table: Name of the table.
            columns: Columns of the rows.
            rows: Rows to insert; they are read anew when the call is repeated.
            settings: Server settings for this insert.

        Raises:
            HeadraceError: The insert failed, or reading the rows did; nothing is inserted then.
        """
        into = f"{quoted(database)}.{quoted(table)}"
        body: Any = rows.parquet or _ArrowStream(rows)
        kind = "Parquet" if rows.parquet else "ArrowStream"
        self._call(lambda c: c.raw_insert(into, columns, body, settings=dict(settings), fmt=kind))

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None
