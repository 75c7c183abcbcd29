"""Parse messages with msgspec, into structs and then into columns.

A call decodes a few thousand messages; their fields become columns before the next few thousand are decoded. A payload
that fails is decoded field by field, to name every reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from headrace.contracts.dtypes import WireField
from headrace.contracts.unknown import CHECK as UNKNOWN_FIELD
from headrace.contracts.unknown import OTHERS, Policy, added
from headrace.contracts.wire.decoded import SHOWN, Failures, Parsed, Raw, Refusal
from headrace.contracts.wire.json_array import BROKEN, is_array, lone_surrogate, split
from headrace.contracts.wire.json_numbers import whole_number
from headrace.core.batch import STRING_MAP

_TYPES: dict[str, Any] = {
    "string": str | None,
    "number": float | None,
    "integer": int | None,
    "boolean": bool | None,
    "time": str | None,
    "object": msgspec.Raw,
    "json": msgspec.Raw,
    "map": dict[str, str] | None,
}
#: Dtypes of columns as msgspec leaves them, if the field's dtype differs.
_RAW = {"time": pl.String(), "object": pl.Binary(), "json": pl.Binary()}
_NULL = msgspec.Raw(b"null")
#: Told from a null in the message by its identity.
_ABSENT = msgspec.Raw(b"null")
#: Reasons of one record, and names of unknown fields of one batch.
_MOST_REASONS, _MOST_COUNTED = 32, 1_000
#: Messages whose structs exist at once: few enough to stay in the processor's cache.
_AT_ONCE = 2_048
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class _Wire:
    """Decoders derived from fields, once."""

    struct: type[msgspec.Struct]
    record: Callable[[Any], Any]  # record and array refuse fields that nobody looks for
    array: Callable[[Any], list[Any]]
    lenient: Callable[[Any], Any]
    names: frozenset[str]
    fields: tuple[tuple[WireField, str, msgspec.json.Decoder[Any]], ...]  # with the attribute of the struct
    raw: dict[str, pl.DataType]


@cache
def _wire(fields: tuple[WireField, ...]) -> _Wire:
    # a name in a message need not be one in Python
    attributes = [f"f{n}" for n in range(len(fields))]
    rename = dict(zip(attributes, (f.name for f in fields), strict=True))
    members = [(attribute, *_member(field)) for attribute, field in zip(attributes, fields, strict=True)]
    struct = msgspec.defstruct("Record", members, gc=False, rename=rename)
    strict = msgspec.defstruct("Record", members, gc=False, rename=rename, forbid_unknown_fields=True)
    decoders = tuple(
        (field, attribute, msgspec.json.Decoder(_TYPES[field.kind]))
        for attribute, field in zip(attributes, fields, strict=True)
    )
    record, array = msgspec.json.Decoder(strict), msgspec.json.Decoder(list[strict])  # type: ignore[valid-type]
    raw = {f.name: _RAW.get(f.kind, f.dtype) for f in fields}
    names = frozenset(f.name for f in fields)
    return _Wire(
        struct, record.decode, array.decode, msgspec.json.Decoder(struct).decode, names, decoders, raw
    )


def _member(field: WireField) -> tuple[Any, Any]:
    """Return the type and the default of a struct's member."""
    kind = _TYPES[field.kind]
    if kind is msgspec.Raw:
        return kind, _ABSENT if field.marked else _NULL
    return (kind | msgspec.UnsetType, msgspec.UNSET) if field.marked else (kind, None)


def never(message: int, records: int) -> None:
    """Refuse no message for its number of records."""


