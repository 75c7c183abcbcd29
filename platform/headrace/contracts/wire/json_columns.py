"""Turn the records that ``json_scan`` is sure of into typed columns.

Text is not copied: its columns are Arrow views into the payloads, which lie end to end in one buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.contracts.dtypes import WireField
from headrace.contracts.unknown import OTHERS, Policy, added
from headrace.contracts.wire.decoded import Raw
from headrace.contracts.wire.json_scan import (
    BOOLEAN,
    INTEGER,
    JSON,
    MAP,
    MISSING,
    MOST_STRANGE,
    NAMES,
    NUMBER,
    OBJECT,
    PRESENT,
    STRING,
    TIME,
    Columns,
    Fields,
    Strange,
    scan,
)
from headrace.contracts.wire.json_scan import dates as read_dates
from headrace.contracts.wire.json_scan import decimals as read_decimals
from headrace.contracts.wire.json_scan import elements as split_elements
from headrace.contracts.wire.json_scan import times as read_times
from headrace.contracts.wire.json_scan import uuids as look_at_uuids
from headrace.core.batch import STRING_MAP
from headrace.core.compiled import arrow_column, view_column

#: Bytes of payloads that are scanned at once: the place in a view has 31 bits.
_AT_ONCE = 1 << 30
_LARGEST = 2**63 - 1
#: Fewest bytes of a pair in a map: ``"":"",``.
_SMALLEST_PAIR = 6
_KINDS = {
    "string": STRING,
    "number": NUMBER,
    "integer": INTEGER,
    "boolean": BOOLEAN,
    "time": TIME,
    "object": OBJECT,
    "map": MAP,
    "json": JSON,
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Place of each field among the columns of its type, worked out once."""

    fields: Fields
    texts: int
    numbers: int
    integers: int
    maps: int


@cache
def _layout(wire_fields: tuple[WireField, ...]) -> _Layout:
    names = [f.name.encode() for f in wire_fields]
    kinds = [_KINDS[f.kind] for f in wire_fields]
    texts, numbers, integers, maps = count(), count(), count(), count()
    store = {STRING: texts, OBJECT: texts, JSON: texts, NUMBER: numbers, MAP: maps}
    store |= dict.fromkeys((INTEGER, TIME, BOOLEAN), integers)
    slots = [next(store[kind]) for kind in kinds]
    fields = Fields(
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([0, *map(len, names)], dtype=np.int64),
        np.array(kinds, np.uint8),
        np.array(slots, np.int64),
        np.array([f.low for f in wire_fields], np.int64),
        np.array([min(f.high, _LARGEST) for f in wire_fields], np.int64),
    )
    return _Layout(fields, *(next(store[kind]) for kind in (STRING, NUMBER, INTEGER, MAP)))


