"""Fit rows of an earlier contract to a raw table that has grown.

Columns of earlier names that the table still has, because somebody reads them, are filled; members that a struct has
gained since are null.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa

from headrace.core.batch import Chunk, Table
from headrace.warehouse import ddl
from headrace.warehouse.ddl import ColumnShape
from headrace.warehouse.wider import bare, narrows


def copies(table: Table, columns: Mapping[str, ColumnShape], sent: Collection[str]) -> dict[str, str]:
    """Return stored columns of earlier names, each with the column whose values it gets as well.

    Args:
        table: The table as its contract has it.
        columns: Columns that the warehouse has.
        sent: Columns of rows that are about to be inserted.
    """
    return {
        earlier: name
        for name, earlier in ddl.earlier_names(table)
        if name in sent and earlier not in sent and name in columns and earlier in columns
        if columns[earlier].is_stored and bare(columns[earlier].type) == bare(columns[name].type)
    }


def lacks_members(table: Table, columns: Mapping[str, ColumnShape], sent: Collection[str]) -> bool:
    """Tell whether a struct of rows may lack members that the warehouse has.

    Args:
        table: The table as its contract has it.
        columns: Columns that the warehouse has.
        sent: Columns of rows that are about to be inserted.
    """
    structs = {
        name: columns[name].type for name in sent if name in columns and "Tuple(" in columns[name].type
    }
    return any(
        name not in table.schema or narrows(kind, ddl.column_type(table, name)[0])
        for name, kind in structs.items()
    )


def with_copies(rows: Chunk, copied: Mapping[str, str]) -> Chunk:
    """Add columns to rows, each with the values of another one. A file of them is no longer sent as it is."""

    def parts() -> Iterator[pa.Table]:
        for part in rows:
            whole = part
            for name, source in copied.items():
                whole = whole.append_column(name, part[source])
            yield whole

    return Chunk(rows.num_rows, parts, columns=(*rows.columns, *copied))
