"""Turn Avro's binary encoding into JSON text, by compiled code.

A schema is a program (``avro_program``), which is run once per datum: it copies the literal parts of the JSON text and
reads the values between them. A datum that does not fit its schema is named with the byte at which it fails, and costs
its neighbours nothing. It runs without the interpreter's lock; https://avro.apache.org/docs/1.12.0/specification/ is
what it follows.

The file stays whole although it is long: Numba's cache checks whether a function's own file has changed, and no other.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import intrinsic

from headrace.core.compiled import byte_at, compiled

#: Instructions; the two operands are named ``a`` and ``b``.
(
    END, LITERAL, NULL, BOOLEAN, INT, LONG, FLOAT, DOUBLE, STRING, BYTES, FIXED, ENUM, UNION, JUMP, CALL, RETURN,
    ARRAY, NEXT_ITEM, MAP, NEXT_PAIR, DATE, TIMESTAMP, TIME_OF_DAY, DECIMAL, DECIMAL_FIXED, UUID_FIXED, DURATION,
) = range(27)  # fmt: skip
#: Why a datum does not fit its schema.
(
    RIGHT, ENDS_EARLY, LEFT_OVER, TOO_LONG, NEGATIVE, NO_BRANCH, NO_SYMBOL, NO_BOOLEAN, TOO_DEEP, TOO_MUCH, TOO_WIDE,
    BEYOND_INT,
) = range(12)  # fmt: skip
PROBLEMS = {
    ENDS_EARLY: "the message ends within a value",
    LEFT_OVER: "bytes are left over",
    TOO_LONG: "a number of more than 64 bits",
    NEGATIVE: "a negative length",
    NO_BRANCH: "a union has no such branch",
    NO_SYMBOL: "an enum has no such symbol",
    NO_BOOLEAN: "a boolean is neither 0 nor 1",
    TOO_DEEP: "nested too deep",
    TOO_MUCH: "its JSON text would be too long",
    TOO_WIDE: "a decimal of more than 32 bytes",
    BEYOND_INT: "an int of more than 32 bits",
}
#: Levels of records, arrays and maps within each other; the JSON decoder knows about as many.
DEEPEST = 64
#: Most bytes of one datum's JSON text.
MOST_TEXT = 1 << 24
#: Bytes that are always free before a value of bounded size is written, and for a double that is written later.
_SLACK, HOLE = 128, 25
_NO_ROOM = -1
_WIDEST = 32
#: Limbs of nine digits that hold a decimal of 32 bytes.
_LIMBS = 9
_LIMB = 1_000_000_000
#: First and last moment of RFC 3339, microseconds since 1970.
_FIRST_MICROS, _LAST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY = 86_400_000_000
_POWERS = np.array([10.0**n for n in range(10)])
_EXACT = float(2**53)
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_WORDS = np.frombuffer(
    b'null|true|false|"NaN"|"Infinity"|"-Infinity"|{"months":|,"days":|,"millis":', np.uint8
)


def _loaded(kind: Any) -> Any:
    """Make a function that loads a little-endian number from a place in an array of bytes."""

    def load(typing: Any, data: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])
            place = builder.gep(array.data, [arguments[1]], inbounds=True)
            number = builder.load(builder.bitcast(place, context.get_value_type(kind).as_pointer()))
            number.align = 1
            return number

        return kind(data, types.int64), generate

    return intrinsic(load)


_double_at: Any = _loaded(types.float64)
_float_at: Any = _loaded(types.float32)


class Program(NamedTuple):
    """A schema, compiled.

    Attributes:
        ops: Instruction and its two operands, a row each.
        table: Targets of unions, by branch; place and length of an enum's symbols, by index.
        literals: The bytes that ``LITERAL`` and enums copy.
    """

    ops: npt.NDArray[np.int64]
    table: npt.NDArray[np.int64]
    literals: npt.NDArray[np.uint8]


class Room(NamedTuple):
    """Where the text goes.

    Attributes:
        out: The text of all data, one after the other.
        hole_at: Where in ``out`` a double belongs that was not written; ``HOLE`` spaces are there.
        holes: The doubles.
        stack: Scratch, three numbers per level.
        limbs: Scratch for decimals.
        state: How much of ``out`` and of ``holes`` is used; the byte at which the last datum failed.
    """

    out: npt.NDArray[np.uint8]
    hole_at: npt.NDArray[np.int64]
    holes: npt.NDArray[np.float64]
    stack: npt.NDArray[np.int64]
    limbs: npt.NDArray[np.int64]
    state: npt.NDArray[np.int64]


@compiled
def transcode(
    data: Any, bounds: Any, first: int, program: Any, room: Any, ends: Any, problem: Any, at: Any
) -> Any:
    """Write the JSON text of the data from row ``first`` on.

    Args:
        data: The bytes of all data.
        bounds: Where each datum begins in them, and where the last one ends.
        first: Row to begin with.
        program: See ``Program``.
        room: See ``Room``.
        ends: By row: where its text ends in ``room.out``. Rows that do not fit their schema have no text.
        problem: By row: why it does not fit, ``RIGHT`` if it does.
        at: By row: the byte of the datum at which it does not.

    Returns:
        The row for which there was no room, the number of rows if there was for all.
    """
    ops, table, literals = program
    out, hole_at, holes, stack, limbs, state = room
    for row in range(first, bounds.size - 1):
        before, holes_before = state[0], state[1]
        found = _datum(
            data, bounds[row], bounds[row + 1], ops, table, literals, out, hole_at, holes, stack, limbs, state
        )
        if found == _NO_ROOM:
            state[0], state[1] = before, holes_before
            if out.size - before < MOST_TEXT:
                return row
            found = TOO_MUCH
        if found != RIGHT:
            state[0], state[1] = before, holes_before
            at[row] = state[2] - bounds[row]
        problem[row] = found
        ends[row] = state[0]
    return bounds.size - 1


@compiled
def _datum(
    data: Any, begin: int, end: int, ops: Any, table: Any, literals: Any,
    out: Any, hole_at: Any, holes: Any, stack: Any, limbs: Any, state: Any,
) -> Any:  # fmt: skip
    at, to, pc, depth = begin, state[0], 0, 0
    room = out.size - _SLACK
    while True:
        state[2] = at
        if to > room:
            return _NO_ROOM
        op, a, b = ops[pc, 0], ops[pc, 1], ops[pc, 2]
        pc += 1
        if op == LITERAL:
            if to + b > room:
                return _NO_ROOM
            for k in range(b):
                out[to + k] = literals[a + k]
            to += b
        elif op == STRING:
            size, at = _varint(data, at, end)
            if at < 0:
                return -at
            if size < 0:
                return NEGATIVE
            if size > end - at:
                return ENDS_EARLY
            to = _text(data, at, size, out, to)
            if to < 0:
                return _NO_ROOM
            at += size
        elif op == UNION:
            branch, at = _varint(data, at, end)
            if at < 0:
                return -at
            if branch < 0 or branch >= b:
                return NO_BRANCH
            pc = table[a + branch]
        elif op == JUMP:
            pc = a
        elif op == LONG or op == INT:
            value, at = _varint(data, at, end)
            if at < 0:
                return -at
            if op == INT and (value < -(2**31) or value >= 2**31):
                return BEYOND_INT
            to = _integer(value, out, to)
        elif op == DOUBLE or op == FLOAT:
            size = 8 if op == DOUBLE else 4
            if size > end - at:
                return ENDS_EARLY
            number = _double_at(data, at) if op == DOUBLE else np.float64(_float_at(data, at))
            at += size
            written = _number(number, out, to)
            if written < 0:
                hole_at[state[1]], holes[state[1]] = to, number
                state[1] += 1
                for k in range(HOLE):
                    out[to + k] = 32
                written = to + HOLE
            to = written
        elif op == NULL:
            to = _word(0, 4, out, to)
        elif op == BOOLEAN:
            if at >= end:
                return ENDS_EARLY
            if byte_at(data, at) > 1:
                return NO_BOOLEAN
            to = _word(5, 4, out, to) if byte_at(data, at) else _word(10, 5, out, to)
            at += 1
        elif op == TIMESTAMP:
            value, at = _varint(data, at, end)
            if at < 0:
                return -at
            to = _moment(value, a, b, out, to)
        elif op == ENUM:
            symbol, at = _varint(data, at, end)
            if at < 0:
                return -at
            if symbol < 0 or symbol >= b:
                return NO_SYMBOL
            place, size = table[a + 2 * symbol], table[a + 2 * symbol + 1]
            if to + size > room:
                return _NO_ROOM
            for k in range(size):
                out[to + k] = literals[place + k]
            to += size
        elif op == CALL:
            if depth == DEEPEST:
                return TOO_DEEP
            stack[3 * depth] = pc
            depth += 1
            pc = a
        elif op == RETURN:
            depth -= 1
            pc = stack[3 * depth]
        elif op == ARRAY or op == MAP:
            if depth == DEEPEST:
                return TOO_DEEP
            stack[3 * depth + 1], stack[3 * depth + 2] = 0, 0
            depth += 1
            out[to] = 91 if op == ARRAY else 123
            to += 1
        elif op == NEXT_ITEM or op == NEXT_PAIR:
            frame = 3 * (depth - 1)
            if stack[frame + 1] == 0:
                count, at = _varint(data, at, end)
                if at < 0:
                    return -at
                if count < 0:
                    size, at = _varint(data, at, end)
                    if at < 0:
                        return -at
                    count = -count
                    if count < 0:  # -2**63 has no counterpart
                        return NEGATIVE
                stack[frame + 1] = count
            if stack[frame + 1] == 0:
                out[to] = 93 if op == NEXT_ITEM else 125
                to += 1
                depth -= 1
                pc = b
                continue
            stack[frame + 1] -= 1
            if stack[frame + 2]:
                out[to] = 44
                to += 1
            stack[frame + 2] = 1
            if op == NEXT_PAIR:
                size, at = _varint(data, at, end)
                if at < 0:
                    return -at
                if size < 0:
                    return NEGATIVE
                if size > end - at:
                    return ENDS_EARLY
                to = _text(data, at, size, out, to)
                if to < 0:
                    return _NO_ROOM
                at += size
                out[to] = 58
                to += 1
            pc = a
        elif op == DATE:
            value, at = _varint(data, at, end)
            if at < 0:
                return -at
            if value < _FIRST_DAY or value > _LAST_DAY:
                to = _integer(value, out, to)
            else:
                out[to] = 34
                to = _day(value, out, to + 1)
                out[to] = 34
                to += 1
        elif op == TIME_OF_DAY:
            value, at = _varint(data, at, end)
            if at < 0:
                return -at
            if value < 0 or value >= _DAY // a:
                to = _integer(value, out, to)
            else:
                out[to] = 34
                to = _clock(value * a, out, to + 1)
                out[to] = 34
                to += 1
        elif op == END:
            state[0] = to
            return RIGHT if at == end else LEFT_OVER
        else:  # the rest is bytes of some length
            size = a
            if op == BYTES or op == DECIMAL:
                size, at = _varint(data, at, end)
                if at < 0:
                    return -at
                if size < 0:
                    return NEGATIVE
            if size > end - at:
                return ENDS_EARLY
            if op == DECIMAL or op == DECIMAL_FIXED:
                if size > _WIDEST:
                    return TOO_WIDE
                to = _decimal(data, at, size, b, limbs, out, to)
            elif op == UUID_FIXED:
                to = _uuid(data, at, out, to)
            elif op == DURATION:
                to = _span(data, at, out, to)
            else:
                if to + size + size // 2 + 8 > room:
                    return _NO_ROOM
                to = _base64(data, at, size, out, to)
            at += size


@compiled
def _varint(data: Any, at: int, end: int) -> Any:
    """Return a zigzag number and the place after it; a negative place is the problem instead."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end:
        byte = byte_at(data, at)
        at += 1
        if shift == np.uint64(63) and byte > 1:
            return 0, -TOO_LONG
        value |= np.uint64(byte & 127) << shift
        if byte < 128:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += np.uint64(7)
    return 0, -ENDS_EARLY


