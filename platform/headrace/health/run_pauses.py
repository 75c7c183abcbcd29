"""When a job that fails may run again: after pauses that grow, worked out from the runs that have ended.

Nothing is kept: Dagster's record of the runs says when each failed and why. The pauses end with a success, or when the
code changes. A run takes at most half of the time, however long it lasts before it fails.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_NUMBERS = re.compile(r"\b[0-9a-f]{8,}(-[0-9a-f]+)*\b|\d+", re.IGNORECASE)
#: However much the reasons differ, so many failures are one more doubling.
_ANY_CAUSE = 4


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended.

    Attributes:
        succeeded: Whether it did.
        at: When it ended (UTC).
        seconds: How long it ran.
        version: Of the code that launched it; empty if nobody noted it.
        cause: What has the same cause fails for the same reason; empty if nobody noted it.
        reason: Why it failed, for a person.
        first: First day that it was about; None if it was not about days.
        last: Last one, inclusive.
    """

    succeeded: bool
    at: datetime
    seconds: float = 0.0
    version: str = ""
    cause: str = ""
    reason: str = ""
    first: date | None = None
    last: date | None = None

    def covers(self, day: date) -> bool:
        """Whether it was about that day."""
        return self.first is not None and self.last is not None and self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait: ``first`` after a failure, twice as long after each further one, never longer than ``most``."""

    first: timedelta
    most: timedelta


@dataclass(frozen=True, slots=True)
class Pause:
    """A job that fails.

    Attributes:
        failures: Since it last succeeded, or since the code changed.
        since: When the first of them ended (UTC).
        next_try: When it may run again (UTC).
        reason: Of the last of them.
        job: Its name.
        what: The source or the days that it fails for; empty if it is the job as a whole.
        trying: Whether it is being tried again now.
    """

    failures: int
    since: datetime
    next_try: datetime
    reason: str
    job: str = ""
    what: str = ""
    trying: bool = False

    def __str__(self) -> str:
        times = "once" if self.failures == 1 else f"{self.failures} times"
        when = "tried again now" if self.trying else f"next try at {self.next_try:%H:%M:%S} UTC"
        return (
            f"failed {times} since {self.since:%H:%M:%S}, {when}: {self.reason or 'see the log of the run'}"
        )


def pause_of(runs: Iterable[Ended], policy: Policy, version: str | None = None) -> Pause | None:
    """The pause that the runs of a job call for; None if its last run succeeded.

    Args:
        runs: The newest first.
        policy: How long to wait.
        version: Of the code that would run; failures of another one do not count. None: of the last run.
    """
    failed: list[Ended] = []
    for run in runs:
        version = run.version if version is None else version
        if run.succeeded or (run.version and run.version != version):
            break
        failed.append(run)
    if not failed:
        return None
    last = failed[0]
    same = sum(run.cause == last.cause for run in failed)
    doublings = max(same, -(-len(failed) // _ANY_CAUSE)) - 1
    wait = min(policy.most, policy.first * 2 ** min(doublings, 30))
    return Pause(
        len(failed), failed[-1].at, last.at + max(wait, timedelta(seconds=last.seconds)), last.reason
    )


def failing_days(runs: Sequence[Ended]) -> set[date]:
    """Days whose last run failed.

    Args:
        runs: The newest first.
    """
    failing: set[date] = set()
    well: list[Ended] = []
    for run in runs:
        if run.succeeded:
            well.append(run)
        elif run.first is not None and run.last is not None:
            days = (run.first + timedelta(days=n) for n in range((run.last - run.first).days + 1))
            failing |= {day for day in days if not any(later.covers(day) for later in well)}
    return failing


def by_day(
    runs: Sequence[Ended], days: Iterable[date], policy: Policy, version: str | None = None
) -> dict[date, Pause]:
    """The pause of each of these days that has one."""
    failed = [run for run in runs if not run.succeeded]
    found: dict[date, Pause] = {}
    for day in days:
        if any(run.covers(day) for run in failed):
            own = pause_of((run for run in runs if run.covers(day)), policy, version)
            if own is not None:
                found[day] = own
    return found


def apart(days: Iterable[date], held: Iterable[date]) -> list[list[date]]:
    """Days in order, in groups that have none of the held ones between them."""
    groups: list[list[date]] = [[]]
    walls = sorted(held)
    for day in sorted(days):
        if groups[-1] and any(groups[-1][-1] < wall < day for wall in walls):
            groups.append([])
        groups[-1].append(day)
    return [group for group in groups if group]


def cause_of(kind: str, reason: str) -> str:
    """Key of a failure's cause: its kind of error and its words without the numbers in them."""
    words = _NUMBERS.sub("#", reason.partition("\n")[0])
    return hashlib.sha256(f"{kind}\0{words}".encode()).hexdigest()[:12]
