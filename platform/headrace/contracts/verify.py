"""Find what a contract declares and Headrace cannot keep, where it is declared: at import, not in a run at night.

Nothing here computes with Polars: its threads, once started, would be missing in the workers that the code server
forks, and these would wait for them for ever. So the built-in checks are asked in Python.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import keyword
import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.dtypes import INT_RANGE, SUPPORTED, WIRE_OF_DTYPE, WIRES_OF_DTYPE
from headrace.contracts.unknown import POLICIES

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
#: The rejected table ``<stream>_rejected`` must be an identifier too.
_LONGEST_NAME = 63 - len("_rejected")
_HIGHEST_VERSION = 2**31 - 1
#: Checks with a lower or an upper bound -> whether the bound itself passes.
_LOW = {"greater_than": False, "greater_than_or_equal_to": True}
_HIGH = {"less_than": False, "less_than_or_equal_to": True}
#: Python types of a value, by JSON type.
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "object": (str,),
    "number": (int, float),
    "integer": (int,),
    "time": (datetime,),
}
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


def faults(contract: Contract, *, asking: bool = True) -> list[str]:
    """List the faults of a contract, each with field, value and choices.

    Args:
        contract: The declared contract.
        asking: Also try each check on a value and read the model's source, which takes a millisecond per check.
    """
    return [*_of_names(contract), *_of_model(contract, asking)]


def near(name: object, known: Iterable[str]) -> str:
    """Suggest the known name that was most likely meant, or list all of them."""
    choices = list(known)
    found = difflib.get_close_matches(str(name), choices, n=1)
    if found:
        return f"did you mean {found[0]!r}?"
    return f"there are {', '.join(choices)}" if choices else "there are none"


def _of_names(contract: Contract) -> Iterator[str]:
    if not (isinstance(contract.name, str) and _IDENTIFIER.fullmatch(contract.name)):
        yield f"name {contract.name!r} is no SQL identifier: letters, digits and _, a letter first"
    elif len(contract.name) > _LONGEST_NAME:
        yield f"name {contract.name!r} has {len(contract.name)} characters; at most {_LONGEST_NAME} are possible"
    version = contract.version
    if type(version) is not int or not 1 <= version <= _HIGHEST_VERSION:
        yield f"version {version!r} is no integer from 1 on"
    if contract.unknown not in POLICIES:
        yield f"unknown {contract.unknown!r} is no policy; {near(contract.unknown, POLICIES)}"


def _of_model(contract: Contract, asking: bool) -> Iterator[str]:
    model: Any = contract.model
    if not (isinstance(model, type) and issubclass(model, pa.DataFrameModel)):
        yield f"model {model!r} is no DataFrameModel of pandera.polars; write `import pandera.polars as pa`"
        return
    try:
        columns: dict[str, Any] = model.to_schema().columns
    except Exception as error:  # whatever Pandera, or a class of the person's own, says
        yield f"model {model.__name__} makes no schema: {type(error).__name__}: {error}"
        return
    if not columns:
        yield f"model {model.__name__} has no fields"
        return
    twice = sorted({*_twice(model, asking), *_alike([*columns, str(contract.partition)])})
    yield from (f"field {name!r} is there twice" for name in twice)
    hidden = sorted({name for name in _annotated(model) if name.startswith("_")})
    yield from (f"field {name!r} begins with _, so that Pandera leaves it out" for name in hidden)
    unsupported = False
    for name, column in columns.items():
        found = list(_of_column(name, column, asking))
        unsupported |= _dtype(column) not in WIRE_OF_DTYPE
        yield from (f"field {name!r} {one}" for one in found)
    if not unsupported:
        yield from _of_roles(contract, columns)


def _of_roles(contract: Contract, columns: dict[str, Any]) -> Iterator[str]:
    """Find key, time, partition and sorting key that name no suitable column."""
    yield from _role("key", contract.key, columns, ("string", "integer"), "text or an integer")
    yield from _role("time", contract.time, columns, ("time",), "a time (headrace.contracts.Time)")
    partition = contract.partition
    if not isinstance(partition, str) or not _IDENTIFIER.fullmatch(partition):
        yield f"partition {partition!r} is no SQL identifier: letters, digits and _, a letter first"
    elif partition in columns:
        yield (
            f"partition {partition!r} is a field, which the date would overwrite; it names a new column with the date"
            f" of {contract.time!r}, such as {_free(contract, columns)!r}"
        )
    order: Any = contract.order_by
    if isinstance(order, str) or not isinstance(order, tuple | list) or not order:
        yield f"order_by {order!r} is no tuple of fields; write it like ({contract.time!r},)"
        return
    yield from (f"order_by names {name!r} twice" for name, n in Counter(order).items() if n > 1)
    for name in dict.fromkeys(order):
        if name == partition:
            continue
        if name not in columns:
            yield f"order_by {name!r} is no field; {near(name, columns)}"
        elif columns[name].nullable:
            required = [n for n, column in columns.items() if not column.nullable]
            yield f"order_by {name!r} may be null; declare it with required=True, or choose of {', '.join(required)}"
        elif _wire(columns[name]) == "map":
            yield f"order_by {name!r} is a map, by which nothing is sorted"


def _role(
    role: str, name: object, columns: dict[str, Any], wires: tuple[str, ...], said: str
) -> Iterator[str]:
    fit = [n for n, column in columns.items() if _wire(column) in wires]
    if name not in columns:
        yield f"{role} {name!r} is no field; {near(name, fit or columns)}"
    elif name not in fit:
        yield f"{role} {name!r} is not {said}; {near(name, fit)}"
    elif columns[str(name)].nullable:
        yield f"{role} {name!r} may be null; declare it with required=True"


def _free(contract: Contract, columns: dict[str, Any]) -> str:
    stem = str(contract.name).removesuffix("s")
    return next(
        name for name in (f"{stem}_date", f"{stem}_day", f"{stem}_partition_date") if name not in columns
    )


def _twice(model: type[pa.DataFrameModel], reading: bool) -> Iterator[str]:
    """Find fields with the same name, of which Python and Pandera keep only the last."""
    declared = {name for name in _annotated(model) if not name.startswith("_") and name != "Config"}
    aliases = Counter(str(getattr(model, name, name)) for name in declared)
    yield from (name for name, n in aliases.items() if n > 1)
    if not reading:
        return
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # made without a source
        return
    statements = body.body if isinstance(body, ast.ClassDef) else []
    names = Counter(
        s.target.id for s in statements if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    )
    yield from (name for name, n in names.items() if n > 1)


def _annotated(model: type[pa.DataFrameModel]) -> Iterator[str]:
    """List the names that a model and its bases declare."""
    for one in model.__mro__:
        if (
            issubclass(one, pa.DataFrameModel)
            and one is not pa.DataFrameModel
            and not one.__module__.startswith("pandera.")
        ):
            yield from inspect.get_annotations(one)


def _alike(names: list[str]) -> Iterator[str]:
    """Find names that differ only in case, which Delta Lake takes for one column."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            yield name


