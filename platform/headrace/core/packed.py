"""Compress text that Dagster writes again and again to a tenth.

Events, runs and ticks are the same JSON but for a few values. They are compressed by Deflate (RFC 1951) with a
dictionary of such JSON. The dictionary must never change, or text compressed with it could not be read any
more: another dictionary is another version. Text that is not compressed is read as it is.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

_VERSION = b"\x01"
#: Shorter texts are not compressed: on a database's page, the gain would not show.
_SHORTEST = 200


@cache
def _dictionary() -> bytes:
    return Path(__file__).with_name("packed_v1.txt").read_bytes()


def packed(text: str) -> bytes | str:
    """Return the text, compressed if that is worth it."""
    if len(text) < _SHORTEST:
        return text
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _dictionary())
    return _VERSION + deflate.compress(text.encode("utf-8", "surrogatepass")) + deflate.flush()


def unpacked(stored: bytes | str) -> str:
    """Return the original text.

    Raises:
        ValueError: A newer version compressed it, or it is something else.
    """
    if isinstance(stored, str):
        return stored
    if stored[:1] != _VERSION:
        raise ValueError(f"{stored[:1]!r} is no version of packed text: it was written by a newer Headrace")
    try:
        inflate = zlib.decompressobj(-15, _dictionary())
        return (inflate.decompress(stored[1:]) + inflate.flush()).decode("utf-8", "surrogatepass")
    except zlib.error as error:
        raise ValueError(f"it is no packed text: {error}") from None
