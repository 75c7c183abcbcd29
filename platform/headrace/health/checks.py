"""The health checks of a stream: what must hold for its lake, warehouse and models to be believed.

A check measures and lets its judge decide (``health.verdicts``). It needs no Dagster: ``orchestration.checks`` makes
asset checks of it, an exporter or an API may run it as it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from headrace.collector.held import held
from headrace.collector.topics import collected
from headrace.config.settings import Settings
from headrace.contracts import unknown, violations
from headrace.core.errors import Fatal, HeadraceError, Inconclusive
from headrace.health import verdicts
from headrace.health.audit import audit, newest_rows, skipped_by
from headrace.health.freshness import Freshness, freshness
from headrace.health.parity import parity
from headrace.health.reject_rate import arrived
from headrace.health.verdicts import Severity, Verdict
from headrace.pipelines import Kafka, Pipeline
from headrace.streams.stream import Stream

#: Rows that are validated against their contract again.
_REVALIDATED = 100_000
#: Seconds in which a run may start and land what has just come.
GRACE_SECONDS = 60.0
_PAUSE_SECONDS = 2.0

#: Measures and judges a stream; the days are those of the run, None for all.
Measure = Callable[[Stream, Sequence[date] | None], Verdict]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One check of a stream.

    Attributes:
        name: As the UI shows it.
        of: The table that it judges.
        description: What must hold.
        measure: Measures and judges.
        severity: Of a failure; None where the judge decides.
        blocking: Whether a failure keeps a run from building anything of the table.
        last: Whether it runs after the marts of the same run are built.
    """

    name: str
    of: Literal["lake", "warehouse"]
    description: str
    measure: Measure
    severity: Severity | None = "error"
    blocking: bool = False
    last: bool = False

    def run(self, stream: Stream, days: Sequence[date] | None = None) -> Verdict:
        """Measure and judge a stream. A check that cannot be made fails, and leaves the others alone.

        One that gets no consistent look at a busy service says so, and blames nobody.

        Args:
            stream: The stream.
            days: Days of the run; None for all.
        """
        try:
            found = self.measure(stream, days)
        except Inconclusive as error:
            found = Verdict(
                passed=True, description=f"inconclusive: {error}", metadata={"inconclusive": True}
            )
        except HeadraceError as error:
            found = Verdict(passed=False, description=f"cannot be checked: {error}")
        return replace(found, severity=self.severity or found.severity)


def health_checks(pipeline: Pipeline, settings: Settings) -> list[HealthCheck]:
    """Declare the checks of a stream, with the thresholds of its pipeline or of the settings.

    Raises:
        Fatal: ``warn_only`` of the pipeline names no check.
    """
    limits = pipeline.thresholds
    rate, error_rate = reject_limits(pipeline, settings)
    lag = settings.max_lag_messages if limits.lag is None else limits.lag
    behind = limits.behind or _usual_behind(settings)
    found = [
        HealthCheck(
            "every_message_once",
            "lake",
            "No message is in the lake twice, none that was read is missing.",
            _every_message_once,
        ),
        HealthCheck(
            "offsets_reconcile",
            "lake",
            "What the lake has read is what the broker has handed out: nothing was removed unread, nothing forgotten.",
            _offsets_reconcile,
        ),
        HealthCheck(
            "contract_holds", "lake", "The newest rows of the lake keep their contract.", _contract_holds
        ),
        HealthCheck(
            "unknown_fields",
            "lake",
            "No record of the last day has a field that the contract does not name.",
            _unknown_fields,
            "warning",
        ),
        HealthCheck(
            "reject_rate",
            "lake",
            f"At most {rate:.0%} of the newest rows, and of those of the last day, are rejected and not repaired. "
            f"More than {error_rate:.0%} are an error.",
            lambda stream, _: reject_rate(stream),
            None,
        ),
        HealthCheck(
            "lag",
            "lake",
            f"At most {lag:,} messages wait in a source.",
            lambda stream, _: verdicts.lag(freshness(stream).waiting, lag),
            "warning",
        ),
        HealthCheck(
            "freshness",
            "lake",
            f"What waits is landed, published and built within {behind}.",
            lambda stream, _: freshness_with_grace(lambda: freshness(stream), behind, GRACE_SECONDS),
            last=True,
        ),
        HealthCheck(
            "parity_with_lake",
            "warehouse",
            "Every day has as many rows in the warehouse as in the lake. Nothing is built of it otherwise.",
            lambda stream, days: verdicts.parity_with_lake(parity(stream, days)),
            blocking=True,
        ),
    ]
    if collected(pipeline):
        landing = HealthCheck(
            "acknowledged_events_land",
            "lake",
            f"What the collector acknowledged over HTTP is in the lake within {behind}.",
            lambda stream, _: acknowledged_events_land(stream, behind),
        )
        found.insert(-2, landing)
    strangers = limits.warn_only - {check.name for check in found}
    if strangers:
        raise Fatal(f"pipeline {pipeline.name!r}: warn_only names no check {min(strangers)!r}")
    return [
        replace(check, severity="warning") if check.name in limits.warn_only else check for check in found
    ]