def _dtype(column: Any) -> Any:
    return getattr(column.dtype, "type", None)


def _wire(column: Any) -> str:
    return (column.metadata or {}).get("wire") or WIRE_OF_DTYPE[_dtype(column)]


def _of_column(name: str, column: Any, asking: bool) -> Iterator[str]:
    if column.regex:
        yield "is a pattern of names (regex=True); declare each field"
        return
    if name.startswith("_"):
        yield "begins with _, as the columns do that Headrace adds"
    elif not _IDENTIFIER.fullmatch(name) or keyword.iskeyword(name):
        yield "is no SQL identifier: up to 63 letters, digits and _, a letter first, no word of Python"
    dtype = _dtype(column)
    if dtype not in WIRE_OF_DTYPE:
        hint = "; for times write headrace.contracts.Time" if isinstance(dtype, pl.Datetime) else ""
        yield f"has dtype {dtype}, which is not supported{hint}; supported are {SUPPORTED}"
        return
    wires, wire = WIRES_OF_DTYPE[dtype], _wire(column)
    if wire not in wires:
        yield f"has wire={wire!r}, which does not fit its dtype {dtype}; choose of {', '.join(wires)}"
        return
    meta = column.metadata or {}
    if meta.get("low_cardinality") and dtype != pl.String():
        yield f"has low_cardinality=True, which is for pl.String alone, not {dtype}"
    if wire == "map" and column.nullable:
        yield "is a map, which is never null; declare it with required=True, default={}"
    if asking:
        yield from _of_checks(name, column, dtype, wire)


def _of_checks(name: str, column: Any, dtype: Any, wire: str) -> Iterator[str]:
    """Find checks that raise, contradict each other, or refuse values that the field itself names."""
    well = True
    for check in column.checks:
        said = _why_not(check, wire) if _builtin(check) else None
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
    if wire == "map":
        if default != {}:
            yield f"has default {default!r}; that of a map is {{}}"
        return
    if wire in ("time", "object"):
        yield f"has default {default!r}; {'a time' if wire == 'time' else 'an object'} takes none"
        return
    fits = _is(default, wire) and not (isinstance(default, float) and not math.isfinite(default))
    if fits and dtype in INT_RANGE:
        least, most = INT_RANGE[dtype]
        fits = least <= default <= most
    if not fits:
        yield f"has default {default!r}, which is no {dtype}"
        return
    for check in column.checks:
        if not _passes(check, default):
            yield f"has default {default!r}, which its own {_shown(check)} refuses"


def _builtin(check: pa.Check) -> bool:
    function = str(getattr(check._check_fn, "__name__", ""))
    return bool(function) and not check.element_wise and bool(check.is_builtin_check(function))


def _shown(check: pa.Check) -> str:
    statistics = ", ".join(
        f"{name}={value!r}" for name, value in (check.statistics or {}).items() if value is not None
    )
    return f"{check.name}({statistics})"


def _is(value: object, wire: str) -> bool:
    if isinstance(value, datetime):
        return wire == "time" and value.tzinfo is not None
    return isinstance(value, _TYPES[wire]) and not isinstance(value, bool)


def _why_not(check: pa.Check, wire: str) -> str | None:
    """Explain why a built-in check cannot be asked of a column; None if it can."""
    s, said = check.statistics or {}, {"string": "text", "object": "text", "time": "a time with a zone"}
    if wire == "map":
        return "a map has no checks"
    if str(check.name).startswith("str_"):
        if wire not in ("string", "object"):
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
    match check.name if _builtin(check) else "":
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
