"""Read what a lake table records of its contract, without creating the table and without a look at its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from headrace.lake.delta.storage import CONTRACT, translated


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a table says of its contract.

    Attributes:
        description: The recorded description, JSON; empty if none was recorded.
        schema: The table's columns.
    """

    description: str
    schema: pl.Schema


def recorded(root: str, name: str, storage_options: Mapping[str, str] | None = None) -> Recorded | None:
    """Read a table's record of its contract; None if there is no table.

    Args:
        root: Folder or URI of the lake.
        name: The table's name.
        storage_options: Options as delta-rs takes them.

    Raises:
        Retriable: The lake does not answer.
    """
    uri = f"{root.rstrip('/')}/{name}"
    with translated(uri):
        try:
            handle = DeltaTable(uri, storage_options=dict(storage_options or {}) or None)
        except TableNotFoundError:
            return None
        empty = pa.schema(handle.schema().to_arrow()).empty_table()
        description = str(handle.metadata().configuration.get(CONTRACT, ""))
    return Recorded(description, pl.DataFrame(pl.from_arrow(empty)).schema)
