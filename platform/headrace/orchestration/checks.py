"""The health checks of a stream as asset checks: what is judged, and how, is in ``health.checks``."""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

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
from headrace.core.days import days_between
from headrace.health.checks import HealthCheck, health_checks
from headrace.health.verdicts import Markdown, Value, Verdict
from headrace.orchestration.keys import lake_key, warehouse_key
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.orchestration.resources import Streams
from headrace.pipelines import Pipeline

_SEVERITY = {"error": AssetCheckSeverity.ERROR, "warning": AssetCheckSeverity.WARN}


def stream_checks(
    pipeline: Pipeline, settings: Settings, marts: Iterable[AssetKey] = ()
) -> list[AssetChecksDefinition]:
    """Make the asset checks of one stream: those before its marts are built, and those after.

    Args:
        pipeline: The stream.
        settings: Default thresholds.
        marts: Its marts.
    """
    checks, marts = health_checks(pipeline, settings), [*marts]
    return [
        _sharing(f"check_{pipeline.name}", pipeline, [one for one in checks if not one.last], ()),
        _sharing(f"check_{pipeline.name}_last", pipeline, [one for one in checks if one.last], marts),
    ]


def _sharing(
    name: str, pipeline: Pipeline, checks: Sequence[HealthCheck], after: Sequence[AssetKey]
) -> AssetChecksDefinition:
    """Make asset checks that share the connections of a stream."""
    keys = {"lake": lake_key(pipeline), "warehouse": warehouse_key(pipeline)}
    by_key = {AssetCheckKey(keys[one.of], one.name): one for one in checks}

    @multi_asset_check(
        name=name, specs=[_spec(key, one, after) for key, one in by_key.items()], can_subset=True
    )
    def check(context: AssetCheckExecutionContext, streams: Streams) -> Iterable[AssetCheckResult]:
        days = _days(context)
        with streams.open(pipeline) as stream:
            for key, one in by_key.items():
                if key in context.selected_asset_check_keys:
                    yield check_result(key, one.run(stream, days))

    return check


def _spec(key: AssetCheckKey, check: HealthCheck, after: Sequence[AssetKey]) -> AssetCheckSpec:
    return AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description=check.description,
        blocking=check.blocking,
        additional_deps=[*after] or None,
    )


def _days(context: AssetCheckExecutionContext) -> Sequence[date] | None:
    tags = context.run.tags
    if RANGE_START not in tags:
        return None
    return days_between(date.fromisoformat(tags[RANGE_START]), date.fromisoformat(tags[RANGE_END]))


def check_result(key: AssetCheckKey, verdict: Verdict) -> AssetCheckResult:
    """Make Dagster's result of a verdict."""
    return AssetCheckResult(
        passed=verdict.passed,
        asset_key=key.asset_key,
        check_name=key.name,
        severity=_SEVERITY[verdict.severity],
        description=verdict.description,
        metadata={name: _metadata(value) for name, value in verdict.metadata.items()},
    )


def _metadata(value: Value) -> MetadataValue:
    match value:
        case bool():  # before int, of which it is one
            return MetadataValue.bool(value)
        case int():
            return MetadataValue.int(value)
        case float():
            return MetadataValue.float(value)
        case Markdown():  # before str, of which it is one
            return MetadataValue.md(value)
        case str():
            return MetadataValue.text(value)
        case datetime():
            return MetadataValue.timestamp(value)
        case Mapping():
            return MetadataValue.json(value)
