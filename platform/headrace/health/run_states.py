"""Runs by state, the oldest that is queued, and the daemons' heartbeats, as Dagster's tables record them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.health.dagster_tables import tables

if TYPE_CHECKING:
    from headrace.config.settings import Settings

_STATES = "SELECT pipeline_name AS job, status, count(*) AS runs FROM runs GROUP BY pipeline_name, status"
_QUEUED = "SELECT min(create_timestamp) AS since FROM runs WHERE status = 'QUEUED'"
_HEARTBEATS = "SELECT daemon_type AS daemon, timestamp AS beat FROM daemon_heartbeats"


@dataclass(frozen=True, slots=True)
class RunStates:
    """What Dagster does at the moment.

    Attributes:
        runs: Runs that it lists, by job and state (``QUEUED``, ``STARTED``, ``SUCCESS``, ...).
        queued_since: When the oldest queued run was made (UTC); None if none is queued.
        heartbeats: The last sign of life of each daemon (UTC), by kind.
    """

    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    queued_since: datetime | None = None
    heartbeats: Mapping[str, datetime] = field(default_factory=dict)


def run_states(config: Settings) -> RunStates | None:
    """Count the runs by job and state; None if Dagster has not run here.

    Raises:
        Fatal: Dagster's tables cannot be read.
    """
    from sqlalchemy import text

    with tables(config, "runs.db", "daemon_heartbeats") as connection:
        if connection is None:
            return None
        states = connection.execute(text(_STATES)).mappings().all()
        queued = connection.execute(text(_QUEUED)).scalar()
        beats = connection.execute(text(_HEARTBEATS)).mappings().all()
    return RunStates(
        {(str(one["job"]), str(one["status"])): int(one["runs"]) for one in states},
        None if queued is None else _utc(queued),
        {str(one["daemon"]): _utc(one["beat"]) for one in beats},
    )


def _utc(at: Any) -> datetime:
    """Read a time of the tables: SQLite has text, Postgres a time without a zone, both UTC."""
    found = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
