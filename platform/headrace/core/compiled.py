"""What the hot path's compiled code shares: how it is compiled, and columns of Arrow views.

Numba compiles a function for the types it is first called with and keeps the machine code in a file: below the
folder of the module, or in the user's cache where that cannot be written (``NUMBA_CACHE_DIR`` names another). So a
machine compiles once, which takes some ten seconds; an installation does it ahead (``headrace.local.prepare``).

A view is four 32-bit numbers (https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout):
the length, then up to twelve bytes themselves, or four bytes, a buffer's number and a place in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from numba import njit, types
from numba.extending import intrinsic

_INLINE = 12
F = TypeVar("F", bound=Callable[..., Any])
#: Of this file, whose functions are compiled into others.
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]

#: Code that counts no references to arrays, see ``compiled``.
_OPTIONS: Any = {"nogil": True, "_nrt": False}


def compiled(function: F) -> F:
    """Machine code in the place of ``function``, run without the interpreter's lock.

    Arrays are the caller's: the code counts no references to them and makes none. Numba counts otherwise at every call
    of another function, atomically, which was two thirds of what decoding an event took
    (https://github.com/numba/numba/issues/2345; Numba leaves it out of functions of its own in the same way).
    """
    # Numba looks whether the function's own file has changed, and at no other: this one is in the name of what it keeps
    function.__qualname__ = f"{function.__qualname__}_{_VERSION}"
    made: Any
    try:
        made = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither folder can be written: each process compiles for itself
        made = njit(**_OPTIONS)(function)
    return cast("F", made)


def _byte_at(typing: Any, data: Any, at: Any) -> Any:
    """``data[at]`` as a signed number, for ``at`` within.

    Numba's own indexing asks each time whether the index counts from the end, which costs as much as all the rest of
    a loop over bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.load(builder.gep(array.data, [arguments[1]], inbounds=True))
        return builder.zext(byte, context.get_value_type(types.int64))

    return types.int64(data, types.int64), generate


def _word_at(typing: Any, data: Any, at: Any) -> Any:
    """The eight bytes from ``at`` on, all of them within, as one number, the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        kind = context.get_value_type(types.uint64)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]], inbounds=True), kind.as_pointer())
        word = builder.load(place)
        word.align = 1
        return word

    return types.uint64(data, types.int64), generate


def _trailing_zeros(typing: Any, word: Any) -> Any:
    """How many of the lowest bits are zero, of 64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


byte_at: Any = intrinsic(_byte_at)
word_at: Any = intrinsic(_word_at)
trailing_zeros: Any = intrinsic(_trailing_zeros)


@compiled
def write_view(data: Any, at: int, size: int, buffer: int, views: Any, column: int, row: int) -> None:
    """A view of ``size`` bytes of ``data``, which is the column's buffer of that number."""
    if size > _INLINE:
        views[column, row, 1] = np.int64(word_at(data, at))
        views[column, row, 2] = buffer
        views[column, row, 3] = at
    elif at + 16 <= data.size:
        first = last = np.uint64(0)
        if size > 8:
            first = word_at(data, at)
            last = word_at(data, at + 8) & ((np.uint64(1) << np.uint64(8 * (size - 8))) - np.uint64(1))
        elif size == 8:
            first = word_at(data, at)
        else:
            first = word_at(data, at) & ((np.uint64(1) << np.uint64(8 * size)) - np.uint64(1))
        views[column, row, 1] = np.int64(first)
        views[column, row, 2] = np.int64(first >> np.uint64(32))
        views[column, row, 3] = np.int64(last)
    else:
        for n in range(3):
            part = 0
            for k in range(4 * n, min(size, 4 * n + 4)):
                part |= byte_at(data, at + k) << 8 * (k - 4 * n)
            views[column, row, n + 1] = part
    views[column, row, 0] = size


def viewed(
    kind: pa.DataType,
    views: npt.NDArray[np.int32],
    known: npt.NDArray[np.bool_] | None,
    *data: bytes | npt.NDArray[np.uint8],
) -> pl.Series:
    """A column of views into ``data``, which it keeps alive; null where it is not ``known``."""
    return imported(kind, views, known, *map(pa.py_buffer, data))


def imported(
    kind: pa.DataType, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None, *more: pa.Buffer
) -> pl.Series:
    """A column in Arrow's layout, not copied; null where it is not ``known``."""
    validity = None
    if known is not None and not known.all():
        validity = pa.py_buffer(np.packbits(known, bitorder="little"))
    series = pl.from_arrow(pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(values), *more]))
    assert isinstance(series, pl.Series)
    return series
