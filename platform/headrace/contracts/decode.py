"""Message payloads to typed columns.

Strict about types (a number is not a string, an object is not a number), because a lenient parser turns a
wrong type into a null and the loss is never seen. msgspec decodes each payload straight into a struct
derived from the contract; only a payload that fails is looked at a second time, field by field, to name
every reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa

from headrace.batch import STRING_MAP, UTC_MICROS
from headrace.contracts.base import Column, Contract

_TYPES: dict[str, Any] = {
    "string": str | None,
    "number": float | None,
    "integer": int | None,
    "time": str | None,
    "object": msgspec.Raw,
    "map": dict[str, str] | None,
}
_INT_RANGE: dict[pl.DataType, tuple[int, int]] = {
    pl.Int32(): (-(2**31), 2**31 - 1),
    pl.Int64(): (-(2**63), 2**63 - 1),
}
_NULL = msgspec.Raw(b"null")


@dataclass(slots=True)
class Failures:
    """Reasons found so far, as columns; ``row`` points into ``Decoded.rows``."""

    row: list[int] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    column: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)

    def add(self, row: int, check: str, column: str = "", value: str = "") -> None:
        """Record that ``row`` failed ``check``."""
        self.row.append(row)
        self.check.append(check)
        self.column.append(column)
        self.value.append(value[:256])


@dataclass(slots=True)
class Decoded:
    """One row per record.

    Attributes:
        rows: The contract's columns, typed; null in a column that failed.
        message: Row of the message in ``MicroBatch.records``, one per record.
        index: Place of the record in its message, one per record.
        element: Bytes of the record where it is an element of an array, else None (the whole payload).
        failures: Reasons, by row.
    """

    rows: pl.DataFrame
    message: Sequence[int]
    index: Sequence[int]
    element: dict[int, bytes]
    failures: Failures


@dataclass(frozen=True, slots=True)
class _Wire:
    """What is derived from a contract once."""

    struct: type[msgspec.Struct]
    record: msgspec.json.Decoder[Any]
    fields: tuple[tuple[Column, msgspec.json.Decoder[Any]], ...]


@cache
def _wire(contract: Contract) -> _Wire:
    fields = []
    for c in contract.columns:
        default = _NULL if c.wire == "object" else None if c.wire == "map" else c.default
        fields.append((c.name, _TYPES[c.wire], default))
    struct = msgspec.defstruct(contract.name, fields, gc=False)
    decoders = tuple((c, msgspec.json.Decoder(_TYPES[c.wire])) for c in contract.columns)
    return _Wire(struct, msgspec.json.Decoder(struct), decoders)


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: RecursionError: nesting deeper than any real record; UnicodeDecodeError: bytes that are not UTF-8.
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(contract: Contract, payloads: pl.Series, max_message_bytes: int) -> Decoded:
    """Decode one micro-batch.

    Args:
        contract: What the records should be.
        payloads: Binary, one per message.
        max_message_bytes: Longer messages fail whole.

    Returns:
        At least one row for every message, so that none can vanish: an empty array yields one failed row.
    """
    wire = _wire(contract)
    failures = Failures()
    structs: list[Any] = []
    message: list[int] = []
    index: list[int] = []
    element: dict[int, bytes] = {}
    blank = wire.struct()
    one = wire.record.decode

    def keep(struct: Any, at: int, place: int = 0) -> None:
        structs.append(struct)
        message.append(at)
        index.append(place)

    def record(raw: bytes | msgspec.Raw, at: int, place: int = 0) -> None:
        try:
            struct = one(raw)
        except _BROKEN:
            struct = _salvage(wire, raw, len(structs), failures)
        keep(struct, at, place)

    all_text = _is_utf8(payloads)
    for at, payload in enumerate(payloads.to_list()):
        if not payload or payload.isspace():
            failures.add(len(structs), "empty")
            keep(blank, at)
        elif len(payload) > max_message_bytes:
            failures.add(len(structs), f"max_message_bytes({max_message_bytes})", "", str(len(payload)))
            keep(blank, at)
        elif not (all_text or _is_utf8(payload)):
            failures.add(len(structs), "utf8")
            keep(blank, at)
        elif payload[:1] == b"[" or payload.lstrip()[:1] == b"[":
            try:
                parts = _ARRAY.decode(payload)
            except _BROKEN as error:
                failures.add(len(structs), "json", "", str(error))
                keep(blank, at)
                continue
            if not parts:
                failures.add(len(structs), "empty_array")
                keep(blank, at)
            for place, part in enumerate(parts):
                element[len(structs)] = part
                record(part, at, place)
        else:
            record(payload, at)
    rows = _columns(contract, structs, failures)
    return Decoded(rows, message, index, element, failures)


def _is_utf8(data: pl.Series | bytes) -> bool:
    """msgspec does not look into strings that it skips or keeps raw, so the bytes are checked first."""
    try:
        data.decode() if isinstance(data, bytes) else data.cast(pl.String)
    except (UnicodeDecodeError, pl.exceptions.ComputeError):
        return False
    return True


def _salvage(wire: _Wire, raw: bytes | msgspec.Raw, row: int, failures: Failures) -> Any:
    """Name every reason why ``raw`` is no record, and keep the fields that are right."""
    try:
        parts = _OBJECT.decode(raw)
    except msgspec.ValidationError:
        failures.add(row, "object", "", _shown(raw))
        return wire.struct()
    except _BROKEN as error:
        failures.add(row, "json", "", str(error))
        return wire.struct()
    right: dict[str, Any] = {}
    for column, decoder in wire.fields:
        part = parts.get(column.name)
        if part is None:
            continue
        try:
            right[column.name] = decoder.decode(part)
        except _BROKEN:
            failures.add(row, f"type({column.wire})", column.name, _shown(part))
    return wire.struct(**right)


def _shown(raw: bytes | msgspec.Raw) -> str:
    return bytes(memoryview(raw)[:256]).decode("utf-8", "replace")


def _columns(contract: Contract, structs: list[Any], failures: Failures) -> pl.DataFrame:
    """Turn structs into typed columns, adding the failures that only a whole column shows."""
    rows = map(msgspec.structs.astuple, structs)
    values = list(zip(*rows, strict=True)) if structs else [()] * len(contract.columns)
    out = []
    for column, raw in zip(contract.columns, values, strict=True):
        match column.wire:
            case "time":
                series = _times(column, raw, failures)
            case "object":
                series = _objects(column, raw, failures)
            case "map":
                series = _maps(column, raw)
            case "integer":
                series = _integers(column, raw, failures)
            case _:
                series = pl.Series(column.name, raw, dtype=column.dtype)
        out.append(series)
    return pl.DataFrame(out)


def _times(column: Column, raw: Sequence[str | None], failures: Failures) -> pl.Series:
    text = pl.Series(column.name, raw, dtype=pl.String)
    # %+ is chrono's RFC 3339: a date-time without a zone is null, not local time. It also reads years of
    # five digits, which RFC 3339 does not have and Python's datetime cannot hold.
    times = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    in_calendar = times.dt.year().is_between(1, 9_999)
    if not in_calendar.all():
        times = times.set(~in_calendar, None)
    for row in (times.is_null() & text.is_not_null()).arg_true().to_list():
        failures.add(row, "rfc3339_time_with_zone", column.name, str(raw[row]))
    return times.cast(UTC_MICROS)


def _objects(column: Column, raw: Sequence[msgspec.Raw], failures: Failures) -> pl.Series:
    out: list[str | None] = []
    for row, part in enumerate(raw):
        data = bytes(part)
        if data[:1] == b"{":
            out.append(data.decode())
            continue
        out.append(None)
        if data != b"null":
            failures.add(row, "type(object)", column.name, _shown(part))
    return pl.Series(column.name, out, dtype=pl.String)


def _maps(column: Column, raw: Sequence[dict[str, str] | None]) -> pl.Series:
    maps = [m or {} for m in raw]
    keys = pa.array(chain.from_iterable(maps), pa.large_string())
    values = pa.array(chain.from_iterable(m.values() for m in maps), pa.large_string())
    offsets = [0]
    for m in maps:
        offsets.append(offsets[-1] + len(m))
    pairs = pa.StructArray.from_arrays([keys, values], ["key", "value"])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pairs)
    series = pl.Series(pl.from_arrow(lists))
    return series.alias(column.name).cast(STRING_MAP)


def _integers(column: Column, raw: Sequence[int | None], failures: Failures) -> pl.Series:
    low, high = _INT_RANGE[column.dtype]
    values: list[int | None] = list(raw)
    for row, value in enumerate(raw):
        if value is not None and not low <= value <= high:
            failures.add(row, f"in_range({low}, {high})", column.name, str(value))
            values[row] = None
    return pl.Series(column.name, values, dtype=column.dtype)
