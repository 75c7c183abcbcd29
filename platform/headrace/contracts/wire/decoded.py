"""Define the result of decoding: one row per record, and the reasons found so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

#: Characters of a wrong value that its reason shows.
SHOWN = 256
#: Takes a message's row and its number of records. Returns check and value if it is refused whole, else None.
Refusal = Callable[[int, int], tuple[str, str] | None]


@dataclass(slots=True)
class Failures:
    """Reasons found so far, as columns.

    Attributes:
        row: The row that failed, in ``Decoded.rows``.
        check: The check that it failed.
        column: The wrong column; empty for the whole record.
        value: The value found, cut off.
    """

    row: list[int] = field(default_factory=list)
    check: list[str] = field(default_factory=list)
    column: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)

    def add(self, row: int, check: str, column: str = "", value: str = "") -> None:
        """Record that ``row`` failed ``check``."""
        self.row.append(row)
        self.check.append(check)
        self.column.append(column)
        self.value.append(value[:SHOWN])


@dataclass(slots=True)
class Decoded:
    """Decoded messages, one row per record.

    Attributes:
        rows: The contract's columns, typed; a failed column is null. If unknown fields are kept, ``_extra``
            follows.
        message: Row of the message in ``MicroBatch.records``, one per record.
        index: Place of the record in its message, one per record.
        failures: Reasons, by row.
        arrays: Messages that are arrays of records; any other message is one record.
        unknown: Records by field that the contract does not name.
    """

    rows: pl.DataFrame
    message: pl.Series
    index: pl.Series
    failures: Failures
    arrays: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
