"""Try records against a contract without landing them: what would land, and what would be rejected, with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl

from headrace.contracts import Contract, Limits, check_batch
from headrace.contracts.unknown import added
from headrace.core.batch import MicroBatch

#: Examples of each reason, characters of a payload in one, and keys that are compared at most (8 bytes each).
_EXAMPLES, _SHOWN, _MOST_KEYS = 3, 80, 20_000_000


@dataclass(frozen=True, slots=True)
class Example:
    """One rejected record.

    Attributes:
        place: Number of the record in its file, from 1, or partition and offset in its topic.
        value: The value that failed.
        payload: How the record begins.
    """

    place: str
    value: str
    payload: str


@dataclass(slots=True)
class Reason:
    """Records that fail one check of one column.

    Attributes:
        check: The check.
        column: The column; empty for the whole record.
        records: Number of records; one that fails several checks counts with each.
        examples: Some of them.
    """

    check: str
    column: str
    records: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """What would become of some records.

    Attributes:
        records: Records that were looked at.
        landed: Records that would land.
        rejected: Records that would be rejected.
        reasons: By check and column, the most frequent first.
        unknown: Records by field that the contract does not name.
        repeats: Records that would land with the key of another one.
        keys_compared: Whether ``repeats`` is of all of them; else of the first ones.
        days: Records that would land by UTC day.
    """

    records: int = 0
    landed: int = 0
    rejected: int = 0
    reasons: list[Reason] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    keys_compared: bool = True
    days: dict[date, int] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether there are records, and all of them would land."""
        return self.records > 0 and not self.rejected


def try_batches(contract: Contract, batches: Iterable[MicroBatch], limits: Limits, now: datetime) -> Trial:
    """Check batches as ingestion does, and count.

    Memory is bounded, except for 8 bytes per record by which keys are compared.

    Args:
        contract: What the records should be.
        batches: The records.
        limits: What the check accepts beside the contract.
        now: Moment of ingestion (UTC).
    """
    trial, reasons, keys, compared = Trial(), dict[tuple[str, str], Reason](), list[Any](), 0
    days: Counter[date] = Counter()
    for batch in batches:
        checked = check_batch(contract, batch, batch_id="trial", now=now, limits=limits)
        trial.landed += checked.good.height
        trial.rejected += checked.rejected.height
        trial.unknown = added(trial.unknown, checked.unknown)
        days.update(dict(checked.good[contract.partition].value_counts().iter_rows()))
        if compared < _MOST_KEYS:
            keys.append(checked.good[contract.key].hash().to_numpy())
            compared += checked.good.height
        _count(reasons, checked.rejected, batch)
    trial.records = trial.landed + trial.rejected
    trial.reasons = sorted(reasons.values(), key=lambda r: (-r.records, r.column, r.check))
    trial.repeats = compared - len(np.unique(np.concatenate(keys))) if keys else 0
    trial.keys_compared = compared == trial.landed
    trial.days = dict(sorted(days.items()))
    return trial


def _count(reasons: dict[tuple[str, str], Reason], rejected: pl.DataFrame, batch: MicroBatch) -> None:
    """Add a batch's rejected records to the reasons; a record counts once with each."""
    if not rejected.height:
        return
    long = rejected.select("_cursor", "_offset", "_index", "payload", "reasons").with_row_index("record")
    long = long.explode("reasons").unnest("reasons")
    counted = long.group_by("check", "column", maintain_order=True).agg(
        pl.col("record").n_unique(),
        pl.struct(pl.exclude("record", "check", "column")).head(_EXAMPLES).alias("some"),
    )
    for check, column, records, some in counted.iter_rows():
        reason = reasons.setdefault((check, column), Reason(check, column))
        reason.records += records
        reason.examples += [_example(one, batch.source) for one in some[: _EXAMPLES - len(reason.examples)]]


def _example(row: dict[str, Any], source: str) -> Example:
    if source.startswith("kafka/"):
        place = f"partition {row['_cursor'].rpartition('/')[2]} offset {row['_offset']:,}"
    else:
        place = f"record {row['_offset'] + 1:,}"
    if row["_index"]:
        place += f" element {row['_index'] + 1:,}"
    payload = (row["payload"] or b"")[: 4 * _SHOWN].decode("utf-8", "backslashreplace")
    return Example(
        place, row["value"], "".join(c if c.isprintable() else repr(c)[1:-1] for c in payload)[:_SHOWN]
    )


def in_parts(records: Iterable[Any], most: int, size: int) -> Iterator[list[Any]]:
    """Divide records of a file into lists of at most ``most`` records and about ``size`` bytes."""
    part: list[Any] = []
    held = 0
    for record in records:
        part.append(record)
        held += len(record[0])
        if len(part) == most or held >= size:
            yield part
            part, held = [], 0
    if part:
        yield part
