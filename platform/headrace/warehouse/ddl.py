"""Derive ClickHouse DDL from a ``Table``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from headrace.core.batch import STRING_MAP, UTC_MICROS, Table, is_map

#: ClickHouse type and codec; migrations/0002_events.sql gives the reasons for the codecs.
_TYPES: dict[pl.DataType, tuple[str, str]] = {
    pl.String(): ("String", "ZSTD(1)"),
    pl.Binary(): ("String", "ZSTD(1)"),
    pl.Boolean(): ("Bool", "ZSTD(1)"),
    pl.Float32(): ("Float32", "ZSTD(1)"),
    pl.Float64(): ("Float64", "ZSTD(1)"),
    pl.Int8(): ("Int8", "ZSTD(1)"),
    pl.Int16(): ("Int16", "ZSTD(1)"),
    pl.Int32(): ("Int32", "ZSTD(1)"),
    pl.Int64(): ("Int64", "Delta, ZSTD(1)"),
    pl.UInt8(): ("UInt8", "ZSTD(1)"),
    pl.UInt16(): ("UInt16", "ZSTD(1)"),
    pl.UInt32(): ("UInt32", "ZSTD(1)"),
    pl.UInt64(): ("UInt64", "Delta, ZSTD(1)"),
    pl.Date(): ("Date32", "ZSTD(1)"),
    UTC_MICROS: ("DateTime64(6, 'UTC')", "GCD, Delta, ZSTD(1)"),
    STRING_MAP: ("Map(LowCardinality(String), String)", "ZSTD(1)"),
}
_NEVER_NULL = ("Array(", "Map(", "Tuple(")
#: Insert blocks whose tokens the table remembers. One lake version adds at most a few blocks per partition,
#: and only the last version, which is not recorded yet, is ever sent again.
DEDUPLICATION_WINDOW = 10_000
#: Uncompressed bytes up to which a part is one file; migrations/0004_compact_inserts.sql gives reasons and savings.
COMPACT_BYTES = 64 << 20
#: Settings of every raw table. Rows expire by partition: dropping a part is free, rewriting it costs the whole part.
SETTINGS = {
    "non_replicated_deduplication_window": DEDUPLICATION_WINDOW,
    "ttl_only_drop_parts": 1,
    "min_bytes_for_wide_part": COMPACT_BYTES,
}

#: Column of every table of good rows: the hash of the producer's key, by which the models find what was sent again.
KEY_HASH = "_key_hash"


def quoted(name: str) -> str:
    """Quote an identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """Quote a text as a string literal, in which no placeholder of a migration can be seen."""
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + text.replace("{{", "{\\x7b") + "'"


def value(of: Any) -> str:
    """Write a value of a column as an expression.

    Raises:
        TypeError: It is of a kind that no column has.
    """
    if of is None:
        return "NULL"
    if isinstance(of, bool):
        return str(of).lower()
    if isinstance(of, int | float | Decimal):
        return literal(str(of)) if isinstance(of, Decimal) else repr(of)
    if isinstance(of, str | bytes):
        return literal(of if isinstance(of, str) else of.decode("latin-1"))
    if isinstance(of, datetime | date):
        return literal(of.isoformat(" ").partition("+")[0] if isinstance(of, datetime) else of.isoformat())
    if isinstance(of, Mapping):
        return f"map({', '.join(value(one) for pair in of.items() for one in pair)})"
    if isinstance(of, Sequence):
        return f"[{', '.join(map(value, of))}]"
    raise TypeError(f"no column has a value like {of!r}")


def clickhouse_type(
    dtype: Any, *, nullable: bool = False, low_cardinality: bool = False, nested: bool = False
) -> tuple[str, str]:
    """Return ClickHouse type and codec of a Polars dtype.

    Lists, structs and maps are never null themselves: they are empty, or all their members are null.

    Args:
        dtype: The dtype.
        nullable: Whether its values may be null.
        low_cardinality: Whether it has few distinct values.
        nested: Whether what is within it may be null.
    """
    if dtype in _TYPES:
        name, codec = _TYPES[dtype]
    elif isinstance(dtype, pl.Decimal):
        name, codec = f"Decimal({dtype.precision}, {dtype.scale})", "ZSTD(1)"
    else:
        return _nested(dtype, nested), "ZSTD(1)"
    if nullable and dtype != STRING_MAP:
        name = f"Nullable({name})"
    if low_cardinality:
        name = f"LowCardinality({name})"
    return name, codec


