"""Read an HTTP request as ClickHouse does: parameters, credentials, and a body in pieces."""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from headrace.local.clickhouse.compression import PIECE, Decoder, NativeDecoder, Readable, accepted
from headrace.local.clickhouse.engine import SessionOptions
from headrace.local.clickhouse.errors import ClickHouseError

#: Parameters that belong to the protocol; every other one is a setting.
_PROTOCOL = frozenset(
    """
    query database default_format session_id session_timeout session_check close_session query_id user
    password quota_key compress decompress wait_end_of_query buffer_size client_protocol_version stacktrace role
    readonly
    enable_http_compression http_zlib_compression_level network_compression_method client_time_zone
    send_progress_in_http_headers http_headers_progress_interval_ms add_http_cors_header http_response_headers
    cancel_http_readonly_queries_on_client_close http_make_head_request
    http_write_exception_in_output_format
    """.split()  # noqa: SIM905
)
_MAX_SESSION_SECONDS = 3600
_MAX_FORM = 256 << 20  # fields and external tables of one request stay in memory


class Body:
    """A request body that can be peeked at."""

    def __init__(self, source: Readable | None, ahead: bytes = b"") -> None:
        self._source, self._ahead = source, ahead

    def read(self, size: int = PIECE, /) -> bytes:
        """Return the next piece; empty at the end."""
        if self._ahead:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            return piece
        return self._source.read(size) if self._source is not None else b""

    def peek(self, size: int) -> tuple[bytes, bool]:
        """Return the first ``size`` bytes without consuming them, and whether the body ends there."""
        parts, total = [self._ahead], len(self._ahead)
        while total < size:
            piece = self._source.read(PIECE) if self._source is not None else b""
            if not piece:
                self._source = None
                break
            parts.append(piece)
            total += len(piece)
        self._ahead = b"".join(parts)
        return self._ahead[:size], self._source is None and total <= size

    def prepend(self, data: bytes) -> None:
        """Put ``data`` in front of the unread bytes."""
        self._ahead = data + self._ahead

    def skip(self, size: int) -> None:
        """Drop ``size`` peeked bytes."""
        self._ahead = self._ahead[size:]

    def read_all(self, limit: int = _MAX_FORM) -> bytes:
        """Return all unread bytes.

        Raises:
            ClickHouseError: Code 229: there are more than ``limit`` bytes.
        """
        data, complete = self.peek(limit)
        if not complete:
            raise ClickHouseError(229, f"Query is longer than {limit} bytes", "QUERY_IS_TOO_LARGE")
        self._ahead = b""
        return data


class _Counted:
    """Read exactly the number of bytes that Content-Length announces.

    A body that ends early is an error: an INSERT whose sender disappears must fail as a whole.
    """

    def __init__(self, source: Readable, length: int) -> None:
        self._source, self._missing = source, length

    def read(self, size: int, /) -> bytes:
        if not self._missing:
            return b""
        piece = self._source.read(min(size, self._missing))
        if not piece:
            raise ClickHouseError(33, "The request's body ends early", "CANNOT_READ_ALL_DATA")
        self._missing -= len(piece)
        return piece


@dataclass(frozen=True, slots=True)
class ExternalTable:
    """A table sent with the request: name, columns, format and data."""

    name: str
    structure: str
    format: str
    data: bytes


