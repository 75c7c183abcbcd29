"""Tell how a contract's columns and those of a lake table fit together.

A table only ever gains columns and wider types. So a process finds one that lacks columns of its contract, or one
that a newer contract has changed. Files keep the columns that they were written with; readers of any version see
null for the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from headrace.core.batch import ORIGIN_SCHEMA, Table
from headrace.core.widening import widens
from headrace.lake.arrow import arrow_schema, converted

#: Property of a table: how its columns are read, by those who do not know the contract that added them.
READING = "headrace.columns"


@dataclass(frozen=True)
class Layout:
    """The columns of a lake table beside those of a contract.

    Attributes:
        own: The contract's table, with the table's types where they are wider. New files have these columns.
        kept: The lake table's columns in its types. Files that are rewritten keep them all.
        raw: ``own`` and all other columns of the lake table, of which ``view`` is made.
        view: ``own`` and the columns that the contract does not know, as they are read.
        lacking: Columns of the contract that the table lacks, or has in a narrower type.
        refused: Columns of the contract whose type neither widens to the table's nor the other way, with both.
        rewritten: Columns that the table has in a type which readers do not widen by themselves.
    """

    own: Table
    kept: Table
    raw: Table
    view: Table
    lacking: tuple[str, ...] = ()
    refused: Mapping[str, tuple[pl.DataType, pl.DataType]] = field(default_factory=dict)
    rewritten: tuple[str, ...] = ()

    @cached_property
    def simple(self) -> bool:
        """Whether columns are read as they are in files."""
        return not (self.view.renamed or self.view.fills)

    def takes(self, table: Table) -> bool:
        """Tell whether files with a table's columns may be added."""
        fits = table.schema == self.own.schema and not (self.lacking or self.refused)
        return fits or table.schema == self.kept.schema

    def needed(self, names: Iterable[str]) -> list[str]:
        """Return the columns of files that columns of ``view`` are made of."""
        there, renamed = self.raw.schema, self.view.renamed
        found = [one for name in names for one in (name, *renamed.get(name, ())) if one in there]
        return list(dict.fromkeys(found))

    def select(self, names: Iterable[str]) -> list[pl.Expr]:
        """Make columns of ``view`` from those of files, which are then in the types of ``raw``."""
        return [self._column(name) for name in names]

    def _column(self, name: str) -> pl.Expr:
        if name in ORIGIN_SCHEMA:  # so that a filter by them reaches the files
            return pl.col(name)
        dtype = self.view.schema[name]
        sources = [pl.col(one).cast(dtype) for one in self.needed([name])]
        if name in self.view.fills:
            sources.append(pl.lit(self.view.fills[name]).cast(dtype))
        return pl.coalesce(*sources).alias(name) if len(sources) > 1 else sources[0].alias(name)


def layout_of(table: Table, there: Mapping[str, pl.DataType], reading: str) -> Layout:
    """Compare a contract's table with a lake table.

    Args:
        table: The contract's.
        there: Columns of the lake table, with the dtypes in which they are stored (``stored``).
        reading: What ``reading_of`` has told of it; empty for nothing.
    """
    ours_stored = stored(arrow_schema(table))
    wider, lacking, rewritten = dict(table.schema), [], []
    refused: dict[str, tuple[pl.DataType, pl.DataType]] = {}
    for name, ours in ours_stored.items():
        theirs = there.get(name)
        if theirs is None:
            lacking.append(name)
        elif theirs != ours:
            if _widens(theirs, ours):
                lacking.append(name)
                rewritten += [name] if refused_by_readers(theirs, ours) else []
            elif _widens(ours, theirs):
                wider[name] = theirs
            else:
                refused[name] = theirs, ours
    own = replace(table, schema=pl.Schema(wider))
    aliases, fills = _reading(own, reading, there)
    others = {name: dtype for name, dtype in there.items() if name not in table.schema}
    old_names = {one for name in table.schema for one in table.renamed.get(name, ())}
    foreign = {name: dtype for name, dtype in others.items() if name not in old_names}
    plain = replace(own, renamed={}, fills={}, nullable=own.nullable | {*others})
    raw = replace(plain, schema=pl.Schema({**wider, **others}))
    as_there = {n: wider[n] if n in wider and n not in lacking else dtype for n, dtype in there.items()}
    kept = replace(plain, schema=pl.Schema(as_there))
    for name, other in aliases.items():  # a newer contract may have widened what it has renamed
        for one in other if name in wider else ():
            wider[name] = there[one] if widens(wider[name], there[one]) else wider[name]
    view = replace(
        own,
        schema=pl.Schema({**wider, **foreign}),
        nullable=own.nullable | {*foreign},
        renamed=aliases,
        fills=fills,
    )
    return Layout(own, kept, raw, view, tuple(lacking), refused, tuple(rewritten))


