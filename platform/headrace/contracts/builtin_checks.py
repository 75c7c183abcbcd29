"""Recognise pandera's built-in checks: the one door to private attributes of a check.

A check keeps its function and arguments in attributes that pandera does not document. They are tried once; without
them every check is asked by pandera itself, which is right and slower.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import pandera.polars as pa

log = logging.getLogger(__name__)


def builtin(check: pa.Check) -> tuple[str, Mapping[str, Any]] | None:
    """Return the registered name and the arguments of a built-in check; None for any other check."""
    return _read(check) if _readable() else None


def _read(check: pa.Check) -> tuple[str, Mapping[str, Any]] | None:
    name = getattr(check._check_fn, "__name__", None)
    if not name or check.element_wise or not check.is_builtin_check(name):
        return None
    return name, check._check_kwargs


@cache
def _readable() -> bool:
    """Try a check whose answer is known; warn once if pandera is built otherwise."""
    try:
        found = _read(pa.Check.ge(3))
    except Exception:  # whatever it is, pandera's own way serves
        found = None
    if found == ("greater_than_or_equal_to", {"min_value": 3}):
        return True
    log.warning(
        "pandera %s keeps its checks otherwise than expected; each is asked by itself, which is slower",
        version("pandera"),
    )
    return False
