"""A contract with a column of every type, and a record that has a value in each."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field, map_of
from headrace.core.batch import STRING_MAP

Labels: TypeAlias = STRING_MAP  # type: ignore[valid-type]
Prices: TypeAlias = map_of(pl.Float64)  # type: ignore[valid-type]
Visits: TypeAlias = map_of(pl.List(pl.UInt16))  # type: ignore[valid-type]
Address: TypeAlias = pl.Struct(  # type: ignore[valid-type]
    {
        "zip": pl.String,
        "number": pl.UInt8,
        "since": pl.Date,
        "tags": pl.List(pl.String),
        "at": pl.Struct({"lat": pl.Float32, "price": pl.Decimal(20, 4)}),
    }
)


class Wide(pa.DataFrameModel):
    """A record of every type."""

    id: pl.String = field("key", required=True)
    at: Time = field("time", required=True)
    text: pl.String = field("text")
    flag: pl.Boolean = field("boolean")
    i8: pl.Int8 = field("integer")
    i16: pl.Int16 = field("integer")
    i32: pl.Int32 = field("integer")
    i64: pl.Int64 = field("integer")
    u8: pl.UInt8 = field("integer")
    u16: pl.UInt16 = field("integer")
    u32: pl.UInt32 = field("integer")
    u64: pl.UInt64 = field("integer")
    f32: pl.Float32 = field("number")
    f64: pl.Float64 = field("number")
    day: pl.Date = field("date")
    price: Annotated[pl.Decimal, 10, 2] = field("decimal")
    wei: Annotated[pl.Decimal, 38, 18] = field("decimal of all digits")
    kind: Annotated[pl.Enum, ["web", "mobile", ""]] = field("enum")
    uid: pl.String = field("uuid", wire="uuid")
    blob: pl.Binary = field("binary")
    anything: pl.String = field("object", wire="object")
    tags: Annotated[pl.List, pl.String] = field("list")
    sizes: Annotated[pl.List, pl.UInt64] = field("list")
    days: Annotated[pl.List, pl.Date] = field("list")
    matrix: Annotated[pl.List, pl.List(pl.Int16)] = field("list of lists")
    places: Annotated[pl.List, pl.Struct({"name": pl.String, "fee": pl.Decimal(8, 3)})] = field(
        "list of structs"
    )
    address: Address = field("struct")
    labels: Labels = field("map")
    prices: Prices = field("map")
    visits: Visits = field("map of lists")
    # with defaults: a record may lack them
    on: pl.Boolean = field("default", default=True)
    n8: pl.UInt8 = field("default", default=7, required=True)
    big: pl.UInt64 = field("default", default=2**64 - 1, required=True)
    ratio: pl.Float32 = field("default", default=0.5, required=True)
    first: pl.Date = field("default", default=date(2020, 2, 29), required=True)
    fee: Annotated[pl.Decimal, 6, 3] = field("default", default=Decimal("1.250"), required=True)
    state: Annotated[pl.Enum, ["new", "old"]] = field("default", default="new", required=True)
    owner: pl.String = field(
        "default", wire="uuid", default="00000000-0000-0000-0000-000000000001", required=True
    )
    notes: Annotated[pl.List, pl.String] = field("default", default=[], required=True)

    class Config:
        """Refuse columns that the model does not name."""

        strict = True


WIDE = Contract(
    name="wide", version=1, model=Wide, key="id", time="at", partition="wide_date", order_by=("state", "at")
)

#: A value of each type as JSON.
RECORD: dict[str, Any] = {
    "id": "1",
    "at": "2026-01-02T03:04:05.678901Z",
    "text": "é",
    "flag": True,
    "i8": -128,
    "i16": 32767,
    "i32": -(2**31),
    "i64": 2**63 - 1,
    "u8": 255,
    "u16": 65535,
    "u32": 2**32 - 1,
    "u64": 2**64 - 1,
    "f32": 0.1,
    "f64": 0.1,
    "day": "2024-02-29",
    "price": 12.5,
    "wei": "12345678901234567890.123456789012345678",
    "kind": "web",
    "uid": "123E4567-e89b-12d3-a456-426614174000",
    "blob": "AP8=",
    "anything": {"a": [1, {"b": None}]},
    "tags": ["a", None, ""],
    "sizes": [0, 2**64 - 1, None],
    "days": ["1900-01-01", "2299-12-31"],
    "matrix": [[1, None], [], None],
    "places": [{"name": "x", "fee": "1.125"}, None, {"name": None}],
    "address": {
        "zip": "10115", "number": 7, "since": "1999-12-31", "tags": ["q"],
        "at": {"lat": 52.5, "price": 0.0001},
    },
    "labels": {"a": "b"},
    "prices": {"a": 1.5, "b": None},
    "visits": {"a": [1, 2], "b": None},
}  # fmt: skip


def wide(**changes: Any) -> bytes:
    """A good record as a message, with changes."""
    return json.dumps({**RECORD, **changes}).encode()
