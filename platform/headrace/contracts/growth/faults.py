"""Find where a contract contradicts an earlier version of itself, at import and without computing.

Each message names the field, both definitions and the rule.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import pandera.polars as pa

from headrace.contracts.dtypes import INT_RANGE, instance, wires_of
from headrace.contracts.growth.declared import CHECK_NAMES, Growth, Was, growth_of
from headrace.contracts.growth.derived import NEWEST, schema_at
from headrace.contracts.shaping.declared import Shape, shape_of
from headrace.contracts.verify import IDENTIFIER, column_faults, dtype_of, wire_of
from headrace.core.widening import widens

#: What ``Was`` takes besides checks.
_ARGUMENTS = ("dtype", "name", "required", "default", "str_length")


def growth_faults(contract: Any, schema: pa.DataFrameSchema, asking: bool) -> list[str]:
    """List what a contract says of its versions and cannot be.

    Args:
        contract: The declared contract, whose version is an integer.
        schema: The schema of its model, whose fields are right as they are now.
        asking: Also try the checks of earlier versions.
    """
    found = [*_of_versions(contract), *_of_claims(contract, schema)]
    columns: dict[str, Any] = dict(schema.columns)
    for name, column in columns.items():
        declared = column.metadata or {}
        wrong = list(_of_declarations(name, column, declared, contract))
        found += [f"field {name!r} {one}" for one in wrong]
    if not found:
        found += [*_of_names(columns), *_of_roles(contract, columns), *_of_moves(columns)]
    if not found:
        found += _of_steps(contract, schema, asking)
    return found


def _is_version(value: object) -> bool:
    return type(value) is int and value >= 1


def _of_versions(contract: Any) -> Iterator[str]:
    if not _is_version(contract.oldest) or contract.oldest > contract.version:
        yield f"oldest {contract.oldest!r} is no version from 1 to {contract.version}"


def _of_claims(contract: Any, schema: pa.DataFrameSchema) -> Iterator[str]:
    """Find a field of versions that cannot say all of them."""
    name = contract.claims
    if name is None:
        return
    if name not in schema.columns:
        near = difflib.get_close_matches(str(name), schema.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(schema.columns)}"
        yield f"claims {name!r} is no field; {hint}"
        return
    column: Any = schema.columns[name]
    declared = column.metadata or {}
    dtype = dtype_of(column)
    if dtype not in INT_RANGE:
        yield f"claims {name!r} is {dtype}; a version is an integer, declare it pl.Int32"
    elif contract.version > INT_RANGE[dtype][1]:
        yield f"claims {name!r} is {dtype}, which does not hold version {contract.version}"
    if growth_of(declared) != Growth():
        yield f"claims {name!r} has grown itself; the field that says the version is the same in all of them"
    if (shape_of(declared) or Shape()).computed:
        yield f"claims {name!r} is not read from the message; a record says its version itself"
    if declared.get("default") is not None:
        yield (
            f"claims {name!r} has default={declared['default']!r}; a record that says none is of the newest version,"
            f" {contract.version}: take default= away"
        )
    if column.checks:
        accepted = f"{contract.oldest} to {contract.version}"
        yield (
            f"claims {name!r} has a check, {column.checks[0].name}; which versions are accepted is said by oldest= and"
            f" version=, here {accepted}: take the check away"
        )


def _of_declarations(name: str, column: Any, declared: Mapping[str, Any], contract: Any) -> Iterator[str]:
    """Find arguments of one field that are no versions of the contract, or contradict each other."""
    newest = contract.version
    for key in ("since", "retired"):
        value = declared.get(key)
        if value is None:
            continue
        if not _is_version(value) or value < 2:
            yield f"has {key}={value!r}, which is no version from 2 on: version 1 is the first"
        elif value > newest:
            yield f"has {key}={value}, but the contract is of version {newest}; write version={value}"
    since, retired = declared.get("since", 1), declared.get("retired")
    if _is_version(since) and _is_version(retired) and retired <= since:
        yield f"has since={since} and retired={retired}: no version asks for it; retire it later, or take it away"
    if "moved_to" in declared and retired is None:
        yield f"has moved_to={declared['moved_to']!r}, which is for a retired field; say retired="
    was = declared.get("was")
    if was is None:
        return
    if not isinstance(was, Mapping) or not was or not all(isinstance(one, Was) for one in was.values()):
        yield f"has was={was!r}; write was={{1: Was(dtype=pl.Int32)}}: the last version of which it holds, and what"
        return
    shape = shape_of(declared) or Shape()
    for last, one in was.items():
        if not _is_version(last):
            yield f"has was={{{last!r}: ...}}, which is no version"
        elif last >= newest:
            yield (
                f"has was={{{last}: {one}}}, which holds up to version {last}, but the contract is of version"
                f" {newest}; write version={last + 1}"
            )
        elif _is_version(since) and last < since:
            yield f"has was={{{last}: {one}}}, but since={since}: version {last} did not have it"
        elif _is_version(retired) and last >= retired:
            yield f"has was={{{last}: {one}}}, but retired={retired}: it was not asked for then"
        else:
            yield from (f"has was={{{last}: {one}}}, {said}" for said in _of_was(one, shape))


def _of_was(was: Was, shape: Shape) -> Iterator[str]:
    if not was.given:
        yield "which says nothing; take it away"
    for key in was.given:
        if key not in _ARGUMENTS and key not in CHECK_NAMES:
            near = difflib.get_close_matches(key, [*_ARGUMENTS, *CHECK_NAMES], n=1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"there are {', '.join([*_ARGUMENTS, *CHECK_NAMES])}"
            )
            yield f"of which {key!r} is nothing that a field was; {hint}"
    if "dtype" in was.given and not wires_of(was.given["dtype"]):
        yield f"with a dtype that is not supported, {was.given['dtype']}"
    name = was.given.get("name", "x")
    if not isinstance(name, str) or not IDENTIFIER.fullmatch(name):
        yield f"with name={name!r}, which is no SQL identifier"
    if not isinstance(was.given.get("required", False), bool):
        yield f"with required={was.given['required']!r}, which is neither True nor False"
    if shape.computed and {"dtype", "default"} & was.given.keys():
        yield "but it is computed, as the newest version says, for the records of all versions"
    for key in CHECK_NAMES.keys() & was.given.keys():
        try:
            if was.given[key] is not None:
                pa.Field(**{key: was.given[key]})
        except Exception as error:  # whatever Pandera says
            yield f"whose {key}={was.given[key]!r} makes no check: {error}"


def _of_names(columns: Mapping[str, Any]) -> Iterator[str]:
    """Find earlier names that are those of other fields: old rows have other values under them."""
    owners = {name.lower(): (name, name) for name in columns}
    for name, column in columns.items():
        for last, was in growth_of(column.metadata or {}).was:
            earlier = was.given.get("name")
            if earlier is None or earlier == name:
                continue
            owner, _ = owners.setdefault(earlier.lower(), (name, earlier))
            if owner != name:
                yield (
                    f"field {name!r} was {earlier!r} up to version {last}, and {owner!r} is or was {earlier!r}, too:"
                    " rows of both would be read as one; a name is never used again for another field"
                )


def _of_roles(contract: Any, columns: Mapping[str, Any]) -> Iterator[str]:
    """Find fields by which tables are laid out and which not all rows have under their name."""
    order = contract.order_by if isinstance(contract.order_by, tuple | list) else ()
    roles = [("key", contract.key), ("time", contract.time), *(("order_by", name) for name in order)]
    for role, name in dict.fromkeys(roles):
        if name not in columns:
            continue
        declared = columns[name].metadata or {}
        growth = growth_of(declared)
        if growth.retired is not None:
            yield f"{role} {name!r} has retired={growth.retired}, but the tables need it in every row"
        if growth.since > 1 and declared.get("default") is None:
            yield f"{role} {name!r} has since={growth.since} and no default: rows of earlier versions would have null"
        for last, was in growth.was:
            if "name" in was.given:
                yield (
                    f"{role} {name!r} was {was.given['name']!r} up to version {last}, but tables are laid out by its"
                    " name; keep the name, and write alias= for another one in messages"
                )
            if was.given.get("required") is False:
                yield (
                    f"{role} {name!r} was not required up to version {last}, and is now: rows with null cannot be"
                    " sorted by it; choose a field that always was there"
                )


def _of_moves(columns: Mapping[str, Any]) -> Iterator[str]:
    for name, column in columns.items():
        growth = growth_of(column.metadata or {})
        if not growth.moved_to:
            continue
        into = columns.get(growth.moved_to)
        if into is None or wire_of(into) != "object":
            objects = [other for other, one in columns.items() if wire_of(one) == "object"]
            there = f"there are {', '.join(objects)}" if objects else 'declare one with wire="object"'
            yield f"field {name!r} has moved_to={growth.moved_to!r}, which is no field of a JSON object; {there}"
            continue
        other = into.metadata or {}
        retired = growth_of(other).retired
        if retired is not None or (shape_of(other) or Shape()).computed:
            yield f"field {name!r} has moved_to={growth.moved_to!r}, which is not read from messages any more"
        elif growth.retired is not None and growth_of(other).since > growth.retired:
            yield (
                f"field {name!r} has moved_to={growth.moved_to!r} from version {growth.retired} on, which is there"
                f" since {growth_of(other).since}"
            )
        if (shape_of(column.metadata or {}) or Shape()).path:
            yield f"field {name!r} has path= and moved_to=; only fields at the top of a message are moved"


def _of_steps(contract: Any, schema: pa.DataFrameSchema, asking: bool) -> Iterator[str]:
    """Compare each version with the one after it, and verify it as if it were declared."""
    steps = {
        last
        for c in schema.columns.values()
        for last, _ in growth_of(c.metadata or {}).was  # type: ignore[attr-defined]
    }
    for last in sorted(steps):
        then, after = schema_at(schema, last), schema_at(schema, last + 1)
        later: dict[str, Any] = {c.metadata[NEWEST]: c for c in after.columns.values()}  # type: ignore[index]
        for name, column in then.columns.items():
            now = (column.metadata or {})[NEWEST]
            yield from _of_step(now, name, column, later[now], last)
            yield from (
                f"field {now!r} as it was up to version {last} {one}"
                for one in column_faults(name, column, asking)
            )


def _of_step(now: str, name: str, then: Any, after: Any, last: int) -> Iterator[str]:
    growth = growth_of(then.metadata)
    was = dict(growth.was).get(last)
    if was is None:
        return
    old, new = instance(then.dtype.type), instance(after.dtype.type)
    if not widens(old, new):
        yield (
            f"field {now!r} was {old} up to version {last} and is {new} from version {last + 1} on: not every {old} is"
            f" one, and files with {old} exist; add another field with since={last + 1}, and retire this one"
        )
    elif "dtype" in was.given and old == new:
        yield f"field {now!r} was {old} up to version {last} and is {new} after it: that is the same, take dtype= away"
    if "name" in was.given and name == after.name:
        yield f"field {now!r} was {name!r} up to version {last} and is after it: that is the same, take name= away"
    if wire_of(then) != wire_of(after) and {wire_of(then), wire_of(after)} != {"integer", "number"}:
        yield f"field {now!r} was {wire_of(then)} in messages up to version {last} and is {wire_of(after)} after it"
