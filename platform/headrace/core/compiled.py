"""Compile the hot path, and make columns of Arrow views.

Numba compiles a function for the types of its first call and keeps the machine code in a file. In a checkout the
file is below the module's folder. An installed package is left as it is: there it is below ``~/.cache/headrace``
(``NUMBA_CACHE_DIR`` names another folder). So a machine compiles once, which takes some ten seconds; an installation
does it ahead (``headrace.local.prepare``).

A view is four 32-bit numbers
(https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout). The first is the length.
Then follow up to twelve bytes themselves; or the first four bytes, a buffer's number and a place in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from numba import njit, types
from numba.extending import intrinsic

_INLINE = 12
F = TypeVar("F", bound=Callable[..., Any])
#: Hash of this file, whose functions are compiled into those of other files.
_VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]

#: Code that counts no references to arrays, see ``compiled``.
_OPTIONS: Any = {"nogil": True, "_nrt": False}


def compiled(function: F) -> F:
    """Compile ``function`` to machine code that runs without the interpreter's lock.

    Arrays belong to the caller: the code counts no references to them and makes no arrays. Numba otherwise
    counts atomically at every call of another function, which took two thirds of the time to decode an event
    (https://github.com/numba/numba/issues/2345; Numba leaves the counting out of functions of its own in the
    same way).
    """
    # Numba's cache checks the function's own file alone; with this file's hash in the name, changes here count too
    function.__qualname__ = f"{function.__qualname__}_{_VERSION}"
    made: Any
    try:
        with _cached_outside_the_package(Path(function.__code__.co_filename)):
            made = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder can be written, so each process compiles for itself
        made = njit(**_OPTIONS)(function)
    return cast("F", made)


@contextmanager
def _cached_outside_the_package(module: Path) -> Iterator[None]:
    """Let Numba keep the functions of an installed module in the user's cache. It chooses when it decorates."""
    config: Any = numba.config
    before = config.CACHE_DIR
    if not before and _is_installed(module):
        with suppress(RuntimeError):  # the user has no home
            config.CACHE_DIR = str(Path.home() / ".cache" / "headrace" / "numba")
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _is_installed(module: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(module.parts)


def _byte_at(typing: Any, data: Any, at: Any) -> Any:
    """Load ``data[at]`` as a signed number, for ``at`` within the array.

    Numba's own indexing asks each time whether the index counts from the end, which costs as much as the rest
    of a loop over bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.load(builder.gep(array.data, [arguments[1]], inbounds=True))
        return builder.zext(byte, context.get_value_type(types.int64))

    return types.int64(data, types.int64), generate


def _word_at(typing: Any, data: Any, at: Any) -> Any:
    """Load the eight bytes from ``at`` on, all within the array, as one number with the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        kind = context.get_value_type(types.uint64)
        place = builder.bitcast(builder.gep(array.data, [arguments[1]], inbounds=True), kind.as_pointer())
        word = builder.load(place)
        word.align = 1
        return word

    return types.uint64(data, types.int64), generate


def _trailing_zeros(typing: Any, word: Any) -> Any:
    """Count the lowest bits, of 64, that are zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.int64(types.uint64), generate


byte_at: Any = intrinsic(_byte_at)
word_at: Any = intrinsic(_word_at)
trailing_zeros: Any = intrinsic(_trailing_zeros)


@compiled
def write_view(data: Any, at: int, size: int, buffer: int, views: Any, column: int, row: int) -> None:
    """Write a view of ``size`` bytes of ``data``, which is the column's buffer with that number."""
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


def view_column(
    kind: pa.DataType,
    views: npt.NDArray[np.int32],
    known: npt.NDArray[np.bool_] | None,
    *data: bytes | npt.NDArray[np.uint8],
) -> pl.Series:
    """Make a column of views into ``data``, which it keeps alive; null where it is not ``known``."""
    return arrow_column(kind, views, known, *map(pa.py_buffer, data))


def arrow_column(
    kind: pa.DataType, values: npt.NDArray[Any], known: npt.NDArray[np.bool_] | None, *more: pa.Buffer
) -> pl.Series:
    """Make a column of values in Arrow's layout, without a copy; null where it is not ``known``."""
    validity = None
    if known is not None and not known.all():
        validity = pa.py_buffer(np.packbits(known, bitorder="little"))
    series = pl.from_arrow(pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(values), *more]))
    assert isinstance(series, pl.Series)
    return series
