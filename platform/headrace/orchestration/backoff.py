"""Dagster's side of the backoff: read the ended runs of a job, and their failures (``health.backoff``)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster_shared.error import SerializableErrorInfo

from headrace.config.settings import Settings
from headrace.health.backoff import EndedRun, Pause, Policy, cause_of, failing_days, pause_of, pauses_by_day
from headrace.health.run_history import CAUSE, REASON, VERSION, WELL
from headrace.orchestration.partitions import RANGE_END, RANGE_START
from headrace.pipelines.modules import module_files

#: Ended runs that are read; with fewer failures than these the pause has reached its longest.
_READ = 60
_PACKAGE = Path(__file__).parents[1]
_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]
#: Beginning of the message of Headrace's own errors, and what libraries colour theirs with.
_OWN_ERRORS = "headrace.core.errors."
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Backoff:
    """The backoff of jobs that one version of the code launches.

    Attributes:
        version: Tag of the runs that it launches; failures of other versions do not count.
        policy: Lengths of the pauses.
    """

    version: str
    policy: Policy

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a run that this code launches."""
        return {VERSION: self.version}

    def pause(
        self, instance: DagsterInstance, job: str, tags: Mapping[str, str], now: datetime | None = None
    ) -> Pause | None:
        """Find the pause that a job is in; None if it may run.

        Args:
            instance: The instance that recorded its runs.
            job: Its name.
            tags: Tags that its runs have.
            now: The time (UTC).
        """
        found = pause_of(ended_runs(instance, job, tags), self.policy, self.version)
        return found if found is not None and (now or datetime.now(UTC)) < found.next_try else None

    def paused_days(
        self,
        instance: DagsterInstance,
        job: str,
        tags: Mapping[str, str],
        days: Iterable[date],
        now: datetime | None = None,
    ) -> dict[date, Pause]:
        """Find the days that a job has to leave alone for now, each with its pause; arguments as of ``pause``."""
        now = now or datetime.now(UTC)
        runs = ended_runs(instance, job, tags)
        found = pauses_by_day(runs, days, self.policy, self.version)
        return {day: pause for day, pause in found.items() if now < pause.next_try}


def backoff(settings: Settings, *made_of: str) -> Backoff:
    """Make the backoff of this installation.

    Args:
        settings: Settings with the policy. A changed setting counts as another version, because it may be the cure.
        made_of: Other parts of the version: the checksum of a pipeline's file, a version of the models.
    """
    said = [_package(), settings.model_dump_json(), *made_of]
    version = hashlib.sha256("\0".join(said).encode()).hexdigest()[:12]
    return Backoff(version, Policy.of(settings))


def checksum_beside(file: Path) -> str:
    """Hash the modules in the folder of a pipeline's file, and its project's: it may import any of them."""
    digest = hashlib.sha256()
    for path in module_files(file.parent):
        digest.update(f"{path.name}\0".encode())
        with suppress(OSError):  # a folder of that name, a link to nowhere: nobody can import it
            digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _package() -> str:
    return checksum_beside(_PACKAGE / "__init__.py")


def ended_runs(instance: DagsterInstance, job: str, tags: Mapping[str, str]) -> list[EndedRun]:
    """Read the runs of a job that have ended, the newest first. Notes the cause of a failure in the run's tags."""
    filters = RunsFilter(job_name=job, tags=dict(tags), statuses=_ENDED)
    return [_read(instance, record) for record in instance.get_run_records(filters, limit=_READ)]


def still_failing(instance: DagsterInstance, run: DagsterRun, tags: Mapping[str, str]) -> bool:
    """Tell whether a job fails for other days than those for which this run of it succeeded."""
    return RANGE_START in run.tags and bool(failing_days(ended_runs(instance, run.job_name, tags)))


def _read(instance: DagsterInstance, record: RunRecord) -> EndedRun:
    run = record.dagster_run
    at = record.end_time if record.end_time is not None else record.update_timestamp.timestamp()
    succeeded = run.status is DagsterRunStatus.SUCCESS
    tags = dict(run.tags)
    if not succeeded and CAUSE not in tags:
        kind, reason = failure_of(instance, run.run_id)
        noted = {CAUSE: cause_of(kind, reason), REASON: " ".join(reason.split())[:300]}
        instance.add_run_tags(run.run_id, noted)
        tags |= noted
    return EndedRun(
        succeeded,
        datetime.fromtimestamp(at, UTC),
        max(0.0, at - record.start_time) if record.start_time is not None and WELL not in tags else 0.0,
        tags.get(VERSION, ""),
        tags.get(CAUSE, ""),
        tags.get(REASON, ""),
        date.fromisoformat(tags[RANGE_START]) if RANGE_START in tags else None,
        date.fromisoformat(tags[RANGE_END]) if RANGE_END in tags else None,
    )


def failure_of(instance: DagsterInstance, run_id: str) -> tuple[str, str]:
    """Read the kind of error with which a run failed, and its first lines."""
    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    records = instance.get_records_for_run(run_id, of_type=kinds).records
    events = [e for record in records if (e := record.event_log_entry.dagster_event)]
    steps = [e for e in events if e.event_type is DagsterEventType.STEP_FAILURE]
    errors = [e.step_failure_data.error for e in steps if e.step_failure_data.error]
    if errors:
        return told(errors[0]).cls_name or "", first_lines(errors[0])
    return "", next((e.message or "" for e in events), "")


def told(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """Follow an error to Headrace's own, which says what to do, or to its first cause."""
    while error.cause and not error.message.startswith(_OWN_ERRORS):
        error = error.cause
    return error


def first_lines(error: SerializableErrorInfo) -> str:
    """Cut the message of an error's reason to three lines without colours; of dbt, take the errors that it lists."""
    message = _COLOUR.sub("", told(error).message)
    if message.startswith(_OWN_ERRORS):
        message = message.partition(": ")[2]
    before, _, of_dbt = message.partition("Errors parsed from dbt logs:")
    lines = [line.strip() for line in (of_dbt or before).strip().splitlines() if line.strip()]
    return "\n".join(lines[:3])[:500]