@compiled
def _word(begin: int, size: int, out: Any, to: int) -> Any:
    for k in range(size):
        out[to + k] = _WORDS[begin + k]
    return to + size


@compiled
def _text(data: Any, at: int, size: int, out: Any, to: int) -> Any:
    """Write a text in quotes; -1 if there is no room."""
    room = out.size - _SLACK
    if to + size > room:
        return -1
    out[to] = 34
    to += 1
    for k in range(at, at + size):
        byte = byte_at(data, k)
        if byte >= 32 and byte != 34 and byte != 92:
            out[to] = byte
            to += 1
            continue
        if to + 6 + (at + size - k) > room:
            return -1
        out[to] = 92
        if byte == 34 or byte == 92:
            out[to + 1] = byte
            to += 2
        else:
            out[to + 1], out[to + 2], out[to + 3] = 117, 48, 48
            out[to + 4], out[to + 5] = _HEX[byte >> 4], _HEX[byte & 15]
            to += 6
    out[to] = 34
    return to + 1


@compiled
def _digits(value: np.uint64, least: int, out: Any, to: int) -> Any:
    """Write a number in at least so many digits."""
    size, rest = 1, value // np.uint64(10)
    while rest:
        size += 1
        rest //= np.uint64(10)
    size = max(size, least)
    for k in range(size):
        out[to + size - 1 - k] = np.uint64(48) + value % np.uint64(10)
        value //= np.uint64(10)
    return to + size


