"""Find what a contract declares and Headrace cannot keep, at its declaration: at import, not in a run at night.

Nothing here computes with Polars: once started, its threads would be missing in the workers that the code server
forks, and these would wait for them for ever. So ``verify`` asks the built-in checks in Python.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.dtypes import wires_of
from headrace.contracts.growth.faults import growth_faults
from headrace.contracts.shaping.faults import relations, role_faults, shape_faults
from headrace.contracts.unknown import POLICIES
from headrace.contracts.verify import IDENTIFIER, column_faults, dtype_of, wire_of

if TYPE_CHECKING:
    from headrace.contracts.base import Contract

#: The rejected table ``<stream>_rejected`` must be an identifier too.
_LONGEST_NAME = 63 - len("_rejected")
_HIGHEST_VERSION = 2**31 - 1


def faults(contract: Contract, *, asking: bool = True) -> list[str]:
    """List the faults of a contract, each with field, value and choices.

    Args:
        contract: The declared contract.
        asking: Also try each check on a value and read the model's source, which takes a millisecond per check.
    """
    found = [*_of_names(contract), *_of_model(contract, asking)]
    return found or growth_faults(contract, contract.model.to_schema(), asking)


def near(name: object, known: Iterable[str]) -> str:
    """Suggest the known name that was most likely meant, or list all of them."""
    choices = list(known)
    found = difflib.get_close_matches(str(name), choices, n=1)
    if found:
        return f"did you mean {found[0]!r}?"
    return f"there are {', '.join(choices)}" if choices else "there are none"


def _of_names(contract: Contract) -> Iterator[str]:
    if not (isinstance(contract.name, str) and IDENTIFIER.fullmatch(contract.name)):
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
    for name in _bare_decimals(model):
        yield f"field {name!r} has dtype Decimal without its digits; write Annotated[pl.Decimal, 18, 4]"
    unsupported = False
    for name, column in columns.items():
        found = list(column_faults(name, column, asking))
        unsupported |= not wires_of(dtype_of(column))
        yield from (f"field {name!r} {one}" for one in found)
    if unsupported:
        return
    shapes = [
        (name, one) for name, c in columns.items() for one in shape_faults(name, c.metadata or {}, wire_of(c))
    ]
    yield from (f"field {name!r} {one}" for name, one in shapes)
    if not shapes:
        yield from relations(columns)
    yield from role_faults(contract, columns)
    yield from _of_roles(contract, columns)


def _of_roles(contract: Contract, columns: dict[str, Any]) -> Iterator[str]:
    """Find key, time, partition and sorting key that name no suitable column."""
    yield from _role("key", contract.key, columns, ("string", "integer", "uuid"), "text or an integer")
    yield from _role("time", contract.time, columns, ("time",), "a time (headrace.contracts.Time)")
    partition = contract.partition
    if not isinstance(partition, str) or not IDENTIFIER.fullmatch(partition):
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
        elif (wire := wire_of(columns[name])) in ("map", "list", "struct"):
            yield f"order_by {name!r} is a {wire}, by which nothing is sorted"


def _role(
    role: str, name: object, columns: dict[str, Any], wires: tuple[str, ...], said: str
) -> Iterator[str]:
    fit = [n for n, column in columns.items() if wire_of(column) in wires]
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


def _bare_decimals(model: type[pa.DataFrameModel]) -> Iterator[str]:
    """Find fields that are written ``pl.Decimal`` alone, of which Pandera makes 28 digits without a fraction."""
    for name, (annotation, *_) in getattr(model, "__fields__", {}).items():
        if getattr(annotation, "arg", None) is pl.Decimal and not getattr(annotation, "metadata", None):
            yield name


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
