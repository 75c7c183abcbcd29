"""Verdicts on a stream's health, as plain values.

Each judge is named after the check that it decides. It is given what was measured and asks no service. Dagster's
checks, ``headrace status`` and exporters share them, so that all of them say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from headrace.alerts import length
from headrace.collector.held import Held
from headrace.contracts import unknown
from headrace.core.batch import Position
from headrace.health.audit import Audit, Skipped
from headrace.health.freshness import Freshness
from headrace.health.parity import Parity
from headrace.health.reject_rate import Arrived

Severity = Literal["error", "warning"]

#: Rejected rows below which a rate is no error: 3 of 5 in a quiet stream is nothing to wake anybody for.
FLOOR = 20
#: Items that a description names; the metadata hold the others.
_NAMED = 3


class Markdown(str):
    """Text in Markdown."""

    __slots__ = ()


#: Figures behind a verdict: numbers, text, a time (UTC), or an object that JSON can hold.
Value = int | float | bool | str | Markdown | datetime | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one check.

    Attributes:
        passed: Whether what must hold does.
        description: One line for a person: the fault, or the figure that shows its absence.
        metadata: Figures by name.
        severity: Weight of a failure.
    """

    passed: bool
    description: str
    metadata: Mapping[str, Value] = field(default_factory=dict)
    severity: Severity = "error"


def every_message_once(audit: Audit, skipped: Skipped | None = None) -> Verdict:
    """Judge an audit of the lake, and what the brokers say of offsets that left no row.

    An offset without a row is normal where the broker itself has gaps: compaction, transaction markers, retention.
    It was skipped where the broker still has a message for it that no erasure has removed.

    Args:
        audit: The lake, counted by origin.
        skipped: Answers of the brokers; None if they were not asked.
    """
    skipped = skipped or Skipped()
    gaps = {c: sum(end - first for first, end in ranges) for c, ranges in audit.missing.items()}
    said = []
    if audit.doubled:
        said.append(
            f"{audit.doubled:,} rows are doubled: the same _cursor, _offset or _message_id, and _index"
        )
    said += [f"{c}: {n:,} messages beyond the position" for c, n in audit.beyond.items()]
    said += [
        f"{c}: the broker has messages of offsets {', '.join(f'{a} to {b - 1}' for a, b in ranges[:_NAMED])}"
        f"{f' and {len(ranges) - _NAMED:,} more ranges' if len(ranges) > _NAMED else ''}, which were skipped"
        for c, ranges in skipped.ranges.items()
    ]
    return Verdict(
        passed=not said,
        description="; ".join(said) or _all_in(audit),
        metadata={
            "messages": audit.messages,
            "good_rows": audit.good,
            "rejected_rows": audit.rejected,
            "doubled_rows": audit.doubled,
            "messages_restored_away": sum(audit.restored.values()),
            "offsets_without_message": gaps,
            "gaps_asked_for": skipped.asked,
            "gaps_not_asked_for": skipped.left,
        },
    )


def _all_in(audit: Audit) -> str:
    out = sum(audit.restored.values())
    return "every message is in once" + (f", but {out:,} that a restore took out" if out else "")


def offsets_reconcile(
    offsets: Mapping[str, tuple[int, int]], before: Position, after: Position | None = None
) -> Verdict:
    """Judge how far the lake is against what the broker holds.

    Args:
        offsets: Begin and end offset by cursor.
        before: Position of the lake before the broker was asked. A broker that ends below it has forgotten messages.
        after: Position afterwards, ``before`` if None. Offsets between it and a later begin were removed unread.
    """
    position = before if after is None else after
    lost = {c: (position.get(c, 0), first) for c, (first, _) in offsets.items() if position.get(c, 0) < first}
    forgotten = {c: (end, before[c]) for c, (_, end) in offsets.items() if before.get(c, 0) > end}
    said = [
        f"{c}: offsets {low} to {high - 1} were removed before they were read"
        for c, (low, high) in lost.items()
    ]
    said += [
        f"{c}: the broker ends at {end}, the lake has read to {at}: it has forgotten messages"
        for c, (end, at) in forgotten.items()
    ]
    held = sum(end - first for first, end in offsets.values())
    unread = sum(max(0, end - position.get(c, 0)) for c, (_, end) in offsets.items())
    return Verdict(
        passed=not said,
        description="; ".join(said)
        or f"of {held:,} offsets that the broker holds {unread:,} are not read yet",
        metadata={"held_by_the_broker": held, "not_read_yet": unread},
    )


def contract_holds(broken: Mapping[tuple[str, str], int], rows: int) -> Verdict:
    """Judge which rules of the contract rows of the lake break.

    Args:
        broken: Rows by column and rule.
        rows: Rows that were validated.
    """
    said = [f"{column}: {check} ({n:,} rows)" for (column, check), n in broken.items()]
    return Verdict(
        passed=not broken,
        description="broken by " + "; ".join(said) if said else f"the newest {rows:,} rows keep it",
        metadata={"rows": rows},
    )


def unknown_fields(fields: Mapping[str, unknown.Seen], policy: unknown.Policy) -> Verdict:
    """Judge the fields of the last day that the contract does not name; those that it keeps are no fault.

    Args:
        fields: Records and newest time by field.
        policy: What the contract does with such fields.
    """
    said = [
        f"{name!r} in {one.records:,} {'record' if one.records == 1 else 'records'}"
        for name, one in fields.items()
    ]
    more = f" and {len(said) - _NAMED:,} more" if len(said) > _NAMED else ""
    listed = ", ".join(said[:_NAMED]) + more
    if not fields:
        text = "every field of the last day is in the contract"
    elif policy == "keep":
        text = f"kept in {unknown.EXTRA}: {listed}"
    else:
        newest = max(one.newest for one in fields.values())
        text = (
            f"dropped: {listed}, the newest {newest:%Y-%m-%d %H:%M} UTC; add them to the contract, or let it say"
            " unknown='keep' or 'reject'"
        )
    found = {name: {"records": one.records, "newest": one.newest.isoformat()} for name, one in fields.items()}
    return Verdict(
        passed=not fields or policy == "keep",
        description=text,
        metadata={"fields": found},
        severity="warning",
    )


