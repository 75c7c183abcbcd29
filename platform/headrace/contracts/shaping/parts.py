"""Call a function on rows, and find the rows that it fails on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import polars as pl

T = TypeVar("T")


class Hopeless(Exception):
    """A result that would be wrong for any rows: halves of them need not be tried."""


def by_parts(
    rows: pl.DataFrame, call: Callable[[pl.DataFrame], T]
) -> Iterator[tuple[int, int, T | Exception]]:
    """Call a function on all rows, and on halves where it raises, down to single rows.

    Yields:
        First row, number of rows, and the result, or the exception of what needs no halves. A call on ``n`` rows
        of which ``k`` fail takes about ``2 k log2(n / k)`` further calls.
    """
    waiting = [(0, rows.height)]
    while waiting:
        first, count = waiting.pop()
        try:
            found: T | Exception = call(rows.slice(first, count))
        except pl.exceptions.PanicException as error:
            found = RuntimeError(str(error))
        except Exception as error:  # whatever a contract's own code raises
            found = error
        if isinstance(found, Exception) and count > 1 and not isinstance(found, Hopeless):
            half = count // 2
            waiting += [(first + half, count - half), (first, half)]
        else:
            yield first, count, found


def said(error: Exception) -> str:
    """Return the text of an exception, in one line."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return first if isinstance(error, Hopeless) else f"{type(error).__name__}: {first}"
