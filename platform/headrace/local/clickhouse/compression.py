"""Compress and decompress bodies: HTTP ``Content-Encoding`` and ClickHouse's own blocks.

Encoders and decoders handle one piece at a time, so a body of any length needs little memory. The C codecs release the
interpreter's lock while they work.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import brotli
import lz4.block
import lz4.frame
import zstandard
from clickhouse_cityhash.cityhash import CityHash128

from headrace.local.clickhouse.errors import ClickHouseError

PIECE = 1 << 20
_BLOCK_LIMIT = 1 << 28
_CHECKSUM, _HEADER = 16, 9
_METHOD_NONE, _METHOD_LZ4, _METHOD_ZSTD = 0x02, 0x82, 0x90

#: Content-Encodings that responses can have, as clients offer them in ``Accept-Encoding``.
RESPONSE_ENCODINGS = ("lz4", "zstd", "gzip", "br", "deflate")


class Readable(Protocol):
    """A request body, or a layer over one."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; empty at the end."""
        ...


class Encoder:
    """Encode a response body piece by piece.

    Args:
        encoding: One of :data:`RESPONSE_ENCODINGS`, ``native`` for ClickHouse blocks, or None for neither.
    """

    def __init__(self, encoding: str | None) -> None:
        self.add: Callable[[bytes], bytes]
        self.finish: Callable[[], bytes]
        codec: Any
        match encoding:
            case None:
                self.add, self.finish = _same, bytes
            case "gzip" | "deflate":
                codec = zlib.compressobj(1, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
                self.add, self.finish = codec.compress, codec.flush
            case "zstd":
                codec = zstandard.ZstdCompressor(level=1).compressobj()
                self.add, self.finish = codec.compress, codec.flush
            case "br":
                codec = brotli.Compressor(quality=1)
                self.add, self.finish = codec.process, codec.finish
            case "lz4":
                codec = _Lz4Encoder()
                self.add, self.finish = codec.add, codec.finish
            case "native":
                self.add, self.finish = native_blocks, bytes
            case _:
                raise _unknown(encoding)


class Decoder:
    """Decode a body's Content-Encoding. Concatenated frames are read as one.

    Raises:
        ClickHouseError: Code 48 for an unknown encoding; code 33 from ``read`` for a damaged or cut body.
    """

    def __init__(self, body: Readable, encoding: str) -> None:
        factories: dict[str, Callable[[], Any]] = {
            "gzip": lambda: zlib.decompressobj(31),
            "deflate": zlib.decompressobj,
            "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
            "lz4": lz4.frame.LZ4FrameDecompressor,
            "br": _BrotliDecoder,
            "xz": lzma.LZMADecompressor,
        }
        if encoding not in factories:
            raise _unknown(encoding)
        self._body, self._encoding, self._new = body, encoding, factories[encoding]
        self._codec: Any = None
        self._left = b""

    def read(self, size: int = PIECE, /) -> bytes:
        """Return the next decoded piece, which may be longer than ``size``; empty at the end."""
        while True:
            raw = self._left or self._body.read(size)
            self._left = b""
            if not raw:
                if self._codec is not None:
                    raise ClickHouseError(33, f"The {self._encoding} body ends early", "CANNOT_READ_ALL_DATA")
                return b""
            self._codec = self._codec or self._new()
            try:
                piece: bytes = self._codec.decompress(raw)
            except Exception as error:  # each codec raises its own errors
                message = f"Cannot decompress the {self._encoding} body: {error}"
                raise ClickHouseError(33, message, "CANNOT_READ_ALL_DATA") from error
            if self._codec.eof:
                self._left, self._codec = self._codec.unused_data or b"", None
            if piece:
                return piece


class NativeDecoder:
    """Decode a body of ClickHouse blocks (``decompress=1``), each verified by its checksum."""

    def __init__(self, body: Readable) -> None:
        self._body = body

    def read(self, _size: int = PIECE, /) -> bytes:
        """Return the content of the next block, whatever its size; empty at the end."""
        head = self._exactly(_CHECKSUM + _HEADER, at_end=True)
        if not head:
            return b""
        method, packed, unpacked = struct.unpack("<BII", head[_CHECKSUM:])
        if not _HEADER <= packed <= _BLOCK_LIMIT or unpacked > _BLOCK_LIMIT:
            raise ClickHouseError(271, f"A block of {packed} bytes cannot be right", "CANNOT_DECOMPRESS", 400)
        body = self._exactly(packed - _HEADER)
        if _checksum(head[_CHECKSUM:] + body) != head[:_CHECKSUM]:
            raise ClickHouseError(40, "Checksum of a compressed block is wrong", "CHECKSUM_DOESNT_MATCH", 400)
        try:
            if method == _METHOD_LZ4:
                return bytes(lz4.block.decompress(body, uncompressed_size=unpacked))
            if method == _METHOD_ZSTD:
                return zstandard.ZstdDecompressor().decompress(body, max_output_size=unpacked)
        except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
            raise ClickHouseError(
                271, f"Cannot decompress a block: {error}", "CANNOT_DECOMPRESS", 400
            ) from error
        if method == _METHOD_NONE:
            return body
        raise ClickHouseError(89, f"Compression method {method:#x} is unknown", "UNKNOWN_COMPRESSION_METHOD")

    def _exactly(self, size: int, at_end: bool = False) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._body.read(missing)
            if not part:
                if at_end and not parts:
                    return b""
                raise ClickHouseError(33, "The body ends within a compressed block", "CANNOT_READ_ALL_DATA")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def native_blocks(data: bytes) -> bytes:
    """Encode ``data`` as LZ4 blocks of at most 1 MiB: checksum, method, sizes, content."""
    blocks: list[bytes] = []
    for start in range(0, len(data), PIECE):
        raw = data[start : start + PIECE]
        packed = lz4.block.compress(raw, store_size=False)
        block = struct.pack("<BII", _METHOD_LZ4, len(packed) + _HEADER, len(raw)) + packed
        blocks += (_checksum(block), block)
    return b"".join(blocks)


def accepted(header: str) -> str | None:
    """Return the first encoding of an ``Accept-Encoding`` header that responses support."""
    for part in header.split(","):
        name, _, quality = part.partition(";")
        if name.strip().lower() in RESPONSE_ENCODINGS and quality.replace(" ", "") not in ("q=0", "q=0.0"):
            return name.strip().lower()
    return None


def _checksum(block: bytes) -> bytes:
    found = CityHash128(block)
    low, high = found if isinstance(found, tuple) else (found >> 64, found & (1 << 64) - 1)
    return struct.pack("<QQ", low, high)


def _same(data: bytes) -> bytes:
    return data


def _unknown(encoding: str) -> ClickHouseError:
    return ClickHouseError(48, f"Content-Encoding {encoding} is not supported", "NOT_IMPLEMENTED")


class _Lz4Encoder:
    """Encode an LZ4 frame; write its header with the first piece."""

    def __init__(self) -> None:
        self._codec = lz4.frame.LZ4FrameCompressor()
        self._head: bytes = self._codec.begin()

    def add(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + bytes(self._codec.compress(data))

    def finish(self) -> bytes:
        return self._head + bytes(self._codec.flush())


class _BrotliDecoder:
    """Decode Brotli with the interface of the other decompressors. Its streams do not concatenate."""

    unused_data = b""

    def __init__(self) -> None:
        self._codec = brotli.Decompressor()

    @property
    def eof(self) -> bool:
        return bool(self._codec.is_finished())

    def decompress(self, data: bytes) -> bytes:
        return bytes(self._codec.process(data))
