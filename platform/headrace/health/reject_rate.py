"""Judge the share of rejected rows as it happens: of the newest rows, and of those of the last day.

A stream that begins to reject everything shows in its newest rows within minutes, however many good ones the day had. A
burst that was rejected whole, with nothing after it, shows for a day, or until it is repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import polars as pl

from headrace.alerts import length
from headrace.repair.rejects import ORIGIN

if TYPE_CHECKING:
    from headrace.flow.commit import StreamLake
    from headrace.lake.delta import DeltaLakeTable
    from headrace.streams.stream import Stream

DAY = timedelta(days=1)
#: Rejected rows below which a rate is no error: 3 of 5 in a quiet stream is nothing to wake anybody for.
FLOOR = 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """Rows of the lake that were ingested of late.

    Attributes:
        within: How late.
        good: Rows that landed.
        rejected: Rows that were rejected and of which no redriven record has landed.
        repaired: Rows that were rejected and of which one has.
    """

    within: timedelta
    good: int
    rejected: int
    repaired: int = 0

    @property
    def rate(self) -> float:
        """Share of the rejected rows."""
        return self.rejected / max(1, self.good + self.rejected)


@dataclass(frozen=True, slots=True)
class RejectRate:
    """A verdict.

    Attributes:
        worst: What it is about.
        severity: None if all is well.
        said: One line.
    """

    worst: Arrived
    severity: Literal["error", "warning"] | None
    said: str


def judge(arrived: Sequence[Arrived], warn: float, error: float) -> RejectRate:
    """Judge the worst of these.

    Args:
        arrived: At least one; the first of equals is named.
        warn: Share above which it is a warning.
        error: Share above which it is an error, from ``FLOOR`` rejected rows on.
    """

    def severity(one: Arrived) -> Literal["error", "warning"] | None:
        if one.rate > error and one.rejected >= FLOOR:
            return "error"
        return "warning" if one.rate > min(warn, error) else None

    ranks = {None: 0, "warning": 1, "error": 2}
    worst = max(arrived, key=lambda one: (ranks[severity(one)], one.rate))
    limit = error if severity(worst) == "error" else warn
    repaired = f", {worst.repaired:,} more were repaired" if worst.repaired else ""
    said = (
        f"{worst.rejected:,} of {worst.good + worst.rejected:,} rows of the last {length(worst.within)} rejected "
        f"({worst.rate:.2%}, limit {limit:.2%}{repaired})"
    )
    return RejectRate(worst, severity(worst), said)


def reject_rate(stream: Stream, now: datetime | None = None) -> RejectRate:
    """Judge the newest rows of a stream, and those of a day, by the limits of pipeline or settings."""
    own, s = stream.pipeline.thresholds, stream.settings
    windows = [timedelta(seconds=s.reject_seconds), DAY]
    counted = arrived(stream.lake, f"redrive/{stream.name}", windows, now or datetime.now(UTC))
    return judge(
        counted,
        warn=s.max_reject_rate if own.reject_rate is None else own.reject_rate,
        error=s.error_reject_rate if own.error_reject_rate is None else own.error_reject_rate,
    )


def arrived(
    lake: StreamLake[DeltaLakeTable], redriven: str, windows: Sequence[timedelta], now: datetime
) -> list[Arrived]:
    """Count what was ingested within each window: from the log's statistics, wherever they suffice.

    Args:
        lake: The stream's tables.
        redriven: Cursor of its redriven records.
        windows: How far back to count.
        now: The time (UTC).
    """
    good, rejected = lake.good.open(), lake.rejected.open()
    repaired: pl.Series | None = None
    if good.position([redriven]):
        repaired = good.message_ids(redriven)
    found = []
    for within in windows:
        since = now - within
        refused = rejected.arrived(since)
        mended = 0
        if refused and repaired is not None:
            origins = rejected.origins_since(since).select(ORIGIN.alias("origin"))["origin"]
            mended = int(origins.is_in(repaired.implode()).sum())
        found.append(Arrived(within, good.arrived(since), refused - mended, mended))
    return found
