"""Receipts: where a request's events are by now. A receipt holds the numbers of its entries, so nothing is stored."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from headrace.collector.base import Refused

_PREFIX = "r"
#: Numbers that a receipt may hold.
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Stage:
    """How far an entry of the log is.

    Attributes:
        stream: Its stream.
        in_topic: Whether topic or queue have it.
        in_lake: Whether the lake has it, as rows or as rejected records.
        lake_version: Version of the lake's table as of which it has; None if it does not yet, or nobody knows any more.
        in_warehouse: Whether the warehouse has all up to that version.
    """

    stream: str
    in_topic: bool = False
    in_lake: bool = False
    lake_version: int | None = None
    in_warehouse: bool = False


class Progress(Protocol):
    """Says how far entries of the log are."""

    def stages(self, stream: str, numbers: Sequence[int], /) -> list[Stage]:
        """Return how far each entry of a stream is.

        Raises:
            Retriable: Lake or warehouse do not answer.
        """


def receipt(log: str, numbers: Mapping[str, Sequence[int]]) -> str:
    """Return the receipt of entries.

    Args:
        log: Id of the log.
        numbers: Their numbers by stream.
    """
    return ".".join(
        [f"{_PREFIX}{log}", *(f"{stream}:{_packed(tuple(some))}" for stream, some in numbers.items())]
    )


def numbers_of(log: str, told: str) -> dict[str, list[int]] | None:
    """Return the numbers of a receipt's entries by stream; None for what is no receipt.

    Raises:
        Refused: It is a receipt of another log.
    """
    head, *parts = told.split(".")
    if not parts or not head.startswith(_PREFIX):
        return None
    found: dict[str, list[int]] = {}
    for part in parts:
        stream, colon, packed = part.partition(":")
        numbers = _unpacked(packed) if colon and stream and stream not in found else None
        if not numbers:
            return None
        found[stream] = numbers
    if head != f"{_PREFIX}{log}":
        raise Refused(404, "the receipt is of another collector's log, which this one cannot look into")
    return found


@lru_cache(64)  # all requests of a group have the same few
def _packed(numbers: tuple[int, ...]) -> str:
    packed = bytearray()
    last = 0
    for first, length in _runs(numbers if len(numbers) == 1 else sorted(set(numbers))):
        _put(packed, first - last)
        _put(packed, length - 1)
        last = first + length
    return urlsafe_b64encode(packed).decode().rstrip("=")


def _unpacked(told: str) -> list[int] | None:
    found: list[int] = []
    last = 0
    try:
        values = list(_values(b64decode(told + "=" * (-len(told) % 4), b"-_", validate=True)))
        for begin, more in zip(values[::2], values[1::2], strict=True):
            if len(found) + more >= _MOST:
                return None
            found += range(last + begin, last + begin + more + 1)
            last = found[-1] + 1
    except (binascii.Error, ValueError):
        return None
    return found


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first number and length of each range without a gap."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield numbers[begin], at - begin
            begin = at


def _put(packed: bytearray, value: int) -> None:
    while value > 0x7F:
        packed.append(value & 0x7F | 0x80)
        value >>= 7
    packed.append(value)


def _values(packed: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError("too large")
        if byte < 0x80:
            yield value
            value = shift = 0
    if shift:
        raise ValueError("it ends too early")
