"""Compare the warehouse with the lake as of one published version.

A publisher adds the rows of a version before it records that version, and it need never pause. So rows of versions
after the published one may be in the warehouse already. Every row names the micro-batch with which it landed, and the
log names the micro-batches of each version. So rows of later versions can be told apart and are left out.

A look reads the published version first, then the warehouse, then the newest lake version. Every row that the warehouse
held is then of a version that is known by the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from headrace.core.errors import HistoryGone
from headrace.flow.publish import another_history, resume_at, version_of
from headrace.lake import LakeVersion
from headrace.lake.delta import DeltaLakeTable
from headrace.warehouse.clickhouse import ClickHouse

if TYPE_CHECKING:
    from headrace.streams.stream import Stream

_PAUSE_SECONDS = 0.5
#: Seconds within which lake and warehouse become comparable, unless days are rewritten all the time.
_LOOK_AGAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Parity:
    """Lake and warehouse as of one published version.

    Attributes:
        version: The published version; -1 if there is none.
        different: Rows in the lake and in the warehouse, for each day on which they differ.
        inconclusive: Reason why some days could not be compared; empty if all were.
        later: Rows in the warehouse that belong to later versions, which are on their way.
    """

    version: int
    different: Mapping[date, tuple[int, int]] = field(default_factory=dict)
    inconclusive: str = ""
    later: int = 0


@dataclass(frozen=True, slots=True)
class _Later:
    """Versions after the published one.

    Attributes:
        batches: Micro-batches whose rows they added.
        days: Partitions that they changed.
        unsettled: Partitions in which their rows cannot be told apart: rows were rewritten, or name no micro-batch.
    """

    batches: frozenset[str]
    days: frozenset[date]
    unsettled: frozenset[date]

    @classmethod
    def of(cls, versions: Collection[LakeVersion]) -> _Later:
        unclear = [one for one in versions if one.rewritten or (one.rows and not one.batches)]
        return cls(
            frozenset(batch for one in versions for batch in one.batches),
            frozenset(day for one in versions for day in one.days),
            frozenset(day for one in unclear for day in one.days),
        )


def compare(
    lake: DeltaLakeTable,
    warehouse: ClickHouse,
    days: Collection[date] | None = None,
    *,
    after: date = date.min,
    within: float = _LOOK_AGAIN_SECONDS,
) -> Parity:
    """Compare both, day by day, beside writers and publishers that never pause.

    Args:
        lake: The lake table.
        warehouse: The warehouse that it is published to.
        days: Days to compare; None for all.
        after: Day up to which raw rows have expired; it and earlier days are left out.
        within: Seconds in which days that are being rewritten are looked at again.
    """
    return settled(lambda: _look(lake, warehouse, days, after), within)


def settled(look: Callable[[], Parity], within: float, pause: float = _PAUSE_SECONDS) -> Parity:
    """Look until a difference is certain, or there is none.

    A day differs if it does so in two looks in a row: an erasure deletes from the warehouse before the lake's version
    says so.

    Args:
        look: Compares once.
        within: Seconds after which the comparison is inconclusive.
        pause: Seconds between two looks.
    """
    deadline, between = time.monotonic() + within, threading.Event()
    suspects: frozenset[date] = frozenset()
    while True:
        found = look()
        again = {day: pair for day, pair in found.different.items() if day in suspects}
        if again or not (found.different or found.inconclusive):
            return replace(found, different=again)
        if time.monotonic() >= deadline:
            why = found.inconclusive or "days differ in one look and not in the next"
            return replace(found, different={}, inconclusive=f"{why}, for {within:.0f} s")
        suspects = frozenset(found.different)
        between.wait(pause)


def parity(
    stream: Stream, days: Collection[date] | None = None, *, within: float = _LOOK_AGAIN_SECONDS
) -> Parity:
    """Compare lake and warehouse of a stream, leaving out days whose raw rows have expired; see ``compare``."""
    keep = stream.settings.raw_ttl_days
    after = datetime.now(UTC).date() - timedelta(days=keep) if keep else date.min
    return compare(stream.lake.good, stream.warehouse, days, after=after, within=within)


def _look(lake: DeltaLakeTable, warehouse: ClickHouse, days: Collection[date] | None, after: date) -> Parity:
    warehouse.prepare(lake.table)
    last = warehouse.published(lake.table, lake.id)
    version = version_of(last)
    if last is not None and (why := another_history(lake, lake.open().version, last)):
        return Parity(version, inconclusive=why)
    wanted = None if days is None else frozenset(days)
    batches: list[tuple[date, str, int]] = []
    try:
        held = lake.counts_by_day(version) if version >= 0 else {}
        counted = warehouse.counts_by_day(lake.table)
        later = _later(lake, version)
        moving = sorted(day for day in later.days if wanted is None or day in wanted)
        if moving:
            batches = warehouse.counts_by_batch(lake.table, moving)
            later = _later(lake, version)  # also those that began to be published since
    except HistoryGone as gone:
        return Parity(version, inconclusive=str(gone))
    counted |= dict.fromkeys(moving, 0)
    for day, batch, rows in batches:
        counted[day] += 0 if batch in later.batches else rows
    asked = {*held, *counted} if wanted is None else wanted
    pairs = {day: (held.get(day, 0), counted.get(day, 0)) for day in sorted(asked) if day > after}
    different = {day: pair for day, pair in pairs.items() if pair[0] != pair[1]}
    unclear = [day for day in different if day in later.unsettled]
    return Parity(
        version,
        {day: pair for day, pair in different.items() if day not in later.unsettled},
        f"{len(unclear):,} days, the first is {unclear[0]}, are being rewritten" if unclear else "",
        sum(rows for _, batch, rows in batches if batch in later.batches),
    )


def _later(lake: DeltaLakeTable, version: int) -> _Later:
    newest = lake.open().version
    return _Later.of([lake.describe(one) for one in range(resume_at(version), newest + 1)])


def arriving_days(stream: Stream, version: int) -> frozenset[date]:
    """List days of the models whose rows are in lake versions after ``version``."""
    return arriving(stream.lake.good, version, by_landing=stream.settings.window_time == "processing")


def arriving(lake: DeltaLakeTable, version: int, *, by_landing: bool = False) -> frozenset[date]:
    """List the days whose rows versions after ``version`` hold.

    Args:
        lake: The lake table.
        version: The published version; -1 if there is none.
        by_landing: Give the UTC days of the commits, instead of partitions.
    """
    newest, found = lake.open().version, set[date]()
    for one in range(resume_at(version), newest + 1):
        try:
            added = lake.describe(one)
            found |= {lake.committed_at(one).date()} if by_landing and added.days else {*added.days}
        except HistoryGone:
            continue  # it will be published whole, every day
    return frozenset(found)
