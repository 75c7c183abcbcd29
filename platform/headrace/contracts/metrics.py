"""The contract of ``metrics``: one row per named measurement."""

from __future__ import annotations

from typing import TypeAlias

import pandera.polars as pa
import polars as pl

from headrace.contracts.base import Contract, Time, field
from headrace.core.batch import STRING_MAP

KINDS = ("counter", "gauge", "histogram")
Labels: TypeAlias = STRING_MAP  # type: ignore[valid-type]


class Metrics(pa.DataFrameModel):
    """A measurement of one quantity at one moment."""

    metric_id: pl.String = field("the producer's id of the measurement", length=(1, 128), required=True)
    name: pl.String = field(
        "what is measured: lower case, digits, _ . : -",
        required=True,
        low_cardinality=True,
        str_matches=r"^[a-z][a-z0-9_.:-]{0,127}$",
    )
    kind: pl.String = field(
        f"one of {', '.join(KINDS)}", required=True, low_cardinality=True, isin=list(KINDS)
    )
    value: pl.Float64 = field("the measured value, in `unit`", required=True)
    unit: pl.String = field("unit of the value", length=(1, 32), low_cardinality=True)
    source: pl.String = field("who measured", length=(1, 128), required=True, low_cardinality=True)
    dimensions: Labels = field("labels, text to text", required=True, wire="map", default={})
    occurred_at: Time = field("when it was measured, RFC 3339 with a zone", required=True)
    schema_version: pl.Int32 = field("version of this contract", required=True)

    class Config:
        """Refuse columns that the model does not name."""

        strict = True


METRICS = Contract(
    name="metrics",
    version=1,
    model=Metrics,
    key="metric_id",
    time="occurred_at",
    partition="metric_date",
    order_by=("name", "source", "occurred_at"),
    claims="schema_version",
)
