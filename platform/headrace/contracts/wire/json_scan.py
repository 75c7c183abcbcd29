"""Scan JSON objects with known fields from bytes into columns, by compiled code.

``scan`` handles what nearly all records are: an object whose fields have the types that the contract names. It
marks every other record as ``odd`` and leaves it to ``decode``, which handles every case and names what is
wrong: invalid JSON, wrong types, repeated keys, numbers of more than 18 digits. So ``scan`` may accept less
than a full parser, and never more: `tests/contracts/test_json_scan.py` compares it with msgspec on the same
bytes.

It runs without the interpreter's lock, on bytes that are UTF-8 (the caller has checked). Text becomes Arrow
views into those bytes, or into ``Columns.text`` if it has escapes.

The file stays whole although it is long. Numba's cache checks whether a function's own file has changed, and no
other. If a helper lived in another file, a change of it would leave stale machine code in the cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.core.compiled import byte_at, compiled, trailing_zeros, word_at, write_view

#: Types of a field: text, double, 64-bit integer, RFC 3339 as microseconds, text of an object, map of text to text,
#: true or false, text of any value.
STRING, NUMBER, INTEGER, TIME, OBJECT, MAP, BOOLEAN, JSON = range(8)
#: Values of ``Columns.presence``.
MISSING, NULL, PRESENT = range(3)
#: Returned by a step that failed, instead of where it ended.
_NO = -1
_DEEPEST = 60
#: Most fields outside the contract in one record; a record with more is left to ``decode``.
MOST_STRANGE = 32
#: Slots for names of such fields in one call: a power of two, of which some stay empty.
NAMES = 64
_MOST_NAMES = 48
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MAX_PAIRS = 64
#: Most digits that always fit into a 64-bit integer.
_DIGITS = 18
_LARGEST = 10**_DIGITS
_TRUE, _FALSE, _NULL, _U = (np.frombuffer(word, np.uint8) for word in (b"true", b"false", b"null", b"\\u"))
#: Smallest and largest time, microseconds since 1970: 0001-01-01T00:00:00Z, 9999-12-31T23:59:59.999999Z.
_FIRST_MICROS, _LAST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999
#: Powers of ten that a double holds exactly.
_POWERS = np.array([10.0**n for n in range(23)])
_MOST_DIGITS = 38
_LOW_HALF, _HALF, _TEN = np.uint64(0xFFFF_FFFF), np.uint64(32), np.uint64(10)
_SPLIT = 134217729.0  # 2**27 + 1, see _rest
#: One byte eight times.
_ONES, _QUOTES, _BACKSLASHES, _SPACES, _HIGHEST = (
    np.uint64(byte * 0x0101_0101_0101_0101) for byte in (0x01, 0x22, 0x5C, 0x20, 0x80)
)


class Fields(NamedTuple):
    """The fields to look for.

    Attributes:
        names: All names, one after the other, UTF-8.
        name_at: Where each name begins in ``names``, and where the last one ends.
        kind: Type of each field, one of the numbers above.
        slot: Column of each field among the columns of its type.
        low: Smallest integer that the field may hold.
        high: Largest integer that the field may hold.
    """

    names: npt.NDArray[np.uint8]
    name_at: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    slot: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]


class Strange(NamedTuple):
    """Fields outside the contract.

    Attributes:
        places: Of the current record. Row 0: how many such fields it has and may have (0: a record with one is
            odd; -1: nobody asks). Further rows: begin and end of each field's name and value.
        hashes: By slot of a hash table: hash of a name; 0 for an empty slot.
        tally: By slot: number of records with the name, and begin and end of one occurrence. The last slot
            counts the names that found no slot.
        kept: Slot of ``Columns.views`` for their JSON text, or -1. Its presence follows that of the fields.
    """

    places: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    tally: npt.NDArray[np.int64]
    kept: int


class Columns(NamedTuple):
    """The columns to fill.

    Attributes:
        presence: By field and row: MISSING, NULL or PRESENT; one more entry for ``Strange`` if they are kept.
        views: By slot and row: the views of text.
        numbers: By slot and row.
        integers: By slot and row; also times, and 1 for true.
        sizes: By slot and row: number of pairs in a map.
        pairs: By slot twice (keys, values) and by pair: the views of a map's texts.
        text: Room for texts with resolved escapes: as many bytes as are scanned.
        used: How much is used of ``text``, then of each slot's ``pairs``.
    """

    presence: npt.NDArray[np.uint8]
    views: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float64]
    integers: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    pairs: npt.NDArray[np.int32]
    text: npt.NDArray[np.uint8]
    used: npt.NDArray[np.int64]


@compiled
def scan(data: Any, offsets: Any, fields: Any, columns: Any, strange: Any, odd: Any) -> None:
    """Fill ``columns`` with the records between the ``offsets``; mark in ``odd`` those it is not sure of.

    Args:
        data: The bytes of all records, UTF-8.
        offsets: Where each record begins, and where the last one ends.
        fields: See ``Fields``.
        columns: See ``Columns``; zeros.
        strange: See ``Strange``; zeros, except how many fields a record may have.
        odd: By row; rows that are true already are skipped.
    """
    # unpack the tuples once: each access costs more than a field
    names, name_at, kinds, slots, low, high = fields
    presence, views, numbers, integers, sizes, pairs, text, used = columns
    places, hashes, tally, kept = strange
    for row in range(offsets.size - 1):
        if odd[row]:
            continue
        before = used[0]
        places[0, 0] = 0
        whole = _record(
            data, offsets[row], offsets[row + 1], row,
            names, name_at, kinds, slots, low, high,
            presence, views, numbers, integers, sizes, pairs, text, used, places,
        )  # fmt: skip
        if whole:
            if places[0, 0]:
                _note(data, places, hashes, tally)
                if kept >= 0:
                    presence[kinds.size, row] = PRESENT
                    _keep(data, places, views, kept, row, text, used)
        else:
            odd[row] = True
            used[0] = before
            for field in range(kinds.size):
                presence[field, row] = MISSING
            for slot in range(sizes.shape[0]):
                used[1 + slot] -= sizes[slot, row]
                sizes[slot, row] = 0


@compiled
def _record(
    data: Any, at: int, end: int, row: int,
    names: Any, name_at: Any, kinds: Any, slots: Any, low: Any, high: Any,
    presence: Any, views: Any, numbers: Any, integers: Any, sizes: Any, pairs: Any, text: Any, used: Any,
    places: Any,
) -> bool:  # fmt: skip
    """Tell whether the bytes are exactly one object of which every field was understood."""
    at = _space(data, at, end)
    if at >= end or byte_at(data, at) != 0x7B:
        return False
    at = _space(data, at + 1, end)
    if at < end and byte_at(data, at) == 0x7D:
        return _space(data, at + 1, end) == end
    expected = 0
    while True:
        name = at + 1
        if expected < kinds.size and _named(data, at, end, expected, names, name_at):
            field, close = expected, at + 1 + name_at[expected + 1] - name_at[expected]
        else:
            close = _plain_string(data, at, end)
            if close < 0:
                return False
            field = _field(data, at, end, close, expected, names, name_at)
        at = _space(data, close + 1, end)
        if at >= end or byte_at(data, at) != 0x3A:
            return False
        at = _space(data, at + 1, end)
        if at >= end:
            return False
        if field < 0:
            value = at
            at = _skip(data, at, end)
            if at < 0 or not _stranger(data, name, close, value, at, places):
                return False
        elif presence[field, row] != MISSING:
            return False
        elif byte_at(data, at) == 0x6E:
            presence[field, row] = NULL
            expected = field + 1
            at = _literal(data, at, end)
        else:
            presence[field, row] = PRESENT
            expected = field + 1
            kind, slot = kinds[field], slots[field]
            if kind == STRING:
                at = _text(data, at, end, views, slot, row, text, used)
            elif kind == TIME:
                close = _plain_string(data, at, end)
                if close < 0:
                    return False
                known, integers[slot, row] = _time(data, at + 1, close)
                at = close + 1 if known else _NO
            elif kind == OBJECT:
                begin = at
                at = _skip(data, at, end) if byte_at(data, at) == 0x7B else _NO
                write_view(data, begin, max(0, at - begin), 0, views, slot, row)
            elif kind == MAP:
                at = _map(data, at, end, row, slot, sizes, pairs, text, used)
            elif kind == BOOLEAN:
                integers[slot, row] = byte_at(data, at) == 0x74
                at = _literal(data, at, end)
            elif kind == JSON:
                begin = at
                at = _skip(data, at, end)
                write_view(data, begin, max(0, at - begin), 0, views, slot, row)
            else:
                at, digits, mantissa, exponent, negative, integral = _number(data, at, end)
                if digits > _DIGITS:
                    return False
                if kind == INTEGER:
                    known = True
                    if not integral:
                        known, mantissa = _whole(mantissa, exponent)
                    value = -mantissa if negative else mantissa
                    integers[slot, row] = value
                    known = known and low[field] <= value <= high[field]
                else:
                    known, double = _double(mantissa, exponent)
                    numbers[slot, row] = -double if negative else double
                if not known:
                    return False
        if at < 0:
            return False
        at = _space(data, at, end)
        if at >= end:
            return False
        if byte_at(data, at) == 0x7D:
            return _space(data, at + 1, end) == end
        if byte_at(data, at) != 0x2C:
            return False
        at = _space(data, at + 1, end)


@compiled
def _stranger(data: Any, name: int, close: int, value: int, end: int, places: Any) -> bool:
    """Note where a field outside the contract is; false if it is one too many, or repeated."""
    count = places[0, 0]
    if places[0, 1] < 0:
        return True
    if count == places[0, 1]:
        return False
    for n in range(1, count + 1):
        if places[n, 1] - places[n, 0] == close - name and _equal(data, places[n, 0], name, close - name):
            return False
    count += 1
    places[count, 0], places[count, 1], places[count, 2], places[count, 3] = name, close, value, end
    places[0, 0] = count
    return True


@compiled
def _equal(data: Any, one: int, other: int, size: int) -> bool:
    differ = 0
    for n in range(size):
        differ += byte_at(data, one + n) != byte_at(data, other + n)
    return differ == 0


@compiled
def _note(data: Any, places: Any, hashes: Any, tally: Any) -> None:
    """Count the record once for each of its fields outside the contract (FNV-1a, open addressing)."""
    for n in range(1, places[0, 0] + 1):
        begin, end = places[n, 0], places[n, 1]
        hashed = _FNV_OFFSET
        for at in range(begin, end):
            hashed = (hashed ^ np.uint64(byte_at(data, at))) * _FNV_PRIME
        hashed |= np.uint64(1)  # 0 is an empty slot
        slot: Any = np.int64(hashed >> np.uint64(58))
        while hashes[slot] != hashed and hashes[slot] != 0:
            slot = (slot + 1) & (NAMES - 1)
        if hashes[slot] == 0:
            if tally[NAMES, 1] == _MOST_NAMES:
                slot = NAMES
            else:
                tally[NAMES, 1] += 1
                hashes[slot], tally[slot, 1], tally[slot, 2] = hashed, begin, end
        tally[slot, 0] += 1


@compiled
def _keep(data: Any, places: Any, views: Any, column: int, row: int, text: Any, used: Any) -> None:
    """Write the fields outside the contract as a JSON object, which is no longer than the record."""
    begin = to = used[0]
    for n in range(1, places[0, 0] + 1):
        text[to] = 0x7B if n == 1 else 0x2C
        text[to + 1] = 0x22
        to += 2
        for at in range(places[n, 0], places[n, 1]):
            text[to] = byte_at(data, at)
            to += 1
        text[to], text[to + 1] = 0x22, 0x3A
        to += 2
        for at in range(places[n, 2], places[n, 3]):
            text[to] = byte_at(data, at)
            to += 1
    text[to] = 0x7D
    to += 1
    write_view(text, begin, to - begin, 1, views, column, row)
    used[0] = to


@compiled
def _named(data: Any, at: int, end: int, field: int, names: Any, name_at: Any) -> bool:
    """Tell whether the field's name in quotes begins at ``at``."""
    first, size = name_at[field], name_at[field + 1] - name_at[field]
    if at + size + 2 > end or byte_at(data, at) != 0x22 or byte_at(data, at + 1 + size) != 0x22:
        return False
    for n in range(size):  # noqa: SIM110 - Numba has no generators here
        if byte_at(data, at + 1 + n) != byte_at(names, first + n):
            return False
    return True


