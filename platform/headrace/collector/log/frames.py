"""The bytes of an entry: a head of 28 bytes, and a body, each with a checksum of its own.

The head is ``magic, length of the body, number, seconds since 1970, checksum of the body, checksum of the head``,
little-endian; the body is ``length of the stream's name, length of the ids, name, ids, payload``. Checksums are CRC32C.
With a head of its own checksum, an entry whose body was damaged still says which number it had and where the next one
begins. The time is when it was appended, so that who looks at a log knows how long an entry has waited.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from crc32c import crc32c

#: Bytes of an event's digests in ``Entry.ids``.
ID_BYTES = 24
#: No entry is longer.
MOST_BYTES = 256 << 20

MAGIC = b"HRLE"  # begins every head
_HEAD = struct.Struct("<4sIQIII")
_CHECKED = _HEAD.size - 4  # bytes of the head that its checksum covers
_PARTS = struct.Struct("<HI")
#: Bytes of the shortest frame.
SHORTEST = _HEAD.size + _PARTS.size

#: The class of a log has a property of that name.
Bytes = bytes


class Entry(msgspec.Struct, frozen=True):
    """Some events of one stream: what becomes one message.

    Attributes:
        stream: Name of the stream.
        payload: JSON, one event or an array of events.
        ids: ``ID_BYTES`` of each event: 16 of the digest of write key and id, 8 of that of the body.
    """

    stream: str
    payload: bytes
    ids: bytes = b""


@dataclass(frozen=True, slots=True)
class Head:
    """What can be told of an entry without its payload.

    Attributes:
        number: Its number.
        at: When it was appended, in seconds since 1970.
        stream: Name of its stream.
        bytes: Bytes of its frame.
    """

    number: int
    at: int
    stream: str
    bytes: int


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


def encoded(first: int, entries: Iterable[Entry], now: float | None = None) -> bytes:
    """Return the frames of entries, whose numbers begin with ``first``.

    Args:
        first: That number.
        entries: The entries.
        now: Time of their heads, in seconds since 1970; None for this moment.

    Raises:
        ValueError: An entry is longer than ``MOST_BYTES``, or its stream's name than 65,535 bytes.
    """
    pieces: list[bytes] = []
    at = int(time.time() if now is None else now)
    for number, entry in enumerate(entries, first):
        name = entry.stream.encode()
        length = _PARTS.size + len(name) + len(entry.ids) + len(entry.payload)
        if length > MOST_BYTES or len(name) > 0xFFFF:
            raise ValueError(f"an entry of {length:,} bytes; a log takes entries of {MOST_BYTES:,} at most")
        parts = _PARTS.pack(len(name), len(entry.ids)) + name
        checksum = crc32c(entry.payload, crc32c(entry.ids, crc32c(parts)))
        head = _HEAD.pack(MAGIC, length, number, at, checksum, 0)[:_CHECKED]
        pieces += [head, crc32c(head).to_bytes(4, "little"), parts, entry.ids, entry.payload]
    return b"".join(pieces)


def entries_at(data: bytes, at: int, most: int) -> tuple[list[tuple[int, Entry]], int]:
    """Return the entries from a place on, with their numbers, and the place behind the last of them.

    Stops behind so many bytes, one entry at least, and at what is no whole entry.
    """
    found: list[tuple[int, Entry]] = []
    names: dict[bytes, str] = {}
    end, enough = at, at + most
    for number, body, end in _bodies(data, at):
        named, ids = _PARTS.unpack_from(body)
        ids_at = _PARTS.size + named
        raw = body[_PARTS.size : ids_at]
        if (name := names.get(raw)) is None:
            name = names[raw] = raw.decode()
        payload_at = ids_at + ids
        found.append((number, Entry(name, body[payload_at:], body[ids_at:payload_at])))
        if end >= enough:
            break
    return found, end


def whole_until(data: bytes, at: int, number: int) -> tuple[int, int]:
    """Pass over whole entries; returns the place behind them, and the number after the last one."""
    end = at
    for found, _, stop in _bodies(data, at):
        end, number = stop, max(number, found + 1)
    return end, number


def _bodies(data: bytes, at: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the whole entries from a place on, up to what is none: number, body, and the place behind it."""
    end, unpack, checksum_of = len(data), _HEAD.unpack_from, crc32c
    while at + _HEAD.size <= end:
        magic, length, number, _, checksum, own = unpack(data, at)
        begin = at + _HEAD.size
        stop = begin + length
        if magic != MAGIC or stop > end or length < _PARTS.size or checksum_of(data[at : begin - 4]) != own:
            return
        body = data[begin:stop]
        if checksum_of(body) != checksum:
            return
        yield number, body, stop
        at = stop


def hole_at(data: bytes, at: int) -> Hole:
    """Return what to pass over where no whole entry begins: up to where its head says, or to the next entry."""
    end = len(data)
    head = _head(data, at)
    if head is not None and (stop := at + _HEAD.size + head[0]) <= end:
        return Hole(at, stop, _next_entry(data, stop) is not None)
    after = _next_entry(data, at + 1)
    return Hole(at, end if after is None else after, after is not None)


def skip(data: bytes, until: int) -> int:
    """Return the place of the first entry with a number from ``until`` on; stops at what is no head.

    Bodies are not looked at.
    """
    at = 0
    while (head := _head(data, at)) is not None and head[1] < until:
        at += _HEAD.size + head[0]
    return min(at, len(data))


def heads(data: bytes) -> Iterator[Head]:
    """Yield what the heads of a segment say, in order; what is no entry is passed over. Checks no body."""
    at = 0
    while True:
        if (head := _head(data, at)) is None or at + _HEAD.size + head[0] > len(data):
            hole = hole_at(data, at)
            if not hole.followed:
                return
            at = hole.end
            continue
        length, number = head
        named, _ = _PARTS.unpack_from(data, at + _HEAD.size)
        name_at = at + _HEAD.size + _PARTS.size
        name = bytes(data[name_at : name_at + named]).decode(errors="replace")
        yield Head(number, _HEAD.unpack_from(data, at)[3], name, _HEAD.size + length)
        at += _HEAD.size + length


def _head(data: bytes, at: int) -> tuple[int, int] | None:
    """Return length of the body, and number; None if there is no head."""
    if at + _HEAD.size > len(data):
        return None
    magic, length, number, _, _, own = _HEAD.unpack_from(data, at)
    if magic != MAGIC or crc32c(data[at : at + _CHECKED]) != own:
        return None
    return length, number


def _next_entry(data: bytes, at: int) -> int | None:
    """Return the place of the next whole entry."""
    place = data.find(MAGIC, at)
    while place != -1:
        if entries_at(data, place, 1)[0]:
            return place
        place = data.find(MAGIC, place + 1)
    return None
