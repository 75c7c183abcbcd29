"""Find the fields of Kafka's records by compiled code; see ``decode``."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.core.compiled import byte_at, compiled, write_view

#: Problems of a record, by number.
PROBLEMS = (
    "",
    "it is cut off",
    "it reaches beyond the batch's end",
    "its length is negative",
    "a field of it reaches beyond its end",
    "a number in it is cut off",
    "a number in it is longer than 64 bits",
    "the number of its headers is negative",
    "it is longer than its fields",
    "a header has no name",
)
_CUT, _BEYOND, _NEGATIVE, _FIELD, _NUMBER_CUT, _NUMBER_LONG, _HEADERS, _LONGER, _NAMELESS = range(1, 10)


@compiled
def _varint(data: Any, at: int, end: int) -> tuple[Any, int]:
    """Read a zigzag number of up to 64 bits (https://protobuf.dev/programming-guides/encoding/#signed-ints).

    Returns:
        The number, and where it ends; below zero: the problem.
    """
    value, shift = np.uint64(0), np.uint64(0)
    while True:
        if at >= end:
            return 0, -_NUMBER_CUT
        byte = np.uint64(byte_at(data, at))
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
        if shift > np.uint64(63):
            return 0, -_NUMBER_LONG


@compiled
def _bytes(data: Any, at: int, end: int) -> tuple[int, int, int]:
    """Find bytes that follow their length.

    Returns:
        Where they begin, their size (below zero: null), and where they end; below zero: the problem.
    """
    size, at = _varint(data, at, end)
    if at < 0 or size < 0:
        return 0, -1, at
    return (at, size, at + size) if size <= end - at else (0, -1, -_FIELD)


@compiled
def find_fields(
    data: Any, begin: int, end: int, first: int, count: int, views: Any, known: Any, numbers: Any
) -> tuple[int, int, int]:
    """Find the fields of a batch's records.

    Args:
        data: The bytes.
        begin: Where the first record begins.
        end: Where the batch ends.
        first: Row of the first record in the results.
        count: Number of records.
        views: By row: views of payload and key.
        known: By row: whether payload and key are not null.
        numbers: By row: deltas of timestamp and offset, the number of headers, where they begin and end.

    Returns:
        The row of a broken record, the number of its problem or 0, and where the last record ends.
    """
    at = begin
    for row in range(first, first + count):
        length, body = _varint(data, at, end)
        if body < 0:
            return row, _CUT if body == -_NUMBER_CUT else -body, at
        if length < 0:
            return row, _NEGATIVE, at
        if length > end - body:
            return row, _BEYOND, at
        stop = body + length
        if length == 0:
            return row, _FIELD, at
        timestamp, at = _varint(
            data, body + 1, stop
        )  # a byte of attributes comes first, which nothing uses so far
        if at < 0:
            return row, -at, 0
        offset, at = _varint(data, at, stop)
        if at < 0:
            return row, -at, 0
        key, key_size, at = _bytes(data, at, stop)
        if at < 0:
            return row, -at, 0
        value, value_size, at = _bytes(data, at, stop)
        if at < 0:
            return row, -at, 0
        headers, at = _varint(data, at, stop)
        if at < 0:
            return row, -at, 0
        if headers < 0:
            return row, _HEADERS, at
        if headers == 0 and at != stop:
            return row, _LONGER, at
        if 2 * headers > stop - at:
            return row, _FIELD, at
        known[0, row] = value_size >= 0
        known[1, row] = key_size >= 0
        write_view(data, value, max(value_size, 0), 0, views, 0, row)
        write_view(data, key, max(key_size, 0), 0, views, 1, row)
        numbers[0, row] = timestamp
        numbers[1, row] = offset
        numbers[2, row] = headers
        numbers[3, row] = at
        numbers[4, row] = stop
        at = stop
    return 0, 0, at


@compiled
def find_headers(data: Any, numbers: Any, views: Any, known: Any) -> tuple[int, int]:
    """Find names and values of the headers of all records, one after the other.

    Args:
        data: The bytes.
        numbers: Filled by ``find_fields``.
        views: By header: views of name and value.
        known: By header: whether its value is not null.

    Returns:
        The row of a broken record, and the number of its problem or 0.
    """
    n = 0
    for row in range(numbers.shape[1]):
        at, stop = numbers[3, row], numbers[4, row]
        for _ in range(numbers[2, row]):
            name, size, at = _bytes(data, at, stop)
            if at < 0:
                return row, -at
            if size < 0:
                return row, _NAMELESS
            write_view(data, name, size, 0, views, 0, n)
            value, size, at = _bytes(data, at, stop)
            if at < 0:
                return row, -at
            known[n] = size >= 0
            write_view(data, value, max(size, 0), 0, views, 1, n)
            n += 1
        if at != stop:
            return row, _LONGER
    return 0, 0