@compiled
def _field(data: Any, at: int, end: int, close: int, expected: int, names: Any, name_at: Any) -> int:
    """Find the field with a name; most records have their fields in the contract's order."""
    count = name_at.size - 1
    for n in range(expected, expected + count):
        field = n - count if n >= count else n
        if name_at[field + 1] - name_at[field] == close - at - 1 and _named(
            data, at, end, field, names, name_at
        ):
            return field
    return _NO


@compiled
def _map(
    data: Any, at: int, end: int, row: int, slot: int, sizes: Any, pairs: Any, text: Any, used: Any
) -> int:
    """Store an object of texts without repeated keys; return where it ends."""
    if byte_at(data, at) != 0x7B:
        return _NO
    at = _space(data, at + 1, end)
    if at < end and byte_at(data, at) == 0x7D:
        return at + 1
    first = used[1 + slot]
    while True:
        pair = used[1 + slot]
        close = _plain_string(data, at, end)
        if close < 0 or pair - first == _MAX_PAIRS:
            return _NO
        write_view(data, at + 1, close - at - 1, 0, pairs, 2 * slot, pair)
        for earlier in range(first, pair):
            if _same(data, pairs, 2 * slot, earlier, pair):
                return _NO
        at = _space(data, close + 1, end)
        if at >= end or byte_at(data, at) != 0x3A:
            return _NO
        at = _text(data, _space(data, at + 1, end), end, pairs, 2 * slot + 1, pair, text, used)
        if at < 0:
            return _NO
        used[1 + slot] = pair + 1
        sizes[slot, row] += 1
        at = _space(data, at, end)
        if at >= end:
            return _NO
        if byte_at(data, at) == 0x7D:
            return at + 1
        if byte_at(data, at) != 0x2C:
            return _NO
        at = _space(data, at + 1, end)


