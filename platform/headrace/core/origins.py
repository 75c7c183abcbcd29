"""Web origins, as browsers send them."""

from __future__ import annotations

import re

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s/?#@*]+")
_USUAL = {"http": ":80", "https": ":443"}


def web_origin(said: str) -> str:
    """Return an origin as a browser sends it, so that the two can be compared; ``*`` stays, for any.

    Raises:
        ValueError: It is none, and would never be sent.
    """
    origin = said.strip().lower().rstrip("/")
    if origin == "*":
        return origin
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise ValueError(
            f"{said!r} is no web origin: give scheme and host, as in https://shop.example, and no path; or * for any"
        )
    return origin.removesuffix(_USUAL.get(found[1], "\0"))
