"""Retention of Dagster's runs, events and ticks, by age and by number, so that its databases stop growing.

The newest events of every asset, day and check stay whatever their age: they are the days that the UI shows as built.
Dagster's own way of removing runs would take these along. So rows are removed from its tables themselves; where those
are built differently than ``tables.py`` expects, nothing is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from dagster import DagsterInstance

from headrace.config.settings import Settings
from headrace.orchestration.runtime.trial import works


@dataclass(frozen=True, slots=True)
class Keep:
    """The limits of the retention.

    Attributes:
        since: Time before which events, logs and runs go.
        runs: Newest runs of each job and outcome that keep their events and logs.
        listed: Newest runs of each job and outcome that stay in the list.
        history: Newest events of each kind about each day of each asset, and newest evaluations of each check, that
            stay; one of them stays whatever its age.
    """

    since: datetime
    runs: int
    listed: int
    history: int

    @classmethod
    def of(cls, settings: Settings) -> Keep:
        """Take the limits from the settings, as of now."""
        since = datetime.now(UTC) - timedelta(days=settings.runs_keep_days)
        return cls(since, settings.runs_keep, settings.runs_listed, settings.asset_history)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Counts of what was removed.

    Attributes:
        logs: Runs that lost their events and logs.
        runs: Runs that are no longer listed.
        events: Events of assets, and evaluations of checks.
        ticks: Ticks of sensors and schedules.
    """

    logs: int
    runs: int
    events: int
    ticks: int


def forget(instance: DagsterInstance, keep: Keep) -> Forgotten:
    """Remove what is beyond the limits. Safe while runs go on, which it does not touch."""
    if not works("retention", partial(_try, instance), instead="Dagster keeps all runs, events and ticks"):
        return Forgotten(0, 0, 0, 0)
    from headrace.orchestration.runtime import tables

    quiet, unlisted = tables.old_runs(instance, keep)
    logs = sum(tables.forget_events(instance, run_id) for run_id in quiet)
    events = tables.forget_history(instance, keep, quiet)
    runs = tables.forget_runs(instance, unlisted)
    ticks = tables.forget_ticks(instance)
    tables.shrink(instance)
    return Forgotten(logs, runs, events, ticks)


def _try(instance: DagsterInstance) -> None:
    from headrace.orchestration.runtime import tables

    tables.try_tables(instance)
