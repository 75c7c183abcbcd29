"""Name the formats of times, and compile those of strftime to programs that ``time_scan`` runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

#: Formats with a name of their own.
RFC3339, ISO8601 = "rfc3339", "iso8601"
#: Power of ten that turns a unit into microseconds.
EPOCHS = {"epoch_s": 6, "epoch_ms": 3, "epoch_us": 0}
NAMED = (RFC3339, ISO8601, *EPOCHS)

# numbers of the directives; time_scan has them too, but its import loads Numba, which declarations need not
(
    _YEAR, _YEAR_OF_CENTURY, _MONTH, _DAY, _HOUR, _HOUR_OF_12, _MINUTE, _SECOND, _FRACTION, _HALF_OF_DAY, _MONTH_NAME,
    _WEEKDAY, _DAY_OF_YEAR, _OFFSET, _UTC,
) = range(256, 271)  # fmt: skip
DIRECTIVES = {
    "Y": _YEAR, "y": _YEAR_OF_CENTURY, "m": _MONTH, "d": _DAY, "e": _DAY, "H": _HOUR, "I": _HOUR_OF_12, "M": _MINUTE,
    "S": _SECOND, "f": _FRACTION, "p": _HALF_OF_DAY, "b": _MONTH_NAME, "B": _MONTH_NAME, "h": _MONTH_NAME,
    "a": _WEEKDAY, "A": _WEEKDAY, "j": _DAY_OF_YEAR, "z": _OFFSET, "Z": _UTC,
}  # fmt: skip
_SHORT = {"T": "%H:%M:%S", "R": "%H:%M", "F": "%Y-%m-%d", "D": "%m/%d/%y"}
#: Parts of a time -> the directives that give it.
_PARTS = {
    "year": {_YEAR, _YEAR_OF_CENTURY},
    "month": {_MONTH, _MONTH_NAME, _DAY_OF_YEAR},
    "day": {_DAY, _DAY_OF_YEAR},
}
_EITHER = {
    "hour": {_HOUR, _HOUR_OF_12},
    "zone": {_OFFSET, _UTC},
    "minute": {_MINUTE},
    "second": {_SECOND},
    "fraction": {_FRACTION},
    "half of the day": {_HALF_OF_DAY},
}
_SYNTAX = re.compile(r"[\\^$.|?*+()\[\]{}/]")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


@cache
def program(format: str) -> tuple[int, ...]:
    """Compile a format of strftime.

    Raises:
        ValueError: It is none; the message says why.
    """
    whole = _DIRECTIVE.sub(lambda found: _SHORT.get(found[1], found[0]), format)
    codes: list[int] = []
    at = 0
    for found in _DIRECTIVE.finditer(whole):
        codes += whole[at : found.start()].encode()
        letter, at = found[1], found.end()
        if letter == "%":
            codes += b"%"
        elif letter in DIRECTIVES:
            codes.append(DIRECTIVES[letter])
        else:
            known = " ".join(f"%{one}" for one in sorted((*DIRECTIVES, *_SHORT), key=str.lower))
            raise ValueError(f"%{letter} is no directive for reading; there are {known}")
    codes += whole[at:].encode()
    if not any(code > 255 for code in codes):
        raise ValueError(f"it has no directive like %Y, and is none of {', '.join(NAMED)}")
    for part, codes_of in {**_PARTS, **_EITHER}.items():
        if sum(code in codes_of for code in codes) > 1 and _DAY_OF_YEAR not in codes:
            raise ValueError(f"it has the {part} twice")
    missing = [part for part, codes_of in _PARTS.items() if not codes_of & set(codes)]
    if missing:
        raise ValueError(f"it has no {missing[0]}, so that it is no date")
    if (_HOUR_OF_12 in codes) != (_HALF_OF_DAY in codes):
        raise ValueError("%I needs %p, and %p needs %I; hours from 0 to 23 are %H")
    return tuple(codes)


#: What each directive reads, as a regular expression of JSON Schema.
_READ = {
    _YEAR: r"\d{4}", _YEAR_OF_CENTURY: r"\d{2}", _DAY: r" ?\d{1,2}", _FRACTION: r"\d+", _HALF_OF_DAY: "[AaPp][Mm]",
    _MONTH_NAME: "[A-Za-z]{3,9}", _WEEKDAY: "[A-Za-z]{3,9}", _DAY_OF_YEAR: r"\d{1,3}",
    _OFFSET: r"([Zz]|[+-]\d\d(:?\d\d)?)", _UTC: "(Z|UTC|GMT)", 0x20: " +",
}  # fmt: skip


def pattern_of(format: str) -> str:
    """Return a regular expression that every text in a format matches."""
    found, literal = ["^"], bytearray()
    for code in (*program(format), None):
        if code is not None and code < 256 and code != 0x20:
            literal.append(code)
            continue
        found.append(_SYNTAX.sub(r"\\\g<0>", literal.decode()))
        literal.clear()
        found.append("$" if code is None else _READ.get(code, r"\d{1,2}"))
    return "".join(found)


def zoned(format: str) -> bool:
    """Tell whether every time in this format has a zone."""
    return format in (RFC3339, *EPOCHS) or (
        format not in NAMED and bool(_EITHER["zone"] & set(program(format)))
    )


def format_faults(format: object, *, date: bool, zone: str) -> Iterator[str]:
    """Say why a field cannot have a format.

    Args:
        format: The declared format.
        date: Whether the field is a date, which needs no zone.
        zone: The declared zone.
    """
    if not isinstance(format, str) or not format:
        yield f"has format={format!r}, which is no text; write strftime, or one of {', '.join(NAMED)}"
        return
    if format in NAMED:
        return
    try:
        program(format)
    except ValueError as error:
        yield f"has format={format!r}: {error}"
        return
    if not date and not zone and not zoned(format):
        yield (
            f"has format={format!r} without a zone, so that every time would be rejected; say which one they are in,"
            " zone='UTC' or like zone='Europe/Berlin', or read it with %z"
        )
