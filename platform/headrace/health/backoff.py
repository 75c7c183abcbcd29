"""Exponential backoff of jobs that fail, worked out from the runs that have ended.

No state is kept: Dagster's record of the runs says when each failed and why. The backoff ends with a success, or when
the code changes. A run takes at most half of the time, however long it lasts before it fails.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.config.settings import Settings

_NUMBERS = re.compile(r"\b[0-9a-f]{8,}(-[0-9a-f]+)*\b|\d+", re.IGNORECASE)
#: However much their causes differ, so many failures add one doubling.
_ANY_CAUSE = 4


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended.

    Attributes:
        succeeded: Whether it did.
        at: Its end (UTC).
        seconds: How long it worked in vain; 0 for a run that was well before it failed.
        version: Version of the code that launched it; empty if unknown.
        cause: Key of its failure; runs that fail for the same reason share it. Empty if unknown.
        reason: Its failure, for a person.
        first: First day of its range; None if it has no range.
        last: Last day of its range, inclusive.
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
        """Whether its range holds that day."""
        return self.first is not None and self.last is not None and self.first <= day <= self.last


@dataclass(frozen=True, slots=True)
class Policy:
    """Lengths of the pauses: each failure doubles them.

    Attributes:
        first: Pause after the first failure.
        most: Longest pause.
    """

    first: timedelta
    most: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Take the policy from the settings."""
        first, most = settings.run_pause_seconds, settings.run_pause_max_seconds
        return cls(timedelta(seconds=first), timedelta(seconds=max(first, most)))


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of a job that fails.

    Attributes:
        failures: Failures since its last success, or since the code changed.
        since: End of the first of them (UTC).
        next_try: Time from which it may run again (UTC).
        reason: Reason of the last failure.
        job: Name of the job.
        what: Source or days that it fails for; empty if it fails as a whole.
        trying: Whether a run is trying it again now.
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


def pause_of(runs: Iterable[EndedRun], policy: Policy, version: str | None = None) -> Pause | None:
    """Work out the pause of a job from its runs; None if the last run succeeded.

    Args:
        runs: Its runs, the newest first.
        policy: Lengths of the pauses.
        version: Version of the code that would run; failures of other versions do not count. None takes that of the
            last run.
    """
    failed: list[EndedRun] = []
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


def failing_days(runs: Sequence[EndedRun]) -> set[date]:
    """Find the days whose last run failed.

    Args:
        runs: Runs of a job, the newest first.
    """
    failing: set[date] = set()
    well: list[EndedRun] = []
    for run in runs:
        if run.succeeded:
            well.append(run)
        elif run.first is not None and run.last is not None:
            days = (run.first + timedelta(days=n) for n in range((run.last - run.first).days + 1))
            failing |= {day for day in days if not any(later.covers(day) for later in well)}
    return failing


def pauses_by_day(
    runs: Sequence[EndedRun], days: Iterable[date], policy: Policy, version: str | None = None
) -> dict[date, Pause]:
    """Work out the pause of each of these days that has one; arguments as of ``pause_of``."""
    failed = [run for run in runs if not run.succeeded]
    found: dict[date, Pause] = {}
    for day in days:
        if any(run.covers(day) for run in failed):
            own = pause_of((run for run in runs if run.covers(day)), policy, version)
            if own is not None:
                found[day] = own
    return found


def split_at(days: Iterable[date], held: Iterable[date]) -> list[list[date]]:
    """Sort days into groups that have no held day between them."""
    groups: list[list[date]] = [[]]
    walls = sorted(held)
    for day in sorted(days):
        if groups[-1] and any(groups[-1][-1] < wall < day for wall in walls):
            groups.append([])
        groups[-1].append(day)
    return [group for group in groups if group]


def cause_of(kind: str, reason: str) -> str:
    """Make the key of a failure's cause: its kind of error and its words, without the numbers in them."""
    words = _NUMBERS.sub("#", reason.partition("\n")[0])
    return hashlib.sha256(f"{kind}\0{words}".encode()).hexdigest()[:12]
