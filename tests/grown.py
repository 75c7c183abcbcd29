"""A contract of three versions that grew in every way, for tests."""

from __future__ import annotations

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, Was, field


class Orders(pa.DataFrameModel):
    """An order, as its shop sends it."""

    order_id: pl.String = field("the shop's id of the order", required=True)
    at: Time = field("when it was placed", required=True)
    quantity: pl.Int64 = field("pieces", ge=0, was={1: Was(dtype=pl.Int32)})
    store: pl.String = field("where", was={2: Was(name="shop")})
    price: pl.Float64 = field("of a piece, EUR", was={1: Was(dtype=pl.Int64)})
    country: pl.String = field("where to", since=2)
    channel: pl.String = field("how it came", required=True, since=2, default="web")
    amount: pl.Float64 = field("EUR", ge=0, le=1e6, was={1: Was(le=None)})
    legacy: pl.String = field(
        "no longer used", required=True, length=(1, 8), retired=3, moved_to="properties"
    )
    properties: pl.String = field("anything else, a JSON object", wire="object")
    schema_version: pl.Int32 = field("version of this contract", required=True)

    class Config:
        """Refuse columns that the model does not name."""

        strict = True


ORDERS = Contract(
    name="orders",
    version=3,
    model=Orders,
    key="order_id",
    time="at",
    partition="order_date",
    order_by=("at",),
    claims="schema_version",
)
