"""Runs of the jobs that sensors launch, as Dagster's tables record them: which jobs fail, and when they are retried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from headrace.config.settings import Settings
from headrace.health.backoff import EndedRun, Pause, Policy, failing_days, pause_of, pauses_by_day
from headrace.health.dagster_tables import tables

#: Tags of runs: version of the code that launched it; cause of its failure, as a key; reason, in words.
VERSION, CAUSE, REASON = "headrace/version", "headrace/cause", "headrace/reason"
#: Tag of an ingest run that has landed what waited. It may stay for hours, so failures before it are over by then.
WELL = "headrace/well"
_SOURCE = "headrace/source"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_RUNS = """
    SELECT id, pipeline_name AS job, status, start_time, end_time, run_id FROM runs
    WHERE create_timestamp > :since AND (
        pipeline_name = 'deploy_views' OR pipeline_name LIKE 'ingest\\_%' ESCAPE '\\'
        OR pipeline_name LIKE 'refresh\\_%' ESCAPE '\\'
    )
    ORDER BY id DESC LIMIT 1000
"""
_TAGS = """
    SELECT run_id, key, value FROM run_tags
    WHERE run_id IN (SELECT run_id FROM runs WHERE create_timestamp > :since) AND key IN :keys
"""
#: Age of the runs that are read. A job whose next try is overdue by more than the second has nothing left to do.
_LOOK_BACK, _OVERDUE = timedelta(days=1), timedelta(seconds=90)


def pauses(config: Settings, now: datetime | None = None) -> list[Pause]:
    """Work out which jobs of sensors are failing, and when each is tried again.

    Raises:
        Fatal: Dagster's tables cannot be read.
    """
    from sqlalchemy import bindparam, text

    now = now or datetime.now(UTC)
    with tables(config, "runs.db", "runs") as connection:
        if connection is None:
            return []
        since = {"since": f"{now - _LOOK_BACK:%Y-%m-%d %H:%M:%S}"}
        rows = connection.execute(text(_RUNS), since).mappings().all()
        keys = {"keys": [VERSION, CAUSE, REASON, WELL, _SOURCE, _RANGE_START, _RANGE_END]}
        asked = text(_TAGS).bindparams(bindparam("keys", expanding=True))
        tags: dict[str, dict[str, str]] = {}
        for one in connection.execute(asked, {**since, **keys}).mappings():
            tags.setdefault(str(one["run_id"]), {})[str(one["key"])] = str(one["value"])
    by_job: dict[tuple[str, str], list[tuple[str, EndedRun | None]]] = {}
    for row in rows:
        own = tags.get(row["run_id"], {})
        by_job.setdefault((row["job"], own.get(_SOURCE, "")), []).append(
            (row["status"], _ended(dict(row), own))
        )
    policy = Policy.of(config)
    found = [pause for key, runs in by_job.items() for pause in _pauses(*key, runs, policy)]
    return [one for one in found if one.trying or now < one.next_try + _OVERDUE]


def _pauses(
    job: str, source: str, runs: Sequence[tuple[str, EndedRun | None]], policy: Policy
) -> Iterator[Pause]:
    if job.startswith("ingest_") and not source:
        return  # launched by hand: no sensor tries it again
    over = [run for _, run in runs if run is not None]
    trying = any(status not in ("SUCCESS", "FAILURE", "CANCELED") for status, _ in runs)
    if not any(run.first for run in over):
        if pause := pause_of(over, policy):
            yield replace(pause, job=job, what=source, trying=trying)
        return
    days: dict[Pause, list[date]] = {}
    for day, pause in pauses_by_day(over, failing_days(over), policy).items():
        days.setdefault(pause, []).append(day)
    for pause, held in days.items():
        first, last = min(held), max(held)
        what = f"{first}" if first == last else f"{first} to {last}"
        yield replace(pause, job=job, what=what, trying=trying)


def _ended(row: Mapping[str, Any], tags: Mapping[str, str]) -> EndedRun | None:
    """Return a run that has ended, or is well, as a success; None for any other."""
    if row["status"] == "STARTED" and WELL in tags:
        return EndedRun(succeeded=True, at=datetime.fromtimestamp(row["start_time"], UTC))
    if row["status"] not in ("SUCCESS", "FAILURE") or row["end_time"] is None:
        return None
    return EndedRun(
        row["status"] == "SUCCESS",
        datetime.fromtimestamp(row["end_time"], UTC),
        0.0 if WELL in tags else row["end_time"] - (row["start_time"] or row["end_time"]),
        tags.get(VERSION, ""),
        tags.get(CAUSE, ""),
        tags.get(REASON, ""),
        date.fromisoformat(tags[_RANGE_START]) if _RANGE_START in tags else None,
        date.fromisoformat(tags[_RANGE_END]) if _RANGE_END in tags else None,
    )