@compiled
def _integer(value: int, out: Any, to: int) -> Any:
    if value < 0:
        out[to] = 45
        return _digits(np.uint64(0) - np.uint64(value), 1, out, to + 1)
    return _digits(np.uint64(value), 1, out, to)


@compiled
def _number(value: float, out: Any, to: int) -> Any:
    """Write a double that surely has a short text, which is read back as the same double; else -1.

    ``m`` and a power of ten up to 10**22 are doubles themselves, so a reader of ``m`` over that power rounds once, as
    the division here does (Clinger, How to read floating point numbers accurately, 1990).
    """
    if value != value:
        return _word(16, 5, out, to)
    size = abs(value)
    if size == np.inf:
        return _word(22, 10, out, to) if value > 0 else _word(33, 11, out, to)
    if size >= 1e15:
        return -1
    for places in range(10):
        whole = np.rint(size * _POWERS[places])
        if whole >= _EXACT:
            return -1
        if whole / _POWERS[places] == size:
            if math.copysign(1.0, value) < 0:
                out[to] = 45
                to += 1
            scale = max(places, 1)
            scaled = np.uint64(whole) if places else np.uint64(whole) * np.uint64(10)
            return _pointed(scaled, scale, out, to)
    return -1


@compiled
def _pointed(value: np.uint64, scale: int, out: Any, to: int) -> Any:
    """Write a number with a point before its last ``scale`` digits, at least 1."""
    end = _digits(value, scale + 1, out, to)
    for k in range(scale):
        out[end - k] = out[end - k - 1]
    out[end - scale] = 46
    return end + 1


