"""The bytes of an entry: a head of 24 bytes, and a body, each with a checksum of its own.

The head is ``magic, length of the body, number, checksum of the body, checksum of the head``, little-endian; the body
is ``length of the stream's name, length of the ids, name, ids, payload``. Checksums are CRC32C. With a head of its own
checksum, an entry whose body was damaged still says which number it had and where the next one begins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crc32c import crc32c

#: Bytes of an event's digests in ``Entry.ids``.
ID_BYTES = 24
#: No entry is longer.
MOST_BYTES = 256 << 20

_MAGIC = b"HRLE"
_HEAD = struct.Struct("<4sIQII")
_CHECKED = _HEAD.size - 4  # bytes of the head that its checksum covers
_PARTS = struct.Struct("<HI")
#: Bytes of the shortest frame.
SHORTEST = _HEAD.size + _PARTS.size

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Entry:
    """One request's events of one stream: what becomes one message.

    Attributes:
        stream: Name of the stream.
        payload: JSON, one event or an array of events.
        ids: ``ID_BYTES`` of each event: 16 of the digest of write key and id, 8 of that of the body.
    """

    stream: str
    payload: bytes
    ids: bytes = b""


@dataclass(frozen=True, slots=True)
class Frame:
    """An entry where it was found.

    Attributes:
        number: Number of the entry.
        begin: Place of its first byte.
        end: Place behind its last byte.
        entry: The entry itself.
    """

    number: int
    begin: int
    end: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes that are no entry.

    Attributes:
        begin: Place of the first of them.
        end: Place behind the last of them.
        followed: Whether an entry follows; if not, nothing behind ``begin`` can be read.
    """

    begin: int
    end: int
    followed: bool


def encoded(first: int, entries: Iterable[Entry]) -> bytes:
    """Return the frames of entries, whose numbers begin with ``first``.

    Raises:
        ValueError: An entry is longer than ``MOST_BYTES``, or its stream's name than 65,535 bytes.
    """
    pieces: list[bytes] = []
    for number, entry in enumerate(entries, first):
        name = entry.stream.encode()
        length = _PARTS.size + len(name) + len(entry.ids) + len(entry.payload)
        if length > MOST_BYTES or len(name) > 0xFFFF:
            raise ValueError(f"an entry of {length:,} bytes; a log takes entries of {MOST_BYTES:,} at most")
        parts = _PARTS.pack(len(name), len(entry.ids)) + name
        checksum = crc32c(entry.payload, crc32c(entry.ids, crc32c(parts)))
        head = _HEAD.pack(_MAGIC, length, number, checksum, 0)[:_CHECKED]
        pieces += [head, crc32c(head).to_bytes(4, "little"), parts, entry.ids, entry.payload]
    return b"".join(pieces)


def frames(data: Buffer, begin: int = 0, end: int | None = None) -> Iterator[Frame | Hole]:
    """Find the entries in a segment, and the holes between them.

    Zeros up to the end are neither: a segment's space is reserved ahead.

    Args:
        data: The segment from its first byte on.
        begin: Place of an entry's first byte.
        end: Place where to stop; None for the end of ``data``.
    """
    end, at = len(data) if end is None else end, begin
    while at < end:
        found = frame_at(data, at, end) or hole_at(data, at, end)
        if isinstance(found, Hole) and not found.followed and not any(data[at:end]):
            return
        yield found
        at = found.end


def hole_at(data: Buffer, at: int, end: int) -> Hole:
    """Return what to pass over where no whole entry begins: up to where its head says, or to the next entry."""
    head = _head(data, at, end)
    if head is not None and (stop := at + _HEAD.size + head[0]) <= end:
        return Hole(at, stop, _next_frame(data, stop, end) is not None)
    after = _next_frame(data, at + 1, end)
    return Hole(at, end if after is None else after, after is not None)


def frame_at(data: Buffer, at: int, end: int) -> Frame | None:
    """Return the entry that begins at a place; None if none does, or it is damaged."""
    head = _head(data, at, end)
    if head is None:
        return None
    length, number, checksum = head
    begin, stop = at + _HEAD.size, at + _HEAD.size + length
    if stop > end or length < _PARTS.size:
        return None
    body = bytes(data[begin:stop])
    if crc32c(body) != checksum:
        return None
    named, ids = _PARTS.unpack_from(body)
    ids_at = _PARTS.size + named
    payload_at = ids_at + ids
    if payload_at > length:
        return None
    try:
        stream = body[_PARTS.size : ids_at].decode()
    except UnicodeDecodeError:
        return None
    return Frame(number, at, stop, Entry(stream, body[payload_at:], body[ids_at:payload_at]))


def skip(data: Buffer, at: int, end: int, until: int) -> int:
    """Return the place of the first entry with a number from ``until`` on; stops at what is no head.

    Bodies are not looked at.
    """
    while (head := _head(data, at, end)) is not None and head[1] < until:
        at += _HEAD.size + head[0]
    return min(at, end)


def _head(data: Buffer, at: int, end: int) -> tuple[int, int, int] | None:
    """Return length, number and checksum of the body; None if there is no head."""
    if at + _HEAD.size > end:
        return None
    magic, length, number, checksum, own = _HEAD.unpack_from(data, at)
    if magic != _MAGIC or crc32c(data[at : at + _CHECKED]) != own:
        return None
    return length, number, checksum


def _next_frame(data: Buffer, at: int, end: int) -> int | None:
    """Return the place of the next whole entry."""
    raw = bytes(data[at:end])
    place = raw.find(_MAGIC)
    while place != -1:
        if frame_at(raw, place, len(raw)) is not None:
            return at + place
        place = raw.find(_MAGIC, place + 1)
    return None
