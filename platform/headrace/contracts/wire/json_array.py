"""Split a message that is a JSON array into its elements, as the bytes that were sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec

#: RecursionError: nesting deeper than any real record; UnicodeDecodeError: bytes that are not UTF-8.
BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_SPACE = re.compile(rb"[ \t\r\n]*")
#: An escape: a pair of surrogates, a lone surrogate, or any other.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
#: As long as the escape that it replaces.
_REPLACEMENT = rb"\ufffd"


def is_array(payload: bytes) -> bool:
    """Tell whether a message is an array, or begins like one."""
    return payload.lstrip()[:1] == b"["


def split(payload: bytes) -> list[bytes] | list[msgspec.Raw]:
    """Split an array into its elements, without the white space around them; linear in its length.

    An element with a lone surrogate is valid JSON but no text. It is split off like the others and refused on
    its own.

    Raises:
        msgspec.DecodeError: The payload is no JSON array.
        RecursionError: The payload is nested too deeply.
    """
    try:
        return _ARRAY.decode(payload)
    except msgspec.DecodeError:
        text = without_lone_surrogates(payload)
        if text == payload:
            raise
    return list(_taken(payload, _ARRAY.decode(text)))


def take(array: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the elements at ``places``; the array is split once, however many they are."""
    elements = split(array)
    return [bytes(elements[place]) for place in places]


def without_lone_surrogates(text: bytes) -> bytes:
    """Replace the escapes of lone surrogates by others of the same length."""
    return _ESCAPE.sub(lambda found: _REPLACEMENT if found[1] else found[0], text)


def lone_surrogate(text: bytes) -> str | None:
    """Name the first escape of a lone surrogate."""
    lone = (found[0].decode() for found in _ESCAPE.finditer(text) if found[1])
    return next((f"lone surrogate {escape}" for escape in lone), None)


def _taken(payload: bytes, elements: Sequence[msgspec.Raw]) -> Iterator[bytes]:
    """Yield the bytes at the places of ``elements``, which come from a text of the same length."""
    at = payload.index(b"[") + 1
    for element in elements:
        at = _behind_space(payload, at)
        size = len(memoryview(element))
        yield payload[at : at + size]
        at = _behind_space(payload, at + size) + 1


def _behind_space(payload: bytes, at: int) -> int:
    found = _SPACE.match(payload, at)
    return found.end() if found else at
