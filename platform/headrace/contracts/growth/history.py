"""Work out, once, what a contract needs to know about its versions to judge records by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandera.polars as pa
import polars as pl

from headrace.contracts.dtypes import inner_of
from headrace.contracts.growth.derived import NEWEST
from headrace.contracts.shaping.declared import Shape

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract

#: Wires whose values are never null: absent and null are empty.
_EMPTY = frozenset({"map", "list"})


@dataclass(frozen=True)
class Version:
    """An accepted version before the newest.

    Attributes:
        number: Its number.
        contract: The contract as it was.
        names: Fields of then, by their names of now.
        strange: Names in a message that this version does not know and a later one does.
        narrower: Columns that had another dtype, by their names of now: the dtype of then.
        defaults: Columns that had another default, by their names of now; None for none.
        emptied: Columns of lists and maps that were null, or empty, where they are the other now.
        later: Columns of lists and maps of later versions, which are required now: empty, not null.
        schema: Its checks, for columns in the names and dtypes of now.
    """

    number: int
    contract: Contract
    names: Mapping[str, str]
    strange: tuple[str, ...]
    narrower: Mapping[str, pl.DataType]
    defaults: Mapping[str, Any]
    emptied: tuple[str, ...]
    later: tuple[str, ...]
    schema: pa.DataFrameSchema


@dataclass(frozen=True)
class Retired:
    """A field that is accepted and ignored from a version on.

    Attributes:
        column: The field.
        first: The version.
        names: Its names in a message.
    """

    column: Column
    first: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """The versions of a contract that matter to the check.

    Attributes:
        versions: Accepted versions before the newest, by number.
        retired: Fields that the newest version has retired.
        marked: Names in a message of which the decoder says whether a record has them.
        known: Names and paths that the newest version knows and an older one may not.
    """

    versions: Mapping[int, Version]
    retired: tuple[Retired, ...]
    marked: frozenset[str]
    known: frozenset[str]


def history_of(contract: Contract) -> History | None:
    """Work out the history of a contract; None if all its records are judged alike."""
    retired = tuple(
        Retired(c, c.growth.retired, names_of(c))
        for c in contract.read_columns
        if c.growth.retired is not None
    )
    older = list(contract.accepted)[:-1] if contract.claims is not None else []
    if not older and not retired:
        return None
    versions = {number: _version(contract, number) for number in older}
    marked = {name for version in versions.values() for name in version.strange}
    marked |= {name for one in retired if one.column.growth.moved_to for name in one.names}
    again = {name for version in versions.values() for name in version.defaults}
    marked |= {name for column in contract.read_columns if column.name in again for name in names_of(column)}
    known = top_names(contract) | {path for c in contract.read_columns for path in _paths(c.name, c.dtype)}
    return History(versions, retired, frozenset(marked), frozenset(known))


def top_names(contract: Contract) -> frozenset[str]:
    """Return the names that a contract reads at the top of a message."""
    return frozenset(name for column in contract.read_columns for name in names_of(column))


def names_of(column: Column) -> tuple[str, ...]:
    """Return the names at the top of a message under which a column, or what has it inside, may be."""
    places = (column.shape or Shape()).places(column.name)
    return tuple(dict.fromkeys(str(place[0]) for place in places))


def _paths(name: str, dtype: pl.DataType) -> set[str]:
    within = {f"{name}{path}": inner for path, inner in inner_of(dtype).items()}
    return set(within).union(*(_paths(path, inner) for path, inner in within.items()))


def _version(contract: Contract, number: int) -> Version:
    then = contract.at(number)
    newest_of = {
        name: (column.metadata or {}).get(NEWEST, name) for name, column in then.schema.columns.items()
    }
    was = {newest_of[c.name]: c for c in then.fields}
    pairs = [(c, was[c.name]) for c in contract.read_columns if c.name in was]
    return Version(
        number=number,
        contract=then,
        names={newest: name for name, newest in newest_of.items()},
        strange=tuple(sorted(top_names(contract) - top_names(then))),
        narrower={now.name: old.dtype for now, old in pairs if now.dtype != old.dtype},
        defaults={now.name: old.default for now, old in pairs if _defaults_differ(now, old, contract)},
        emptied=tuple(
            now.name for now, old in pairs if now.wire in _EMPTY and _emptied(now) != _emptied(old)
        ),
        later=tuple(
            c.name
            for c in contract.read_columns
            if c.name not in was and c.wire in _EMPTY and not _emptied(c)
        ),
        schema=_in_todays_columns(contract.schema, newest_of, then.schema),
    )


def _defaults_differ(now: Column, old: Column, contract: Contract) -> bool:
    return now.name != contract.claims and now.wire not in _EMPTY and now.default != old.default


def _emptied(column: Column) -> bool:
    """Tell whether an absent list or map is empty, and not a reason to reject."""
    return column.nullable or column.default is not None


def landed_schemas(contract: Contract) -> dict[int, pa.DataFrameSchema]:
    """Return the schema of each version that may have landed rows, accepted or not, in the columns of now."""
    found = {}
    for number in range(1, contract.version):
        if any(_changes_after(column, number) for column in contract.fields):
            then = contract.at(number)
            found[number] = _in_todays_columns(contract.schema, _newest_of(then), then.schema)
        else:
            found[number] = contract.schema
    grown = {number: schema for number, schema in found.items() if schema is not contract.schema}
    return {**(found if grown else {}), contract.version: contract.schema}


def loosest(contract: Contract, schemas: Mapping[int, pa.DataFrameSchema]) -> pa.DataFrameSchema:
    """Return what all of these schemas ask: a check that each has, and a value where each wants one.

    Args:
        contract: The newest version.
        schemas: Schemas in its columns.
    """
    changes = {}
    for name, column in contract.schema.columns.items():
        others = [schema.columns[name] for schema in schemas.values()]
        said = [{(check.name, str(check.statistics)) for check in one.checks} for one in others]
        shared = [c for c in column.checks if all((c.name, str(c.statistics)) in one for one in said)]
        changes[name] = {"checks": shared, "nullable": any(one.nullable for one in others)}
    return contract.schema.update_columns(changes)


def _changes_after(column: Column, number: int) -> bool:
    growth = column.growth
    return (
        growth.since > number
        or (growth.retired or 0) > number
        or any(last >= number for last, _ in growth.was)
    )


def _newest_of(contract: Contract) -> dict[str, str]:
    """Return the newest names of a version's columns."""
    return {
        name: (column.metadata or {}).get(NEWEST, name) for name, column in contract.schema.columns.items()
    }


def _in_todays_columns(
    today: pa.DataFrameSchema, newest_of: Mapping[str, str], then: pa.DataFrameSchema
) -> pa.DataFrameSchema:
    """Return the schema of today with the checks of then; fields of later versions have none."""
    was = {newest_of[name]: column for name, column in then.columns.items()}
    changes = {
        name: {"checks": was[name].checks, "nullable": was[name].nullable}
        if name in was
        else {"checks": [], "nullable": True}
        for name in today.columns
    }
    return today.update_columns(changes)
