"""Read files with integers for a column that has become one of doubles, until they have been written anew.

Arrow refuses to read an integer beyond 2**53 as a double. So files are read in the types that they have, and widened
afterwards, which rounds, as rewriting them does.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

from headrace.lake.delta.storage import REWRITING, property_of


def by_types(handle: DeltaTable, dataset: ds.FileSystemDataset) -> list[ds.FileSystemDataset]:
    """Split files by the types in which they have the columns that are being rewritten.

    As long as nothing is, this looks into no file.

    Args:
        handle: The version that the files are of.
        dataset: Files of it.
    """
    names = [one for one in property_of(handle, REWRITING).split(",") if one in dataset.schema.names]
    if not names:
        return [dataset]
    found: dict[tuple[pa.DataType, ...], list[ds.ParquetFileFragment]] = {}
    for fragment in dataset.get_fragments():
        there, wanted = fragment.physical_schema, dataset.schema
        types = ((there if name in there.names else wanted).field(name).type for name in names)
        found.setdefault(tuple(types), []).append(fragment)
    return [
        ds.FileSystemDataset(
            files, _with_types(dataset.schema, names, types), dataset.format, dataset.filesystem
        )
        for types, files in found.items()
    ] or [dataset]


def _with_types(schema: pa.Schema, names: list[str], types: tuple[pa.DataType, ...]) -> pa.Schema:
    for name, of in zip(names, types, strict=True):
        at = schema.get_field_index(name)
        schema = schema.set(at, schema.field(at).with_type(of))
    return schema
