"""Convert Arrow columns to what JSON has: exactly, or with the reason why not."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.batch import UTC_MICROS

#: First and last moment that RFC 3339 and Python can express, in microseconds since 1970.
_FIRST_MICRO, _LAST_MICRO = -62_135_596_800_000_000, 253_402_300_799_999_999
#: Factor and divisor that turn a unit into microseconds.
_MICROS = {"d": (86_400_000_000, 1), "s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}


@dataclass(slots=True)
class JsonColumn:
    """The values of a column, one per row.

    Attributes:
        values: Values for msgspec to encode, decimals as numbers. For a row in ``wrong``, the nearest value
            that JSON has.
        wrong: By row, the Arrow type and why JSON has no such value.
    """

    values: list[Any]
    wrong: dict[int, str] = field(default_factory=dict)


def json_column(array: pa.Array) -> JsonColumn:
    """Convert a column.

    Times with a zone become RFC 3339 in UTC, truncated to microseconds; times without a zone stay without one.
    Dates, times of day and durations become ISO 8601 text. Binary becomes its UTF-8 text. Structs and maps
    become objects.
    """
    kind = array.type
    if isinstance(kind, pa.UuidType):
        return JsonColumn([None if value is None else str(value) for value in array.to_pylist()])
    if isinstance(kind, pa.BaseExtensionType):
        return json_column(array.storage)
    return next(convert for known, convert in _CONVERSIONS if known(kind))(array)


def _as_they_are(array: pa.Array) -> JsonColumn:
    return JsonColumn(array.to_pylist())


def _dictionary(array: pa.Array) -> JsonColumn:
    return json_column(array.dictionary_decode())


def _run_ends(array: pa.Array) -> JsonColumn:
    return json_column(pc.run_end_decode(array))


def _text(array: pa.Array) -> JsonColumn:
    try:
        return JsonColumn(array.to_pylist())
    except UnicodeDecodeError:  # Arrow does not verify that text is UTF-8
        return _binary(array.cast(pa.large_binary()), str(array.type))


def _binary(array: pa.Array, kind: str = "") -> JsonColumn:
    found = JsonColumn([])
    for row, value in enumerate(array.to_pylist()):
        try:
            found.values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            found.values.append(base64.b64encode(value).decode())
            found.wrong[row] = f"{kind or array.type} that is not UTF-8 text (here in base64)"
    return found


def _floating(array: pa.Array) -> JsonColumn:
    kind = array.type
    values = (array.cast(pa.float32()) if pa.types.is_float16(kind) else array).to_pylist()
    found = JsonColumn(values)
    for row, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            values[row] = str(value)
            found.wrong[row] = f"{kind} {value}"
    return found


def _timestamp(array: pa.Array) -> JsonColumn:
    form = "%Y-%m-%dT%H:%M:%S%.6f"
    return _counted(array, array.type.unit, form if array.type.tz is None else f"{form}Z")


def _date(array: pa.Array) -> JsonColumn:
    if pa.types.is_date32(array.type):
        return _counted(array.cast(pa.int32()).cast(pa.int64()), "d", "%Y-%m-%d", str(array.type))
    return _counted(array, "ms", "%Y-%m-%d")


def _counted(array: pa.Array, unit: str, form: str, kind: str = "") -> JsonColumn:
    """Format numbers of units since 1970, in UTC."""
    raw = pl.Series(pl.from_arrow(array.cast(pa.int64())), dtype=pl.Int64)
    up, down = _MICROS[unit]
    first, last = _FIRST_MICRO * down // up, ((_LAST_MICRO + 1) * down - 1) // up
    within = raw.is_between(max(first, -(2**63)), min(last, 2**63 - 1))
    known = raw.zip_with(within.fill_null(False), pl.Series([None], dtype=pl.Int64))
    found = JsonColumn((known * up // down).cast(UTC_MICROS).dt.strftime(form).to_list())
    for row in (~within).fill_null(False).arg_true():
        found.values[row] = str(raw[row])
        found.wrong[row] = f"{kind or array.type} beyond the years 1 to 9999"
    return found


def _time_of_day(array: pa.Array) -> JsonColumn:
    up, down = _MICROS[array.type.unit]
    width = pa.int32() if pa.types.is_time32(array.type) else pa.int64()
    values: list[str | None] = []
    for value in array.cast(width).to_pylist():
        seconds, micros = divmod((value or 0) * up // down, 1_000_000)
        text = f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"
        values.append(None if value is None else text)
    return JsonColumn(values)


def _duration(array: pa.Array) -> JsonColumn:
    (up, down), found = _MICROS[array.type.unit], JsonColumn([])
    for row, value in enumerate(array.cast(pa.int64()).to_pylist()):
        try:
            found.values.append(None if value is None else timedelta(microseconds=value * up // down))
        except OverflowError:
            found.values.append(str(value))
            found.wrong[row] = f"{array.type} beyond a thousand million days"
    return found


def _struct(array: pa.Array) -> JsonColumn:
    names = [member.name for member in array.type]
    members = [json_column(member) for member in array.flatten()]
    rows: Iterator[tuple[Any, ...]] = zip(*(m.values for m in members), strict=True)
    if not members:
        rows = iter([()] * len(array))
    known = array.is_valid().to_pylist()
    values = [
        dict(zip(names, row, strict=True)) if valid else None for row, valid in zip(rows, known, strict=True)
    ]
    found = JsonColumn(values)
    for name, member in zip(names, members, strict=True):
        for row, why in member.wrong.items():
            found.wrong.setdefault(row, f"{why} in {name!r}")
    return found


def _lists(array: pa.Array) -> JsonColumn:
    elements = json_column(array.flatten())
    sizes = pc.list_value_length(array).fill_null(0).to_pylist()
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    known = array.is_valid().to_pylist()
    found = JsonColumn(
        [elements.values[a:b] if valid else None for (a, b), valid in zip(pairwise(ends), known, strict=True)]
    )
    if elements.wrong:
        rows = [row for row, size in enumerate(sizes) for _ in range(size)]
        for place, why in elements.wrong.items():
            found.wrong.setdefault(rows[place], why)
    return found


def _map(array: pa.Array) -> JsonColumn:
    kind = array.type
    pairs = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
    return keyed(_lists(array.cast(pa.list_(pairs))), str(kind))


def keyed(pairs: JsonColumn, kind: str) -> JsonColumn:
    """Turn lists of ``key`` and ``value`` into objects; names in JSON are text and must not repeat."""
    found = JsonColumn([], pairs.wrong)
    for row, value in enumerate(pairs.values):
        found.values.append(value)
        if value is None:
            continue
        made = {_name(pair["key"]): pair["value"] for pair in value if pair is not None}
        if len(made) == len(value) and None not in made:
            found.values[row] = made
        else:
            found.wrong.setdefault(row, f"{kind} with a key twice or without a key")
    return found


def _name(key: object) -> str | None:
    return key if key is None or isinstance(key, str) else str(key)


def _unknown(array: pa.Array) -> JsonColumn:
    values = [None if value is None else str(value) for value in array]
    return JsonColumn(values, {row: str(array.type) for row, value in enumerate(values) if value is not None})


def _any(*known: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: any(is_it(kind) for is_it in known)


_T = pa.types
_CONVERSIONS: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], JsonColumn]]] = (
    (_any(_T.is_null, _T.is_boolean, _T.is_integer, _T.is_decimal), _as_they_are),
    (_any(_T.is_string, _T.is_large_string, _T.is_string_view), _text),
    (_T.is_floating, _floating),
    (_T.is_timestamp, _timestamp),
    (_T.is_date, _date),
    (_T.is_time, _time_of_day),
    (_T.is_duration, _duration),
    (_any(_T.is_binary, _T.is_large_binary, _T.is_binary_view, _T.is_fixed_size_binary), _binary),
    (_T.is_dictionary, _dictionary),
    (_T.is_run_end_encoded, _run_ends),
    (_T.is_map, _map),
    (_T.is_struct, _struct),
    (
        _any(_T.is_list, _T.is_large_list, _T.is_fixed_size_list, _T.is_list_view, _T.is_large_list_view),
        _lists,
    ),
    (lambda _: True, _unknown),
)