class StructParser:
    """Parses one micro-batch with msgspec; see ``parse`` for the arguments."""

    def __init__(
        self,
        fields: Sequence[WireField],
        unknown: Policy | None,
        payloads: pl.Series,
        max_message_bytes: int,
        refusal: Refusal = never,
    ) -> None:
        self._fields = tuple(fields)
        self._policy = unknown
        self._wire = _wire(self._fields)
        self._payloads = payloads
        self._max = max_message_bytes
        self._refusal = refusal
        self._failures = Failures()
        self._frames: list[pl.DataFrame] = []
        self._missing: list[pl.DataFrame] = []
        self._height = 0  # rows of the frames
        self._structs: list[Any] = []  # not in a frame yet; the next two say of which message and element
        self._message: list[Iterable[int]] = []
        self._index: list[Iterable[int]] = []
        self._arrays: list[int] = []
        self._unknown: dict[str, int] = {}
        self._extra: dict[int, bytes] = {}  # by row

    def parsed(self) -> Parsed:
        """Parse all messages."""
        plain = pl.Series(decodable(self._payloads, self._max))
        texts = self._payloads.zip_with(plain, pl.Series([None], dtype=pl.Binary))
        for first, part in enumerate(texts.to_frame().iter_slices(_AT_ONCE)):
            self._chunk(first * _AT_ONCE, part.to_series().to_list())
            self._frame()
        raw = pl.concat([pl.DataFrame(schema=self._wire.raw), *self._frames], rechunk=True)
        rows = pl.DataFrame([_checked(f, raw[f.name], self._failures) for f in self._fields])
        marked = pl.Schema({f.name: pl.Boolean() for f in self._fields if f.marked})
        missing = pl.concat([pl.DataFrame(schema=marked), *self._missing], rechunk=True)
        extra = self._extras(rows.height) if self._policy == "keep" else None
        message, index = (
            pl.Series(name, np.fromiter(chain.from_iterable(parts), np.int64), dtype=dtype)
            for name, parts, dtype in (
                ("message", self._message, pl.UInt32),
                ("index", self._index, pl.Int32),
            )
        )
        parts = Raw(rows, missing, extra)
        return Parsed(parts, message, index, self._failures, self._arrays, added(self._unknown))

    def _extras(self, height: int) -> pl.Series:
        texts: list[str | None] = [None] * height
        for row, text in self._extra.items():
            texts[row] = text.decode()
        return pl.Series(texts, dtype=pl.String)

    def _chunk(self, first: int, payloads: list[bytes | None]) -> None:
        """Decode messages to structs: as many valid ones as possible per call, then the one that stopped it."""
        left, at = iter(payloads), 0
        while at < len(payloads):
            ready = len(self._structs)
            try:
                self._structs.extend(map(self._wire.record, left))
            except (
                *BROKEN,
                TypeError,
            ):  # the message after those in the list is broken; TypeError: it is null
                broken = True
            else:
                broken = False
            done = len(self._structs) - ready
            self._keep(range(first + at, first + at + done), bytes(done))
            at += done
            if broken:
                self._odd(first + at)
                at += 1

    def _keep(self, message: Iterable[int], index: Iterable[int]) -> None:
        self._message.append(message)
        self._index.append(index)

    def _odd(self, at: int) -> None:
        """Decode a message that is no plain record: an array of records, or a wrong one."""
        payload: bytes | None = self._payloads[at]
        if not payload or payload.isspace():
            self._failed(at, "empty")
        elif len(payload) > self._max:
            self._failed(at, f"max_message_bytes({self._max})", str(len(payload)))
        elif not _is_utf8(payload):
            self._failed(at, "utf8")
        elif is_array(payload):
            self._array(at, payload)
        else:
            self._structs.append(self._record(payload))
            self._keep((at,), (0,))

    def _failed(self, at: int, check: str, value: str = "") -> None:
        """Turn the whole message into one failed row."""
        self._failures.add(self._row(), check, "", value)
        self._structs.append(self._wire.struct())
        self._keep((at,), (0,))

    def _row(self) -> int:
        """Return the row of the next struct."""
        return self._height + len(self._structs)

    def _array(self, at: int, payload: bytes) -> None:
        parts: Sequence[Any]
        try:
            parts, decoded = self._wire.array(payload), True
        except BROKEN:
            try:
                parts, decoded = split(payload), False
            except BROKEN as error:
                self._failed(at, "json", str(error))
                return
        if not parts:
            self._failed(at, "empty_array")
        elif refused := self._refusal(at, len(parts)):
            self._failed(at, *refused)
        else:
            self._arrays.append(at)
            self._keep(repeat(at, len(parts)), range(len(parts)))
            for first in range(0, len(parts), _AT_ONCE):
                some = parts[first : first + _AT_ONCE]
                if decoded:
                    self._structs += some
                else:
                    for part in some:
                        self._structs.append(self._record(part))
                if len(self._structs) >= _AT_ONCE:
                    self._frame()

    def _record(self, raw: bytes | msgspec.Raw) -> Any:
        try:
            return self._wire.record(raw)
        except BROKEN:
            pass
        try:
            struct, parts = self._wire.lenient(raw), _OBJECT.decode(raw)
        except BROKEN:
            return self._salvaged(raw)
        self._strangers(parts)
        return struct

    def _strangers(self, parts: dict[str, msgspec.Raw]) -> None:
        """Apply the policy to the fields that nobody looks for."""
        strange = {name: part for name, part in parts.items() if name not in self._wire.names}
        if not strange or self._policy is None:
            return
        if self._policy == "reject":
            for name, part in list(strange.items())[:_MOST_REASONS]:
                self._failures.add(self._row(), UNKNOWN_FIELD, name[:SHOWN] or '""', _shown(part))
            if len(strange) > _MOST_REASONS:
                self._failures.add(
                    self._row(), UNKNOWN_FIELD, OTHERS, f"{len(strange) - _MOST_REASONS} more fields"
                )
            return
        for name in strange:  # once there are too many names, new ones count as others
            known = name in self._unknown or len(self._unknown) < _MOST_COUNTED
            self._unknown[name if known else OTHERS] = self._unknown.get(name if known else OTHERS, 0) + 1
        if self._policy == "keep":
            self._extra[self._row()] = msgspec.json.encode(strange)

    def _salvaged(self, raw: bytes | msgspec.Raw) -> Any:
        """Name every reason why ``raw`` is no valid record, and keep its valid fields."""
        row, failures = self._row(), self._failures
        try:
            parts = _OBJECT.decode(raw)
        except msgspec.ValidationError:
            failures.add(row, "object", "", _shown(raw))
            return self._wire.struct()
        except BROKEN as error:
            failures.add(row, "json", "", lone_surrogate(bytes(raw)) or str(error))
            return self._wire.struct()
        self._strangers(parts)
        right: dict[str, Any] = {}
        for field, attribute, decoder in self._wire.fields:
            part = parts.get(field.name)
            if part is None:
                continue
            right[attribute] = _NULL if _TYPES[field.kind] is msgspec.Raw else None
            try:
                right[attribute] = decoder.decode(part)
            except BROKEN:
                value = whole_number(bytes(part)) if field.kind == "integer" else None
                if value is None:
                    failures.add(row, f"type({field.kind})", field.name, _shown(part))
                elif within := _range(field, value):
                    failures.add(row, within, field.name, _shown(part))
                else:
                    right[attribute] = value
        return self._wire.struct(**right)

    def _frame(self) -> None:
        """Turn the collected structs into columns."""
        structs, self._structs = self._structs, []
        columns, missing = [], {}
        for field, attribute, _ in self._wire.fields:
            values = list(map(attrgetter(attribute), structs))
            if field.marked:
                missing[field.name] = [value is msgspec.UNSET or value is _ABSENT for value in values]
                if msgspec.UNSET in values:
                    values = [None if value is msgspec.UNSET else value for value in values]
            columns.append(self._column(field, values))
        self._frames.append(pl.DataFrame(columns))
        self._missing.append(pl.DataFrame(missing, schema=dict.fromkeys(missing, pl.Boolean)))
        self._height += len(structs)

    def _column(self, field: WireField, values: list[Any]) -> pl.Series:
        """Turn values decoded by msgspec into a column."""
        match field.kind:
            case "object" | "json":
                values = list(map(bytes, values))
            case "map":
                return _maps(field, values)
            case "integer":
                values = self._in_range(field, values)
        return pl.Series(field.name, values, dtype=self._wire.raw[field.name])

    def _in_range(self, field: WireField, values: list[int | None]) -> list[int | None]:
        known = [value for value in values if value is not None]
        if not known or not (_range(field, min(known)) or _range(field, max(known))):
            return values
        for row, value in enumerate(values, self._height):
            if value is not None and (within := _range(field, value)):
                self._failures.add(row, within, field.name, str(value))
                values[row - self._height] = None
        return values