@compiled
def _same(data: Any, views: Any, column: int, one: int, other: int) -> bool:
    """Tell whether two views into ``data`` have the same text."""
    size = views[column, one, 0]
    if size != views[column, other, 0] or views[column, one, 1] != views[column, other, 1]:
        return False
    if size <= 12:
        return bool(
            views[column, one, 2] == views[column, other, 2]
            and views[column, one, 3] == views[column, other, 3]
        )
    differ = 0
    for n in range(size):
        differ += byte_at(data, views[column, one, 3] + n) != byte_at(data, views[column, other, 3] + n)
    return differ == 0


@compiled
def _space(data: Any, at: int, end: int) -> int:
    """Return where white space ends."""
    while at < end and (
        byte_at(data, at) == 0x20
        or byte_at(data, at) == 0x0A
        or byte_at(data, at) == 0x0D
        or byte_at(data, at) == 0x09
    ):
        at += 1
    return at


@compiled
def _stop(data: Any, at: int, end: int) -> Any:
    """Return where a string does not simply go on: at a quote, a backslash, a control character, or the end.

    Compares eight bytes at once (https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord). Of the bytes
    found, only the lowest is certain.
    """
    while at + 8 <= end:
        word = word_at(data, at)
        quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
        found = (
            ((quotes - _ONES) & ~quotes) | ((backslashes - _ONES) & ~backslashes) | ((word - _SPACES) & ~word)
        )
        found &= _HIGHEST
        if found:
            return at + (trailing_zeros(found) >> 3)
        at += 8
    while at < end:
        byte = byte_at(data, at)
        if byte == 0x22 or byte == 0x5C or byte < 0x20:
            return at
        at += 1
    return end


