"""Tables of two versions of a contract, and rows for them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from headrace.contracts.dtypes import instance
from headrace.contracts.growth.type_text import type_json
from headrace.core.batch import ORIGIN_SCHEMA, Table
from headrace.lake.delta import DeltaLakeTable

DAY = date(2026, 1, 2)
LANDED = datetime(2026, 6, 1, tzinfo=UTC)
CURSOR = "test/0"


def table(
    columns: Mapping[str, Any], version: int = 1, required: frozenset[str] = frozenset(), **more: Any
) -> Table:
    """A table of these columns, beside ``id``, its day and where rows came from."""
    fields = [
        {"name": name, "type": type_json(instance(dtype)), "required": name in required}
        for name, dtype in columns.items()
    ]
    said = {"version": version, "fields": fields, **more}
    return Table(
        name="things",
        schema=pl.Schema({"id": pl.String(), **columns, "day": pl.Date(), **ORIGIN_SCHEMA}),
        partition="day",
        order_by=("id",),
        nullable=frozenset({*columns, "_offset", "_message_id", "_key"}) - required,
        version=version,
        description_json=json.dumps(said, default=str),
        **more,
    )


def rows(
    of: Table, values: Sequence[Mapping[str, Any]], start: int = 0, cursor: str = CURSOR
) -> pl.DataFrame:
    """Rows of a table as they land, with offsets from ``start``."""
    origin = {
        "_source": "test",
        "_cursor": cursor,
        "_index": 0,
        "_headers": [],
        "_ingested_at": LANDED,
        "_batch_id": "b",
        "day": DAY,
    }
    made = [
        {**dict.fromkeys(of.schema), **origin, "id": f"{cursor}-{start + n}", "_offset": start + n, **one}
        for n, one in enumerate(values)
    ]
    return pl.DataFrame(made, schema=of.schema)


def today() -> datetime:
    """Return the beginning of the day (UTC); a suite may run past midnight, so ask anew in each test."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def dated(lake: DeltaLakeTable, version: int, at: datetime) -> None:
    """Have a commit of a table on the disk say that it was made at a time, and its file, too."""
    file = Path(lake.uri) / "_delta_log" / f"{version:020d}.json"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            line["commitInfo"]["timestamp"] = int(at.timestamp() * 1000)
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    os.utime(file, (at.timestamp(),) * 2)


@dataclass(frozen=True)
class Change:
    """A change of one column, with values before and after.

    Attributes:
        name: What kind of change it is.
        before: The table as it was.
        after: The table as it is.
        old: Columns of a row by the old contract.
        new: Columns of a row by the new one.
        old_read: The old row, as Headrace reads it by the new contract.
        old_plain: The old row, as other programs read it.
        new_plain: The new row, as other programs read it.
    """

    name: str
    before: Table
    after: Table
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    old_read: Mapping[str, Any] = field(default_factory=dict)
    old_plain: Mapping[str, Any] | None = None
    new_plain: Mapping[str, Any] | None = None

    @property
    def read(self) -> list[dict[str, Any]]:
        """An old row, a new one and an old one, as Headrace reads them by the new contract."""
        found = (self.old_read, {**self.old_read, **self.new}, self.old_read)
        return [{name: row[name] for name in self.old_read} for row in found]


def _widened(name: str, narrow: Any, wide: Any, old: Any, new: Any, read: Any = None) -> Change:
    read = old if read is None else read
    return Change(
        name,
        table({"x": narrow}),
        table({"x": wide}, 2),
        {"x": old},
        {"x": new},
        {"x": read},
        {"x": read},
        {"x": new},
    )


_STRUCT = pl.Struct({"a": pl.Int32})
_MORE = pl.Struct({"a": pl.Int64, "b": pl.String})
CHANGES = [
    Change(
        "added",
        table({"x": pl.String()}),
        table({"x": pl.String(), "country": pl.String()}, 2),
        {"x": "old"},
        {"x": "new", "country": "CH"},
        {"x": "old", "country": None},
    ),
    Change(
        "added with a default",
        table({"x": pl.String()}),
        table({"x": pl.String(), "channel": pl.String()}, 2, fills={"channel": "web"}),
        {"x": "old"},
        {"x": "new", "channel": "app"},
        {"x": "old", "channel": "web"},
        {"x": "old", "channel": None},
    ),
    _widened("Int32 to Int64", pl.Int32(), pl.Int64(), -7, 2**40),
    _widened("Int8 to Int16", pl.Int8(), pl.Int16(), -7, 2**14),
    _widened("UInt8 to UInt16", pl.UInt8(), pl.UInt16(), 250, 2**15 + 1),
    _widened("UInt32 to UInt64", pl.UInt32(), pl.UInt64(), 2**31, 2**63 + 1),
    _widened("Int64 to Float64", pl.Int64(), pl.Float64(), 2**53 + 1, 0.5, float(2**53)),
    _widened("Int32 to Float64", pl.Int32(), pl.Float64(), -7, 0.5, -7.0),
    _widened("Float32 to Float64", pl.Float32(), pl.Float64(), 1.5, 1e300),
    _widened("a list", pl.List(pl.Int32()), pl.List(pl.Int64()), [1, None], [2**40]),
    _widened("a struct", _STRUCT, _MORE, {"a": 1}, {"a": 2**40, "b": "c"}, {"a": 1, "b": None}),
    Change(
        "renamed",
        table({"shop": pl.String()}),
        table({"store": pl.String()}, 2, renamed={"store": ("shop",)}),
        {"shop": "Bern"},
        {"store": "Biel"},
        {"store": "Bern"},
        {"shop": "Bern", "store": None},
        {"shop": None, "store": "Biel"},
    ),
    Change(
        "renamed, widened and filled",
        table({"count": pl.Int32()}, fills={"count": 1}),
        table({"amount": pl.Int64()}, 2, renamed={"amount": ("count",)}, fills={"amount": 1}),
        {"count": None},
        {"amount": 2**40},
        {"amount": 1},
        {"count": None, "amount": None},
        {"count": None, "amount": 2**40},
    ),
    Change(
        "retired",
        table({"legacy": pl.String()}),
        table({"legacy": pl.String()}, 2, retired=frozenset({"legacy"})),
        {"legacy": "old"},
        {"legacy": None},
        {"legacy": "old"},
    ),
    Change(
        "null allowed",
        table({"x": pl.String()}, required=frozenset({"x"})),
        table({"x": pl.String()}, 2),
        {"x": "old"},
        {"x": None},
        {"x": "old"},
    ),
    Change(
        "a check",
        table({"x": pl.Int64()}),
        table({"x": pl.Int64()}, 2),
        {"x": 5_000},
        {"x": 1},
        {"x": 5_000},
    ),
]
