"""Health as asset checks: what must hold for lake, warehouse and models to be believed.

What a check judges by is in a function of its own, which takes what was found and asks nobody.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

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

from headrace.batch import Position
from headrace.contracts import violations
from headrace.days import days_between
from headrace.errors import Fatal, HeadraceError
from headrace.orchestration import metadata
from headrace.orchestration.assets import lake_key, warehouse_key
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.resources import Streams
from headrace.pipelines import Kafka, Pipeline, Sqs
from headrace.settings import Settings
from headrace.stream import Audit, Standing, Stream

#: Rows that are held against their contract again.
_REVALIDATED = 100_000
#: Days that a reason names; the others are in its metadata.
_NAMED = 3
_WARN, _ERROR = AssetCheckSeverity.WARN, AssetCheckSeverity.ERROR


@dataclass(frozen=True, slots=True)
class _Check:
    """One check of a stream.

    Attributes:
        name: As the UI shows it.
        asset: What it judges.
        description: What must hold.
        judge: Finds out; the days are those of the run, None for all.
        severity: Of a failure.
        blocking: Whether nothing is built of the asset in a run in which it fails.
    """

    name: str
    asset: AssetKey
    description: str
    judge: Callable[[Stream, Sequence[date] | None], AssetCheckResult]
    severity: AssetCheckSeverity = _ERROR
    blocking: bool = False

    @property
    def key(self) -> AssetCheckKey:
        return AssetCheckKey(self.asset, self.name)

    @property
    def spec(self) -> AssetCheckSpec:
        return AssetCheckSpec(
            self.name, asset=self.asset, description=self.description, blocking=self.blocking
        )


def stream_checks(pipeline: Pipeline, settings: Settings) -> AssetChecksDefinition:
    """The checks of one stream, which share its connections."""
    checks = _checks(pipeline, settings)

    @multi_asset_check(name=f"check_{pipeline.name}", specs=[check.spec for check in checks], can_subset=True)
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
                yield found._replace(asset_key=one.asset, check_name=one.name, severity=one.severity)

    return check


def _checks(pipeline: Pipeline, settings: Settings) -> list[_Check]:
    limits = pipeline.thresholds
    rate = settings.max_reject_rate if limits.reject_rate is None else limits.reject_rate
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
            "reject_rate",
            lake,
            f"At most {rate:.0%} of the rows of the last day are rejected.",
            lambda stream, _: rejects(*stream.counts_since(datetime.now(UTC) - timedelta(days=1)), rate),
            _WARN,
        ),
        _Check(
            "lag",
            lake,
            f"At most {lag:,} messages wait in a source.",
            lambda stream, _: lagging(stream.standing().waiting, lag),
            _WARN,
        ),
        _Check(
            "freshness",
            lake,
            f"What waits is landed, published and built within {behind}.",
            lambda stream, _: fresh(stream.standing(), behind, datetime.now(UTC)),
        ),
        _Check(
            "parity_with_lake",
            warehouse,
            "Every day has as many rows in the warehouse as in the lake. Nothing is built of it otherwise.",
            lambda stream, days: equal(stream.parity(days)),
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
    cursors = [
        cursor
        for spec in stream.pipeline.sources
        if not isinstance(spec, Sqs)  # queues have no offsets
        for cursor in stream.source(spec.name).cursors()
    ]
    position = stream.lake.good.open().position(cursors)
    return once(stream.audit(days), position if days is None else Position(), position)


def once(audit: Audit, position: Position, limits: Position | None = None) -> AssetCheckResult:
    """Judge an audit against the positions in the log.

    More messages than offsets is a duplicate; fewer is normal only where the broker itself has gaps (compaction,
    transaction markers, retention), so it is shown and does not fail the check.

    Args:
        audit: What was counted.
        position: Next offset of each cursor that was counted whole.
        limits: Next offset of each cursor; ``position`` if all were counted whole.
    """
    limits = position if limits is None else limits
    beyond = {c: n for c, n in audit.by_cursor.items() if c in limits and n > limits[c]}
    gaps = {
        c: position[c] - audit.by_cursor.get(c, 0)
        for c in position
        if position[c] > audit.by_cursor.get(c, 0)
    }
    said = "every message is in once"
    if audit.doubled:
        said = f"{audit.doubled:,} rows are doubled: the same _cursor, _offset or _message_id, and _index"
    elif beyond:
        said = f"{', '.join(beyond)}: more messages than offsets"
    return AssetCheckResult(
        passed=audit.doubled == 0 and not beyond,
        description=said,
        metadata={
            "messages": audit.messages,
            "good_rows": audit.good,
            "rejected_rows": audit.rejected,
            "doubled_rows": audit.doubled,
            "offsets_without_message": MetadataValue.json(gaps),
        },
    )


def _offsets_reconcile(stream: Stream, _: Sequence[date] | None) -> AssetCheckResult:
    offsets = {
        cursor: (first, end)
        for spec in stream.pipeline.sources
        if isinstance(spec, Kafka)
        for cursor, (first, end) in stream.kafka(spec.name).offsets().items()
    }
    return reconciled(offsets, stream.lake.good.open().position(list(offsets)))


def reconciled(offsets: Mapping[str, tuple[int, int]], position: Position) -> AssetCheckResult:
    """Judge how far the lake is against what the broker holds: begin and end offset by cursor."""
    lost = {c: (position.get(c, 0), first) for c, (first, _) in offsets.items() if position.get(c, 0) < first}
    forgotten = {c: (end, position[c]) for c, (_, end) in offsets.items() if position.get(c, 0) > end}
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
    rows = stream.newest_rows(_REVALIDATED)
    return kept(violations(stream.contract, rows), rows.height)


def kept(broken: Mapping[tuple[str, str], int], rows: int) -> AssetCheckResult:
    """Judge what rows of the lake break of their contract."""
    said = [f"{column}: {check} ({n:,} rows)" for (column, check), n in broken.items()]
    return AssetCheckResult(
        passed=not broken,
        description="broken by " + "; ".join(said) if said else f"the newest {rows:,} rows keep it",
        metadata={"rows": rows},
    )


def rejects(good: int, rejected: int, limit: float) -> AssetCheckResult:
    """Judge the share of rejected rows."""
    rate = rejected / max(1, good + rejected)
    return AssetCheckResult(
        passed=rate <= limit,
        severity=_WARN,
        description=f"{rejected:,} of {good + rejected:,} rows rejected ({rate:.2%}, limit {limit:.2%})",
        metadata={"rate": round(rate, 4), "rejected": rejected},
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


def fresh(standing: Standing, behind: timedelta, now: datetime) -> AssetCheckResult:
    """Judge how old what is not done yet is."""
    late = now - behind
    said = []
    waiting = {name: n for name, n in standing.waiting.items() if n}
    if waiting and (standing.landed_at is None or standing.landed_at < late):
        since = f"since {standing.landed_at:%Y-%m-%d %H:%M} UTC" if standing.landed_at else "yet"
        said.append(f"messages wait in {', '.join(waiting)} and none has landed {since}")
    if standing.unpublished_since and standing.unpublished_since < late:
        said.append(f"not published: what landed since {standing.unpublished_since:%Y-%m-%d %H:%M} UTC")
    if standing.touched_since and standing.touched_since < late:
        said.append(
            f"not in the models: what was published since {standing.touched_since:%Y-%m-%d %H:%M} UTC"
        )
    return AssetCheckResult(
        passed=not said,
        description="; ".join(said) or "nothing waits for long",
        metadata={"landed_at": metadata.moment(standing.landed_at)},
    )


def equal(different: Mapping[date, tuple[int, int]]) -> AssetCheckResult:
    """Judge the days on which lake and warehouse differ."""
    metadata: dict[str, MetadataValue] = {"days_that_differ": MetadataValue.int(len(different))}
    if not different:
        return AssetCheckResult(passed=True, description="every day agrees", metadata=metadata)
    said = [f"{day} (lake {lake:,}, warehouse {rows:,})" for day, (lake, rows) in sorted(different.items())]
    if len(said) > 1:
        metadata["days"] = MetadataValue.md("\n".join(f"- {one}" for one in said))
    more = f" and {len(said) - _NAMED:,} more" if len(said) > _NAMED else ""
    verb, them = ("day differs", "it") if len(said) == 1 else ("days differ", "them")
    return AssetCheckResult(
        passed=False,
        description=f"{len(said):,} {verb}: {', '.join(said[:_NAMED])}{more}; materialise {them} to rebuild {them}",
        metadata=metadata,
    )
