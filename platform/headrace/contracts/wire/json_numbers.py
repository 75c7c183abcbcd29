"""Read numbers as JSON Schema does: an integer is any number without a fraction, however it is written."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec

_TEXT = msgspec.json.Decoder(str)
_NUMBER = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?)([0-9]+))?")
#: Digits of an exponent that are read; with more, no number fits anyway.
_EXPONENT_DIGITS = 18
#: Digits that no 64-bit integer has.
_BEYOND = 20


def whole_number(text: bytes) -> int | None:
    """Read a JSON number that is an integer, exactly: ``1``, ``1.0``, ``10e-1``; linear in its length.

    Returns:
        The value; for an integer beyond 64 bits, some value beyond 64 bits with the same sign. None if it is no
            integer.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, before, after, exponent_sign, power = found.groups(b"")
    digits = (before + after).lstrip(b"0")
    if not digits:
        return 0
    significant = digits.rstrip(b"0")
    power = power.lstrip(b"0")
    exponent = int(power or b"0") if len(power) <= _EXPONENT_DIGITS else 10**_EXPONENT_DIGITS
    zeros = len(digits) - len(significant) - len(after) + (-exponent if exponent_sign == b"-" else exponent)
    if zeros < 0:
        return None
    size = len(significant) + zeros
    value: int = 10**_BEYOND if size >= _BEYOND else int(significant + b"0" * zeros)
    return -value if sign else value


def decimal_of(text: bytes, precision: int, scale: int) -> Decimal | str:
    """Read a JSON number, or one that is a JSON text, as a decimal, exactly; linear in its length.

    Args:
        text: The JSON value.
        precision: Most digits of the result.
        scale: How many of them follow the point.

    Returns:
        The value, or the name of the check that it fails: it is no number, or it has more digits than fit.
    """
    if text[:1] == b'"':
        try:
            text = _TEXT.decode(text).encode()
        except (msgspec.DecodeError, UnicodeError):
            return "type(decimal)"
    found = _NUMBER.fullmatch(text)
    if found is None:
        return "type(decimal)"
    sign, before, after, exponent_sign, power = found.groups(b"")
    digits = (before + after).lstrip(b"0")
    if not digits:
        return Decimal(0)
    significant = digits.rstrip(b"0")
    power = power.lstrip(b"0")
    exponent = int(power or b"0") if len(power) <= _EXPONENT_DIGITS else 10**_EXPONENT_DIGITS
    zeros = len(digits) - len(significant) - len(after) + (-exponent if exponent_sign == b"-" else exponent)
    if zeros + scale < 0 or len(significant) + zeros + scale > precision:
        return f"decimal({precision}, {scale})"
    return Decimal((bool(sign), tuple(byte - 48 for byte in significant), zeros))
