"""Answer one request after the other as a WSGI application, from parameters to response."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from headrace.local.clickhouse import access
from headrace.local.clickhouse.compression import PIECE, Encoder
from headrace.local.clickhouse.engine import Connection, Engine, Lease, apply_settings, take_role
from headrace.local.clickhouse.errors import ClickHouseError, translate
from headrace.local.clickhouse.incoming import read_statement
from headrace.local.clickhouse.request import Request, parse_parameters, read_body
from headrace.local.clickhouse.response import (
    ResultPipe,
    SpooledResponse,
    StreamedResponse,
    content_type,
    summary,
    summary_of,
)
from headrace.local.clickhouse.statement import Kind, Statement, as_user, quote, quote_name

logger = logging.getLogger(__name__)

Headers = list[tuple[str, str]]
StartResponse = Callable[[str, Headers], Any]

CLIENT_SOCKET = (
    "headrace.client_socket"  #: Where the server puts the client's socket in the WSGI environment.
)

_BUFFER = PIECE  # an error within the first MiB of a result gets its own HTTP status
_SPOOL_MEMORY = 16 << 20
_MAX_DRAIN = 4 << 30
_FORMAT_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_WITH_RESULT = frozenset({"SHOW", "CHECK", "KILL", "OPTIMIZE", "ALTER"})
_NO_EXPRESSIONS = {
    "input_format_values_interpret_expressions": "0",
    "input_format_values_deduce_templates_of_expressions": "0",
}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    Attributes:
        name: The user's name.
        password: The user's password.
        database: Where the user lands without naming one.
        role: Role of the engine to which statements are confined, which only reads; empty for the owner.
    """

    name: str
    password: str
    database: str
    role: str = ""


