"""Read times in declared formats from bytes, by compiled code: strftime, ISO 8601, numbers since 1970.

A format is a program of numbers: a byte that must be there, or one of the directives below. The file stays whole,
because Numba's cache checks a function's own file alone (see ``wire.json_scan``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.core.compiled import byte_at, compiled

#: Directives; smaller numbers are bytes.
(
    YEAR, YEAR_OF_CENTURY, MONTH, DAY, HOUR, HOUR_OF_12, MINUTE, SECOND, FRACTION, HALF_OF_DAY, MONTH_NAME, WEEKDAY,
    DAY_OF_YEAR, OFFSET, UTC,
) = range(256, 271)  # fmt: skip
#: Results: no such time, a time without a zone (micros of its wall clock), an instant (micros of UTC).
UNREAD, LOCAL, INSTANT = range(3)

_NO = -1
#: 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z in microseconds since 1970.
_FIRST_MICROS, _LAST_MICROS = -62_135_596_800_000_000, 253_402_300_799_999_999
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NAMES = np.frombuffer("".join(_MONTHS + _DAYS).encode(), np.uint8)
_NAME_AT = np.cumsum([0, *map(len, _MONTHS + _DAYS)], dtype=np.int64)
_FEWEST_LETTERS = 3
#: Most digits that always fit into a 64-bit integer.
_DIGITS = 18


@compiled
def formatted(data: Any, offsets: Any, program: Any, micros: Any, state: Any) -> None:
    """Read the text between each two ``offsets`` by a program; rows that have a state already are left alone."""
    for row in range(offsets.size - 1):
        if state[row] == UNREAD:
            state[row], micros[row] = _formatted(data, offsets[row], offsets[row + 1], program)


@compiled
def iso(data: Any, offsets: Any, loose: bool, micros: Any, state: Any) -> None:
    """Read ``YYYY-MM-DDThh:mm:ss``, a blank for T, with or without fraction and zone.

    A ``loose`` reading also takes times without seconds, a comma before the fraction, a blank before the zone, and the
    zones ``+hh``, ``+hhmm``, ``UTC`` and ``GMT``.
    """
    for row in range(offsets.size - 1):
        if state[row] == UNREAD:
            state[row], micros[row] = _iso(data, offsets[row], offsets[row + 1], loose)


@compiled
def epoch(data: Any, offsets: Any, power: int, micros: Any, state: Any) -> None:
    """Read a number of units since 1970, of which one is ``10**power`` microseconds; parts of one are cut off."""
    for row in range(offsets.size - 1):
        if state[row] == UNREAD:
            state[row], micros[row] = _epoch(data, offsets[row], offsets[row + 1], power)


@compiled
def _number(data: Any, at: int, end: int, least: int, most: int) -> tuple[int, int]:
    """Read ``least`` to ``most`` digits; return where they end, or -1, and their value."""
    value, first = 0, at
    while at < end and at - first < most and 0x30 <= byte_at(data, at) <= 0x39:
        value = value * 10 + byte_at(data, at) - 0x30
        at += 1
    return (at, value) if at - first >= least else (_NO, 0)


@compiled
def _fraction(data: Any, at: int, end: int) -> tuple[int, int]:
    """Read the digits behind a point as microseconds, cut off; return where they end, or -1."""
    micros, first = 0, at
    while at < end and 0x30 <= byte_at(data, at) <= 0x39:
        if at - first < 6:
            micros = micros * 10 + byte_at(data, at) - 0x30
        at += 1
    for _ in range(6 - (at - first)):
        micros *= 10
    return (at, micros) if at > first else (_NO, 0)


@compiled
def _offset(data: Any, at: int, end: int, loose: bool) -> tuple[int, int]:
    """Read ``Z``, ``+hh:mm`` and, if ``loose``, ``+hhmm`` and ``+hh``; return where it ends, or -1, and minutes."""
    nothing = (_NO, 0)
    if at >= end:
        return nothing
    sign = byte_at(data, at)
    if sign == 0x5A or sign == 0x7A:
        return at + 1, 0
    if sign != 0x2B and sign != 0x2D:
        return nothing
    at, hours = _number(data, at + 1, end, 2, 2)
    if at < 0 or hours > 23:
        return nothing
    minutes, colon = 0, at < end and byte_at(data, at) == 0x3A
    if colon or (at < end and 0x30 <= byte_at(data, at) <= 0x39):
        if not colon and not loose:
            return nothing
        at, minutes = _number(data, at + colon, end, 2, 2)
        if at < 0 or minutes > 59:
            return nothing
    elif not loose:
        return nothing
    minutes += hours * 60
    return at, -minutes if sign == 0x2D else minutes


@compiled
def _name(data: Any, at: int, end: int, first: int, last: int) -> tuple[int, int]:
    """Read one of the names ``first`` to ``last``, whole or its first three letters, in either case."""
    for name in range(first, last):
        size = _NAME_AT[name + 1] - _NAME_AT[name]
        same = 0
        while (
            same < size
            and at + same < end
            and byte_at(data, at + same) | 0x20 == _NAMES[_NAME_AT[name] + same]
        ):
            same += 1
        if same == size:
            return at + same, name
        if same >= _FEWEST_LETTERS:
            return at + _FEWEST_LETTERS, name
    return _NO, 0


@compiled
def _formatted(data: Any, at: int, end: int, program: Any) -> tuple[int, int]:
    unread = (UNREAD, 0)
    year, month, day, day_of_year = 1970, 1, 1, 0
    hour, minute, second, micro, half = 0, 0, 0, 0, _NO
    offset, zoned = 0, False
    for code in program:
        if code == 0x20:  # a blank stands for any number of them, as in Python
            first = at
            while at < end and byte_at(data, at) == 0x20:
                at += 1
            if at == first:
                return unread
            continue
        if code < 256:
            if at >= end or byte_at(data, at) != code:
                return unread
            at += 1
            continue
        if code == YEAR:
            at, year = _number(data, at, end, 4, 4)
        elif code == YEAR_OF_CENTURY:
            at, year = _number(data, at, end, 2, 2)
            year += 1900 if year > 68 else 2000
        elif code == MONTH:
            at, month = _number(data, at, end, 1, 2)
        elif code == DAY:
            blank = at < end and byte_at(data, at) == 0x20  # instead of a zero, as Python has it
            at, day = _number(data, at + blank, end, 1, 2 - blank)
        elif code in (HOUR, HOUR_OF_12):
            at, hour = _number(data, at, end, 1, 2)
            if code == HOUR_OF_12 and (hour < 1 or hour > 12):
                return unread
        elif code == MINUTE:
            at, minute = _number(data, at, end, 1, 2)
        elif code == SECOND:
            at, second = _number(data, at, end, 1, 2)
        elif code == FRACTION:
            at, micro = _fraction(data, at, end)
        elif code == HALF_OF_DAY:
            if at + 2 > end or byte_at(data, at + 1) | 0x20 != 0x6D:
                return unread
            letter = byte_at(data, at) | 0x20
            if letter != 0x61 and letter != 0x70:
                return unread
            half = 12 if letter == 0x70 else 0
            at += 2
        elif code == MONTH_NAME:
            at, month = _name(data, at, end, 0, 12)
            month += 1
        elif code == WEEKDAY:
            at, _ = _name(data, at, end, 12, 19)
        elif code == DAY_OF_YEAR:
            at, day_of_year = _number(data, at, end, 1, 3)
            if day_of_year < 1:
                return unread
        elif code == OFFSET:
            at, offset = _offset(data, at, end, True)
            zoned = True
        else:
            if at + 1 <= end and byte_at(data, at) == 0x5A:
                at += 1
            elif at + 3 <= end and _utc(data, at):
                at += 3
            else:
                return unread
            zoned = True
        if at < 0:
            return unread
    if at != end:
        return unread
    if half >= 0:
        hour = hour % 12 + half
    return _moment(year, month, day, day_of_year, hour, minute, second, micro, offset, zoned)


@compiled
def _utc(data: Any, at: int) -> bool:
    one, two, three = byte_at(data, at), byte_at(data, at + 1), byte_at(data, at + 2)
    return bool(
        (one == 0x55 and two == 0x54 and three == 0x43) or (one == 0x47 and two == 0x4D and three == 0x54)
    )


@compiled
def _moment(
    year: int, month: int, day: int, day_of_year: int,
    hour: int, minute: int, second: int, micro: int, offset: int, zoned: bool,
) -> tuple[int, int]:  # fmt: skip
    """Put a time together, if it is in the calendar of Python's datetime."""
    unread = (UNREAD, 0)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if year < 1 or month < 1 or month > 12 or day < 1 or hour > 23 or minute > 59 or second > 59:
        return unread
    if day > (28 + leap if month == 2 else 30 + ((month + (month > 7)) & 1)) or day_of_year > 365 + leap:
        return unread
    if day_of_year:
        month, day = 1, day_of_year
    # days since 1970, years from March on (https://howardhinnant.github.io/date_algorithms.html#days_from_civil)
    if month <= 2:
        year -= 1
        month += 12
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
    micros = (((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1_000_000 + micro
    if micros < _FIRST_MICROS or micros > _LAST_MICROS:
        return unread
    return INSTANT if zoned else LOCAL, micros


@compiled
def _iso(data: Any, at: int, end: int, loose: bool) -> tuple[int, int]:
    unread = (UNREAD, 0)
    if end - at < 16 or byte_at(data, at + 4) != 0x2D or byte_at(data, at + 7) != 0x2D:
        return unread
    between = byte_at(data, at + 10)
    if (between != 0x54 and between != 0x74 and between != 0x20) or byte_at(data, at + 13) != 0x3A:
        return unread
    one, year = _number(data, at, end, 4, 4)
    two, month = _number(data, at + 5, end, 2, 2)
    three, day = _number(data, at + 8, end, 2, 2)
    four, hour = _number(data, at + 11, end, 2, 2)
    at, minute = _number(data, at + 14, end, 2, 2)
    if one < 0 or two < 0 or three < 0 or four < 0 or at < 0:
        return unread
    second, micro, offset = 0, 0, 0
    if at < end and byte_at(data, at) == 0x3A:
        at, second = _number(data, at + 1, end, 2, 2)
        if at < 0:
            return unread
        if at < end and (byte_at(data, at) == 0x2E or (loose and byte_at(data, at) == 0x2C)):
            at, micro = _fraction(data, at + 1, end)
            if at < 0:
                return unread
    elif not loose:
        return unread
    zoned = at < end
    if zoned:
        if loose and byte_at(data, at) == 0x20:
            at += 1
        if loose and at + 3 == end and _utc(data, at):
            at = end
        else:
            at, offset = _offset(data, at, end, loose)
        if at != end:
            return unread
    return _moment(year, month, day, 0, hour, minute, second, micro, offset, zoned)


@compiled
def _epoch(data: Any, at: int, end: int, power: int) -> tuple[int, int]:
    """Read a JSON number exactly, without a double."""
    unread = (UNREAD, 0)
    negative = at < end and byte_at(data, at) == 0x2D
    if negative:
        at += 1
    mantissa, digits, first, dropped = 0, 0, at, False
    while at < end and 0x30 <= byte_at(data, at) <= 0x39:
        mantissa = mantissa * 10 + byte_at(data, at) - 0x30
        digits += mantissa > 0
        if digits > _DIGITS:
            return unread
        at += 1
    if at == first or (byte_at(data, first) == 0x30 and at > first + 1):
        return unread
    if at < end and byte_at(data, at) == 0x2E:
        at += 1
        first = at
        while at < end and 0x30 <= byte_at(data, at) <= 0x39:
            if digits < _DIGITS:
                mantissa = mantissa * 10 + byte_at(data, at) - 0x30
                digits += mantissa > 0
                power -= 1
            else:
                dropped = dropped or byte_at(data, at) != 0x30
            at += 1
        if at == first:
            return unread
    if at < end and byte_at(data, at) | 0x20 == 0x65:
        at += 1
        sign = 1
        if at < end and (byte_at(data, at) == 0x2B or byte_at(data, at) == 0x2D):
            sign = -1 if byte_at(data, at) == 0x2D else 1
            at += 1
        at, exponent = _number(data, at, end, 1, 9)
        if at < 0:
            return unread
        power += sign * exponent
    if at != end:
        return unread
    while power > 0 and mantissa != 0:
        mantissa *= 10
        power -= 1
        if mantissa > _LAST_MICROS:
            return unread
    while power < 0 and mantissa != 0:
        dropped = dropped or mantissa % 10 != 0
        mantissa //= 10
        power += 1
    # a part of a microsecond is cut off towards the past, also before 1970
    micros = -mantissa - dropped if negative else mantissa
    if micros < _FIRST_MICROS or micros > _LAST_MICROS:
        return unread
    return INSTANT, micros
