"""What Dagster has recorded of asset checks and runs, read from its tables: importing Dagster takes longer.

The tables are those of Dagster's own storages, in SQLite or Postgres; ``tests/health/test_status.py`` holds this
against an instance that Dagster wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from headrace.clients.postgres import reachable
from headrace.config.settings import Settings
from headrace.core.errors import Fatal
from headrace.core.packed import unpacked
from headrace.health.run_pauses import Ended, Pause, Policy, by_day, failing_days, pause_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

_LAST = """
    SELECT asset_key, check_name, execution_status, evaluation_event FROM asset_check_executions
    WHERE id IN (
        SELECT max(id) FROM asset_check_executions WHERE execution_status IN ('SUCCEEDED', 'FAILED')
        GROUP BY asset_key, check_name
    )
    ORDER BY asset_key, check_name
"""

#: Tags of runs: the code that launched it, why it failed (a key, and words).
VERSION, CAUSE, REASON = "headrace/version", "headrace/cause", "headrace/reason"
_SOURCE, _STREAM = "headrace/source", "headrace/stream"
_FIRST, _LAST_DAY = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
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
#: Runs that are looked at, and how long after its time a try is waited for: then nothing is left to be done.
_LOOK_BACK, _OVERDUE = timedelta(days=1), timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Check:
    """The last evaluation of an asset check.

    Attributes:
        asset: Key of the asset, with slashes.
        name: Of the check.
        passed: Whether it did.
        severity: What its failure means.
        said: Its description, or nothing.
        at: When (UTC).
    """

    asset: str
    name: str
    passed: bool
    severity: Literal["error", "warning"]
    said: str
    at: datetime

    @property
    def key(self) -> str:
        """As alerts name it."""
        return f"check/{self.asset}:{self.name}"


def last_checks(config: Settings) -> list[Check] | None:
    """The last evaluation of every check; None if Dagster has not run here.

    Raises:
        Fatal: Its tables cannot be read.
    """
    from sqlalchemy import text

    with _tables(config, "runs/index.db", "asset_check_executions") as connection:
        if connection is None:
            return None
        rows = connection.execute(text(_LAST)).mappings().all()
        return [_check(dict(row)) for row in rows]


def pauses(config: Settings, now: datetime | None = None) -> list[Pause]:
    """Jobs of sensors that fail, and when they are tried again.

    Raises:
        Fatal: Dagster's tables cannot be read.
    """
    from sqlalchemy import bindparam, text

    now = now or datetime.now(UTC)
    with _tables(config, "runs.db", "runs") as connection:
        if connection is None:
            return []
        since = {"since": f"{now - _LOOK_BACK:%Y-%m-%d %H:%M:%S}"}
        rows = connection.execute(text(_RUNS), since).mappings().all()
        keys = {"keys": [VERSION, CAUSE, REASON, _SOURCE, _STREAM, _FIRST, _LAST_DAY]}
        asked = text(_TAGS).bindparams(bindparam("keys", expanding=True))
        tags: dict[str, dict[str, str]] = {}
        for one in connection.execute(asked, {**since, **keys}).mappings():
            tags.setdefault(str(one["run_id"]), {})[str(one["key"])] = str(one["value"])
    by_job: dict[tuple[str, str], list[tuple[str, Ended | None]]] = {}
    for row in rows:
        own = tags.get(row["run_id"], {})
        by_job.setdefault((row["job"], own.get(_SOURCE, "")), []).append(
            (row["status"], _ended(dict(row), own))
        )
    policy = Policy(
        timedelta(seconds=config.run_pause_seconds), timedelta(seconds=config.run_pause_max_seconds)
    )
    found = [pause for key, runs in by_job.items() for pause in _pauses(*key, runs, policy)]
    return [one for one in found if one.trying or now < one.next_try + _OVERDUE]


def _pauses(
    job: str, source: str, runs: Sequence[tuple[str, Ended | None]], policy: Policy
) -> Iterator[Pause]:
    if job.startswith("ingest_") and not source:
        return  # by hand: no sensor tries that again
    over = [run for _, run in runs if run is not None]
    trying = any(status not in ("SUCCESS", "FAILURE", "CANCELED") for status, _ in runs)
    if not any(run.first for run in over):
        if pause := pause_of(over, policy):
            yield replace(pause, job=job, what=source, trying=trying)
        return
    days: dict[Pause, list[date]] = {}
    for day, pause in by_day(over, failing_days(over), policy).items():
        days.setdefault(pause, []).append(day)
    for pause, held in days.items():
        first, last = min(held), max(held)
        what = f"{first}" if first == last else f"{first} to {last}"
        yield replace(pause, job=job, what=what, trying=trying)


def _ended(row: Mapping[str, Any], tags: Mapping[str, str]) -> Ended | None:
    if row["status"] not in ("SUCCESS", "FAILURE") or row["end_time"] is None:
        return None
    return Ended(
        row["status"] == "SUCCESS",
        datetime.fromtimestamp(row["end_time"], UTC),
        row["end_time"] - (row["start_time"] or row["end_time"]),
        tags.get(VERSION, ""),
        tags.get(CAUSE, ""),
        tags.get(REASON, ""),
        date.fromisoformat(tags[_FIRST]) if _FIRST in tags else None,
        date.fromisoformat(tags[_LAST_DAY]) if _LAST_DAY in tags else None,
    )


@contextmanager
def _tables(config: Settings, file: str, table: str) -> Iterator[Connection | None]:
    """A connection to the tables of one of Dagster's storages; None if Dagster has not run here."""
    address = _address(config, file)
    if address is None:
        yield None
        return
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    engine = create_engine(address, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection if inspect(connection).has_table(table) else None
    except SQLAlchemyError as error:
        raise Fatal(f"Dagster's tables cannot be read: {str(error).splitlines()[0]}") from None
    finally:
        engine.dispose()


def _address(config: Settings, name: str) -> str | None:
    if config.dagster_postgres is not None:
        return reachable(config.dagster_postgres.get_secret_value())
    file = _dagster_home(config) / "history" / name
    return f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true" if file.is_file() else None


def _dagster_home(config: Settings) -> Path:
    return config.dagster_home or config.home / "dagster"


def _check(row: Mapping[str, Any]) -> Check:
    event = json.loads(unpacked(row["evaluation_event"]))
    found = event["dagster_event"]["event_specific_data"]
    severity = found.get("severity", {}).get("__enum__", "")
    rows = found["metadata"].get("dagster_dbt/failed_row_count", {}).get("value")
    said = found.get("description") or (f"{rows} rows fail this test of dbt" if rows else "")
    return Check(
        asset="/".join(json.loads(row["asset_key"])),
        name=row["check_name"],
        passed=row["execution_status"] == "SUCCEEDED",
        severity="warning" if severity.endswith(".WARN") else "error",
        said=" ".join(said.split())[:300],
        at=datetime.fromtimestamp(event["timestamp"], UTC),
    )
