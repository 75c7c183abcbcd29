"""Define the results of decoding: one row per record, and the reasons found so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

#: Reasons of one record that come from within one value of it.
MOST_REASONS = 32
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

    def take(self, found: Failures, rows: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Take over reasons whose rows have these numbers here, up to ``MOST_REASONS`` of each row."""
        taken: Counter[int] = Counter()
        for at, check, column, value in zip(found.row, found.check, found.column, found.value, strict=True):
            row = int(rows[at])
            taken[row] += 1
            if taken[row] <= MOST_REASONS:
                self.add(row, check, column, value)


@dataclass(frozen=True, slots=True)
class Raw:
    """Values as the message has them, one row per record.

    Attributes:
        fields: One column per wire field, in its ``dtype``; a field that failed is null.
        missing: Boolean, one column per marked wire field: true where the record lacks it.
        extra: JSON text of the fields that nobody looked for; None unless they are kept.
    """

    fields: pl.DataFrame
    missing: pl.DataFrame
    extra: pl.Series | None = None

    @classmethod
    def concat(cls, parts: Sequence[Raw]) -> Raw:
        """Put parts one below the other, in memory that is one piece."""
        extras = [part.extra for part in parts if part.extra is not None]
        return cls(
            pl.concat([part.fields for part in parts], rechunk=True),
            pl.concat([part.missing for part in parts], rechunk=True),
            pl.concat(extras, rechunk=True) if extras else None,
        )

    def filter(self, mask: pl.Series) -> Raw:
        """Keep the rows that are true in ``mask``."""
        extra = None if self.extra is None else self.extra.filter(mask)
        missing = self.missing.filter(mask) if self.missing.width else self.missing
        return Raw(self.fields.filter(mask), missing, extra)

    def gather(self, rows: pl.Series) -> Raw:
        """Return the rows with these numbers."""
        extra = None if self.extra is None else self.extra.gather(rows)
        missing = self.missing[rows] if self.missing.width else self.missing
        return Raw(self.fields[rows], missing, extra)


@dataclass(slots=True)
class Parsed:
    """Messages after the parser, one row per record: JSON types are right, columns not typed yet.

    Attributes:
        raw: The values.
        message: Row of the message in ``MicroBatch.records``, one per record.
        index: Place of the record in its message, one per record.
        failures: Reasons, by row.
        arrays: Messages that are arrays of records; any other message is one record.
        unknown: Records by field that nobody looked for.
        absent: Boolean, one column per marked field at the top of a message: true where the record lacks it.
    """

    raw: Raw
    message: pl.Series
    index: pl.Series
    failures: Failures = field(default_factory=Failures)
    arrays: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    absent: pl.DataFrame | None = None


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
        absent: Boolean, one column per marked field at the top of a message: true where the record lacks it.
    """

    rows: pl.DataFrame
    message: pl.Series
    index: pl.Series
    failures: Failures
    arrays: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    absent: pl.DataFrame = field(default_factory=pl.DataFrame)