@compiled
def _plain_string(data: Any, at: int, end: int) -> int:
    """Return where the string that opens at ``at`` closes, if it has no escapes."""
    if at >= end or byte_at(data, at) != 0x22:
        return _NO
    at = _stop(data, at + 1, end)
    return at if at < end and byte_at(data, at) == 0x22 else _NO


@compiled
def _string(data: Any, at: int, end: int) -> int:
    """Return where the string that opens at ``at`` closes. A lone surrogate is no text."""
    if at >= end or byte_at(data, at) != 0x22:
        return _NO
    at += 1
    while True:
        at = _stop(data, at, end)
        if at >= end:
            return _NO
        if byte_at(data, at) == 0x22:
            return at
        if byte_at(data, at) != 0x5C or at + 1 >= end:
            return _NO
        at += 1
        if byte_at(data, at) == 0x75:
            code = _hex(data, at + 1, end)
            at += 4
            if 0xD800 <= code < 0xDC00 and _follows(data, at + 1, end, _U):
                code = 0 if 0xDC00 <= _hex(data, at + 3, end) <= 0xDFFF else _NO
                at += 6
            elif 0xD800 <= code <= 0xDFFF:
                code = _NO
            if code < 0:
                return _NO
        elif _escaped(byte_at(data, at)) == 0:
            return _NO
        at += 1


@compiled
def _escaped(byte: int) -> int:
    """Return the byte that an escaped byte stands for; 0 if it may not be escaped."""
    if byte == 0x22 or byte == 0x5C or byte == 0x2F:
        return byte
    if byte == 0x6E:
        return 0x0A
    if byte == 0x74:
        return 0x09
    if byte == 0x72:
        return 0x0D
    if byte == 0x62:
        return 0x08
    if byte == 0x66:
        return 0x0C
    return 0


