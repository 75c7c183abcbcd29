"""Recognise what texts hold: numbers, dates, times and ids, and texts that mean null."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from headrace.core.batch import UTC_MICROS

#: Texts that mean null wherever they occur, and those that do so among values of another type. MySQL writes zeros.
NULLS = frozenset({"", "N/A", "n/a", "#N/A", "NULL", "null", "\\N", "(null)"})
NULLS_OF_TYPED = NULLS | {
    "NA", "None", "none", "NaN", "nan", "-", "--", "?", "nil", "undefined", "NaT",
    "0000-00-00", "0000-00-00 00:00:00",
}  # fmt: skip

_RFC3339 = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"
_ISO8601 = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)? ?([Zz]|[+-]\d\d:?\d\d)?$"
_PLAIN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"
_ZONED = r"([Zz]|[+-]\d\d:?\d\d)$"
#: Formats of times beside RFC 3339 and ISO 8601 -> their shape. Where two fit every value, the first one wins.
_TIMES = {
    "%Y/%m/%d %H:%M:%S": r"^\d{4}/\d\d?/\d\d? \d\d?:\d\d:\d\d$",
    "%Y/%m/%d %H:%M": r"^\d{4}/\d\d?/\d\d? \d\d?:\d\d$",
    "%d.%m.%Y %H:%M:%S": r"^\d\d?\.\d\d?\.\d{4} \d\d?:\d\d:\d\d$",
    "%d.%m.%Y %H:%M": r"^\d\d?\.\d\d?\.\d{4} \d\d?:\d\d$",
    "%m/%d/%Y %H:%M:%S": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d:\d\d$",
    "%d/%m/%Y %H:%M:%S": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d:\d\d$",
    "%m/%d/%Y %H:%M": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d$",
    "%d/%m/%Y %H:%M": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d$",
    "%m/%d/%Y %I:%M:%S %p": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d:\d\d [AaPp][Mm]$",
    "%m/%d/%Y %I:%M %p": r"^\d\d?/\d\d?/\d{4} \d\d?:\d\d [AaPp][Mm]$",
    "%d-%m-%Y %H:%M:%S": r"^\d\d?-\d\d?-\d{4} \d\d?:\d\d:\d\d$",
    "%m-%d-%Y %H:%M:%S": r"^\d\d?-\d\d?-\d{4} \d\d?:\d\d:\d\d$",
    "%d-%m-%Y %H:%M": r"^\d\d?-\d\d?-\d{4} \d\d?:\d\d$",
    "%m-%d-%Y %H:%M": r"^\d\d?-\d\d?-\d{4} \d\d?:\d\d$",
    "%d/%b/%Y:%H:%M:%S %z": r"^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}$",
    "%a, %d %b %Y %H:%M:%S %z": r"^[A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}$",
    "%a, %d %b %Y %H:%M:%S GMT": r"^[A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$",
    "%Y%m%dT%H%M%SZ": r"^\d{8}T\d{6}Z$",
    "%Y%m%dT%H%M%S": r"^\d{8}T\d{6}$",
}
_DATES = {
    "%Y-%m-%d": r"^\d{4}-\d\d-\d\d$",
    "%Y/%m/%d": r"^\d{4}/\d\d?/\d\d?$",
    "%d.%m.%Y": r"^\d\d?\.\d\d?\.\d{4}$",
    "%m/%d/%Y": r"^\d\d?/\d\d?/\d{4}$",
    "%d/%m/%Y": r"^\d\d?/\d\d?/\d{4}$",
    "%d-%m-%Y": r"^\d\d?-\d\d?-\d{4}$",
    "%m-%d-%Y": r"^\d\d?-\d\d?-\d{4}$",
    "%d-%b-%Y": r"^\d\d?-[A-Z][a-z]{2}-\d{4}$",
    "%d %b %Y": r"^\d\d? [A-Z][a-z]{2} \d{4}$",
}
_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_INTEGER = r"^[+-]?(0|[1-9][0-9]{0,18})$"
#: A number of JSON, or as spreadsheets write it; one with leading zeros is an id, such as a postal code.
_NUMBER = (
    r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
    r"|^[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?$"
)
_FIRST_DATE, _LAST_DATE = pl.date(1900, 1, 1), pl.date(2299, 12, 31)
BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"})
#: Numbers that are written for people.
DECORATED = re.compile(r"[$€£¥]? ?-?\d{1,3}(?:[,.' ]\d{3})*(?:[.,]\d+)? ?[%$€£¥]?")


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the texts of a column.

    Attributes:
        kind: ``uuid``, ``integer``, ``number``, ``boolean``, ``date`` or ``time``.
        values: What each text is, null where it does not fit.
        format: Format of times and dates, as ``field`` takes it.
        zoned: Whether each time says its zone.
        other: Another format that fits as well.
    """

    kind: str
    values: pl.Series
    format: str = ""
    zoned: bool = True
    other: str = ""

    @property
    def fits(self) -> int:
        """Number of texts that fit."""
        return len(self.values) - self.values.null_count()