def scan_columns(
    fields: tuple[WireField, ...], unknown: Policy | None, payloads: pl.Series, odd: npt.NDArray[np.bool_]
) -> tuple[list[Raw], dict[str, int]]:
    """Scan payloads into columns, one row per payload, and count the fields that nobody looks for.

    Args:
        fields: The fields to look for.
        unknown: Policy for all other fields; None if nobody asks for them.
        payloads: Binary; those that are not ``odd`` are present and UTF-8.
        odd: By payload: true for those to skip. Becomes true for those that are not surely valid records; their
            rows are null.

    Returns:
        Parts in the order of the payloads; and records by unknown field.
    """
    if len(payloads) > 1 and int(payloads.bin.size().sum()) > _AT_ONCE:
        half = len(payloads) // 2
        first, counted = scan_columns(fields, unknown, payloads[:half], odd[:half])
        second, more = scan_columns(fields, unknown, payloads[half:], odd[half:])
        return first + second, added(counted, more)
    rows, layout, keep = len(payloads), _layout(fields), unknown == "keep"
    data, offsets = _end_to_end(payloads)
    columns = Columns(
        presence=np.zeros((len(fields) + keep, rows), np.uint8),
        views=np.zeros((layout.texts + keep, rows, 4), np.int32),
        numbers=np.zeros((layout.numbers, rows), np.float64),
        integers=np.zeros((layout.integers, rows), np.int64),
        sizes=np.zeros((layout.maps, rows), np.int64),
        pairs=np.zeros((2 * layout.maps, data.size // _SMALLEST_PAIR + 1, 4), np.int32),
        text=np.empty(data.size, np.uint8),
        used=np.zeros(1 + layout.maps, np.int64),
    )
    strange = Strange(
        places=np.zeros((1 + MOST_STRANGE, 4), np.int64),
        hashes=np.zeros(NAMES, np.uint64),
        tally=np.zeros((NAMES + 1, 3), np.int64),
        kept=layout.texts if keep else -1,
    )
    strange.places[0, 1] = -1 if unknown is None else 0 if unknown == "reject" else MOST_STRANGE
    scan(data, offsets, layout.fields, columns, strange, odd)
    found = pl.DataFrame(
        {
            field.name: _series(field, layout.fields.slot[n], columns.presence[n], columns, data)
            for n, field in enumerate(fields)
        }
    )
    missing = pl.DataFrame({f.name: columns.presence[n] == MISSING for n, f in enumerate(fields) if f.marked})
    extra = None
    if keep:
        known = columns.presence[-1] == PRESENT
        extra = view_column(pa.string_view(), columns.views[-1], known, data, columns.text)
    return [Raw(found, missing, extra)], _counted(strange, data)


def _counted(strange: Strange, data: npt.NDArray[np.uint8]) -> dict[str, int]:
    found = {
        data[begin:end].tobytes().decode(): int(records)
        for records, begin, end in strange.tally[:NAMES]
        if records
    }
    others = int(strange.tally[NAMES, 0])
    return added(found, {OTHERS: others} if others else {})


def times(texts: pl.Series) -> pl.Series:
    """Read RFC 3339 times as instants; null for anything else and for times beyond the calendar."""
    data, offsets = _end_to_end(texts)
    micros, known = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    read_times(data, offsets, micros, known)
    return arrow_column(pa.timestamp("us", "UTC"), micros, known).alias(texts.name)


def dates(texts: pl.Series) -> pl.Series:
    """Read dates as ``YYYY-MM-DD``; null for anything else."""
    data, offsets = _end_to_end(texts)
    days, known = np.zeros(len(texts), np.int32), np.zeros(len(texts), np.bool_)
    read_dates(data, offsets, days, known)
    return arrow_column(pa.date32(), days, known).alias(texts.name)


def uuids(texts: pl.Series) -> pl.Series:
    """Read UUIDs of 36 characters as text in lower case; null for anything else."""
    data, offsets = _end_to_end(texts)
    form = np.zeros(len(texts), np.uint8)
    look_at_uuids(data, offsets, form)
    if (form == 1).all():
        return texts
    known = pl.Series(form > 0) if (form == 0).any() else None
    found = texts.str.to_lowercase() if (form == 2).any() else texts
    return found if known is None else found.set(~known, None)


def decimals(texts: pl.Series, precision: int, scale: int) -> pl.Series:
    """Read JSON numbers, in quotes or not, as decimals; null for anything else, or what is written otherwise."""
    data, offsets = _end_to_end(texts)
    words, known = np.zeros((len(texts), 2), np.uint64), np.zeros(len(texts), np.bool_)
    read_decimals(data, offsets, precision, scale, words, known)
    return arrow_column(pa.decimal128(precision, scale), words, known).alias(texts.name)


def elements(texts: pl.Series) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """Split JSON arrays; return the elements' JSON texts and their number by array, -1 for what is no array."""
    if len(texts) > 1 and int(texts.str.len_bytes().sum()) > _AT_ONCE:
        half = len(texts) // 2
        (first, counts), (second, more) = elements(texts[:half]), elements(texts[half:])
        return pl.concat([first, second]), np.concatenate([counts, more])
    data, offsets = _end_to_end(texts)
    sizes = np.zeros(len(texts), np.int64)
    views = np.zeros((1, int(np.count_nonzero(data == ord(","))) + len(texts), 4), np.int32)
    total = split_elements(data, offsets, views, sizes)
    return view_column(pa.string_view(), views[0, :total], None, data), sizes


def _end_to_end(payloads: pl.Series) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return all bytes, where each payload begins in them, and where the last one ends."""
    whole: Any = payloads.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = whole.buffers()
    within = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    return np.frombuffer(data or b"", np.uint8), within


def _series(
    field: WireField,
    slot: int,
    presence: npt.NDArray[np.uint8],
    columns: Columns,
    data: npt.NDArray[np.uint8],
) -> pl.Series:
    known = presence == PRESENT
    match field.kind:
        case "map":
            return _maps(slot, columns, data)
        case "string" | "object" | "json":
            return view_column(pa.string_view(), columns.views[slot], known, data, columns.text)
        case "number":
            return arrow_column(pa.float64(), columns.numbers[slot], known)
        case "integer":
            found = arrow_column(pa.int64(), columns.integers[slot], known)
            return found if found.dtype == field.dtype else found.cast(field.dtype)
        case "boolean":
            truths = pl.Series(columns.integers[slot] != 0)
            return truths if known.all() else truths.set(pl.Series(~known), None)
        case "time":
            return arrow_column(pa.timestamp("us", "UTC"), columns.integers[slot], known)


def _maps(slot: int, columns: Columns, data: npt.NDArray[np.uint8]) -> pl.Series:
    """Build the column of a map; absent and null become empty maps."""
    used = int(columns.used[1 + slot])
    keys, values = (
        view_column(pa.string_view(), views[:used], None, data, columns.text)
        for views in columns.pairs[2 * slot : 2 * slot + 2]
    )
    pairs = pl.DataFrame({"key": keys, "value": values}).to_struct()
    offsets = pa.array(np.concatenate(([0], np.cumsum(columns.sizes[slot]))), pa.int64())
    maps = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pairs.to_arrow()))
    assert isinstance(maps, pl.Series)
    return maps.cast(STRING_MAP)
