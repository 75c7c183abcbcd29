"""Find what fields declare about their shaping and Headrace cannot keep, at import and without computing."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from headrace.contracts.shaping.declared import DECLARATIONS, Shape, shape_of
from headrace.contracts.shaping.formats import format_faults, zoned
from headrace.contracts.shaping.order import in_order, needs_of
from headrace.contracts.shaping.paths import Path, parse_path, written

#: Ways not to read a field from the message, of which it has one at most, and none of the others.
_COMPUTED = ("constant", "derive", "hashed")
_READING = ("alias", "path", "format", "zone", "lower", "strip", "nulls", "default")
#: Wires whose values are text in the message, that may be in any case.
_CASED = frozenset({"string", "enum", "uuid"})
_STRIPPED = _CASED | {"time", "date", "binary"}
_HEXADECIMAL = 32
#: How the names of zones look; other files beside theirs, such as ``localtime`` and ``posix/UTC``, are none.
_ZONE = re.compile(r"[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*){0,2}")


def shape_faults(name: str, declared: Mapping[str, Any], wire: str) -> Iterator[str]:
    """List the faults of what one field declares.

    Args:
        name: The field's name.
        declared: The field's metadata.
        wire: The JSON type of its values.
    """
    if not any(key in declared for key in DECLARATIONS):
        return
    computed = [key for key in _COMPUTED if key in declared]
    if len(computed) > 1:
        yield f"has {computed[0]}= and {computed[1]}=; choose one"
        return
    useless = [key for key in _READING if declared.get(key) is not None] if computed else []
    if useless:
        yield f"has {computed[0]}=, so that it is not read from the message; take {useless[0]}= away"
        return
    yield from _of_names(name, declared)
    yield from _of_times(declared, wire)
    yield from _of_texts(declared, wire)
    if "hashed" in declared and wire != "string":
        yield f"has hashed=, which gives text of {_HEXADECIMAL} hexadecimal digits; declare it pl.String"
    if "landed" in declared and not isinstance(declared["landed"], bool):
        yield f"has landed={declared['landed']!r}, which is neither True nor False"


def _of_names(name: str, declared: Mapping[str, Any]) -> Iterator[str]:
    if "alias" in declared:
        aliases = _texts(declared["alias"])
        if not aliases:
            yield f"has alias={declared['alias']!r}, which is no name; write alias='ts' or alias=('ts', 'time')"
        elif "path" not in declared and name in aliases:
            yield f"has alias={name!r}, its own name, which counts anyway"
        elif len(set(aliases)) < len(aliases):
            yield f"has alias={declared['alias']!r}, with a name twice"
    if "path" in declared:
        path = declared["path"]
        try:
            parse_path(path)
        except (ValueError, AttributeError, TypeError) as error:
            said = error if isinstance(error, ValueError) else "it is no text"
            yield f"has path={path!r}, which is no place: {said}"


def _of_times(declared: Mapping[str, Any], wire: str) -> Iterator[str]:
    date = wire == "date"
    timed = date or wire == "time"
    zone = declared.get("zone", "")
    for key in ("format", "zone"):
        if key in declared and not timed:
            yield f"has {key}={declared[key]!r}, which is for times and dates (headrace.contracts.Time, pl.Date)"
            return
    if "zone" in declared and not _is_zone(zone):
        near = difflib.get_close_matches(str(zone), zoneinfo.available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write it like 'UTC' or 'Europe/Berlin'"
        yield f"has zone={zone!r}, which is no time zone (IANA); {hint}"
        return
    if "format" not in declared:
        if date and zone:
            yield f"has zone={zone!r}, but dates as YYYY-MM-DD have none; say their format="
        return
    formats = _texts(declared["format"])
    if not formats:
        yield f"has format={declared['format']!r}, which is no text and no tuple of texts"
        return
    faults = [fault for format in formats for fault in format_faults(format, date=date, zone=zone)]
    yield from faults
    if len(set(formats)) < len(formats):
        yield f"has format={declared['format']!r}, with a format twice"
    if zone and not faults and not date and all(format != "rfc3339" and zoned(format) for format in formats):
        yield f"has zone={zone!r}, which is never used: times in format={formats[0]!r} have a zone"


def _is_zone(zone: object) -> bool:
    if not isinstance(zone, str) or not _ZONE.fullmatch(zone) or zone == "Factory":
        return False
    try:
        zoneinfo.ZoneInfo(zone)
    except (KeyError, OSError, ValueError):  # no such zone; a folder of zones; no name of one
        return False
    return True


def _of_texts(declared: Mapping[str, Any], wire: str) -> Iterator[str]:
    for key, wires, said in (("lower", _CASED, "text"), ("strip", _STRIPPED, "text, times and dates")):
        if key in declared and not isinstance(declared[key], bool):
            yield f"has {key}={declared[key]!r}, which is neither True nor False"
        elif key in declared and wire not in wires and not (key == "strip" and "nulls" in declared):
            yield f"has {key}=True, which is for {said}, not for a field of JSON type {wire}"
    if "nulls" in declared and not _texts(declared["nulls"], empty=True):
        yield f"has nulls={declared['nulls']!r}, which are no texts; write nulls=('', 'N/A')"


def _texts(value: object, *, empty: bool = False) -> tuple[str, ...]:
    """Return a text or several ones; nothing if it is neither."""
    several = (value,) if isinstance(value, str) else value
    if not isinstance(several, tuple | list) or not all(isinstance(one, str) for one in several):
        return ()
    return tuple(several) if empty or all(several) else ()


def relations(columns: Mapping[str, Any]) -> Iterator[str]:
    """List the faults between fields, each of which is right by itself.

    Args:
        columns: The model's columns, of Pandera.
    """
    shapes = {name: shape_of(column.metadata or {}) or Shape() for name, column in columns.items()}
    yield from _of_places(shapes)
    needs: dict[str, tuple[str, ...]] = {}
    for name, shape in shapes.items():
        if not shape.computed or shape.constant is not None:
            continue
        key = "derive" if shape.derive is not None else "hashed"
        try:
            if shape.derive is not None and shape.derive.meta.has_multiple_outputs():
                yield f"field {name!r} has derive={shape.derive}, of several columns; name one with pl.col"
                continue
            needs[name] = needs_of(shape)
        except pl.exceptions.PolarsError as error:
            yield f"field {name!r} has derive={shape.derive}, which names no columns: {error}"
            continue
        unknown = [one for one in needs[name] if one not in columns]
        for one in unknown:
            near = difflib.get_close_matches(one, columns, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(columns)}"
            yield f"field {name!r} has {key}= of {one!r}, which is no field; {hint}"
    try:
        in_order(needs)
    except ValueError as error:
        yield f"fields are computed from each other in a circle: {error}"


def _of_places(shapes: Mapping[str, Shape]) -> Iterator[str]:
    """Find places that two fields read, and places that would be an object and an array."""
    readers: dict[Path, str] = {}
    kinds: dict[Path, tuple[bool, str]] = {}
    for name, shape in shapes.items():
        for place in dict.fromkeys(shape.places(name)):
            other = readers.setdefault(place, name)
            if other != name:
                yield (
                    f"fields {other!r} and {name!r} are both read from {written(place)!r}; derive one from the other,"
                    f" derive=pl.col({other!r})"
                )
            for n in range(1, len(place)):
                array = isinstance(place[n], int)
                known, reader = kinds.setdefault(place[:n], (array, name))
                if known != array:
                    yield f"fields {reader!r} and {name!r} read {written(place[:n])!r} as an object and as a list"


def role_faults(contract: Any, columns: Mapping[str, Any]) -> Iterator[str]:
    """Find fields that do not land and have to, and a transform that is none."""
    order = contract.order_by if isinstance(contract.order_by, tuple | list) else ()
    roles = [("key", contract.key), ("time", contract.time), *(("order_by", name) for name in order)]
    for role, name in dict.fromkeys(roles):
        if name in columns and (columns[name].metadata or {}).get("landed") is False:
            yield f"{role} {name!r} has landed=False, but the tables need it"
    if contract.transform is not None and not callable(contract.transform):
        yield f"transform {contract.transform!r} is no function of a pl.DataFrame"


def is_computed(declared: Mapping[str, Any]) -> bool:
    """Tell whether a field is not read from the message."""
    return any(key in declared for key in _COMPUTED)
