"""Convert Polars frames to Arrow tables with the types that Delta stores."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from headrace.core.batch import UTC_MICROS, Table, is_map

# Arrow's own allocator keeps freed memory: 60 MB in an ingest run that never uses more than 30 MB of Arrow's
pa.set_memory_pool(pa.system_memory_pool())

# Delta Lake has no unsigned integers: each becomes the next wider signed type, and the widest a decimal
# (https://github.com/delta-io/delta/blob/master/PROTOCOL.md#primitive-types)
_TYPES: dict[pl.DataType, pa.DataType] = {
    pl.String(): pa.string(),
    pl.Binary(): pa.binary(),
    pl.Boolean(): pa.bool_(),
    pl.Float32(): pa.float32(),
    pl.Float64(): pa.float64(),
    pl.Int8(): pa.int8(),
    pl.Int16(): pa.int16(),
    pl.Int32(): pa.int32(),
    pl.Int64(): pa.int64(),
    pl.UInt8(): pa.int16(),
    pl.UInt16(): pa.int32(),
    pl.UInt32(): pa.int64(),
    pl.UInt64(): pa.decimal128(20, 0),
    pl.Date(): pa.date32(),
    UTC_MICROS: pa.timestamp("us", tz="UTC"),
}


def _arrow_type(dtype: Any) -> pa.DataType:
    if dtype in _TYPES:
        return _TYPES[dtype]
    if isinstance(dtype, pl.Decimal) and dtype.precision is not None:
        return pa.decimal128(dtype.precision, dtype.scale)
    if is_map(dtype):
        return pa.map_(pa.string(), _arrow_type(dtype.inner.fields[1].dtype))
    if isinstance(dtype, pl.List):
        return pa.list_(_arrow_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pa.struct([(f.name, _arrow_type(f.dtype)) for f in dtype.fields])
    raise TypeError(f"no Arrow type for {dtype}")


def arrow_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table, which is also its Delta schema."""
    return pa.schema([pa.field(name, _arrow_type(dtype)) for name, dtype in table.schema.items()])


def to_arrow(rows: pl.DataFrame, table: Table) -> pa.Table:
    """Convert rows to the table's Arrow schema; no Python object per row."""
    schema = arrow_schema(table)
    arrow = rows.select(table.schema.names()).to_arrow(compat_level=pl.CompatLevel.oldest())
    columns = [_cast(column, field.type) for column, field in zip(arrow.columns, schema, strict=True)]
    return pa.table(columns, schema=schema)


def converted(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column of a file in a type to which its own widens; integers beyond 2**53 are rounded to doubles."""
    if column.type == kind:
        return column
    if not pa.types.is_nested(kind):
        return column.cast(kind, safe=not _rounds(column.type, kind))
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:  # large integers within
        return pa.chunked_array([_nested(column.combine_chunks(), kind)], kind)


def _rounds(there: pa.DataType, kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) and pa.types.is_integer(there))


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if not pa.types.is_nested(kind):
        return converted(column, kind)
    return pa.chunked_array([_nested(column.combine_chunks(), kind)], kind)


def _nested(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Convert what Arrow itself does not: lists of pairs to maps, also within other types."""
    if pa.types.is_map(kind):
        lists = array.cast(pa.list_(array.type.value_type))
        pairs = lists.values
        keys = pairs.field("key").cast(kind.key_type)
        values = _nested(pairs.field("value"), kind.item_type)
        return pa.MapArray.from_arrays(_offsets(lists), keys, values, kind, mask=_mask(lists))
    if pa.types.is_list(kind):
        lists = array.cast(pa.list_(array.type.value_type))
        values = _nested(lists.values, kind.value_type)
        return pa.ListArray.from_arrays(_offsets(lists), values, kind, mask=_mask(lists))
    if pa.types.is_struct(kind):
        there = {array.type.field(n).name for n in range(array.type.num_fields)}
        members = [
            _nested(array.field(f.name), f.type) if f.name in there else pa.nulls(len(array), f.type)
            for f in kind
        ]
        return pa.StructArray.from_arrays(members, fields=list(kind), mask=_mask(array))
    return array.cast(kind, safe=not _rounds(array.type, kind))


def _offsets(lists: pa.ListArray) -> pa.Array:
    """Return offsets of their own, as Arrow takes no mask beside a slice of them."""
    return pa.array(lists.offsets.to_numpy().copy())


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None
