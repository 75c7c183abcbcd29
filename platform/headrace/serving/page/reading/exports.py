"""Write rows as CSV or Parquet, piece by piece: a table of any length takes as much memory as some of its pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.core.batch import Table
from headrace.lake.arrow import arrow_schema
from headrace.serving.page.words import cell

#: Rows that are read at a time, and rows of a row group of Parquet, which are held until it is written.
BATCH_ROWS, GROUP_ROWS = 8_192, 16_384
#: Bytes of a page: each column holds some of them while a row group is written.
_PAGE_BYTES = 1 << 16
#: Characters with which spreadsheets take a text for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv(batches: Iterable[pl.DataFrame], table: Table) -> Iterator[bytes]:
    """Write rows as CSV in UTF-8, with a line of names; nested values are JSON, times are UTC.

    A text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    header = True
    for rows in batches:
        if header or rows.height:
            written = pl.DataFrame([_written(one) for one in rows])
            piece = io.BytesIO()
            written.write_csv(piece, include_header=header, datetime_format="%Y-%m-%d %H:%M:%S%.6f")
            yield piece.getvalue()
            header = False
    if header:
        yield pl.DataFrame(schema=dict.fromkeys(table.schema.names(), pl.String)).write_csv().encode()


def _written(column: pl.Series) -> pl.Series:
    """Return a column as CSV has it; values become Python objects only where there is no other way."""
    if column.dtype == pl.String:
        return _harmless(column)
    if column.dtype == pl.Binary:
        texts = column.cast(pl.String, strict=False)
        return _harmless(texts) if texts.null_count() == column.null_count() else _each(column)
    if isinstance(column.dtype, pl.List) and not column.list.len().max():  # headers, mostly
        return pl.select(pl.when(column.is_not_null()).then(pl.lit("[]"))).to_series().alias(column.name)
    return _each(column) if column.dtype.is_nested() else column


def _harmless(texts: pl.Series) -> pl.Series:
    found = pl.lit(value=False)
    for one in _FORMULA:
        found |= pl.lit(texts).str.starts_with(one)
    return (
        pl.select(pl.when(found).then("'" + pl.lit(texts)).otherwise(pl.lit(texts)))
        .to_series()
        .alias(texts.name)
    )


def _each(column: pl.Series) -> pl.Series:
    return pl.Series(
        column.name, [None if one is None else _text(one) for one in column.to_list()], pl.String
    )


def _text(value: Any) -> str:
    text = cell(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def parquet(batches: Iterable[pl.DataFrame], table: Table) -> Iterator[bytes]:
    """Write rows as Parquet, in the types of the lake."""
    schema, sink = arrow_schema(table), _Pieces()
    pages = {"data_page_size": _PAGE_BYTES, "dictionary_pagesize_limit": _PAGE_BYTES}
    with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), schema, compression="zstd", **pages) as writer:
        for group in _groups(batches, schema):
            writer.write_table(group)
            yield from sink.taken()
    yield from sink.taken()


def _groups(batches: Iterable[pl.DataFrame], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for one in batches:
        if one.height:
            waiting.append(one.to_arrow().select(schema.names).cast(schema))
            rows += one.height
        if rows >= GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


class _Pieces(io.RawIOBase):
    """A file that is only written to, of which others take what has been written so far."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def tell(self) -> int:
        return self._at

    def taken(self) -> Iterator[bytes]:
        parts, self._parts = self._parts, []
        if parts:
            yield b"".join(parts)


WRITERS: dict[str, Callable[[Iterable[pl.DataFrame], Table], Iterator[bytes]]] = {
    "csv": csv,
    "parquet": parquet,
}
