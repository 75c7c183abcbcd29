"""The common ground of the sensors. Sensors only look: at backlogs, at stale days, at the dbt project."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from threading import Lock

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    RunsFilter,
    SensorEvaluationContext,
)

from headrace.orchestration.runtime.types import InstanceRef

SOURCE = "headrace/source"
VIEWS = "headrace/views"
#: Runs of the job that deploys views among which those of a version are looked for.
_DEPLOYMENTS = 20
#: Statuses of a run that is queued or goes on.
ACTIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_opened: list[tuple[InstanceRef, DagsterInstance]] = []
_opening = Lock()


def instance_of(context: SensorEvaluationContext) -> DagsterInstance:
    """Give Dagster's instance, opened once: ``context.instance`` opens it at every tick.

    Opening reads the migration history of three databases, which costs more than all that a tick looks at. That is
    also why sensors take the streams as an argument of their factory and not as a resource: building a resource
    opens the instance too.
    """
    ref = context.instance_ref
    if ref is None:  # in a test, with an instance of its own
        return context.instance
    with _opening:
        if not _opened or _opened[0][0] != ref:
            _opened[:] = [(ref, DagsterInstance.from_ref(ref))]
        return _opened[0][1]


def active(instance: DagsterInstance, tags: Mapping[str, str], job: str) -> bool:
    """Tell whether a run of the job with these tags is queued or goes on."""
    return instance.get_runs_count(RunsFilter(job_name=job, statuses=ACTIVE, tags=dict(tags))) > 0


def deployments(instance: DagsterInstance, job: str, version: str) -> list[DagsterRun]:
    """List the runs that deployed this version of the views, the newest first, since another one was deployed.

    A version that comes back, because a change was taken back, is not deployed any more: the runs of the other one may
    have replaced some of its views.

    Args:
        instance: The instance that recorded the runs.
        job: The job that deploys views.
        version: Version of the views.
    """
    found = []
    for run in instance.get_runs(RunsFilter(job_name=job), limit=_DEPLOYMENTS):
        deployed = run.tags.get(VIEWS)
        if deployed == version:
            found.append(run)
        elif deployed is not None:  # runs by hand have no version
            break
    return found


def seconds(given: timedelta | None, setting: int) -> int:
    """Take the seconds that a pipeline declares, at least one, or else those of the setting."""
    return setting if given is None else max(1, round(given.total_seconds()))