class Application:
    """ClickHouse's HTTP interface over an engine.

    Args:
        engine: The opened engine.
        users: Who may log in.
        spool: Folder for results that must be complete before they are sent.
    """

    def __init__(self, engine: Engine, users: Sequence[User], spool: Path) -> None:
        self._engine, self._users, self._spool = engine, users, spool

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        headers = [("X-ClickHouse-Server-Display-Name", self._engine.host)]
        if environ.get("PATH_INFO") in ("/ping", "/replicas_status"):
            return _plain(start_response, HTTPStatus.OK, headers, b"Ok.\n")
        request = parse_parameters(environ)
        headers += [
            ("X-ClickHouse-Query-Id", request.query_id),
            ("X-ClickHouse-Timezone", request.parameters.get("session_timezone") or self._engine.timezone),
        ]
        try:
            user = self._authenticated(request)
            return self._answer(user, request, start_response, headers)
        except Exception as failure:
            error = translate(failure, self._engine.version)
            if error.code in (49, 1001) and not isinstance(failure, ClickHouseError):
                logger.exception("a request failed inside the endpoint")
            _drain(request)
            headers.append(("X-ClickHouse-Exception-Code", str(error.code)))
            return _plain(
                start_response, error.status, headers, (error.text + "\n").encode("utf-8", "replace")
            )

    def _authenticated(self, request: Request) -> User:
        name, password = request.credentials()
        for user in self._users:
            right_user = hmac.compare_digest(name.encode(), user.name.encode())
            right_password = hmac.compare_digest(password.encode(), user.password.encode())
            if right_user and right_password:
                return user
        raise ClickHouseError(
            516,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name",
            "AUTHENTICATION_FAILED",
        )

    def _answer(
        self, user: User, request: Request, start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        read_body(request)
        statement = read_statement(request)
        if statement is None:
            return _plain(start_response, HTTPStatus.OK, headers, b"Ok.\n")
        access.check(statement)
        if user.role:
            access.check_reading(statement)
        settings = request.settings
        if statement.kind is Kind.INSERT and statement.format == "Values":
            settings |= self._values_settings(request, statement)
        lease = self._engine.lease(replace(request.session, role=user.role))
        try:
            if user.role:
                take_role(lease.connection, user.role)
            self._prepare(lease, request, statement, settings, user.database)
            if statement.kind is Kind.READ:
                statement = replace(statement, head=as_user(statement, user.name))
                return self._read(lease, request, statement, start_response, headers)
            if statement.kind is Kind.INSERT:
                headers.append(("X-ClickHouse-Summary", self._insert(lease, request, statement)))
                body = b""
            else:
                body = self._command(lease, request, statement, headers)
        except BaseException:
            lease.release()
            raise
        lease.release()
        if body and request.flag("compress"):
            body = Encoder("native").add(body)
        return _plain(start_response, HTTPStatus.OK, headers, body)

    def _values_settings(self, request: Request, statement: Statement) -> dict[str, str]:
        if "input_format_values" in statement.head.lower():
            raise ClickHouseError(
                452, "input_format_values_* cannot be set here", "SETTING_CONSTRAINT_VIOLATION"
            )
        return {} if access.may_evaluate(*request.body.peek(PIECE)) else _NO_EXPRESSIONS

    def _prepare(
        self, lease: Lease, request: Request, statement: Statement, settings: dict[str, str], home: str
    ) -> None:
        """Set the connection's database (else ``home``), settings and external tables as the request asks."""
        connection, session = lease.connection, lease.session
        apply_settings(lease, {} if session and statement.verb == "SET" else settings)
        wanted = request.database if request.database != "default" else home
        if session is None or session.database is None:
            connection.query(f"USE {quote_name(wanted or home)}", "Null")
        elif wanted and wanted != session.database:
            connection.query(f"USE {quote_name(wanted)}", "Null")
        if session is not None:
            known = wanted or session.database or home
            session.database = "" if statement.verb in ("USE", "DROP") else known
        for table in request.tables:
            access.scan(table.structure)
            name = quote_name(table.name)
            connection.query(f"CREATE TEMPORARY TABLE {name} ({table.structure})", "Null")
            lease.on_release(partial(connection.query, f"DROP TEMPORARY TABLE IF EXISTS {name}", "Null"))
            with connection.send_insert(f"INSERT INTO {name}", _checked_format(table.format)) as insert:
                if table.data:
                    insert.append(table.data)
                    insert.finish()
        if request.read_only:
            if session is None:
                connection.query("SET readonly = 2", "Null")
            elif statement.kind is not Kind.READ and statement.verb not in ("SET", "USE", "SHOW"):
                raise ClickHouseError(164, "Cannot execute query in readonly mode", "READONLY")

    def _read(
        self,
        lease: Lease,
        request: Request,
        statement: Statement,
        start_response: StartResponse,
        headers: Headers,
    ) -> Iterable[bytes]:
        name = _checked_format(statement.format or request.default_format or "TabSeparated")
        encoding = request.response_encoding
        encoder = Encoder(encoding)
        pipe = ResultPipe(
            self._engine, lease, statement, name, request.query_parameters, request.environ.get(CLIENT_SOCKET)
        )
        spool: IO[bytes] | None = None
        try:
            if request.flag("wait_end_of_query"):
                spool = self._collect(pipe)
                ahead: list[bytes] = []
                complete = True
            else:
                ahead, complete = _read_ahead(pipe)
            if complete and pipe.error is not None:
                raise pipe.error
        except BaseException:
            pipe.close()
            if spool is not None:
                spool.close()
            raise
        headers += [("X-ClickHouse-Format", name), ("Content-Type", content_type(name))]
        if encoding not in (None, "native"):
            headers.append(("Content-Encoding", encoding or ""))
        if not complete:
            tag = secrets.token_hex(8)
            headers += [("X-ClickHouse-Exception-Tag", tag), ("X-ClickHouse-Summary", summary_of())]
            start_response("200 OK", headers)
            return StreamedResponse(pipe, ahead, encoder, tag, lease.release)
        headers.append(("X-ClickHouse-Summary", summary(pipe.result)))
        lease.release()
        if spool is not None:
            start_response("200 OK", headers)
            return SpooledResponse(spool, encoder)
        body = b"".join(ahead)
        body = encoder.add(body) + encoder.finish()
        start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _collect(self, pipe: ResultPipe) -> IO[bytes]:
        """Collect the whole result, in a file if it is large."""
        spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_MEMORY, dir=str(self._spool))  # noqa: SIM115
        try:
            while piece := pipe.read():
                spool.write(piece)
        except BaseException:
            spool.close()
            raise
        spool.seek(0)
        return spool

    def _command(self, lease: Lease, request: Request, statement: Statement, headers: Headers) -> bytes:
        name = _checked_format(statement.format or request.default_format or "TabSeparated")
        sql = (
            statement.head if statement.format is None else f"{statement.head} FORMAT {name}{statement.tail}"
        )
        text = sql.encode("utf-8", "surrogateescape")
        if statement.verb == "KILL":
            self._engine.killing()
        result = lease.connection.query(text, name, params=request.query_parameters)
        headers.append(("X-ClickHouse-Summary", summary(result)))
        body = bytes(result.bytes() or b"")
        if body or statement.verb in _WITH_RESULT:
            headers.append(("X-ClickHouse-Format", name))
        return body

    def _insert(self, lease: Lease, request: Request, statement: Statement) -> str:
        """Insert the body, and refuse to call it done if somebody stopped queries meanwhile.

        The engine reports an insert that was killed as one of no rows. Which one was killed it does not say, so each
        that was under way is answered with code 394: its sender sends it again, and its token keeps it from counting
        twice.
        """
        before = self._engine.kills
        done = _insert(lease.connection, request, statement)
        if self._engine.kills != before:
            raise ClickHouseError(
                394, "Query was cancelled, or another one was while it ran", "QUERY_WAS_CANCELLED"
            )
        return done