def _range(field: WireField, value: int) -> str | None:
    """Return the check that an integer fails if it is beyond its field's bounds; None if it fits."""
    return None if field.low <= value <= field.high else f"in_range({field.low}, {field.high})"


def decodable(payloads: pl.Series, max_message_bytes: int) -> npt.NDArray[np.bool_]:
    """Mark the payloads that a parser can judge: present, UTF-8 and not too long.

    Parsers do not look into strings that they skip or keep raw, so UTF-8 is checked here.
    """
    plain = (payloads.bin.size() <= max_message_bytes).fill_null(False).to_numpy().copy()
    try:
        payloads.cast(pl.String)
    except pl.exceptions.PolarsError:
        plain &= [text is not None and _is_utf8(text) for text in payloads]
    return plain


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(raw: bytes | msgspec.Raw) -> str:
    return bytes(memoryview(raw)[:SHOWN]).decode("utf-8", "replace")


def _maps(field: WireField, values: Sequence[dict[str, str] | None]) -> pl.Series:
    maps = [m or {} for m in values]
    keys = pa.array(chain.from_iterable(maps), pa.large_string())
    texts = pa.array(chain.from_iterable(m.values() for m in maps), pa.large_string())
    offsets = np.zeros(len(maps) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, maps), np.int64, len(maps)), out=offsets[1:])
    pairs = pa.StructArray.from_arrays([keys, texts], ["key", "value"])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pairs)
    series = pl.Series(pl.from_arrow(lists))
    return series.alias(field.name).cast(STRING_MAP)


def _checked(field: WireField, raw: pl.Series, failures: Failures) -> pl.Series:
    """Convert a column to the field's dtype, and add the failures that only a whole column shows."""
    if field.kind == "time":
        return _times(field, raw, failures)
    if field.kind == "object":
        return _objects(field, raw, failures)
    if field.kind == "json":
        return raw.set(raw.is_null() | raw.bin.starts_with(b"null"), None).cast(pl.String)
    return raw


def _times(field: WireField, text: pl.Series, failures: Failures) -> pl.Series:
    from headrace.contracts.wire.json_columns import times  # see parse

    found = times(text)
    for row in (found.is_null() & text.is_not_null()).arg_true().to_list():
        failures.add(row, "rfc3339_time_with_zone", field.name, str(text[row]))
    return found


def _objects(field: WireField, raw: pl.Series, failures: Failures) -> pl.Series:
    objects = raw.bin.starts_with(b"{")
    if not objects.all():
        for row in (~objects & ~raw.bin.starts_with(b"null")).arg_true().to_list():
            failures.add(row, "type(object)", field.name, _shown(raw[row]))
        raw = raw.set(~objects, None)
    return raw.cast(pl.String)
