"""ClickHouse DDL, derived from a Table."""

from __future__ import annotations

import polars as pl

from headrace.batch import STRING_MAP, UTC_MICROS, Table

_TYPES: dict[pl.DataType, tuple[str, str]] = {
    pl.String(): ("String", "ZSTD(1)"),
    pl.Binary(): ("String", "ZSTD(1)"),
    pl.Float64(): ("Float64", "ZSTD(1)"),
    pl.Int32(): ("Int32", "ZSTD(1)"),
    pl.Int64(): ("Int64", "Delta, ZSTD(1)"),
    pl.Date(): ("Date", "ZSTD(1)"),
    UTC_MICROS: ("DateTime64(6, 'UTC')", "Delta, ZSTD(1)"),
    STRING_MAP: ("Map(LowCardinality(String), String)", "ZSTD(1)"),
}
#: Insert blocks whose tokens the table remembers. One lake version adds at most a few blocks per partition,
#: and only the last, unrecorded version is ever sent again.
DEDUPLICATION_WINDOW = 10_000

PUBLICATIONS = """
CREATE TABLE IF NOT EXISTS {database}._publications
(
    table LowCardinality(String) COMMENT 'raw table',
    lake_id String COMMENT 'id of the lake table',
    version Int64 COMMENT 'lake version that is wholly in the raw table',
    rows UInt64 COMMENT 'rows that it added',
    days Array(Date) COMMENT 'partitions that it touched',
    published_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(published_at)
ORDER BY (table, lake_id, version)
COMMENT 'Lake versions that are in the warehouse; written after the rows'
"""

REFRESHES = """
CREATE TABLE IF NOT EXISTS {database}._refreshes
(
    table LowCardinality(String) COMMENT 'raw table that the models read',
    lake_id String COMMENT 'id of the lake table',
    version Int64 COMMENT 'published lake version when the build began',
    days Array(Date) COMMENT 'days whose models were built',
    refreshed_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (table, lake_id, version)
COMMENT 'Days whose dbt models were built, and from which lake version'
"""


def quoted(name: str) -> str:
    """A ClickHouse identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(text: str) -> str:
    """A ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def clickhouse_type(
    dtype: pl.DataType, *, nullable: bool = False, low_cardinality: bool = False
) -> tuple[str, str]:
    """ClickHouse type and codec of a Polars dtype."""
    if isinstance(dtype, pl.List) and dtype != STRING_MAP:
        struct = dtype.inner
        assert isinstance(struct, pl.Struct)
        fields = ", ".join(f"{quoted(f.name)} {clickhouse_type(f.dtype)[0]}" for f in struct.fields)  # type: ignore[arg-type]
        return f"Array(Tuple({fields}))", "ZSTD(1)"
    name, codec = _TYPES[dtype]
    if nullable:
        name = f"Nullable({name})"
    if low_cardinality:
        name = f"LowCardinality({name})"
    return name, codec


def create_table(database: str, table: Table, ttl_days: int = 0) -> str:
    """CREATE TABLE IF NOT EXISTS for a raw table.

    Daily partitions, although ClickHouse prefers few: a day is what REPLACE PARTITION swaps in a backfill.
    """
    columns = []
    for name, dtype in table.schema.items():
        kind, codec = clickhouse_type(
            dtype, nullable=name in table.nullable, low_cardinality=name in table.low_cardinality
        )
        comment = table.comments.get(name)
        said = f" COMMENT {literal(comment)}" if comment else ""
        columns.append(f"    {quoted(name)} {kind}{said} CODEC({codec})")
    order = ", ".join(quoted(c) for c in table.order_by)
    ttl = f"TTL {quoted(table.partition)} + INTERVAL {int(ttl_days)} DAY\n" if ttl_days else ""
    body = ",\n".join(columns)
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(database)}.{quoted(table.name)}\n(\n{body}\n)\n"
        f"ENGINE = MergeTree\nPARTITION BY {quoted(table.partition)}\nORDER BY ({order})\n{ttl}"
        f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}\n"
        f"COMMENT {literal(' '.join(table.description.split()))}"
    )
