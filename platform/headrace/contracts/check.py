"""A micro-batch against its contract: good rows and rejected rows, nothing in between."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandera.polars as pa
import polars as pl

from headrace.batch import HEADERS, ORIGIN_SCHEMA, REJECTED_SCHEMA, UTC_MICROS, Checked, MicroBatch
from headrace.contracts.base import Contract
from headrace.contracts.decode import Decoded, Failures, decode, record_at
from headrace.errors import Fatal

_NO_HEADERS = pl.lit([], dtype=HEADERS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted, beyond the contract itself.

    Attributes:
        max_message_bytes: Longer messages are rejected whole.
        event_time_min: Earliest accepted event time.
        event_time_ahead: Latest accepted event time, after the moment of ingestion.
    """

    max_message_bytes: int = 524_288
    event_time_min: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    event_time_ahead: timedelta = timedelta(hours=1)


def check(contract: Contract, batch: MicroBatch, *, batch_id: str, now: datetime, limits: Limits) -> Checked:
    """Decode and validate a micro-batch.

    Every message ends in ``good``, in ``rejected``, or, if it holds an array, with some records in each: the
    origins in the two together are exactly the batch's messages.

    Args:
        contract: What the records should be.
        batch: The messages.
        batch_id: Recorded with every row.
        now: Moment of ingestion (UTC), recorded with every row and the base of the time window.
        limits: See ``Limits``.
    """
    decoded = decode(contract, batch.records["payload"], limits.max_message_bytes)
    _validate(contract, decoded, now, limits)
    return _split(contract, batch, decoded, batch_id, now)


def violations(contract: Contract, rows: pl.DataFrame) -> dict[tuple[str, str], int]:
    """What landed rows break of their contract: how many by (column, check). Nothing, unless somebody else wrote them.

    The time window is left out: it holds for the moment of ingestion.
    """
    try:
        contract.schema.validate(rows.select(c.name for c in contract.columns), lazy=True)
    except pa.errors.SchemaErrors as error:
        found = error.failure_cases.group_by("column", "check").len().sort("column", "check")
        return {(str(column), _check_name(str(check))): n for column, check, n in found.iter_rows()}
    return {}


def _validate(contract: Contract, decoded: Decoded, now: datetime, limits: Limits) -> None:
    """Run the Pandera schema lazily and add what fails to ``decoded.failures``."""
    # the same text in every batch, so that rejects can be counted by reason
    said = f"event_time_window({limits.event_time_min:%Y-%m-%dT%H:%M:%SZ}, ingestion + {limits.event_time_ahead})"
    window = pa.Check.in_range(limits.event_time_min, now + limits.event_time_ahead, error=said)
    column = contract.schema.columns[contract.time]
    schema = contract.schema.update_column(contract.time, checks=[*column.checks, window])
    try:
        schema.validate(decoded.rows, lazy=True)
    except pa.errors.SchemaErrors as error:
        found = error.failure_cases
    else:
        return
    if found["index"].null_count():
        # a fault of the decoder, not of the data: dtypes are built from the contract
        case = found.filter(pl.col("index").is_null()).row(0, named=True)
        raise Fatal(f"contract {contract.name!r} does not fit its decoder: {case}")
    failures = decoded.failures
    named = set(zip(failures.row, failures.column, strict=True))
    unreadable = {row for row, name in named if not name}
    cases = found.select("index", "check", "column", "failure_case").cast(
        {"failure_case": pl.String, "index": pl.Int64}, strict=False
    )
    for row, name, col, value in cases.iter_rows():
        # a column that failed to decode is null by then: its null is no second reason
        if row not in unreadable and (row, col) not in named:
            failures.add(row, _check_name(name), col, value or "")


def _check_name(name: str) -> str:
    return "required" if name == "not_nullable" else name


def _split(contract: Contract, batch: MicroBatch, decoded: Decoded, batch_id: str, now: datetime) -> Checked:
    records = batch.records.select(
        pl.lit(batch.source).alias("_source"),
        pl.col("cursor").alias("_cursor"),
        pl.col("offset").alias("_offset"),
        pl.col("message_id").alias("_message_id"),
        pl.lit(now, dtype=UTC_MICROS).alias("_ingested_at"),
        pl.lit(batch_id).alias("_batch_id"),
        pl.col("key").alias("_key"),
        pl.col("headers").fill_null(_NO_HEADERS).alias("_headers"),
        "payload",
        pl.col("timestamp").alias("message_timestamp"),
    )
    whole = decoded.rows.height == records.height
    origin = (records if whole else records[decoded.message]).hstack([decoded.index.alias("_index")])
    bad = _mask(decoded.failures, decoded.rows.height)
    good = decoded.rows.hstack(origin.select(ORIGIN_SCHEMA.names()))
    if bad is not None:
        good = good.filter(~bad)
    good = good.with_columns(pl.col(contract.time).dt.date().alias(contract.partition))
    good = good.select(contract.landed_schema.names())
    if bad is None:
        return Checked(good, pl.DataFrame(schema=REJECTED_SCHEMA), batch_id)
    return Checked(good, _rejected(contract, origin.filter(bad), bad, decoded.failures), batch_id)


def _mask(failures: Failures, height: int) -> pl.Series | None:
    if not failures.row:
        return None
    rows = pl.Series(failures.row, dtype=pl.UInt32)
    return pl.int_range(height, dtype=pl.UInt32, eager=True).is_in(rows.unique().implode())


def _rejected(contract: Contract, origin: pl.DataFrame, bad: pl.Series, found: Failures) -> pl.DataFrame:
    failures: dict[str, Any] = {name: getattr(found, name) for name in ("row", "check", "column", "value")}
    reasons = (
        pl.DataFrame(
            failures, schema={"row": pl.UInt32, "check": pl.String, "column": pl.String, "value": pl.String}
        )
        .unique(maintain_order=True)
        .group_by("row")
        .agg(pl.struct("check", "column", "value").alias("reasons"))
        .sort("row")
    )
    at = bad.arg_true()
    if not reasons["row"].equals(at.cast(pl.UInt32).rename("row")):
        raise Fatal("the rejected rows and their reasons do not match; this is a defect of Headrace")
    payload = [
        payload and record_at(payload, index)
        for payload, index in origin.select("payload", "_index").iter_rows()
    ]
    return origin.with_columns(
        pl.Series("payload", payload, dtype=pl.Binary),
        reasons["reasons"],
        pl.lit(contract.name).alias("contract"),
        pl.lit(contract.version, dtype=pl.Int32).alias("contract_version"),
        pl.col("_ingested_at").dt.date().alias("rejected_date"),
    ).select(REJECTED_SCHEMA.names()).cast(REJECTED_SCHEMA)  # fmt: skip