def _nested(dtype: Any, nullable: bool) -> str:
    def inner(of: Any) -> str:
        return clickhouse_type(of, nullable=nullable, nested=nullable)[0]

    if is_map(dtype):
        return f"Map(LowCardinality(String), {inner(dtype.inner.fields[1].dtype)})"
    if isinstance(dtype, pl.List):
        return f"Array({inner(dtype.inner)})"
    if isinstance(dtype, pl.Struct):
        return f"Tuple({', '.join(f'{quoted(f.name)} {inner(f.dtype)}' for f in dtype.fields)})"
    raise TypeError(f"no ClickHouse type for {dtype}")


def column_type(table: Table, name: str) -> tuple[str, str]:
    """Return ClickHouse type and codec of a column."""
    nullable = name in table.nullable
    if name == table.partition:  # a day of landing or of the event, which is after 2000
        return "Date", "ZSTD(1)"
    if name in table.uuids:
        return ("Nullable(UUID)" if nullable else "UUID"), "ZSTD(1)"
    return clickhouse_type(
        table.schema[name],
        nullable=nullable,
        low_cardinality=name in table.low_cardinality,
        nested=name in table.nested,
    )


def column(table: Table, name: str) -> str:
    """Define one column: name, type, default, comment, codec."""
    kind, codec = column_type(table, name)
    comment = table.comments.get(name)
    said = f" COMMENT {literal(comment)}" if comment else ""
    return f"{quoted(name)} {kind}{default(table, name)}{said} CODEC({codec})"


def default(table: Table, name: str) -> str:
    """Return what a column holds in rows that lack it, as a clause with a leading space; empty for its type's default.

    A column that had other names takes the value that a row has under one of them.
    """
    earlier = [quoted(one) for one in table.renamed.get(name, ())]
    kind = column_type(table, name)[0]
    if name in table.fills:
        fill = table.fills[name]
        # what is empty is the default of lists, maps and tuples, and null that of what may be null
        given = fill is not None and not kind.startswith(_NEVER_NULL)
        last = [f"CAST({value(fill)}, {literal(kind)})"] if given or fill else []
    else:
        last = [] if not earlier or name in table.nullable else [f"defaultValueOfTypeName({literal(kind)})"]
    found = ", ".join((*earlier, *last))
    if not found:
        return ""
    return f" DEFAULT {found if len(earlier) + len(last) == 1 else f'coalesce({found})'}"


def earlier_name(table: Table, name: str, earlier: str) -> str:
    """Define a column under which rows come in whose writer knows the earlier name of another one; it stores nothing.

    https://clickhouse.com/docs/sql-reference/statements/create/table#ephemeral
    """
    kind = column_type(replace(table, low_cardinality=frozenset()), name)[0]
    if not kind.startswith(("Nullable(", *_NEVER_NULL)):
        kind = f"Nullable({kind})"
    empty = f"defaultValueOfTypeName({literal(kind)})"
    return f"{quoted(earlier)} {kind} EPHEMERAL {empty} COMMENT {literal(f'earlier name of {name}')}"


def key_hash(table: Table) -> str:
    """Define the column that holds the hash of the key; rows of before it was there are hashed as they are read.

    It is of the key's text, which stays the same while the type widens. Hashes hardly compress, hence the codec.
    """
    made = f"cityHash64(toString({quoted(table.key)}))"
    return f"{quoted(KEY_HASH)} UInt64 MATERIALIZED {made} COMMENT 'hash of {table.key}' CODEC(NONE)"


