"""The verdict on one cell, from the source's side. Pure functions over what was observed.

What counts is what a broker acknowledged: ids and offsets that producers were told are safe, and a topic's end
minus begin offsets. The target's own counts prove nothing and are never compared with themselves.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Where a broker put a message: partition and offset, or queue and message id.
Message = tuple[str, int | str]
#: Where a row came from: the message and the place within it.
Row = tuple[str, int | str, int]


class Verdict(enum.StrEnum):
    """VERIFIED: nothing lost, nothing twice. VIOLATED: something was. UNVERIFIED: the check itself failed."""

    VERIFIED = "VERIFIED"
    VIOLATED = "VIOLATED"
    UNVERIFIED = "UNVERIFIED"
    SKIPPED = "SKIPPED"


@dataclass(frozen=True)
class Records:
    """Records that a message holds: those that must land and those that must be rejected."""

    good: int
    rejected: int


@dataclass(frozen=True)
class Evidence:
    """What was seen of one cell.

    Attributes:
        acknowledged: What producers were told is safe, and what each message holds.
        held: End minus begin offsets over all partitions; None for a queue, which has none.
        lake_good, lake_rejected, warehouse_good, warehouse_rejected: Every row by origin, repetitions included.
        forgotten: Acknowledged messages that the broker itself lost and that Headrace named.
        objections: What the concurrent reader or the scenario saw that must never be.
        unreadable: Why parts of the above could not be had.
        window_hit: Whether the fault really struck where it was meant to.
    """

    acknowledged: Mapping[Message, Records]
    held: int | None
    lake_good: Sequence[Row]
    lake_rejected: Sequence[Row]
    warehouse_good: Sequence[Row]
    warehouse_rejected: Sequence[Row]
    forgotten: frozenset[Message] = frozenset()
    objections: Sequence[str] = ()
    unreadable: Sequence[str] = ()
    window_hit: bool = True


@dataclass(frozen=True)
class Judgement:
    """Counts of one cell and what they mean.

    Attributes:
        acknowledged: Messages, from the source's side.
        landed: Distinct messages of which the lake holds any row.
        rejected: Rows of the rejected table.
        warehouse: Rows of both warehouse tables.
        lost: Messages, records or warehouse rows that are missing.
        doubled: Rows too many.
        reasons: In words.
    """

    verdict: Verdict
    acknowledged: int = 0
    landed: int = 0
    rejected: int = 0
    warehouse: int = 0
    lost: int = 0
    doubled: int = 0
    reasons: list[str] = field(default_factory=list)


def judge(seen: Evidence) -> Judgement:
    """Compare both targets with the source.

    Returns:
        VIOLATED if anything is lost or doubled or the reader objected; UNVERIFIED if something could not be
        read, nothing was acknowledged or the window was missed; else VERIFIED.
    """
    lake = [*seen.lake_good, *seen.lake_rejected]
    landed = {row[:2] for row in lake}
    reasons: list[str] = []

    missing = set(seen.acknowledged) - landed - seen.forgotten
    unseen = max(0, (seen.held or 0) - len(landed)) if not seen.forgotten else 0
    lost_messages = max(len(missing), unseen)
    _say(reasons, lost_messages, "messages are not in the lake", sorted(missing, key=str))

    twice = [row for row, n in Counter(lake).items() if n > 1]
    doubled = len(lake) - len(set(lake))
    _say(reasons, doubled, "rows too many in the lake", twice)

    lost_records, extra_records = _records(seen, landed)
    _say(reasons, lost_records, "records of landed messages are not in the lake", [])
    _say(reasons, extra_records, "records in the lake that no message holds", [])

    lost_rows = doubled_rows = 0
    tables = (
        ("good", seen.lake_good, seen.warehouse_good),
        ("rejected", seen.lake_rejected, seen.warehouse_rejected),
    )
    for name, there, here in tables:
        absent, strange = set(there) - set(here), set(here) - set(there)
        again = len(here) - len(set(here)) + len(strange)
        _say(
            reasons, len(absent), f"{name} rows of the lake are not in the warehouse", sorted(absent, key=str)
        )
        _say(reasons, again, f"{name} rows too many in the warehouse", sorted(strange, key=str))
        lost_rows += len(absent)
        doubled_rows += again

    lost, doubled = lost_messages + lost_records + lost_rows, doubled + extra_records + doubled_rows
    return Judgement(
        _verdict(seen, lost, doubled),
        acknowledged=max(len(seen.acknowledged), seen.held or 0),
        landed=len(landed),
        rejected=len(seen.lake_rejected),
        warehouse=len(seen.warehouse_good) + len(seen.warehouse_rejected),
        lost=lost,
        doubled=doubled,
        reasons=[
            *seen.unreadable,
            *([] if seen.window_hit else ["window missed"]),
            *seen.objections,
            *reasons,
        ],
    )


def _verdict(seen: Evidence, lost: int, doubled: int) -> Verdict:
    if seen.unreadable:
        return Verdict.UNVERIFIED
    if lost or doubled or seen.objections:
        return Verdict.VIOLATED
    return Verdict.VERIFIED if seen.acknowledged and seen.window_hit else Verdict.UNVERIFIED


def _records(seen: Evidence, landed: set[Message]) -> tuple[int, int]:
    """Records missing from, and too many in, messages that did land."""
    good = Counter(row[:2] for row in set(seen.lake_good))
    rejected = Counter(row[:2] for row in set(seen.lake_rejected))
    lost = extra = 0
    for message, records in seen.acknowledged.items():
        if (
            message not in landed or message in seen.forgotten
        ):  # a part may have landed before the rest was lost
            continue
        for want, have in ((records.good, good[message]), (records.rejected, rejected[message])):
            lost += max(0, want - have)
            extra += max(0, have - want)
    return lost, extra


def _say(reasons: list[str], count: int, what: str, examples: Sequence[object]) -> None:
    if count:
        shown = f", e.g. {examples[0]}" if examples else ""
        reasons.append(f"{count} {what}{shown}")
