"""Parquet; also files of the lake itself, whose partition and origin columns are left out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.contracts import Contract
from headrace.errors import BadData, Fatal
from headrace.formats.base import CHUNK, Record, json_value, key_column, key_of, malformed, require_columns


def read(file: IO[bytes], name: str, contract: Contract) -> Iterator[Record]:
    """Every row as a JSON object without its nulls; of a row that JSON cannot say, its text in Python's words.

    Args:
        file: Must be seekable: Parquet is read from its end.
        name: Of the file.
        contract: What the records should be.

    Raises:
        BadData: The columns do not fit the contract, or times have no zone.
    """
    table = pq.ParquetFile(file)
    # a file of the lake has its partition and the rows' origins besides
    landed = set(contract.landed_schema.names()) - {c.name for c in contract.columns}
    names = [name for name in table.schema_arrow.names if name not in landed]
    require_columns(name, contract, names)
    for column in names:
        kind = table.schema_arrow.field(column).type
        if pa.types.is_timestamp(kind) and kind.tz is None:
            raise BadData(f"{name}: times of column {column!r} have no zone; write them as timestamps in UTC")
    nested = {c.name for c in contract.columns if c.wire in ("object", "map")}
    key = key_column(contract)
    number = 0
    for batch in table.iter_batches(CHUNK, columns=names):
        for row in _rows(batch, name):
            number += 1
            record = {n: _nested(v) if n in nested else v for n, v in row.items() if v is not None}
            try:
                yield msgspec.json.encode(record), key_of(record.get(key)), None
            except (TypeError, ValueError) as error:
                yield malformed(number, f"no JSON ({error})", repr(record).encode("utf-8", "replace"))


def read_packed(file: IO[bytes], name: str, contract: Contract) -> Iterator[Record]:
    """The same from a decompressing stream, which is first unpacked to disk.

    Raises:
        Fatal: There is no room for it.
    """
    with tempfile.TemporaryFile() as plain:
        while block := file.read(1 << 20):
            try:
                plain.write(block)
            except OSError as error:
                place = tempfile.gettempdir()
                raise Fatal(f"{name} cannot be unpacked in {place}: {error}; make room there") from error
        plain.seek(0)
        yield from read(plain, name, contract)


def _rows(batch: pa.RecordBatch, name: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError) as error:
        raise BadData(f"{name} holds a value that is out of range: {error}; write it anew") from error
    return rows


def _nested(value: object) -> object:
    """JSON text, a struct, an Arrow map or the lake's list of key and value, as an object."""
    if isinstance(value, str):
        return json_value(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, list) and all(isinstance(v, dict) and v.keys() == {"key", "value"} for v in value):
        return {v["key"]: v["value"] for v in value}
    return value
