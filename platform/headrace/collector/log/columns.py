"""Read the ids of a log's entries by columns: a start may have to read those of a million."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from headrace.collector.log.frames import MAGIC

_HEAD = np.dtype(
    [("magic", "S4"), ("length", "<u4"), ("number", "<u8"), ("at", "<u4"), ("body", "<u4"), ("own", "<u4")]
)
_PARTS = np.dtype([("name", "<u2"), ("ids", "<u4")])
_CHECKED = _HEAD.itemsize - 4  # bytes of the head that its checksum covers
_LENGTH = struct.Struct("<4xI")
_POLYNOMIAL = 0x82F63B78  # of CRC32C


def _checksums_of_bytes() -> npt.NDArray[np.uint32]:
    """Return the checksum of each byte, without the inversions."""
    found = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        found = (found >> np.uint32(1)) ^ np.where(found & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return found


_TABLE = _checksums_of_bytes()


def ids_at(data: bytes, at: int, most: int) -> tuple[list[tuple[int, bytes]], int]:
    """Return the ids of the entries from a place on, with their numbers, and the place behind the last of them.

    Finds the entries that ``frames.entries_at`` finds.
    """
    found = _places(data, at, most)
    if not found:
        return [], at
    places = np.array(found)
    heads = _at(data, places, _HEAD)
    begins = places + _HEAD.itemsize
    ends = begins + heads["length"]
    sums = [crc32c(data[begin:end]) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    own = _checksums(heads.view(np.uint8).reshape(len(heads), -1)[:, :_CHECKED])
    sound = (heads["magic"] == MAGIC) & (own == heads["own"]) & (np.array(sums, np.uint32) == heads["body"])
    whole = len(sound) if sound.all() else int(sound.argmin())
    if not whole:
        return [], at
    parts = _at(data, begins[:whole], _PARTS)
    first = begins[:whole] + _PARTS.itemsize + parts["name"]
    ids = [data[a:b] for a, b in zip(first.tolist(), (first + parts["ids"]).tolist(), strict=True)]
    return list(zip(heads["number"][:whole].tolist(), ids, strict=True)), int(ends[whole - 1])


def _places(data: bytes, at: int, most: int) -> list[int]:
    """Return where entries begin, as far as one says where the next one begins."""
    places: list[int] = []
    last, enough, length_at = len(data), at + most, _LENGTH.unpack_from
    while at < enough and at + _HEAD.itemsize <= last:
        length = length_at(data, at)[0]
        stop = at + _HEAD.itemsize + length
        if stop > last or length < _PARTS.itemsize:
            break
        places.append(at)
        at = stop
    return places


def _at(data: bytes, places: npt.NDArray[np.int64], kind: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """Return what is at each place."""
    raw = np.frombuffer(data, np.uint8)[places[:, None] + np.arange(kind.itemsize)]
    found: npt.NDArray[np.void] = raw.view(kind)[:, 0]
    return found


def _checksums(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return the CRC32C of each row."""
    found = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        found = _TABLE[(found ^ column) & 0xFF] ^ (found >> np.uint32(8))
    return ~found