@compiled
def _hex(data: Any, at: int, end: int) -> int:
    """Read four hexadecimal digits."""
    if at + 4 > end:
        return _NO
    value = 0
    for n in range(4):
        byte = byte_at(data, at + n)
        if 0x30 <= byte <= 0x39:
            value = value * 16 + byte - 0x30
        elif 0x61 <= byte <= 0x66:
            value = value * 16 + byte - 0x57
        elif 0x41 <= byte <= 0x46:
            value = value * 16 + byte - 0x37
        else:
            return _NO
    return value


@compiled
def _text(data: Any, at: int, end: int, views: Any, column: int, row: int, text: Any, used: Any) -> int:
    """Store a string; return where it ends."""
    close = _plain_string(data, at, end)
    if close >= 0:
        write_view(data, at + 1, close - at - 1, 0, views, column, row)
        return close + 1
    close = _string(data, at, end)
    if close < 0:
        return _NO
    begin = used[0]
    stop = _unescape(data, at + 1, close, text, begin)
    write_view(text, begin, stop - begin, 1, views, column, row)
    used[0] = stop
    return close + 1


@compiled
def _unescape(data: Any, at: int, end: int, out: Any, to: int) -> int:
    """Copy the bytes found by ``_string`` and resolve escapes; return where the copy ends."""
    while at < end:
        byte = byte_at(data, at)
        at += 1
        if byte != 0x5C:
            out[to] = byte
            to += 1
            continue
        byte = byte_at(data, at)
        at += 1
        if byte != 0x75:
            out[to] = _escaped(byte)
            to += 1
            continue
        code = _hex(data, at, end)
        at += 4
        if 0xD800 <= code < 0xDC00:  # the first half of a pair
            code = 0x10000 + ((code - 0xD800) << 10) + _hex(data, at + 2, end) - 0xDC00
            at += 6
        if code < 0x80:
            out[to] = code
            to += 1
            continue
        # UTF-8: the leading byte says how many follow, six bits each
        more = 1 if code < 0x800 else 2 if code < 0x10000 else 3
        out[to] = ((0xFF00 >> (more + 1)) & 0xFF) | (code >> (6 * more))
        for n in range(1, more + 1):
            out[to + n] = 0x80 | ((code >> (6 * (more - n))) & 0x3F)
        to += more + 1
    return to


@compiled
def _literal(data: Any, at: int, end: int) -> int:
    """Return where ``true``, ``false`` or ``null`` ends."""
    if _follows(data, at, end, _TRUE) or _follows(data, at, end, _NULL):
        return at + 4
    return at + 5 if _follows(data, at, end, _FALSE) else _NO


@compiled
def _follows(data: Any, at: int, end: int, word: Any) -> bool:
    if end - at < word.size:
        return False
    same = 0
    for n in range(word.size):
        same += byte_at(data, at + n) == word[n]
    return bool(same == word.size)


@compiled
def _number(data: Any, at: int, end: int) -> tuple[int, int, int, int, bool, bool]:
    """Read a number as mantissa and power of ten.

    Returns:
        Where it ends, its digits without leading zeros, mantissa (of the first ``_DIGITS``), exponent, whether
            it is negative, and whether it is written as an integer.
    """
    nothing = (_NO, 0, 0, 0, False, False)
    negative = at < end and byte_at(data, at) == 0x2D
    if negative:
        at += 1
    mantissa, digits, exponent, integral = 0, 0, 0, True
    first = at
    while at < end and 0x30 <= byte_at(data, at) <= 0x39:
        if digits < _DIGITS:
            mantissa = mantissa * 10 + (byte_at(data, at) - 0x30)
        if mantissa > 0:
            digits += 1
        at += 1
    if at == first or (byte_at(data, first) == 0x30 and at > first + 1):
        return nothing
    if at < end and byte_at(data, at) == 0x2E:
        integral = False
        at += 1
        first = at
        while at < end and 0x30 <= byte_at(data, at) <= 0x39:
            if digits < _DIGITS:
                mantissa = mantissa * 10 + (byte_at(data, at) - 0x30)
            if mantissa > 0:
                digits += 1
            exponent -= 1
            at += 1
        if at == first:
            return nothing
    if at < end and (byte_at(data, at) == 0x65 or byte_at(data, at) == 0x45):
        integral = False
        at += 1
        sign = 1
        if at < end and (byte_at(data, at) == 0x2B or byte_at(data, at) == 0x2D):
            sign = -1 if byte_at(data, at) == 0x2D else 1
            at += 1
        first, power = at, 0
        while at < end and 0x30 <= byte_at(data, at) <= 0x39:
            if power < 10_000:
                power = power * 10 + (byte_at(data, at) - 0x30)
            at += 1
        if at == first:
            return nothing
        exponent += sign * power
    return at, digits, mantissa, exponent, negative, integral


