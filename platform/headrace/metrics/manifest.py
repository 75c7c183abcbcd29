"""Compare definitions with the models that dbt has: that each is there, where it is said to lie, with the columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.metrics.catalogue import Catalogue
from headrace.metrics.definitions import Family, Metric, Model, columns_of
from headrace.metrics.errors import DefinitionError, hint, nearest


def faults(catalogue: Catalogue, manifest: Mapping[str, Any]) -> list[DefinitionError]:
    """List what of the definitions is not as dbt's manifest has it.

    A model without columns in its yml is taken to have any.

    Args:
        catalogue: The definitions.
        manifest: Content of dbt's ``manifest.json``.
    """
    found: list[DefinitionError] = []
    for family, model in catalogue.models():
        found += _of_model(catalogue, family, model, manifest)
    return found


def _of_model(
    catalogue: Catalogue, family: Family, model: Model, manifest: Mapping[str, Any]
) -> Iterator[DefinitionError]:
    key = f"models.{model.name}"
    known = _nodes(manifest, raw=model.place == "raw")
    node = known.get(model.name)
    if node is None:
        what = "table is a source of dbt" if model.place == "raw" else "model is in the dbt project"
        near = nearest(model.name, known)
        if not family.file:
            return  # made by itself of a stream; its tables need be no sources
        yield _fault(family, key, f"no such {what}{hint(near, ())}")
        return
    if (schema := catalogue.schemas.relation(model).split(".")[0]) != node["schema"]:
        yield _fault(family, f"{key}.schema", f"it is said to lie in {schema}, and lies in {node['schema']}")
    columns = tuple(node["columns"])
    if columns:
        for where, name in _columns(family, model):
            if name not in columns:
                near = hint(nearest(name, columns), columns)
                yield _fault(family, where, f"{model.name} has no column {name}{near}")


def _columns(family: Family, model: Model) -> Iterator[tuple[str, str]]:
    """Yield each column that a model must have, with the key that names it."""
    key = f"models.{model.name}"
    own = {"time": model.time, "day": model.day, "width_column": model.width_column}
    yield from ((f"{key}.{name}", column) for name, column in own.items() if column)
    for name, sql in {**model.states, "where": model.where}.items():
        yield from ((f"{key}.{name}", column) for column in sorted(columns_of(sql)))
    for name in model.dimensions:
        dimension = family.dimensions[name]
        named = (
            columns_of(dimension.sql.replace("{time}", model.time)) if dimension.sql else {dimension.column}
        )
        yield from ((f"dimensions.{name}", column) for column in sorted(named))
    for metric in family.metrics.values():
        if model.name in metric.models:
            yield from ((f"metrics.{metric.name}", column) for column in sorted(_needed(metric, model)))


def _needed(metric: Metric, model: Model) -> frozenset[str]:
    return (metric.columns - set(model.states)) | columns_of(metric.where)


def _nodes(manifest: Mapping[str, Any], *, raw: bool) -> dict[str, Mapping[str, Any]]:
    if raw:
        return {one["name"]: one for one in manifest["sources"].values()}
    return {one["name"]: one for one in manifest["nodes"].values() if one["resource_type"] == "model"}


def _fault(family: Family, key: str, said: str) -> DefinitionError:
    return DefinitionError(Path(family.file or family.name), key, said)
