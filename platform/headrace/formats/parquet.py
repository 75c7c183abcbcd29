"""Read Parquet, including files of the lake itself; their partition and origin columns are left out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.contracts import Contract
from headrace.contracts.base import Wire
from headrace.contracts.dtypes import inner_of
from headrace.contracts.shaping.declared import Shape
from headrace.contracts.shaping.names import Sent, put, sent_columns
from headrace.core.errors import BadData, Fatal
from headrace.formats.arrow_json import JsonColumn, json_column, keyed
from headrace.formats.base import CHUNK, Record, json_value, key_in, key_names, malformed, require_columns

#: Decimals are numbers, with all their digits.
_JSON = msgspec.json.Encoder(decimal_format="number")


def read(file: IO[bytes], name: str, contract: Contract) -> Iterator[Record]:
    """Read every row as a JSON object without its nulls.

    A value that JSON lacks becomes a pair: the reason with its type, and the nearest value. No column but a list
    accepts an array, and that gets an object. So the contract rejects the row for that column, and shows the pair
    as its value.

    Args:
        file: Must be seekable: Parquet is read from its end.
        name: Name of the file, for messages.
        contract: What the records should be.

    Raises:
        BadData: The columns do not fit the contract, or times have no zone.
    """
    table = pq.ParquetFile(file)
    names = _names(table.schema_arrow.names, contract)
    require_columns(name, contract, names)
    sent = {n: one for n, one in sent_columns(contract).items() if n in names}
    _require_times(table, name, sent)
    nested = [(n, one.place) for n, one in sent.items() if one.place != (n,)]
    keys = key_names(contract)
    number = 0
    for batch in table.iter_batches(CHUNK, columns=names):
        columns = [_column(batch.column(n), sent.get(n)) for n in names]
        wrong: dict[int, str] = {}
        for column_name, column in zip(names, columns, strict=True):
            # the nearest value will do for a column outside the contract
            for row, why in column.wrong.items() if column_name in sent else ():
                value, of = column.values[row], sent[column_name].column
                column.values[row] = {why: value} if of and of.wire == "list" else (why, value)
                wrong.setdefault(row, f"column {column_name!r}: {why}")
        for row, values in enumerate(zip(*(column.values for column in columns), strict=True)):
            number += 1
            record = {n: v for n, v in zip(names, values, strict=True) if v is not None}
            key = key_in(record, keys)
            for column_name, place in nested:
                if column_name in record:
                    put(record, place, record.pop(column_name))
            payload = _JSON.encode(record)
            if row in wrong:
                yield malformed(number, wrong[row], payload)
            else:
                yield payload, key, None


def _names(names: Sequence[str], contract: Contract) -> list[str]:
    """Return the columns to read: of a file of the lake, not its partition, origins and computed columns."""
    landed = set(contract.landed_schema.names()) - {c.name for c in contract.columns}
    if landed <= set(names):
        landed |= {c.name for c in contract.columns} - {c.name for c in contract.read_columns}
    return [name for name in names if name not in landed]


def _wire(sent: Sent | None, array: pa.Array) -> Wire | None:
    if sent is None or sent.column is not None:
        return sent.column.wire if sent and sent.column else None
    # an object with several columns inside may be JSON text
    return "object" if pa.types.is_string(array.type) or pa.types.is_large_string(array.type) else None


def _require_times(table: pq.ParquetFile, name: str, sent: Mapping[str, Sent]) -> None:
    """Refuse times without a zone, unless the field says which one they are in."""
    physical = {c.path: c.physical_type for c in map(table.schema.column, range(len(table.schema)))}
    for column, one in sent.items():
        kind = table.schema_arrow.field(column).type
        shape = one.column.shape if one.column else None
        if pa.types.is_temporal(kind) and shape is not None and not _iso(shape):
            raise BadData(
                f"{name}: column {column!r} holds values of type {kind}, which field {one.column.name!r} would read in"  # type: ignore[union-attr]
                f" format {shape.formats[0]!r}; add 'iso8601' (a date: '%Y-%m-%d') to its formats"
            )
        if not pa.types.is_timestamp(kind) or kind.tz is not None:
            continue
        int96 = physical.get(column) == "INT96"  # by convention UTC, whatever the field says
        if shape is not None and shape.zone and (not int96 or shape.zone == "UTC"):
            continue
        if int96:
            held, advice = "INT96", 'in Spark set spark.sql.parquet.outputTimestampType to "TIMESTAMP_MICROS"'
        else:
            held, advice = f"{kind} (local time)", f"in pandas df[{column!r}].dt.tz_localize('UTC')"
        if one.column is not None and one.column.wire == "time" and not int96:
            advice += ", or say their zone at the field, such as zone='Europe/Berlin'"
        raise BadData(
            f"{name}: times of column {column!r} have no zone, they are {held}; write them as timestamps in UTC"
            f" ({advice})"
        )


def _iso(shape: Shape) -> bool:
    """Tell whether a field reads times and dates as this module writes them."""
    return not shape.formats or bool({"rfc3339", "iso8601", "%Y-%m-%d", "%F"} & set(shape.formats))


def read_packed(file: IO[bytes], name: str, contract: Contract) -> Iterator[Record]:
    """Read Parquet from a decompressing stream, which is unpacked to disk first.

    Raises:
        Fatal: The disk has no room for it.
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


def _column(array: pa.Array, sent: Sent | None) -> JsonColumn:
    """Convert a column to the JSON type that its field has."""
    wire = _wire(sent, array)
    own = sent is not None and sent.column is not None
    column = json_column(_in_base64(array, sent.column.dtype) if own else array)  # type: ignore[union-attr]
    if wire not in ("object", "map", "list", "struct"):
        return column
    kind = array.type
    if pa.types.is_struct(kind) and wire == "map":  # every row of a struct has all its members
        column.values = [v and {n: x for n, x in v.items() if x is not None} for v in column.values]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        pairs = kind.value_type
        if (
            wire != "list"
            and pa.types.is_struct(pairs)
            and {member.name for member in pairs} == {"key", "value"}
        ):
            return keyed(column, str(kind))  # a map of the lake
    else:
        column.values = [json_value(v) if isinstance(v, str) else v for v in column.values]
    return column


def _in_base64(array: pa.Array, dtype: pl.DataType) -> pa.Array:
    """Write bytes as JSON has them where a column, or what is within it, is binary."""
    if not _has_binary(dtype):
        return array
    found = pl.DataFrame({"v": pl.Series(pl.from_arrow(array))})
    encoded = found.select(_encoded(pl.col("v"), found.schema["v"], dtype)).to_series()
    return encoded.to_arrow(compat_level=pl.CompatLevel.oldest())


def _has_binary(dtype: Any) -> bool:
    return dtype == pl.Binary() or any(map(_has_binary, inner_of(dtype).values()))


def _encoded(values: pl.Expr, found: Any, wanted: Any) -> pl.Expr:
    """Encode bytes along both dtypes: the file's, and the contract's."""
    if found == pl.Binary() and wanted == pl.Binary():
        return values.bin.encode("base64")
    if isinstance(found, pl.List) and isinstance(wanted, pl.List):
        return values.list.eval(_encoded(pl.element(), found.inner, wanted.inner))
    if isinstance(found, pl.Struct) and isinstance(wanted, pl.Struct):
        declared = {f.name: f.dtype for f in wanted.fields}
        members = [
            _encoded(values.struct.field(f.name), f.dtype, declared.get(f.name)).alias(f.name)
            for f in found.fields
        ]
        return pl.when(values.is_not_null()).then(pl.struct(members))
    return values
