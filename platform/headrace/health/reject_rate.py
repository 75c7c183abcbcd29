"""Count the rows that were ingested of late, good and rejected: the newest, and those of the last day.

A stream that begins to reject everything shows in its newest rows within minutes, however many good ones the day had. A
burst that was rejected whole, with nothing after it, shows for a day, or until it is repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from headrace.repair.origins import ORIGIN
from headrace.repair.selection import redrive_cursor

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Arrived:
    """Rows of the lake that were ingested within a window.

    Attributes:
        within: Length of the window.
        good: Rows that landed.
        rejected: Rejected rows of which no redriven record has landed.
        repaired: Rejected rows of which one has.
    """

    within: timedelta
    good: int
    rejected: int
    repaired: int = 0

    @property
    def rate(self) -> float:
        """Share of the rejected rows."""
        return self.rejected / max(1, self.good + self.rejected)


def arrived(stream: Stream, now: datetime | None = None) -> list[Arrived]:
    """Count the newest rows of a stream, and those of a day.

    Args:
        stream: The stream; its settings say how new the newest rows are.
        now: The time (UTC).
    """
    windows = [timedelta(seconds=stream.settings.reject_seconds), DAY]
    return arrived_within(stream, windows, now or datetime.now(UTC))


def arrived_within(stream: Stream, windows: Sequence[timedelta], now: datetime) -> list[Arrived]:
    """Count the rows that were ingested within each window, by statistics of the log wherever they suffice.

    Args:
        stream: The stream.
        windows: Lengths of the windows.
        now: The time at which they end (UTC).
    """
    good, rejected, redriven = stream.lake.good.open(), stream.lake.rejected.open(), redrive_cursor(stream)
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