def max_behind(stream: Stream) -> timedelta:
    """Take the age after which what waits is late, of a stream's pipeline or of the settings."""
    return stream.pipeline.thresholds.behind or _usual_behind(stream.settings)


def _usual_behind(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.max_behind_seconds)


def reject_limits(pipeline: Pipeline, settings: Settings) -> tuple[float, float]:
    """Take the shares of rejected rows above which there is a warning, and an error."""
    own = pipeline.thresholds
    return (
        settings.max_reject_rate if own.reject_rate is None else own.reject_rate,
        settings.error_reject_rate if own.error_reject_rate is None else own.error_reject_rate,
    )


def reject_rate(stream: Stream, now: datetime | None = None) -> Verdict:
    """Judge the reject rate of a stream, by the limits of its pipeline or of the settings.

    Args:
        stream: The stream.
        now: The time (UTC).
    """
    return verdicts.reject_rate(arrived(stream, now), *reject_limits(stream.pipeline, stream.settings))


def acknowledged_events_land(stream: Stream, within: timedelta, now: datetime | None = None) -> Verdict:
    """Judge whether a stream's events over HTTP reach the lake in time, also after their collector died.

    Args:
        stream: The stream.
        within: Oldest age that is allowed.
        now: The time (UTC).
    """
    return verdicts.acknowledged_events_land(held(stream), within, now or datetime.now(UTC))


def freshness_with_grace(
    look: Callable[[], Freshness], behind: timedelta, grace: float, pause: float = _PAUSE_SECONDS
) -> Verdict:
    """Judge the freshness of a stream, with a grace period for messages that have just come.

    After a quiet night the last landing is old and the waiting messages may be new. So where nothing else is late, a
    run gets the grace period to start and to land them.

    Args:
        look: Measures the freshness now.
        behind: Oldest age that is allowed.
        grace: Grace period, seconds.
        pause: Seconds between two looks.
    """
    deadline, between = time.monotonic() + grace, threading.Event()
    while True:
        measured, now = look(), datetime.now(UTC)
        found = verdicts.freshness(measured, behind, now)
        others = verdicts.freshness(replace(measured, waiting={}), behind, now)
        if found.passed or not others.passed or time.monotonic() >= deadline:
            return found
        between.wait(pause)


def _topics(stream: Stream) -> list[str]:
    return [spec.name for spec in stream.pipeline.sources if isinstance(spec, Kafka)]


def _cursors(stream: Stream) -> list[str]:
    return [cursor for topic in _topics(stream) for cursor in stream.kafka(topic).cursors()]


def _every_message_once(stream: Stream, days: Sequence[date] | None) -> Verdict:
    if days is not None:
        return verdicts.every_message_once(audit(stream.lake, days))
    found = audit(stream.lake, cursors=_cursors(stream))
    return verdicts.every_message_once(found, skipped_by(stream, found.missing, found.absent))


def _offsets_reconcile(stream: Stream, _: Sequence[date] | None) -> Verdict:
    # before and after, since a writer moves the one and the broker the other
    before = stream.lake.good.open().position(_cursors(stream))
    offsets = {c: pair for topic in _topics(stream) for c, pair in stream.kafka(topic).offsets().items()}
    return verdicts.offsets_reconcile(offsets, before, stream.lake.good.open().position(list(offsets)))


def _contract_holds(stream: Stream, _: Sequence[date] | None) -> Verdict:
    rows = newest_rows(stream, _REVALIDATED)
    return verdicts.contract_holds(violations(stream.contract, rows), rows.height)


def _unknown_fields(stream: Stream, _: Sequence[date] | None) -> Verdict:
    notes = stream.lake.good.notes(unknown.NOTE, datetime.now(UTC) - timedelta(days=1))
    return verdicts.unknown_fields(unknown.seen(notes), stream.contract.unknown)
