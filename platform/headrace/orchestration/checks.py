"""Health as asset checks: what must hold for lake, warehouse and models to be believed.

What a check judges by is in a function of its own, which takes what was found and asks nobody.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from dagster import (
    AssetCheckExecutionContext,
    AssetCheckKey,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    MetadataValue,
    multi_asset_check,
)

from headrace.config.settings import Settings
from headrace.contracts import unknown, violations
from headrace.core.batch import Position
from headrace.core.days import days_between
from headrace.core.errors import Fatal, HeadraceError
from headrace.health.audit import Audit, Skipped, audit, newest_rows, skipped_by
from headrace.health.freshness import Freshness, freshness
from headrace.health.parity import Parity, parity
from headrace.health.reject_rate import RejectRate, reject_rate
from headrace.orchestration import metadata
from headrace.orchestration.assets import lake_key, warehouse_key
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.resources import Streams
from headrace.pipelines import Kafka, Pipeline
from headrace.streams.stream import Stream

#: Rows that are held against their contract again.
_REVALIDATED = 100_000
#: Days that a reason names; the others are in its metadata.
_NAMED = 3
#: How long what waits may be on its way to a run that lands it, and between two looks.
_ON_ITS_WAY_SECONDS, _PAUSE_SECONDS = 60.0, 2.0
_WARN, _ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR


@dataclass(frozen=True, slots=True)
class _Check:
    """One check of a stream.

    Attributes:
        name: As the UI shows it.
        asset: What it judges.
        description: What must hold.
        judge: Finds out; the days are those of the run, None for all.
        severity: Of a failure; None where it depends on what is found.
        blocking: Whether nothing is built of the asset in a run in which it fails.
        last: Whether it judges what is there after the marts of the same run are built.
    """

    name: str
    asset: AssetKey
    description: str
    judge: Callable[[Stream, Sequence[date] | None], AssetCheckResult]
    severity: AssetCheckSeverity | None = _ERROR
    blocking: bool = False
    last: bool = False

    @property
    def key(self) -> AssetCheckKey:
        return AssetCheckKey(self.asset, self.name)

    def spec(self, marts: Iterable[AssetKey] = ()) -> AssetCheckSpec:
        """What Dagster should know of it."""
        return AssetCheckSpec(
            self.name,
            asset=self.asset,
            description=self.description,
            blocking=self.blocking,
            additional_deps=[*marts] if self.last else None,
        )


def stream_checks(
    pipeline: Pipeline, settings: Settings, marts: Iterable[AssetKey] = ()
) -> list[AssetChecksDefinition]:
    """The checks of one stream: those that come before its marts, and those that come after them."""
    checks, marts = _checks(pipeline, settings), [*marts]
    return [
        _sharing(f"check_{pipeline.name}", pipeline, [one for one in checks if not one.last], marts),
        _sharing(f"check_{pipeline.name}_last", pipeline, [one for one in checks if one.last], marts),
    ]


def _sharing(
    name: str, pipeline: Pipeline, checks: Sequence[_Check], marts: Sequence[AssetKey]
) -> AssetChecksDefinition:
    """Checks that share the connections of a stream."""

    @multi_asset_check(name=name, specs=[check.spec(marts) for check in checks], can_subset=True)
    def check(context: AssetCheckExecutionContext, streams: Streams) -> Iterable[AssetCheckResult]:
        days = _days(context)
        with streams.open(pipeline) as stream:
            for one in checks:
                if one.key not in context.selected_asset_check_keys:
                    continue
                try:
                    found = one.judge(stream, days)
                except HeadraceError as error:  # the other checks may well be able to say
                    found = AssetCheckResult(passed=False, description=f"cannot be checked: {error}")
                severity = one.severity or found.severity
                yield found._replace(asset_key=one.asset, check_name=one.name, severity=severity)

    return check


def _checks(pipeline: Pipeline, settings: Settings) -> list[_Check]:
    limits = pipeline.thresholds
    rate = settings.max_reject_rate if limits.reject_rate is None else limits.reject_rate
    error_rate = settings.error_reject_rate if limits.error_reject_rate is None else limits.error_reject_rate
    lag = settings.max_lag_messages if limits.lag is None else limits.lag
    behind = limits.behind or timedelta(seconds=settings.max_behind_seconds)
    lake, warehouse = lake_key(pipeline), warehouse_key(pipeline)
    found = [
        _Check(
            "every_message_once",
            lake,
            "No message is in the lake twice, none that was read is missing.",
            _every_message_once,
        ),
        _Check(
            "offsets_reconcile",
            lake,
            "What the lake has read is what the broker has handed out: nothing was removed unread, nothing forgotten.",
            _offsets_reconcile,
        ),
        _Check("contract_holds", lake, "The newest rows of the lake keep their contract.", _contract_holds),
        _Check(
            "unknown_fields",
            lake,
            "No record of the last day has a field that the contract does not name.",
            _unknown_fields,
            _WARN,
        ),
        _Check(
            "reject_rate",
            lake,
            f"At most {rate:.0%} of the newest rows, and of those of the last day, are rejected and not repaired. "
            f"More than {error_rate:.0%} are an error.",
            lambda stream, _: rejects(reject_rate(stream)),
            None,
        ),
        _Check(
            "lag",
            lake,
            f"At most {lag:,} messages wait in a source.",
            lambda stream, _: lagging(freshness(stream).waiting, lag),
            _WARN,
        ),
        _Check(
            "freshness",
            lake,
            f"What waits is landed, published and built within {behind}.",
            lambda stream, _: _freshness(stream, behind),
            last=True,
        ),
        _Check(
            "parity_with_lake",
            warehouse,
            "Every day has as many rows in the warehouse as in the lake. Nothing is built of it otherwise.",
            lambda stream, days: equal(parity(stream, days)),
            blocking=True,
        ),
    ]
    unknown = limits.warn_only - {check.name for check in found}
    if unknown:
        raise Fatal(f"pipeline {pipeline.name!r}: warn_only names no check {min(unknown)!r}")
    return [replace(check, severity=_WARN) if check.name in limits.warn_only else check for check in found]


def _days(context: AssetCheckExecutionContext) -> Sequence[date] | None:
    tags = context.run.tags
    if RANGE_START not in tags:
        return None
    return days_between(date.fromisoformat(tags[RANGE_START]), date.fromisoformat(tags[RANGE_END]))


def _every_message_once(stream: Stream, days: Sequence[date] | None) -> AssetCheckResult:
    if days is not None:
        return once(audit(stream.lake, days))
    kafka = [stream.kafka(spec.name) for spec in stream.pipeline.sources if isinstance(spec, Kafka)]
    audited = audit(stream.lake, cursors=[cursor for source in kafka for cursor in source.cursors()])
    return once(audited, skipped_by(stream, audited.missing, audited.erased))


def once(audit: Audit, skipped: Skipped | None = None) -> AssetCheckResult:
    """Judge an audit, and what the brokers say of offsets that left no row.

    An offset without a row is normal where the broker itself has gaps (compaction, transaction markers, retention). It
    has been skipped where the broker still has a message for it that no erasure has removed.
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
    return AssetCheckResult(
        passed=not said,
        description="; ".join(said) or "every message is in once",
        metadata={
            "messages": audit.messages,
            "good_rows": audit.good,
            "rejected_rows": audit.rejected,
            "doubled_rows": audit.doubled,
            "offsets_without_message": MetadataValue.json(gaps),
            "gaps_asked_for": skipped.asked,
            "gaps_not_asked_for": skipped.left,
        },
    )