def _insert(connection: Connection, request: Request, statement: Statement) -> str:
    """Stream the body into the table: all of it or nothing.

    Returns:
        Summary of the written rows and bytes.
    """
    for name, value in request.query_parameters.items():
        connection.query(f"SET param_{_checked_format(name)} = {quote(value)}", "Null")
    insert = connection.send_insert(statement.head, _checked_format(statement.format or "Values"))
    empty = True
    try:
        while piece := request.body.read(PIECE):
            insert.append(piece)
            empty = False
        if empty:
            insert.cancel()
            return summary_of()
        result = insert.finish()
    except BaseException:
        insert.close()
        raise
    written = (result.rows_written, result.bytes_written)
    return summary_of(read=written, written=written, seconds=result.elapsed)


def _read_ahead(pipe: ResultPipe) -> tuple[list[bytes], bool]:
    """Read the first part of a result; tell whether it is the whole result."""
    pieces: list[bytes] = []
    size = 0
    while size < _BUFFER:
        piece = pipe.read()
        if not piece:
            return pieces, True
        pieces.append(piece)
        size += len(piece)
    return pieces, False


def _checked_format(name: str) -> str:
    """Check that a format's name is a bare word, which is safe in SQL."""
    if not _FORMAT_NAME.fullmatch(name):
        raise ClickHouseError(73, f"Unknown format {name}", "UNKNOWN_FORMAT")
    return name


def _drain(request: Request) -> None:
    """Read the rest of the request. Clients read no response before they have sent everything."""
    source = request.environ["wsgi.input"]
    left = _MAX_DRAIN
    try:
        while left > 0 and (piece := source.read(PIECE)):
            left -= len(piece)
    except Exception:
        logger.debug("the rest of a refused request could not be read", exc_info=True)


def _plain(start_response: StartResponse, status: int, headers: Headers, body: bytes) -> list[bytes]:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    own = [("Content-Type", "text/plain; charset=UTF-8"), ("Content-Length", str(len(body)))]
    start_response(f"{int(status)} {phrase}", [*headers, *own])
    return [body]
