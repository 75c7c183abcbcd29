"""Resume a backfill where an earlier attempt stopped.

A run over many days notes each finished day as an observation of its asset. If it dies and is run again (by Dagster's
run retries, or from the UI with *Re-execute*), the new run belongs to the same group and skips the days of that group.
Rows that land meanwhile are published on top of a rebuilt day, as always.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of ops as objects

from collections.abc import Mapping
from datetime import date
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetObservation, DagsterEventType, DagsterInstance

_REBUILT = "rebuilt_rows"


def rebuilt(context: AssetExecutionContext, key: AssetKey, day: date, rows: int) -> None:
    """Note that a day is finished."""
    context.log_event(
        AssetObservation(key, partition=day.isoformat(), metadata={_REBUILT: rows}, description="rebuilt")
    )


def finished(instance: DagsterInstance, key: AssetKey, run_id: str | None) -> Mapping[str, Any]:
    """Read the days that a run, and those before it in its group, have finished, with their rows."""
    done: dict[str, Any] = {}
    while run_id is not None:
        for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_OBSERVATION):
            event = entry.get_dagster_event()
            seen = event.asset_observation_data.asset_observation
            if seen.asset_key == key and seen.partition and _REBUILT in seen.metadata:
                done.setdefault(seen.partition, seen.metadata[_REBUILT].value)
        before = instance.get_run_by_id(run_id)
        run_id = before.parent_run_id if before else None
    return done