@compiled
def _whole(mantissa: int, exponent: int) -> tuple[bool, int]:
    """Tell whether ``mantissa * 10**exponent`` is an integer of ``_DIGITS`` at most, and compute it."""
    if mantissa == 0:
        return True, 0
    while exponent < 0 and mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    while exponent > 0 and mantissa < _LARGEST // 10:
        mantissa *= 10
        exponent -= 1
    return exponent == 0, mantissa


@compiled
def _double(mantissa: int, exponent: int) -> tuple[bool, float]:
    """Return the double nearest to ``mantissa * 10**exponent``, and whether it is certain.

    Product or quotient are computed to twice a double's precision (Dekker, https://doi.org/10.1007/BF01397083).
    Only a result within a millionth of the middle between two doubles is uncertain.
    """
    nearest = float(mantissa)
    if exponent == 0 or mantissa == 0:
        return True, nearest
    if exponent < -22 or exponent > 22:
        return False, 0.0
    power = _POWERS[abs(exponent)]
    if mantissa <= 1 << 53:  # both are exact, so this rounds once
        return True, nearest * power if exponent > 0 else nearest / power
    low = float(mantissa - int(nearest))
    if exponent > 0:
        high = nearest * power
        low = _rest(nearest, power, high) + low * power
    else:
        high = nearest / power
        low = (_rest(high, power, nearest) * -1.0 + low) / power
    double = high + low
    fraction, scale = math.frexp(double)
    between = math.ldexp(1.0, scale - 54)
    certain = fraction != 0.5 and between - abs(low - (double - high)) > between * 1e-6
    return certain, double


@compiled
def _rest(one: float, other: float, product: float) -> float:
    """Compute ``one * other - product`` exactly, for a ``product`` that is close."""
    part = one * _SPLIT
    one_high = part - (part - one)
    one_low = one - one_high
    part = other * _SPLIT
    other_high = part - (part - other)
    other_low = other - other_high
    rest = one_high * other_high - product
    rest += one_high * other_low
    rest += one_low * other_high
    return rest + one_low * other_low


@compiled
def _skip(data: Any, at: int, end: int) -> int:
    """Return where the value of any type that begins at ``at`` ends."""
    depth, objects = 0, 0  # objects: one bit per open bracket, innermost last, set for an object
    while True:
        at = _space(data, at, end)
        if at >= end:
            return _NO
        byte = byte_at(data, at)
        if byte == 0x7B or byte == 0x5B:
            at = _space(data, at + 1, end)
            if at >= end:
                return _NO
            if byte_at(data, at) != byte + 2:
                if depth == _DEEPEST:
                    return _NO
                depth += 1
                objects = objects << 1 | (byte == 0x7B)
                if byte == 0x7B:
                    at = _name(data, at, end)
                    if at < 0:
                        return _NO
                continue
            at += 1
        elif byte == 0x22:
            at = _string(data, at, end)
            if at < 0:
                return _NO
            at += 1
        elif byte == 0x2D or 0x30 <= byte <= 0x39:
            at = _number(data, at, end)[0]
        else:
            at = _literal(data, at, end)
        if at < 0:
            return _NO
        while True:
            if depth == 0:
                return at
            at = _space(data, at, end)
            if at >= end:
                return _NO
            if byte_at(data, at) == 0x2C:
                at += 1
                if objects & 1:
                    at = _name(data, _space(data, at, end), end)
                    if at < 0:
                        return _NO
                break
            if byte_at(data, at) != (0x7D if objects & 1 else 0x5D):
                return _NO
            at += 1
            depth -= 1
            objects >>= 1


@compiled
def _name(data: Any, at: int, end: int) -> int:
    """Return where the value of a nested object's field may begin."""
    close = _string(data, at, end)
    if close < 0:
        return _NO
    at = _space(data, close + 1, end)
    return at + 1 if at < end and byte_at(data, at) == 0x3A else _NO


@compiled
def _two(data: Any, at: int) -> Any:
    """Read two decimal digits."""
    tens, ones = byte_at(data, at) - 0x30, byte_at(data, at + 1) - 0x30
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return _NO
    return tens * 10 + ones


