"""Metadata with which the catalogue shows lake, warehouse and sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from dagster import (
    CodeReferencesMetadataValue,
    LocalFileCodeReference,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
)

from headrace.collector.held import Held
from headrace.core.batch import Backlog, Table, is_map

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
#: Columns that every table of rows has.
_ORIGIN = {
    "_source": "the topic, queue or file",
    "_cursor": "the topic's partition, the queue or the folder",
    "_offset": "place of the message in its partition",
    "_message_id": "the id of a queue's message, or of one that came over HTTP",
    "_index": "place of the record in a message that holds several",
    "_key": "the message's key",
    "_headers": "the message's headers",
    "_ingested_at": "when it was read",
    "_batch_id": "the micro-batch with which it landed",
}


def sparkline(values: Sequence[float], unit: str) -> MetadataValue:
    """Draw a series as a line of at most ``_WIDTH`` bars, with its smallest and its largest value."""
    if not values:
        return MetadataValue.md("none yet")
    step = max(1, -(-len(values) // _WIDTH))
    means = [sum(part) / len(part) for part in (values[i : i + step] for i in range(0, len(values), step))]
    top = max(means) or 1.0
    bars = "".join(_BARS[min(len(_BARS) - 1, int(mean / top * len(_BARS)))] for mean in means)
    low, high = f"{min(values):,.0f}", f"{max(values):,.0f}"
    return MetadataValue.md(f"`{bars}` {low if low == high else f'{low} to {high}'} {unit}")


def columns_of(table: Table) -> TableSchema:
    """Describe the columns of a table."""
    said = {table.partition: "the day (UTC), by which the table is partitioned", **_ORIGIN, **table.comments}
    return TableSchema(
        [TableColumn(name, _type(dtype), description=said.get(name)) for name, dtype in table.schema.items()]
    )


def _type(dtype: pl.DataType) -> str:
    """Name a type in few words; Polars has ``Datetime(time_unit='us', time_zone='UTC')`` for a time."""
    if isinstance(dtype, pl.Datetime):
        return f"Datetime {dtype.time_zone or ''}".rstrip()
    if is_map(dtype):
        return f"Map to {_type(dtype.inner.fields[1].dtype)}"  # type: ignore[attr-defined]
    if isinstance(dtype, pl.Decimal):
        return f"Decimal ({dtype.precision}, {dtype.scale})"
    if isinstance(dtype, pl.List):
        return f"List of {_type(dtype.inner)}" if isinstance(dtype.inner, pl.DataType) else "List"
    if isinstance(dtype, pl.Struct):
        return f"Struct ({', '.join(field.name for field in dtype.fields)})"
    return str(dtype)


def code(*files: Path) -> dict[str, Any]:
    """Link the files in which an asset is declared."""
    references = [
        LocalFileCodeReference(file_path=str(file), line_number=1, label=file.name) for file in files
    ]
    return {"dagster/code_references": CodeReferencesMetadataValue(code_references=[*references])}


def code_at(file: Path, line: int | None) -> dict[str, Any]:
    """Link a line of a file."""
    reference = LocalFileCodeReference(file_path=str(file), line_number=line or 1, label=file.name)
    return {"dagster/code_references": CodeReferencesMetadataValue(code_references=[reference])}


def held(found: Held) -> dict[str, MetadataValue]:
    """Show what the collector's log holds that the lake does not have."""
    shown: dict[str, MetadataValue] = {
        "waiting": MetadataValue.int(found.entries),
        "bytes": MetadataValue.int(found.bytes),
    }
    if found.since is not None:
        shown["oldest"] = MetadataValue.timestamp(found.since)
    return shown


def backlog(found: Backlog, position: Mapping[str, int]) -> dict[str, MetadataValue]:
    """Show the backlog of a source, and the position up to which it has landed."""
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
