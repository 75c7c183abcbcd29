"""What the catalogue shows of lake, warehouse and sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster import (
    CodeReferencesMetadataValue,
    LocalFileCodeReference,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from headrace.batch import Backlog, Table

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60


def sparkline(values: Sequence[float], unit: str) -> MetadataValue:
    """A series as a line of bars, at most ``_WIDTH`` of them, with its smallest and its largest value."""
    if not values:
        return MetadataValue.md("none yet")
    step = max(1, -(-len(values) // _WIDTH))
    means = [sum(part) / len(part) for part in (values[i : i + step] for i in range(0, len(values), step))]
    top = max(means) or 1.0
    bars = "".join(_BARS[min(len(_BARS) - 1, int(mean / top * len(_BARS)))] for mean in means)
    return MetadataValue.md(f"`{bars}` {min(values):,.0f} to {max(values):,.0f} {unit}")


def columns_of(table: Table) -> TableSchema:
    """A table's columns for the catalogue."""
    return TableSchema(
        [
            TableColumn(name, str(dtype), description=table.comments.get(name))
            for name, dtype in table.schema.items()
        ]
    )


def code(*files: Path) -> dict[str, Any]:
    """Links to where an asset is declared."""
    references = [
        LocalFileCodeReference(file_path=str(file), line_number=1, label=file.name) for file in files
    ]
    return {"dagster/code_references": CodeReferencesMetadataValue(code_references=[*references])}


def backlog(found: Backlog, position: Mapping[str, int]) -> dict[str, MetadataValue]:
    """What waits in a source, and how far it has landed."""
    shown: dict[str, MetadataValue] = {
        "waiting": MetadataValue.int(found.waiting),
        "in_flight": MetadataValue.int(found.in_flight),
    }
    cursors = sorted({*found.by_cursor, *position})
    if cursors:
        records = [
            TableRecord(
                {"cursor": c, "next_offset": position.get(c, 0), "waiting": found.by_cursor.get(c, 0)}
            )
            for c in cursors
        ]
        types = {"cursor": "string", "next_offset": "int", "waiting": "int"}
        schema = TableSchema([TableColumn(name, kind) for name, kind in types.items()])
        shown["cursors"] = MetadataValue.table(records, schema)
    if found.problems:
        shown["problems"] = MetadataValue.md("\n".join(f"- {one}" for one in found.problems))
    return shown


def moment(at: datetime | None) -> MetadataValue:
    """A time, or that there is none."""
    return MetadataValue.timestamp(at) if at is not None else MetadataValue.text("never")