@compiled
def _day(days: int, out: Any, to: int) -> Any:
    """Write days since 1970 as a date (http://howardhinnant.github.io/date_algorithms.html#civil_from_days)."""
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    to = _digits(np.uint64(year), 4, out, to)
    out[to] = 45
    to = _digits(np.uint64(month), 2, out, to + 1)
    out[to] = 45
    return _digits(np.uint64(day), 2, out, to + 1)


@compiled
def _clock(micros: int, out: Any, to: int) -> Any:
    """Write microseconds of a day as a time of day."""
    seconds = micros // 1_000_000
    to = _digits(np.uint64(seconds // 3_600), 2, out, to)
    out[to] = 58
    to = _digits(np.uint64(seconds // 60 % 60), 2, out, to + 1)
    out[to] = 58
    to = _digits(np.uint64(seconds % 60), 2, out, to + 1)
    out[to] = 46
    return _digits(np.uint64(micros % 1_000_000), 6, out, to + 1)


@compiled
def _moment(value: int, unit: int, zoned: int, out: Any, to: int) -> Any:
    """Write a time as RFC 3339, without the Z if it is a local one; as a number if RFC 3339 has no such time.

    ``unit`` is 1,000 for milliseconds, 1 for microseconds, -1,000 for nanoseconds, which are cut off.
    """
    if unit > 0:
        beyond = value < _FIRST_MICROS // unit or value > _LAST_MICROS // unit
        micros = 0 if beyond else value * unit
    else:
        micros, beyond = value // -unit, False
    if beyond:
        return _integer(value, out, to)
    days = micros // _DAY
    out[to] = 34
    to = _day(days, out, to + 1)
    out[to] = 84
    to = _clock(micros - days * _DAY, out, to + 1)
    if zoned:
        out[to] = 90
        to += 1
    out[to] = 34
    return to + 1


@compiled
def _decimal(data: Any, at: int, size: int, scale: int, limbs: Any, out: Any, to: int) -> Any:
    """Write a big-endian number in two's complement as a decimal."""
    negative = size > 0 and byte_at(data, at) > 127
    for k in range(_LIMBS):
        limbs[k] = 0
    for place in range(size):
        carry = 255 - byte_at(data, at + place) if negative else byte_at(data, at + place)
        for k in range(_LIMBS):
            carry += limbs[k] * 256
            limbs[k] = carry % _LIMB
            carry //= _LIMB
    if negative:
        out[to] = 45
        to += 1
        carry = 1
        for k in range(_LIMBS):
            carry += limbs[k]
            limbs[k] = carry % _LIMB
            carry //= _LIMB
    size = 9 * _LIMBS
    while size > scale + 1 and limbs[(size - 1) // 9] // 10 ** ((size - 1) % 9) % 10 == 0:
        size -= 1
    for k in range(size - 1, -1, -1):
        out[to] = 48 + (limbs[k // 9] // 10 ** (k % 9) % 10 if k < 9 * _LIMBS else 0)
        to += 1
        if k == scale and scale:
            out[to] = 46
            to += 1
    return to


@compiled
def _uuid(data: Any, at: int, out: Any, to: int) -> Any:
    out[to] = 34
    to += 1
    for k in range(16):
        if k == 4 or k == 6 or k == 8 or k == 10:
            out[to] = 45
            to += 1
        byte = byte_at(data, at + k)
        out[to], out[to + 1] = _HEX[byte >> 4], _HEX[byte & 15]
        to += 2
    out[to] = 34
    return to + 1


@compiled
def _span(data: Any, at: int, out: Any, to: int) -> Any:
    """Write months, days and milliseconds, three unsigned numbers of four bytes, as an object."""
    for part in range(3):
        to = (
            _word(45, 10, out, to)
            if part == 0
            else _word(56, 8, out, to)
            if part == 1
            else _word(65, 10, out, to)
        )
        value = np.uint64(0)
        for k in range(4):
            value |= np.uint64(byte_at(data, at + 4 * part + k)) << np.uint64(8 * k)
        to = _digits(value, 1, out, to)
    out[to] = 125
    return to + 1


@compiled
def _base64(data: Any, at: int, size: int, out: Any, to: int) -> Any:
    out[to] = 34
    to += 1
    for k in range(0, size, 3):
        left = size - k
        three = byte_at(data, at + k) << 16
        if left > 1:
            three |= byte_at(data, at + k + 1) << 8
        if left > 2:
            three |= byte_at(data, at + k + 2)
        out[to], out[to + 1] = _BASE64[three >> 18], _BASE64[three >> 12 & 63]
        out[to + 2] = _BASE64[three >> 6 & 63] if left > 1 else 61
        out[to + 3] = _BASE64[three & 63] if left > 2 else 61
        to += 4
    out[to] = 34
    return to + 1


@compiled
def fill(out: Any, hole_at: Any, texts: Any, bounds: Any) -> None:
    """Copy texts into the holes; ``bounds`` says where each begins in ``texts``, and where the last one ends."""
    for n in range(bounds.size - 1):
        begin = bounds[n]
        for k in range(bounds[n + 1] - begin):
            out[hole_at[n] + k] = texts[begin + k]
