"""Decode a micro-batch of a contract that declares shaping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from headrace.contracts.shaping.computed import compute, constants
from headrace.contracts.shaping.read import read
from headrace.contracts.unknown import EXTRA
from headrace.contracts.wire.decode import finished
from headrace.contracts.wire.decoded import Decoded, Refusal
from headrace.contracts.wire.structs import never

if TYPE_CHECKING:
    from headrace.contracts.base import Contract


def read_shaped(
    contract: Contract, payloads: pl.Series, max_message_bytes: int, refusal: Refusal = never
) -> Decoded:
    """Decode messages to the columns that are read from them; the counterpart of ``wire.decode.decode``.

    Args:
        contract: What the records should be.
        payloads: Binary, one per message.
        max_message_bytes: Longer messages fail whole.
        refusal: Called for each message that is an array.
    """
    shaping = contract.shaping
    assert shaping is not None
    return finished(contract, read(shaping.plan, contract.unknown, payloads, max_message_bytes, refusal))


def complete(contract: Contract, records: pl.DataFrame, decoded: Decoded) -> None:
    """Add what a contract computes to the columns that were read.

    Args:
        contract: What the records should be.
        records: ``MicroBatch.records``.
        decoded: Its records; gets the other columns, and further reasons.

    Raises:
        Fatal: A derived field does not fit the contract's columns.
    """
    shaping = contract.shaping
    assert shaping is not None
    if shaping.constants:
        decoded.rows = decoded.rows.with_columns(constants(shaping, decoded.rows.height))
    compute(contract, shaping, records, decoded)
    wanted = [column.name for column in contract.fields] + ([EXTRA] if contract.unknown == "keep" else [])
    if decoded.rows.columns != wanted:
        decoded.rows = decoded.rows.select(wanted)


def consequences(contract: Contract, cases: pl.DataFrame, reasons: pl.DataFrame) -> pl.DataFrame:
    """Leave out failed checks of computed fields whose input has failed in the same record.

    Args:
        contract: The contract.
        cases: Failed checks: row, check, column and value.
        reasons: Reasons so far, in the same columns.
    """
    assert contract.shaping is not None
    pairs = [(name, one) for name, needs in contract.shaping.needs.items() for one in sorted(needs)]
    if not pairs or cases.is_empty():
        return cases
    known = pl.DataFrame(pairs, schema={"column": pl.String, "input": pl.String}, orient="row")
    failed = pl.concat([reasons, cases]).select(
        "row", pl.col("column").str.extract(r"^([^.\[]*)").alias("input")
    )
    followed = cases.join(known, on="column").join(failed, on=["row", "input"], how="semi")
    return cases.join(followed, on=["row", "column"], how="anti", maintain_order="left")