@compiled
def times(data: Any, offsets: Any, micros: Any, known: Any) -> None:
    """Read the RFC 3339 time between each two ``offsets`` into ``micros``; ``known`` tells whether it is one."""
    for row in range(offsets.size - 1):
        known[row], micros[row] = _time(data, offsets[row], offsets[row + 1])


@compiled
def _time(data: Any, at: int, end: int) -> tuple[bool, int]:
    """Read an RFC 3339 time as microseconds since 1970, truncated, and tell whether it is one within the calendar.

    Accepts exactly ``date-time`` of https://www.rfc-editor.org/rfc/rfc3339#section-5.6, with the space that its
    note allows for the T. The calendar is that of Python's datetime, which begins with year 1, in UTC.
    """
    unknown = (False, 0)
    if end - at < 20:
        return unknown
    if byte_at(data, at + 4) != 0x2D or byte_at(data, at + 7) != 0x2D:
        return unknown
    between = byte_at(data, at + 10)
    if between != 0x54 and between != 0x74 and between != 0x20:
        return unknown
    if byte_at(data, at + 13) != 0x3A or byte_at(data, at + 16) != 0x3A:
        return unknown
    century, year, month = _two(data, at), _two(data, at + 2), _two(data, at + 5)
    day, hour, minute, second = (
        _two(data, at + 8),
        _two(data, at + 11),
        _two(data, at + 14),
        _two(data, at + 17),
    )
    if century < 0 or year < 0 or hour < 0 or minute < 0 or second < 0:
        return unknown
    year += century * 100
    if month < 1 or month > 12 or day < 1 or hour > 23 or minute > 59 or second > 60:
        return unknown
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > (28 + leap if month == 2 else 30 + ((month + (month > 7)) & 1)):
        return unknown
    at += 19
    micros = 0
    if byte_at(data, at) == 0x2E:
        at += 1
        first = at
        while at < end and 0x30 <= byte_at(data, at) <= 0x39:
            if at - first < 6:
                micros = micros * 10 + (byte_at(data, at) - 0x30)
            at += 1
        if at == first:
            return unknown
        for _ in range(6 - (at - first)):
            micros *= 10
    minutes = 0
    if at + 1 == end:
        if byte_at(data, at) != 0x5A and byte_at(data, at) != 0x7A:
            return unknown
    elif (
        at + 6 == end
        and byte_at(data, at + 3) == 0x3A
        and (byte_at(data, at) == 0x2B or byte_at(data, at) == 0x2D)
    ):
        hours_off, minutes_off = _two(data, at + 1), _two(data, at + 4)
        if hours_off < 0 or hours_off > 23 or minutes_off < 0 or minutes_off > 59:
            return unknown
        minutes = hours_off * 60 + minutes_off
        if byte_at(data, at) == 0x2D:
            minutes = -minutes
    else:
        return unknown
    # days since 1970, years from March on (https://howardhinnant.github.io/date_algorithms.html#days_from_civil)
    if month <= 2:
        year -= 1
        month += 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
    minute += (days * 24 + hour) * 60 - minutes
    if second == 60 and not _ends_month(minute + 1):
        return unknown
    micros += (minute * 60 + second) * 1_000_000
    return _FIRST_MICROS <= micros <= _LAST_MICROS, micros


@compiled
def dates(data: Any, offsets: Any, days: Any, known: Any) -> None:
    """Read ``YYYY-MM-DD`` between each two ``offsets`` as days since 1970; ``known`` tells whether it is a date."""
    for row in range(offsets.size - 1):
        at = offsets[row]
        known[row] = False
        if offsets[row + 1] - at != 10 or byte_at(data, at + 4) != 0x2D or byte_at(data, at + 7) != 0x2D:
            continue
        century, year = _two(data, at), _two(data, at + 2)
        month, day = _two(data, at + 5), _two(data, at + 8)
        if century < 0 or year < 0 or century + year == 0 or month < 1 or month > 12 or day < 1:
            continue
        year += century * 100
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if day > (28 + leap if month == 2 else 30 + ((month + (month > 7)) & 1)):
            continue
        if month <= 2:  # see _time
            year -= 1
            month += 12
        days[row] = (
            365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
        )
        known[row] = True


@compiled
def uuids(data: Any, offsets: Any, form: Any) -> None:
    """Tell what is between each two ``offsets``: 0 for no UUID, 1 for one in lower case, 2 for any other."""
    for row in range(offsets.size - 1):
        first = offsets[row]
        form[row] = 0
        if offsets[row + 1] - first != 36:
            continue
        found = 1
        for n in range(36):
            byte = byte_at(data, first + n)
            if n == 8 or n == 13 or n == 18 or n == 23:
                right = byte == 0x2D
            elif 0x41 <= byte <= 0x46:
                right = True
                found = 2
            else:
                right = 0x30 <= byte <= 0x39 or 0x61 <= byte <= 0x66
            if not right:
                found = 0
                break
        form[row] = found