def stored(schema: pa.Schema) -> dict[str, pl.DataType]:
    """Return the dtypes of columns as they are stored."""
    return dict(pl.DataFrame(pl.from_arrow(schema.empty_table())).schema)


def _widens(old: pl.DataType, new: pl.DataType) -> bool:
    # unsigned 64 bits are stored as decimals, into which unsigned 32 bits (64 signed) widen
    return widens(old, new) or (old.is_integer() and new == pl.Decimal(20, 0))


def refused_by_readers(old: pl.DataType, new: pl.DataType) -> bool:
    """Tell whether readers refuse old files: Polars takes no integers for a column of doubles or decimals."""
    if isinstance(old, pl.List) and isinstance(new, pl.List):
        return refused_by_readers(_instance(old.inner), _instance(new.inner))
    if isinstance(old, pl.Struct) and isinstance(new, pl.Struct):
        members = {f.name: _instance(f.dtype) for f in new.fields}
        return any(
            refused_by_readers(_instance(f.dtype), members[f.name]) for f in old.fields if f.name in members
        )
    return old.is_integer() and (new.is_float() or new.is_decimal())


def _instance(dtype: Any) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[no-any-return]


def reading_of(table: Table, before: str) -> str:
    """Describe as text how a table's columns are read, after what a table has said of itself so far."""
    known = json.loads(before) if before else {}
    renamed = {**known.get("renamed", {}), **{name: list(old) for name, old in sorted(table.renamed.items())}}
    fills = {**known.get("fills", {}), **{name: _plain(value) for name, value in sorted(table.fills.items())}}
    return json.dumps({"renamed": renamed, "fills": fills}, sort_keys=True) if renamed or fills else ""


def _plain(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _reading(
    own: Table, reading: str, there: Mapping[str, pl.DataType]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Any]]:
    """Return other names and fills of the columns of a view, of the contract's and of what the table says."""
    said = json.loads(reading) if reading else {}
    aliases: dict[str, tuple[str, ...]] = {}
    for name, old in said.get("renamed", {}).items():
        if name in there:
            aliases[name] = tuple(old)
        for one in old:  # an old contract's own name of it
            if one in own.schema and name not in own.schema:
                aliases[one] = (name, *(other for other in old if other != one))
    aliases |= own.renamed
    aliases = {name: kept for name, old in aliases.items() if (kept := tuple(o for o in old if o in there))}
    foreign = {n: _value(v, there[n]) for n, v in said.get("fills", {}).items() if n in there}
    return aliases, {**{n: v for n, v in foreign.items() if n not in own.schema}, **own.fills}


def _value(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, str) and isinstance(dtype, pl.Datetime):
        return datetime.fromisoformat(value)
    if isinstance(value, str) and dtype == pl.Date:
        return date.fromisoformat(value)
    return Decimal(value) if isinstance(value, str) and dtype.is_decimal() else value


def same_columns(schema: pa.Schema, table: Table) -> bool:
    """Tell whether a file has exactly a table's columns, in its types."""
    expected = arrow_schema(table)
    if set(schema.names) != set(expected.names):
        return False
    return all(schema.field(one.name).type == one.type for one in expected) or (
        stored(schema) == stored(expected)
    )


def conform(rows: pa.Table, table: Table, day: date | None) -> pa.Table:
    """Give rows of a file a table's columns: those of other names, wider, filled, or null."""
    schema, found = arrow_schema(table), []
    there = set(rows.column_names)
    for one in schema:
        if one.name == table.partition:
            found.append(pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows))
            continue
        names = [name for name in (one.name, *table.renamed.get(one.name, ())) if name in there]
        parts = [converted(rows.column(name), one.type) for name in names]
        column = parts[0] if parts else pa.nulls(rows.num_rows, one.type)
        if len(parts) > 1 and column.null_count:
            column = pc.coalesce(*parts)
        if one.name in table.fills and column.null_count:
            column = pc.coalesce(column, pa.scalar(table.fills[one.name], one.type))
        found.append(column)
    return pa.table(found, schema=schema)