def reject_rate(arrived: Sequence[Arrived], warn: float, error: float) -> Verdict:
    """Judge the share of rejected rows in the worst of some windows.

    Args:
        arrived: Rows by window, at least one; the first of equals is named.
        warn: Share above which it is a warning.
        error: Share above which it is an error, from ``FLOOR`` rejected rows on.
    """

    def rank(one: Arrived) -> int:
        if one.rate > error and one.rejected >= FLOOR:
            return 2
        return 1 if one.rate > min(warn, error) else 0

    worst = max(arrived, key=lambda one: (rank(one), one.rate))
    limit = error if rank(worst) == 2 else warn
    repaired = f", {worst.repaired:,} more were repaired" if worst.repaired else ""
    return Verdict(
        passed=rank(worst) == 0,
        description=f"{worst.rejected:,} of {worst.good + worst.rejected:,} rows of the last {length(worst.within)} "
        f"rejected ({worst.rate:.2%}, limit {limit:.2%}{repaired})",
        metadata={"rate": round(worst.rate, 4), "rejected": worst.rejected, "repaired": worst.repaired},
        severity="error" if rank(worst) == 2 else "warning",
    )


def lag(waiting: Mapping[str, int], limit: int) -> Verdict:
    """Judge the consumer lag.

    Args:
        waiting: Messages by source.
        limit: Most messages that may wait in one of them.
    """
    said = [f"{n:,} in {name}" for name, n in waiting.items() if n > limit]
    return Verdict(
        passed=not said,
        description=f"{', '.join(said)} wait (limit {limit:,})"
        if said
        else f"{sum(waiting.values()):,} wait",
        metadata={name.replace("/", "_"): n for name, n in waiting.items()},
    )


def freshness(found: Freshness, behind: timedelta, now: datetime) -> Verdict:
    """Judge the age of the oldest work that is not done.

    Args:
        found: How far lake, warehouse and models are behind.
        behind: Oldest age that is allowed.
        now: The time (UTC).
    """
    late = now - behind
    said = []
    waiting = {name: n for name, n in found.waiting.items() if n}
    if waiting and (found.landed_at is None or found.landed_at < late):
        since = f"since {found.landed_at:%Y-%m-%d %H:%M} UTC" if found.landed_at else "yet"
        said.append(f"messages wait in {', '.join(waiting)} and none has landed {since}")
    if found.unpublished_since and found.unpublished_since < late:
        said.append(f"not published: what landed since {found.unpublished_since:%Y-%m-%d %H:%M} UTC")
    if found.stale_since and found.stale_since < late:
        said.append(f"not in the models: what was published since {found.stale_since:%Y-%m-%d %H:%M} UTC")
    return Verdict(
        passed=not said,
        description="; ".join(said) or "nothing waits for long",
        metadata={"landed_at": found.landed_at or "never"},
    )


def acknowledged_events_land(found: Held | None, within: timedelta, now: datetime) -> Verdict:
    """Judge how long the oldest event waits that was acknowledged over HTTP and is not in the lake.

    Args:
        found: What the collector's log holds beyond the lake; None if there is no such log.
        within: Oldest age that is allowed.
        now: The time (UTC).
    """
    if found is None:
        return Verdict(passed=True, description="no collector has run here")
    if found.since is None:
        return Verdict(
            passed=True, description="the lake has all that was acknowledged", metadata={"entries": 0}
        )
    waits = now - found.since
    noun = "request" if found.entries == 1 else "requests"
    said = f"events of {found.entries:,} {noun} are not in the lake, the oldest for {length(waits)}"
    late = waits > within
    if late:
        said += "; see 'headrace status', the collector's log, and the runs of this stream"
    return Verdict(
        passed=not late,
        description=said,
        metadata={"entries": found.entries, "bytes": found.bytes, "since": found.since},
    )


def parity_with_lake(found: Parity) -> Verdict:
    """Judge the days on which lake and warehouse differ; no day is blamed for a comparison that is inconclusive."""
    different = found.different
    metadata: dict[str, Value] = {
        "days_that_differ": len(different),
        "lake_version": found.version,
        "rows_of_later_versions": found.later,
        "inconclusive": bool(found.inconclusive),
    }
    if not different:
        said = f"no consistent look: {found.inconclusive}" if found.inconclusive else "every day agrees"
        return Verdict(passed=True, description=said, metadata=metadata)
    pairs = [f"{day} (lake {lake:,}, warehouse {rows:,})" for day, (lake, rows) in sorted(different.items())]
    if len(pairs) > 1:
        metadata["days"] = Markdown("\n".join(f"- {one}" for one in pairs))
    more = f" and {len(pairs) - _NAMED:,} more" if len(pairs) > _NAMED else ""
    verb, them = ("day differs", "it") if len(pairs) == 1 else ("days differ", "them")
    return Verdict(
        passed=False,
        description=f"{len(pairs):,} {verb}: {', '.join(pairs[:_NAMED])}{more}; materialise {them} to rebuild {them}",
        metadata=metadata,
    )
