"""Verify one field of a contract: its name, its dtype, its checks and its default.

Built-in checks are asked in Python, not by Polars; ``faults`` says why.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.builtin_checks import builtin
from headrace.contracts.dtypes import (
    FIRST_DAY,
    FLOAT32,
    INT_RANGE,
    LAST_DAY,
    dtype_faults,
    instance,
    wires_of,
)

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
#: Checks with a lower or an upper bound -> whether the bound itself passes.
_LOW = {"greater_than": False, "greater_than_or_equal_to": True}
_HIGH = {"less_than": False, "less_than_or_equal_to": True}
#: Python types of a value, by JSON type.
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "object": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "time": (datetime,),
    "date": (date,),
    "decimal": (int, Decimal),
    "enum": (str,),
    "uuid": (str,),
    "binary": (bytes,),
}
#: Wires of which no check can be asked.
_UNASKED = {"map": "a map", "list": "a list", "struct": "a struct"}
#: Wires whose values have no order for a check, and the checks that they have.
_COMPARED_ALONE = {"enum": "an Enum", "boolean": "a Boolean", "binary": "a Binary"}
_CHOSEN = ("isin", "notin", "equal_to", "not_equal_to")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Built-in checks that compare with one value -> the statistic that holds it.
_COMPARED = {
    "greater_than": "min_value",
    "greater_than_or_equal_to": "min_value",
    "less_than": "max_value",
    "less_than_or_equal_to": "max_value",
    "equal_to": "value",
    "not_equal_to": "value",
}
#: Syntax that Polars' regular expressions lack: look-around, atomic groups, conditions, references.
_NOT_IN_POLARS = re.compile(r"\(\?(?:<?[=!]|>|\(|P=)|\\[1-9]")
#: Syntax that they have and Python's lack.
_NOT_IN_PYTHON = re.compile(r"\\[pPz]|\\x\{|\[:|\(\?<[^=!]|&&")


def dtype_of(column: Any) -> Any:
    """Return the Polars dtype of a Pandera column; None without one."""
    return instance(getattr(column.dtype, "type", None))


def wire_of(column: Any) -> str:
    """Return the JSON type of a Pandera column."""
    return (column.metadata or {}).get("wire") or wires_of(dtype_of(column))[0]


def column_faults(name: str, column: Any, asking: bool) -> Iterator[str]:
    """List the faults of one field."""
    if column.regex:
        yield "is a pattern of names (regex=True); declare each field"
        return
    if name.startswith("_"):
        yield "begins with _, as the columns do that Headrace adds"
    elif not IDENTIFIER.fullmatch(name) or keyword.iskeyword(name):
        yield "is no SQL identifier: up to 63 letters, digits and _, a letter first, no word of Python"
    dtype = dtype_of(column)
    wrong = list(dtype_faults(dtype))
    if wrong:
        yield from wrong
        return
    wires, wire = wires_of(dtype), wire_of(column)
    if wire not in wires:
        yield f"has wire={wire!r}, which does not fit its dtype {dtype}; choose of {', '.join(wires)}"
        return
    meta = column.metadata or {}
    if meta.get("low_cardinality") and (dtype != pl.String() or wire == "uuid"):
        kind = "a uuid" if wire == "uuid" else dtype
        yield f"has low_cardinality=True, which is for pl.String alone, not {kind}"
    if asking:
        yield from _of_checks(name, column, dtype, wire)


def _of_checks(name: str, column: Any, dtype: Any, wire: str) -> Iterator[str]:
    """Find checks that raise, contradict each other, or refuse values that the field itself names."""
    well = True
    for check in column.checks:
        said = _why_not(check, wire) if builtin(check) else None
        if said is not None:
            well = False
            yield f"has a check that cannot be asked, {_shown(check)}: {said}"
    if not well:
        return
    yield from _of_bounds(column, dtype)
    for check in column.checks:
        if check.name == "isin":
            yield from _of_choices(column, list(check.statistics["allowed_values"]))
    yield from _of_default(column, dtype, wire)
    yield from _of_constant(column, dtype, wire)


def _of_bounds(column: Any, dtype: Any) -> Iterator[str]:
    low, high = [], []
    if dtype in INT_RANGE:
        least, most = INT_RANGE[dtype]
        low, high = [(least, True, f"the least {dtype}")], [(most, True, f"the largest {dtype}")]
    for check in column.checks:
        s = check.statistics or {}
        if check.name in _LOW:
            low.append((s["min_value"], _LOW[check.name], _shown(check)))
        elif check.name in _HIGH:
            high.append((s["max_value"], _HIGH[check.name], _shown(check)))
        elif check.name == "in_range":
            low.append((s["min_value"], s.get("include_min", True), _shown(check)))
            high.append((s["max_value"], s.get("include_max", True), _shown(check)))
        elif check.name == "str_length":
            _, smallest, largest = s.get("exact_value"), s.get("min_value"), s.get("max_value")
            if largest is not None and largest < max(0, smallest or 0):
                yield f"has {_shown(check)}, which no text passes"
    if not low or not high:
        return
    below, above = max(low, key=lambda one: (one[0], not one[1])), min(high, key=lambda one: (one[0], one[1]))
    if below[0] > above[0] or (below[0] == above[0] and not (below[1] and above[1])):
        yield f"has checks that no value passes: {below[2]} and {above[2]}"


def _of_choices(column: Any, choices: list[Any]) -> Iterator[str]:
    if not choices:
        yield "has isin=[], which no value passes"
    for value in choices:
        for check in column.checks:
            if check.name != "isin" and not _passes(check, value):
                yield f"names {value!r} in isin, which its own {_shown(check)} refuses"


def _of_default(column: Any, dtype: Any, wire: str) -> Iterator[str]:
    default = (column.metadata or {}).get("default")
    if default is None:
        return
    if wire in _EMPTY:
        if default != _EMPTY[wire]:
            yield f"has default {default!r}; that of a {wire} is {_EMPTY[wire]}"
        return
    if wire in _WITHOUT_DEFAULT:
        yield f"has default {default!r}; {_WITHOUT_DEFAULT[wire]} takes none"
        return
    if not _fits(default, dtype, wire):
        yield f"has default {default!r}, which is no {dtype}"
        return
    for check in column.checks:
        if not _passes(check, default):
            yield f"has default {default!r}, which its own {_shown(check)} refuses"


def _of_constant(column: Any, dtype: Any, wire: str) -> Iterator[str]:
    constant = (column.metadata or {}).get("constant")
    if constant is None:
        return
    if wire in (*_UNASKED, "object"):
        yield f"has constant {constant!r}; a field of JSON type {wire} takes none"
    elif not _fits(constant, dtype, wire):
        yield f"has constant {constant!r}, which is no {dtype}"
    else:
        for check in column.checks:
            if not _passes(check, constant):
                yield f"has constant {constant!r}, which its own {_shown(check)} refuses"


_EMPTY: dict[str, object] = {"map": {}, "list": []}
_WITHOUT_DEFAULT = {"time": "a time", "object": "an object", "struct": "a struct", "binary": "a binary"}


def _fits(value: Any, dtype: Any, wire: str) -> bool:
    if not _is(value, wire) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    if dtype in INT_RANGE:
        least, most = INT_RANGE[dtype]
        return bool(least <= value <= most)
    match wire:
        case "enum":
            return value in set(dtype.categories)
        case "uuid":
            return _UUID.fullmatch(value) is not None
        case "date":
            return bool(FIRST_DAY <= value <= LAST_DAY)
        case "decimal":
            scaled = Decimal(value).scaleb(dtype.scale)
            return bool(scaled == scaled.to_integral_value() and abs(scaled) < 10**dtype.precision)
        case "number":
            return bool(dtype != pl.Float32() or abs(value) <= FLOAT32)
    return True


def _shown(check: pa.Check) -> str:
    statistics = ", ".join(
        f"{name}={value!r}" for name, value in (check.statistics or {}).items() if value is not None
    )
    return f"{check.name}({statistics})"


def _is(value: object, wire: str) -> bool:
    if isinstance(value, datetime):
        return wire == "time" and value.tzinfo is not None
    return isinstance(value, _TYPES[wire]) and isinstance(value, bool) is (wire == "boolean")


_SAID = {
    "string": "text",
    "object": "text",
    "uuid": "text",
    "time": "a time with a zone",
    "date": "date",
    "decimal": "integer and no Decimal",
    "enum": "text",
    "binary": "bytes",
}


def _why_not(check: pa.Check, wire: str) -> str | None:
    """Explain why a built-in check cannot be asked of a column; None if it can."""
    s, said = check.statistics or {}, _SAID
    if wire in _UNASKED:
        return f"{_UNASKED[wire]} has no checks"
    if wire in _COMPARED_ALONE and check.name not in _CHOSEN:
        return f"{_COMPARED_ALONE[wire]} has {', '.join(_CHOSEN)} alone"
    if str(check.name).startswith("str_"):
        if wire not in ("string", "object", "uuid"):
            return "it is for text alone"
        return _why_no_pattern(s["pattern"]) if "pattern" in s else None
    if check.name in _COMPARED:
        asked = [s[_COMPARED[check.name]]]
    elif check.name == "in_range":
        asked = [s["min_value"], s["max_value"]]
    elif check.name in ("isin", "notin"):
        asked = list(s.get("allowed_values", s.get("forbidden_values", ())))
    else:
        return None
    # a bound of integers may be a fraction
    loose = "number" if wire == "integer" and check.name not in ("isin", "notin") else wire
    wrong = [value for value in asked if not _is(value, loose)]
    return f"{wrong[0]!r} is no {said.get(loose, loose)}" if wrong else None


def _why_no_pattern(pattern: Any) -> str | None:
    text = str(getattr(pattern, "pattern", pattern))
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r"\\[^1-9]", "", text))
    if _NOT_IN_POLARS.search(bare):
        return "Polars' regular expressions have no look-around and no references"
    try:
        re.compile(text)
    except re.error as error:
        return None if _NOT_IN_PYTHON.search(text) else f"the pattern is wrong: {error}"
    return None


def _passes(check: pa.Check, value: Any) -> bool:
    """Tell whether a built-in check accepts a value; true if that cannot be decided."""
    s = check.statistics or {}
    match check.name if builtin(check) else "":
        case "greater_than":
            return bool(value > s["min_value"])
        case "greater_than_or_equal_to":
            return bool(value >= s["min_value"])
        case "less_than":
            return bool(value < s["max_value"])
        case "less_than_or_equal_to":
            return bool(value <= s["max_value"])
        case "equal_to":
            return bool(value == s["value"])
        case "not_equal_to":
            return bool(value != s["value"])
        case "in_range":
            low, high = s["min_value"], s["max_value"]
            above = value >= low if s.get("include_min", True) else value > low
            return bool(above and (value <= high if s.get("include_max", True) else value < high))
        case "isin":
            return bool(value in s["allowed_values"])
        case "notin":
            return bool(value not in s["forbidden_values"])
        case "str_length":
            exact, low, high = (s.get(name) for name in ("exact_value", "min_value", "max_value"))
            if exact is not None:
                return bool(len(value) == exact)
            return bool((low is None or len(value) >= low) and (high is None or len(value) <= high))
        case "str_matches" | "str_contains" as name:
            try:
                pattern = re.compile(getattr(s["pattern"], "pattern", s["pattern"]))
            except re.error:
                return True
            return (pattern.match(value) if name == "str_matches" else pattern.search(value)) is not None
        case "str_startswith":
            return bool(value.startswith(s["string"]))
        case "str_endswith":
            return bool(value.endswith(s["string"]))
    return True