@dataclass
class Request:
    """One request, parsed by :func:`parse_parameters` and :func:`read_body`.

    Attributes:
        environ: The WSGI environment.
        parameters: Parameters of the URL and, for forms, of the body.
        body: Unread part of the body.
        tables: External tables of a multipart form.
    """

    environ: dict[str, Any]
    parameters: dict[str, str]
    body: Body = field(default_factory=lambda: Body(None))
    tables: list[ExternalTable] = field(default_factory=list)

    @cached_property
    def query_id(self) -> str:
        """The client's own id or a new one. It is only echoed: the engine numbers its queries itself."""
        given = self.parameters.get("query_id", "")
        return given if given and given.isprintable() and given.isascii() else str(uuid.uuid4())

    def credentials(self) -> tuple[str, str]:
        """Return user and password from headers, Basic authentication or the URL."""
        environ = self.environ
        if "HTTP_X_CLICKHOUSE_USER" in environ:
            return self.header("X_CLICKHOUSE_USER"), self.header("X_CLICKHOUSE_KEY")
        scheme, _, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return "", ""
            return user, password
        return self.parameters.get("user", "default"), self.parameters.get("password", "")

    def header(self, name: str) -> str:
        """Return a header's text; empty without it. WSGI passes its bytes as Latin-1."""
        value: str = self.environ.get(f"HTTP_{name}", "")
        return value.encode("latin-1", "replace").decode("utf-8", "replace")

    def flag(self, name: str) -> bool:
        """Tell whether a protocol parameter is on."""
        return self.parameters.get(name, "0").lower() in ("1", "true")

    @property
    def read_only(self) -> bool:
        """Whether the request may change nothing: a GET, or ``readonly`` is set."""
        return (
            self.environ["REQUEST_METHOD"] in ("GET", "HEAD") or self.parameters.get("readonly", "0") != "0"
        )

    @property
    def database(self) -> str | None:
        """Database that the request names."""
        return self.parameters.get("database") or self.header("X_CLICKHOUSE_DATABASE") or None

    @property
    def default_format(self) -> str | None:
        """Result format of statements that name none."""
        return self.parameters.get("default_format") or self.header("X_CLICKHOUSE_FORMAT") or None

    @property
    def session(self) -> SessionOptions:
        """Session that the request belongs to."""
        text = self.parameters.get("session_timeout", "60")
        if not text.isdigit() or not int(text) <= _MAX_SESSION_SECONDS:
            raise ClickHouseError(374, f"Invalid session timeout: '{text}'", "INVALID_SESSION_TIMEOUT", 400)
        name = self.parameters.get("session_id", "")
        return SessionOptions(name, float(text), self.flag("session_check"), self.flag("close_session"))

    @property
    def settings(self) -> dict[str, str]:
        """Engine settings: parameters of neither the protocol, nor query parameters, nor external tables."""
        parts = ("structure", "types", "format")
        tables = {f"{table.name}_{part}" for table in self.tables for part in parts}
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in _PROTOCOL and not name.startswith("param_") and name not in tables
        }

    @property
    def query_parameters(self) -> dict[str, str]:
        """Values of ``{name:Type}`` placeholders."""
        return {n.removeprefix("param_"): v for n, v in self.parameters.items() if n.startswith("param_")}

    @property
    def response_encoding(self) -> str | None:
        """Compression of the response; ``native`` means ClickHouse's own blocks."""
        if self.flag("compress"):
            return "native"
        return (
            accepted(self.environ.get("HTTP_ACCEPT_ENCODING", ""))
            if self.flag("enable_http_compression")
            else None
        )


def parse_parameters(environ: dict[str, Any]) -> Request:
    """Parse the request without its body, which is enough to authenticate it."""
    pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return Request(environ, dict(pairs))


def read_body(request: Request) -> None:
    """Unwrap the body: its length, its compression, and the fields of forms.

    Raises:
        ClickHouseError: The encoding is unknown, the form is damaged, or an external table has no structure.
    """
    environ = request.environ
    source: Readable | None = None
    if environ.get("HTTP_TRANSFER_ENCODING"):
        source = environ["wsgi.input"]
    elif environ.get("CONTENT_LENGTH"):
        source = _Counted(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
    encoding = environ.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if source is not None and encoding not in ("", "identity"):
        source = Decoder(source, encoding)
    if source is not None and request.flag("decompress"):
        source = NativeDecoder(source)
    request.body = Body(source)
    kind = environ.get("CONTENT_TYPE", "")
    if kind.startswith("multipart/form-data"):
        _read_multipart(request, kind)
    elif _is_form(request, kind):
        text = request.body.read_all().decode("utf-8", "surrogateescape")
        request.parameters |= dict(parse_qsl(text, keep_blank_values=True))


def _is_form(request: Request, kind: str) -> bool:
    """Tell whether the body holds form fields. ``curl -d`` sends plain SQL with the same content type."""
    if not kind.startswith("application/x-www-form-urlencoded") or "query" in request.parameters:
        return False
    return request.body.peek(6)[0] == b"query="


def _read_multipart(request: Request, content_type: str) -> None:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    form = BytesParser().parsebytes(head + request.body.read_all())
    if not form.is_multipart():
        raise ClickHouseError(36, "The multipart form cannot be read", "BAD_ARGUMENTS")
    files: list[tuple[str, bytes]] = []
    for part in form.get_payload():
        assert isinstance(part, Message)
        name = str(part.get_param("name", "", header="content-disposition"))
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        if part.get_filename() is not None:
            files.append((name, data))
        else:
            request.parameters[name] = data.decode("utf-8", "surrogateescape")
    request.tables = [_external_table(name, data, request.parameters) for name, data in files]


def _external_table(name: str, data: bytes, parameters: dict[str, str]) -> ExternalTable:
    structure = parameters.get(f"{name}_structure")
    if structure is None:
        types = parameters.get(f"{name}_types")
        if not types:
            message = f"Neither {name}_structure nor {name}_types is given for external table {name}"
            raise ClickHouseError(36, message, "BAD_ARGUMENTS")
        structure = ", ".join(f"_{index} {column}" for index, column in enumerate(types.split(","), 1))
    return ExternalTable(name, structure, parameters.get(f"{name}_format", "TabSeparated"), data)