def create_table(database: str, table: Table, ttl_days: int = 0) -> str:
    """Return the CREATE TABLE IF NOT EXISTS of a raw table.

    The built-in streams have migrations that say the same and give the reasons. This serves streams without
    migrations.
    """
    columns = [f"    {column(table, name)}" for name in table.schema]
    columns += [f"    {earlier_name(table, name, one)}" for name, one in earlier_names(table)]
    columns += [f"    {key_hash(table)}"] if table.key else []
    columns += [f"    INDEX {quoted(f'{name}_range')} {quoted(name)} TYPE minmax" for name in table.ranges]
    order = ", ".join(quoted(c) for c in table.order_by)
    expires = f"TTL {ttl(table, ttl_days)}\n" if ttl_days else ""
    body = ",\n".join(columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(database)}.{quoted(table.name)}\n(\n{body}\n)\n"
        f"ENGINE = MergeTree\nPARTITION BY {quoted(table.partition)}\nORDER BY ({order})\n{expires}"
        f"SETTINGS {', '.join(f'{name} = {value}' for name, value in SETTINGS.items())}\n"
        f"COMMENT {literal(' '.join(table.description.split()))}"
    )


def ttl(table: Table, days: int) -> str:
    """Return the expiry of rows as ClickHouse spells it; empty for never.

    A day expires as a whole.
    """
    return f"{table.partition} + toIntervalDay({int(days)})" if days else ""


def set_ttl(database: str, table: Table, days: int) -> str:
    """Return the ALTER TABLE that lets rows expire after ``days``, or never for 0."""
    name = f"{quoted(database)}.{quoted(table.name)}"
    return f"ALTER TABLE {name} " + (f"MODIFY TTL {ttl(table, days)}" if days else "REMOVE TTL")


def earlier_names(table: Table) -> list[tuple[str, str]]:
    """List columns with each earlier name of theirs; names that another column has now are left out."""
    return [
        (name, one) for name, before in table.renamed.items() for one in before if one not in table.schema
    ]


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """A column in the warehouse.

    Attributes:
        type: Its type, as the server spells it.
        kind: ``DEFAULT``, ``EPHEMERAL``, ``ALIAS``, ``MATERIALIZED``; empty for none of them.
        expression: Expression of the default; empty for none.
        in_key: Whether the sorting key or the partition is made of it.
    """

    type: str
    kind: str = ""
    expression: str = ""
    in_key: bool = False

    @property
    def is_stored(self) -> bool:
        """Whether it holds values that were inserted, under its own name."""
        return self.kind in ("", "DEFAULT")

    @property
    def takes_values(self) -> bool:
        """Whether an insert may name it."""
        return self.is_stored or self.kind == "EPHEMERAL"


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns and expiry of a table in the warehouse.

    Attributes:
        columns: Columns by name.
        ttl: When rows expire, as the server spells it; empty for never.
    """

    columns: Mapping[str, ColumnShape]
    ttl: str


#: Scalar queries whose answers ``shapes`` reads: columns and engines of the tables of a ``{database:String}``.
SHAPES = (
    "SELECT groupArray((table, name, type, default_kind, default_expression, is_in_sorting_key OR is_in_partition_key))"
    " FROM (SELECT * FROM system.columns WHERE database = {database:String} ORDER BY table, position)",
    "SELECT groupArray((name, engine_full)) FROM system.tables WHERE database = {database:String}",
)
_TTL = re.compile(r" TTL (?P<expression>.*?)(?: SETTINGS .*)?$", re.DOTALL)


def shapes(
    columns: Iterable[tuple[str, str, str, str, str, int]], engines: Iterable[tuple[str, str]]
) -> dict[str, Shape]:
    """Return the shapes of tables by name, from the answers to ``SHAPES``."""
    found: dict[str, dict[str, ColumnShape]] = {}
    for table, name, kind, default_kind, expression, in_key in columns:
        found.setdefault(table, {})[name] = ColumnShape(kind, default_kind, expression, bool(in_key))
    return {table: Shape(found.get(table, {}), _ttl_of(engine)) for table, engine in engines}


def _ttl_of(engine: str) -> str:
    found = _TTL.search(engine)
    return found["expression"] if found else ""