def _offsets_reconcile(stream: Stream, _: Sequence[date] | None) -> AssetCheckResult:
    kafka = [stream.kafka(spec.name) for spec in stream.pipeline.sources if isinstance(spec, Kafka)]
    cursors = [cursor for source in kafka for cursor in source.cursors()]
    # before and after, since a writer moves the one and the broker the other
    before = stream.lake.good.open().position(cursors)
    offsets = {cursor: pair for source in kafka for cursor, pair in source.offsets().items()}
    return reconciled(offsets, before, stream.lake.good.open().position(list(offsets)))


def reconciled(
    offsets: Mapping[str, tuple[int, int]], before: Position, after: Position | None = None
) -> AssetCheckResult:
    """Judge how far the lake is against what the broker holds.

    Args:
        offsets: Begin and end offset by cursor.
        before: Position of the lake from before they were asked for: what the broker ends below has been forgotten.
        after: Position from afterwards: what begins above it was removed unread.
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
    return AssetCheckResult(
        passed=not said,
        description="; ".join(said)
        or f"of {held:,} offsets that the broker holds {unread:,} are not read yet",
        metadata={"held_by_the_broker": held, "not_read_yet": unread},
    )


def _contract_holds(stream: Stream, _: Sequence[date] | None) -> AssetCheckResult:
    rows = newest_rows(stream, _REVALIDATED)
    return kept(violations(stream.contract, rows), rows.height)


def kept(broken: Mapping[tuple[str, str], int], rows: int) -> AssetCheckResult:
    """Judge what rows of the lake break of their contract."""
    said = [f"{column}: {check} ({n:,} rows)" for (column, check), n in broken.items()]
    return AssetCheckResult(
        passed=not broken,
        description="broken by " + "; ".join(said) if said else f"the newest {rows:,} rows keep it",
        metadata={"rows": rows},
    )


def _unknown_fields(stream: Stream, _: Sequence[date] | None) -> AssetCheckResult:
    notes = stream.lake.good.notes(unknown.NOTE, datetime.now(UTC) - timedelta(days=1))
    return named(unknown.seen(notes), stream.contract.unknown)


def named(fields: Mapping[str, unknown.Seen], policy: unknown.Policy) -> AssetCheckResult:
    """Judge the fields of late that a contract does not name; those that it keeps are no fault."""
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
    return AssetCheckResult(
        passed=not fields or policy == "keep",
        severity=_WARN,
        description=text,
        metadata={"fields": MetadataValue.json(found)},
    )


def rejects(found: RejectRate) -> AssetCheckResult:
    """Pass on what the reject rate was found to be."""
    return AssetCheckResult(
        passed=found.severity is None,
        severity=_ERROR if found.severity == "error" else _WARN,
        description=found.said,
        metadata={
            "rate": round(found.worst.rate, 4),
            "rejected": found.worst.rejected,
            "repaired": found.worst.repaired,
        },
    )


def lagging(waiting: Mapping[str, int], limit: int) -> AssetCheckResult:
    """Judge how many messages wait."""
    said = [f"{n:,} in {name}" for name, n in waiting.items() if n > limit]
    return AssetCheckResult(
        passed=not said,
        description=f"{', '.join(said)} wait (limit {limit:,})"
        if said
        else f"{sum(waiting.values()):,} wait",
        metadata={name.replace("/", "_"): n for name, n in waiting.items()},
    )


def _freshness(stream: Stream, behind: timedelta) -> AssetCheckResult:
    """Judge how far a stream is behind.

    What waits in a source may have come just now, after a quiet night. So a stream in which nothing has landed for long
    is given a minute, in which a run starts and lands it.
    """
    deadline, pause = time.monotonic() + _ON_ITS_WAY_SECONDS, threading.Event()
    while True:
        standing, now = freshness(stream), datetime.now(UTC)
        found = fresh(standing, behind, now)
        others = fresh(replace(standing, waiting={}), behind, now)
        if found.passed or not others.passed or time.monotonic() >= deadline:
            return found
        pause.wait(_PAUSE_SECONDS)


def fresh(standing: Freshness, behind: timedelta, now: datetime) -> AssetCheckResult:
    """Judge how old what is not done yet is."""
    late = now - behind
    said = []
    waiting = {name: n for name, n in standing.waiting.items() if n}
    if waiting and (standing.landed_at is None or standing.landed_at < late):
        since = f"since {standing.landed_at:%Y-%m-%d %H:%M} UTC" if standing.landed_at else "yet"
        said.append(f"messages wait in {', '.join(waiting)} and none has landed {since}")
    if standing.unpublished_since and standing.unpublished_since < late:
        said.append(f"not published: what landed since {standing.unpublished_since:%Y-%m-%d %H:%M} UTC")
    if standing.stale_since and standing.stale_since < late:
        said.append(f"not in the models: what was published since {standing.stale_since:%Y-%m-%d %H:%M} UTC")
    return AssetCheckResult(
        passed=not said,
        description="; ".join(said) or "nothing waits for long",
        metadata={"landed_at": metadata.moment(standing.landed_at)},
    )


def equal(found: Parity) -> AssetCheckResult:
    """Judge the days on which lake and warehouse differ; where no look was consistent, nothing is blamed."""
    different = found.different
    metadata: dict[str, MetadataValue] = {
        "days_that_differ": MetadataValue.int(len(different)),
        "lake_version": MetadataValue.int(found.version),
        "rows_of_later_versions": MetadataValue.int(found.later),
        "inconclusive": MetadataValue.bool(bool(found.inconclusive)),
    }
    if not different:
        said = f"no consistent look: {found.inconclusive}" if found.inconclusive else "every day agrees"
        return AssetCheckResult(passed=True, description=said, metadata=metadata)
    pairs = [f"{day} (lake {lake:,}, warehouse {rows:,})" for day, (lake, rows) in sorted(different.items())]
    if len(pairs) > 1:
        metadata["days"] = MetadataValue.md("\n".join(f"- {one}" for one in pairs))
    more = f" and {len(pairs) - _NAMED:,} more" if len(pairs) > _NAMED else ""
    verb, them = ("day differs", "it") if len(pairs) == 1 else ("days differ", "them")
    return AssetCheckResult(
        passed=False,
        description=f"{len(pairs):,} {verb}: {', '.join(pairs[:_NAMED])}{more}; materialise {them} to rebuild {them}",
        metadata=metadata,
    )
