"""Text that Dagster writes again and again, packed to a tenth: events, runs and ticks are the same JSON but for a few
values.

Deflate (RFC 1951) with a dictionary of such JSON, which must never change: what was packed with it could not be read
any more. Another one is another version. Text that is not packed is read as it is.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

_VERSION = b"\x01"
#: Below this, packing gains nothing that a page of a database would notice.
_SHORTEST = 200


@cache
def _dictionary() -> bytes:
    return Path(__file__).with_name("packed_v1.txt").read_bytes()


def packed(text: str) -> bytes | str:
    """The text, packed if that is worth it."""
    if len(text) < _SHORTEST:
        return text
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, _dictionary())
    return _VERSION + deflate.compress(text.encode("utf-8", "surrogatepass")) + deflate.flush()


def unpacked(stored: bytes | str) -> str:
    """The text.

    Raises:
        ValueError: It was packed by a newer version, or is something else.
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
