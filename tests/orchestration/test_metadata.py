"""The catalogue names the types of columns in few words."""

from __future__ import annotations

from headrace.orchestration.metadata import columns_of
from wide import WIDE


def test_the_catalogue_names_every_type() -> None:
    types = {column.name: column.type for column in columns_of(WIDE.table).columns}
    assert {
        name: types[name] for name in ("flag", "u64", "price", "kind", "tags", "matrix", "address", "visits")
    } == {
        "flag": "Boolean",
        "u64": "UInt64",
        "price": "Decimal (10, 2)",
        "kind": "String",
        "tags": "List of String",
        "matrix": "List of List of Int16",
        "address": "Struct (zip, number, since, tags, at)",
        "visits": "Map to List of UInt16",
    }