#: Texts by which shapes are ruled out, before all of them are looked at.
_TRIED = 32


def _likely(texts: pl.Series, shapes: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the formats whose shape one of the first texts has."""
    tried = texts.head(_TRIED).to_list()
    for format, shape in shapes.items():
        pattern = re.compile(shape)
        if any(pattern.match(text) for text in tried):
            yield format, shape


def readings(texts: pl.Series, *, cells: bool) -> Iterator[Reading]:
    """Yield the ways in which some of the texts can be read.

    Args:
        texts: Texts without nulls, the most frequent ones first.
        cells: Whether they are cells of a CSV, where a number is text, too.
    """
    for _ in _likely(texts, {"": _UUID}):
        yield Reading("uuid", _where(texts, _UUID))
    if cells:
        stripped = texts.str.strip_chars(" \t")
        whole = _where(stripped, _INTEGER).cast(pl.Int64, strict=False)
        yield Reading("integer", whole)
        numbers = _where(stripped, _NUMBER).cast(pl.Float64, strict=False)
        yield Reading("number", numbers.set((~numbers.is_finite()).fill_null(False), None))
        for words in BOOLEANS:
            lower = stripped.str.to_lowercase()
            if lower.is_in(list(words)).any():
                yield Reading("boolean", (lower == sorted(words)[-1]).set(~lower.is_in(list(words)), None))
    yield from _dates(texts)
    yield from _times(texts)


def _where(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.set(~texts.str.contains(pattern), None)


def _dates(texts: pl.Series) -> Iterator[Reading]:
    found = []
    for format, shape in _likely(texts, _DATES):
        shaped = _where(texts, shape)
        if shaped.null_count() == len(texts):
            continue
        dates = shaped.str.to_date(format, strict=False)
        held = dates.to_frame("d").select(pl.col("d").is_between(_FIRST_DATE, _LAST_DATE)).to_series()
        found.append(Reading("date", dates.set(~held.fill_null(True), None), format))
    yield from _ranked(found)


def _times(texts: pl.Series) -> Iterator[Reading]:
    if not [*_likely(texts, {"": _ISO8601})]:
        yield from _other_times(texts)
        return
    yield Reading("time", _zoned(_where(texts, _RFC3339)), "rfc3339")
    plain = _where(texts, _PLAIN).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    yield Reading("time", plain.cast(UTC_MICROS), "%Y-%m-%d %H:%M:%S", zoned=False)
    iso = _where(texts, _ISO8601)
    zoned = iso.str.contains(_ZONED)
    yield Reading("time", _iso(iso, zoned), "iso8601", zoned=bool(zoned.fill_null(True).all()))


def _other_times(texts: pl.Series) -> Iterator[Reading]:
    found = []
    for format, shape in _likely(texts, _TIMES):
        shaped = _where(texts, shape)
        if shaped.null_count() == len(texts):
            continue
        has_zone = "%z" in format
        times = shaped.str.to_datetime(format, strict=False, time_unit="us")
        found.append(Reading("time", times.cast(UTC_MICROS), format, zoned=has_zone))
    yield from _ranked(found)


def _zoned(texts: pl.Series) -> pl.Series:
    plain = texts.str.to_uppercase().str.replace(" ", "T").str.replace(r"Z$", "+00:00")
    return plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", strict=False, time_unit="us").cast(UTC_MICROS)


def _iso(texts: pl.Series, zoned: pl.Series) -> pl.Series:
    """Read ISO 8601 times with and without a zone; those without are taken for UTC."""
    whole = (
        texts.str.to_uppercase()
        .str.replace(r"^(.{10}) ", "${1}T")
        .str.replace(" ", "")
        .str.replace(r"T(\d\d:\d\d)($|[Z+-])", "T${1}:00${2}")
        .str.replace(r"([+-]\d\d)(\d\d)$", "${1}:${2}")
    )
    return _zoned(whole.zip_with(zoned.fill_null(True), whole + "Z"))


def _ranked(found: list[Reading]) -> Iterator[Reading]:
    """Order by how many texts fit; the first one of equals names the next as the other choice."""
    found.sort(key=lambda one: -one.fits)
    for n, one in enumerate(found):
        equal = next((o.format for o in found[n + 1 :] if o.fits == one.fits), "")
        yield Reading(one.kind, one.values, one.format, one.zoned, equal)
