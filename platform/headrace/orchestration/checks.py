"""Health as asset checks: what must hold for lake and warehouse to be believed."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Sequence

from dagster import AssetCheckResult, AssetChecksDefinition, AssetCheckSeverity, MetadataValue, asset_check

from headrace.batch import Position
from headrace.orchestration.assets import lake_key, warehouse_key
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline, Sqs
from headrace.settings import Settings
from headrace.stream import Audit


def stream_checks(pipeline: Pipeline, settings: Settings) -> Sequence[AssetChecksDefinition]:
    """The checks of one stream."""

    @asset_check(
        asset=lake_key(pipeline),
        description="No message is in the lake twice, none that was read is missing.",
    )
    def every_message_once(streams: Streams) -> AssetCheckResult:
        with streams.open(pipeline) as stream:
            position: Position = Position()
            for spec in pipeline.sources:
                if not isinstance(spec, Sqs):  # queues have no offsets
                    cursors = stream.source(spec.name).cursors()
                    position = position.advanced(stream.lake.good.open().position(cursors))
            return once(stream.audit(), position)

    @asset_check(
        asset=lake_key(pipeline),
        description=f"At most {settings.max_reject_rate:.0%} of the rows are rejected.",
    )
    def reject_rate(streams: Streams) -> AssetCheckResult:
        with streams.open(pipeline) as stream:
            good = sum(stream.lake.good.counts_by_day().values())
            rejected = sum(stream.lake.rejected.counts_by_day().values())
        return rejects(good, rejected, settings.max_reject_rate)

    @asset_check(
        asset=warehouse_key(pipeline),
        description="Every day has as many rows in the warehouse as in the lake.",
    )
    def parity_with_lake(streams: Streams) -> AssetCheckResult:
        with streams.open(pipeline) as stream:
            different = stream.parity()
        shown = "\n".join(
            f"- {day}: lake {lake:,}, warehouse {rows:,}" for day, (lake, rows) in different.items()
        )
        return AssetCheckResult(
            passed=not different,
            description=f"{len(different)} days differ; materialise them to rebuild them from the lake"
            if different
            else "every day agrees",
            metadata={"days": MetadataValue.md(shown or "none")},
        )

    return [every_message_once, reject_rate, parity_with_lake]


def once(audit: Audit, position: Position) -> AssetCheckResult:
    """Judge an audit against the positions in the log.

    More messages than offsets is a duplicate; fewer is normal only where the broker itself has gaps (compaction,
    transaction markers, retention), so it is shown and does not fail the check.
    """
    beyond = {c: n for c, n in audit.by_cursor.items() if c in position and n > position[c]}
    gaps = {
        c: position[c] - audit.by_cursor.get(c, 0)
        for c in position
        if position[c] > audit.by_cursor.get(c, 0)
    }
    passed = audit.doubled == 0 and not beyond
    return AssetCheckResult(
        passed=passed,
        description="every message is in once"
        if passed
        else f"{audit.doubled} rows are doubled; see their origins",
        metadata={
            "messages": audit.messages,
            "good_rows": audit.good,
            "rejected_rows": audit.rejected,
            "doubled_rows": audit.doubled,
            "offsets_without_message": MetadataValue.json(gaps),
        },
    )


def rejects(good: int, rejected: int, limit: float) -> AssetCheckResult:
    """Judge the share of rejected rows."""
    rate = rejected / max(1, good + rejected)
    return AssetCheckResult(
        passed=rate <= limit,
        severity=AssetCheckSeverity.WARN,
        description=f"{rejected:,} of {good + rejected:,} rows rejected ({rate:.2%}, limit {limit:.2%})",
        metadata={"rate": rate, "rejected": rejected, "limit": limit},
    )
