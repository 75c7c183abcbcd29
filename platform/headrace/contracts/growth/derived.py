"""Derive the Pandera schema of a contract as it was at a version."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pandera.polars as pa

from headrace.contracts.growth.declared import CHECK_NAMES, Growth, growth_of

#: Key of a column's ``Growth`` among its metadata, as it was at the schema's version.
GROWTH = "growth"
#: Key of the name that a column has in the newest version.
NEWEST = "newest"


def schema_at(schema: pa.DataFrameSchema, version: int) -> pa.DataFrameSchema:
    """Return a model's schema as it was at a version; the schema itself if nothing in it grew.

    Fields that came later are left out. Fields that are retired by then may be null and have no checks.

    Args:
        schema: The schema as the model declares it, which is of the newest version.
        version: The version.
    """
    grown = {name: growth_of(column.metadata or {}) for name, column in schema.columns.items()}
    if all(growth == Growth() for growth in grown.values()):
        return schema
    found = copy.deepcopy(schema)
    columns = {}
    for name, column in found.columns.items():
        if grown[name].has(version):
            at = _column_at(name, column, grown[name], version)
            columns[at.name] = at
    found.columns = columns
    return found


def _column_at(name: str, column: Any, growth: Growth, version: int) -> Any:
    was = growth.at(version)
    metadata = {**(column.metadata or {}), GROWTH: growth.before(version), NEWEST: name}
    changes: dict[str, Any] = {"name": was.get("name", name), "metadata": metadata}
    if "default" in was:
        metadata["default"] = was["default"]
    if "dtype" in was:
        changes["dtype"] = was["dtype"]
    if "required" in was:
        changes["nullable"] = not was["required"]
    changes["checks"] = checks_at(column.checks, was)
    if growth.is_retired(version):
        metadata["default"] = None
        changes |= {"nullable": True, "checks": []}
    return type(column)(**{**column.properties, **changes})


def checks_at(checks: list[pa.Check], was: Mapping[str, Any]) -> list[pa.Check]:
    """Return a column's checks with those replaced or left out that were otherwise.

    Args:
        checks: Checks as they are now.
        was: What was otherwise, as ``Growth.at`` returns it.
    """
    found = list(checks)
    for argument, value in was.items():
        name = CHECK_NAMES.get(argument)
        if name is None:
            continue
        at = next((n for n, check in enumerate(found) if check.name == name), len(found))
        found[at : at + 1] = pa.Field(**{argument: value}).checks if value is not None else []
    return found
