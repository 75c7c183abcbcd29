"""Columns of dbt assets in the catalogue, with their lineage.

Dagster keeps ``dagster/column_lineage`` with the materialization, and its open-source UI shows it there. The
descriptions of ``dagster/column_schema`` name the same columns, so that a reader of the catalogue sees them too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    Output,
    TableColumn,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)

from headrace.models.lineage import Columns, Lineage

#: Makes the asset key of a node of dbt's manifest.
KeyOf = Callable[[Mapping[str, Any]], AssetKey]


def schema(node: Mapping[str, Any], columns: Columns) -> TableSchema:
    """Describe the columns of the model's yml, or else of its SQL, each with the columns that it is made of."""
    declared = node.get("columns", {})
    return TableSchema(
        columns=[
            TableColumn(
                name,
                type=declared.get(name, {}).get("data_type") or "?",
                description=_description(declared.get(name, {}), columns.get(name, [])),
            )
            for name in declared or columns
        ]
    )


def _description(column: Mapping[str, Any], made_of: Iterable[tuple[str, str]]) -> str | None:
    said = str(column.get("description", "")).strip()
    # model.headrace.events_history, source.headrace.raw.events
    sources = ", ".join(f"{node.split('.', 2)[2]}.{name}" for node, name in made_of)
    return " ".join(part for part in (said, sources and f"From {sources}.") if part) or None


def with_lineage(
    events: Iterable[Any], manifest: Mapping[str, Any], lineage: Lineage, key_of: KeyOf
) -> Iterator[Any]:
    """Add the lineage of its columns to each materialization among the events of a dbt invocation."""
    nodes = {**manifest["nodes"], **manifest["sources"]}
    for event in events:
        found = event.metadata.get("unique_id") if isinstance(event, (Output, AssetMaterialization)) else None
        columns = lineage.of(nodes[found.value]) if found is not None and found.value in nodes else {}
        if not columns:
            yield event
            continue
        made_of = TableColumnLineage(
            {
                column: [TableColumnDep(key_of(nodes[node]), name) for node, name in sources]
                for column, sources in columns.items()
            }
        )
        yield event.with_metadata({**event.metadata, "dagster/column_lineage": made_of})
