"""Read the columns of a contract from messages, as its fields say where and how their values are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from operator import and_

import polars as pl

from headrace.contracts.shaping.paths import Path
from headrace.contracts.shaping.plan import Level, Plan, Reading
from headrace.contracts.shaping.texts import cleaned
from headrace.contracts.shaping.times import read_times
from headrace.contracts.shaping.tokens import ANY_SIZE, as_kinds, failed, objects_of, unquoted
from headrace.contracts.unknown import CHECK as UNKNOWN_FIELD
from headrace.contracts.unknown import Policy
from headrace.contracts.wire.decoded import Failures, Parsed, Raw, Refusal
from headrace.contracts.wire.parse import parse
from headrace.contracts.wire.structs import never


def read(
    plan: Plan, unknown: Policy, payloads: pl.Series, max_message_bytes: int, refusal: Refusal = never
) -> Parsed:
    """Parse messages and shape what they have into the columns that are read.

    Args:
        plan: What is read.
        unknown: Policy for other fields of a message; other members of objects inside it are data.
        payloads: Binary, one per message.
        max_message_bytes: Longer messages fail whole.
        refusal: Called for each message that is an array.

    Returns:
        One raw column per column that is read, by its name, as ``typed`` takes it.
    """
    parsed = parse(plan.top.fields, unknown, payloads, max_message_bytes, refusal)
    values = _Values()
    values.take(plan.top, parsed.raw, parsed.failures)
    failures = values.reasons(plan.readings)
    columns, missing, tokens = {}, {}, {}
    for reading in plan.readings:
        name = reading.column.name
        found = _first([values.fields[place] for place in reading.places])
        if reading.column.default is not None:
            missing[name] = reduce(and_, (values.missing[place] for place in reading.places))
        columns[name] = found = _shaped(reading, found, failures)
        if reading.mode == "token" and not _is_time(reading):
            tokens[name] = found
    if tokens:
        kinds = {r.column.name: r for r in plan.readings if r.column.name in tokens}
        found_kinds = as_kinds(tokens, {name: r.kind for name, r in kinds.items()}, failures)
        columns |= {name: _clean(reading, found_kinds[name]) for name, reading in kinds.items()}
    raw = Raw(pl.DataFrame(columns), pl.DataFrame(missing), parsed.raw.extra)
    return Parsed(
        raw, parsed.message, parsed.index, failures, parsed.arrays, parsed.unknown, parsed.raw.missing
    )


@dataclass(slots=True)
class _Values:
    """What was found at each place, one row per record.

    Attributes:
        fields: Raw values.
        missing: Where a default is asked for: which records lack the field.
        failures: Reasons, with the place of the value; None for whole records.
    """

    fields: dict[Path, pl.Series] = field(default_factory=dict)
    missing: dict[Path, pl.Series] = field(default_factory=dict)
    failures: list[tuple[Path | None, int, str, str, str]] = field(default_factory=list)

    def take(self, level: Level, raw: Raw, failures: Failures) -> None:
        """Take over the fields of one level, and parse the levels below it."""
        for row, check, name, value in failed(failures):
            for column in level.columns.get(name, ()) if check != UNKNOWN_FIELD else ():
                self.failures.append((_place(level, name), row, check, column, value))
            if check == UNKNOWN_FIELD or name not in level.columns:
                self.failures.append((None, row, check, name, value))
        for wanted in level.fields:
            place = _place(level, wanted.name)
            self.fields[place] = raw.fields[wanted.name]
            if wanted.marked:
                self.missing[place] = raw.missing[wanted.name]
        for name, below in level.within:
            tokens = raw.fields[name]
            texts, wrong = objects_of(tokens, below.array, [one.name for one in below.fields])
            check = "type(array)" if below.array else "type(object)"
            for row in wrong:
                for column in dict.fromkeys(chain.from_iterable(below.columns.values())):
                    self.failures.append((None, row, check, column, tokens[row]))
            inner = parse(below.fields, None, texts, ANY_SIZE)
            self.take(below, inner.raw, inner.failures)

    def reasons(self, readings: Sequence[Reading]) -> Failures:
        """Return the reasons, without those of values that are not used because an earlier place has one."""
        earlier = {
            place: r.places[:n] for r in readings for n, place in enumerate(r.places) if len(r.places) > 1
        }
        wrong = {(place, row) for place, row, *_ in self.failures}
        found = Failures()
        for place, row, check, column, value in self.failures:
            before = earlier.get(place, ()) if place else ()
            if not any(self.fields[one][row] is not None or (one, row) in wrong for one in before):
                found.add(row, check, column, value)
        return found


def _place(level: Level, name: str) -> Path:
    return (*level.path, int(name) if level.array else name)


def _first(places: Sequence[pl.Series]) -> pl.Series:
    """Return the value of the first place that has one."""
    found = places[0]
    for later in places[1:]:
        if not found.null_count():
            break
        found = found.zip_with(found.is_not_null(), later)
    return found


def _clean(reading: Reading, texts: pl.Series) -> pl.Series:
    shape = reading.shape
    if reading.kind.kind != "string" or not (shape.strip or shape.lower or shape.nulls):
        return texts
    return cleaned(texts, strip=shape.strip, lower=shape.lower, nulls=shape.nulls)


def _shaped(reading: Reading, found: pl.Series, failures: Failures) -> pl.Series:
    """Clean texts, and read times in the field's formats."""
    shape, column = reading.shape, reading.column
    if reading.mode == "own":
        return _clean(reading, found)
    quoted = None
    if reading.mode == "token":
        texts, quoted = unquoted(found)
        if not _is_time(reading):
            if not shape.nulls:
                return found
            kept = cleaned(texts, strip=shape.strip, lower=shape.lower, nulls=shape.nulls)
            return found.set(quoted & kept.is_null(), None)
        found = texts
    found = cleaned(found, strip=shape.strip, nulls=shape.nulls)
    date = column.dtype == pl.Date()
    times = read_times(column.name, found, reading.formats, shape.zone, failures, quoted=quoted, date=date)
    return times.dt.to_string("%Y-%m-%d") if date else times


def _is_time(reading: Reading) -> bool:
    return reading.column.wire in ("time", "date") and bool(reading.shape.formats or reading.mode == "text")
