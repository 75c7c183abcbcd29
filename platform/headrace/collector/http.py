"""Requests and responses as the routes see them, whatever server is in front, and bodies in whatever encoding."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec
import zstandard

from headrace.collector.base import Refused

JSON = "application/json"
_encode = msgspec.json.Encoder().encode
#: Bytes that are decompressed at a time.
_STEP = 65_536


class Headers(Protocol):
    """Headers of a request, by name in lower case; a dictionary is one."""

    def __contains__(self, name: Any, /) -> bool:
        """Tell whether there is such a header."""

    def get(self, name: str, otherwise: Any = None, /) -> Any:
        """Return the value of a header."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return all of them."""


class Request(msgspec.Struct, frozen=True, dict=True):
    """A request.

    Attributes:
        method: In capitals.
        path: Without the query.
        query: As it was sent.
        headers: Its headers.
        body: As it was sent.
        address: Where it came from.
    """

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    address: str

    @cached_property
    def parameters(self) -> dict[str, str]:
        """Parameters of the query; the last of a name counts."""
        return dict(parse_qsl(self.query, keep_blank_values=True)) if self.query else {}

    @cached_property
    def content_type(self) -> str:
        """Media type in lower case, without parameters."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()


class Response(msgspec.Struct):
    """A response.

    Attributes:
        status: Status code.
        body: Its body.
        content_type: Media type; empty for none.
        headers: Further headers.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: dict[str, str] = {}


def answer(status: int, value: Any) -> Response:
    """Return a response with a value as JSON."""
    return Response(status, _encode(value))


def refusal(refused: Refused) -> Response:
    """Return the response that says why a request was refused, and when it may come again."""
    said = {"status": refused.status, "error": HTTPStatus(refused.status).phrase, "message": str(refused)}
    headers = {} if refused.retry_after is None else {"retry-after": str(refused.retry_after)}
    if refused.status == 401:
        headers["www-authenticate"] = 'Basic realm="headrace", Bearer'
    return Response(refused.status, _encode(said), headers=headers)


def plain_body(request: Request, most: int) -> bytes:
    """Return the body of a request, decompressed.

    Args:
        request: The request.
        most: Most bytes of it.

    Raises:
        Refused: It is longer, compressed in an unknown way, or damaged.
    """
    body = request.body
    encodings: str = request.headers.get("content-encoding", "")
    if encodings:
        for encoding in reversed([one.strip().lower() for one in encodings.split(",") if one.strip()]):
            if encoding != "identity":
                body = _decompressed(body, encoding, most)
    elif body.startswith(b"\x1f\x8b"):  # some libraries compress and do not say so
        body = _decompressed(body, "gzip", most)
    if len(body) > most:
        raise too_long(most)
    return body


def too_long(most: int) -> Refused:
    """Return the refusal of a body that is too long."""
    return Refused(413, f"the body is longer than {most:,} bytes; send fewer events at a time")


def _decompressed(body: bytes, encoding: str, most: int) -> bytes:
    try:
        match encoding:
            case "gzip" | "x-gzip":
                return _inflated(body, zlib.MAX_WBITS | 16, most)
            case "deflate":  # zlib's format by the standard, a bare stream by habit
                zlibs = body[:1] and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
                return _inflated(body, zlib.MAX_WBITS if zlibs else -zlib.MAX_WBITS, most)
            case "zstd":
                return _unzstd(body, most)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise Refused(400, f"the body is no {encoding}: {error}; nothing of it was taken") from None
    raise Refused(415, f"the content encoding {encoding[:40]!r} is unknown; use gzip, deflate or zstd")


def _inflated(body: bytes, window: int, most: int) -> bytes:
    parts, size, rest = [], 0, body
    while rest:  # gzip may have several members
        stream = zlib.decompressobj(window)
        while not stream.eof:
            part = stream.decompress(rest, _STEP)
            rest = stream.unconsumed_tail
            size += len(part)
            if size > most:
                raise too_long(most)
            if not part and not rest and not stream.eof:
                raise EOFError("it ends too early")
            parts.append(part)
        rest = stream.unused_data.lstrip(b"\0")
        if rest and window < zlib.MAX_WBITS | 16:
            raise EOFError("something follows its end")
    return b"".join(parts)


def _unzstd(body: bytes, most: int) -> bytes:
    # a frame says how much memory its window takes
    reader = zstandard.ZstdDecompressor(max_window_size=max(most, 1 << 23)).stream_reader(
        body, read_across_frames=True
    )
    parts, size = [], 0
    while part := reader.read(_STEP):
        size += len(part)
        if size > most:
            raise too_long(most)
        parts.append(part)
    if body and not parts and not size:
        zstandard.get_frame_parameters(body)
    return b"".join(parts)