@compiled
def decimals(data: Any, offsets: Any, precision: int, scale: int, words: Any, known: Any) -> None:
    """Read the number between each two ``offsets`` times ``10**scale``, exactly.

    Args:
        data: The bytes of all numbers: those of JSON, and such in quotes.
        offsets: Where each begins, and where the last one ends.
        precision: Most digits of a result.
        scale: Digits after the point.
        words: By row: 128 bits of the result, lower half first.
        known: By row: whether it is such a number and fits; others may be written otherwise, or be too large.
    """
    for row in range(offsets.size - 1):
        at, end = offsets[row], offsets[row + 1]
        known[row] = False
        if end - at >= 2 and byte_at(data, at) == 0x22 and byte_at(data, end - 1) == 0x22:
            at += 1
            end -= 1
        stop, _, _, exponent, negative, _ = _number(data, at, end)
        if stop != end or exponent < -100 or exponent > 100:
            continue
        # digits so far, zeros that follow them, and the value of the digits as two words
        low, high, zeros, used, scaled = np.uint64(0), np.uint64(0), 0, 0, exponent + scale
        for n in range(at, end):
            byte = byte_at(data, n)
            if byte == 0x65 or byte == 0x45:
                break
            if byte < 0x30 or byte > 0x39:
                continue
            if byte == 0x30:
                zeros += used > 0
                continue
            # zeros between digits count; those behind the last one are added or taken away below
            if used + zeros + 1 > _MOST_DIGITS:
                used = _MOST_DIGITS + 1
                break
            for _ in range(zeros + 1):
                low, high = _ten(low, high)
            used += zeros + 1
            zeros = 0
            low += np.uint64(byte - 0x30)
            high += np.uint64(low < np.uint64(byte - 0x30))
        zeros += scaled
        if used and (zeros < 0 or used + zeros > precision):
            continue
        for _ in range(zeros if used else 0):
            low, high = _ten(low, high)
        if negative:
            low = ~low + np.uint64(1)
            high = ~high + np.uint64(low == np.uint64(0))
        words[row, 0], words[row, 1] = low, high
        known[row] = True


@compiled
def _ten(low: Any, high: Any) -> Any:
    """Multiply a number of two words by ten."""
    first = (low & _LOW_HALF) * _TEN
    second = (low >> _HALF) * _TEN + (first >> _HALF)
    return (second << _HALF) | (first & _LOW_HALF), high * _TEN + (second >> _HALF)


@compiled
def elements(data: Any, offsets: Any, views: Any, sizes: Any) -> int:
    """Split the JSON arrays between the ``offsets`` into their elements.

    Args:
        data: The bytes of all arrays, UTF-8.
        offsets: Where each array begins, and where the last one ends.
        views: Views of the elements, one after the other: room for one per comma and array.
        sizes: By array: number of elements; -1 for one that is not surely an array.

    Returns:
        The number of elements.
    """
    total = 0
    for row in range(offsets.size - 1):
        at, end = offsets[row], offsets[row + 1]
        first = total
        sizes[row] = _NO
        if at >= end or byte_at(data, at) != 0x5B:
            continue
        at = _space(data, at + 1, end)
        if at + 1 == end and byte_at(data, at) == 0x5D:
            sizes[row] = 0
            continue
        while True:
            at = _space(data, at, end)
            begin = at
            at = _skip(data, at, end)
            if at < 0:
                break
            write_view(data, begin, at - begin, 0, views, 0, total)
            total += 1
            at = _space(data, at, end)
            if at >= end:
                break
            if byte_at(data, at) == 0x5D:
                if at + 1 == end:
                    sizes[row] = total - first
                break
            if byte_at(data, at) != 0x2C:
                break
            at += 1
        if sizes[row] < 0:
            total = first
    return total


@compiled
def _ends_month(minute: int) -> bool:
    """Tell whether a minute since 1970 begins a month: a leap second may occur only just before it."""
    if minute % 1_440 != 0:
        return False
    # https://howardhinnant.github.io/date_algorithms.html#civil_from_days
    day = (minute // 1_440 + 719_468) % 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    return bool(day == (153 * ((5 * day + 2) // 153) + 2) // 5)
