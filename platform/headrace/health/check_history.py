"""The last evaluations of asset checks, as Dagster's tables record them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.config.settings import Settings
from headrace.core.packed import unpacked
from headrace.health.dagster_tables import tables

if TYPE_CHECKING:
    from headrace.health.verdicts import Severity

_LAST = """
    SELECT asset_key, check_name, execution_status, evaluation_event FROM asset_check_executions
    WHERE id IN (
        SELECT max(id) FROM asset_check_executions WHERE execution_status IN ('SUCCEEDED', 'FAILED')
        GROUP BY asset_key, check_name
    )
    ORDER BY asset_key, check_name
"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The last evaluation of an asset check.

    Attributes:
        asset: Key of the asset, with slashes.
        name: Name of the check.
        passed: Whether it did.
        severity: Weight of a failure.
        said: Its description; empty if it has none.
        at: Its time (UTC).
    """

    asset: str
    name: str
    passed: bool
    severity: Severity
    said: str
    at: datetime

    @property
    def key(self) -> str:
        """Key of its alert."""
        return f"check/{self.asset}:{self.name}"


def last_evaluations(config: Settings) -> list[Evaluation] | None:
    """Read the last evaluation of every check; None if Dagster has not run here.

    Raises:
        Fatal: Its tables cannot be read.
    """
    from sqlalchemy import text

    with tables(config, "runs/index.db", "asset_check_executions") as connection:
        if connection is None:
            return None
        rows = connection.execute(text(_LAST)).mappings().all()
        return [_evaluation(dict(row)) for row in rows]


def _evaluation(row: Mapping[str, Any]) -> Evaluation:
    event = json.loads(unpacked(row["evaluation_event"]))
    found = event["dagster_event"]["event_specific_data"]
    severity = found.get("severity", {}).get("__enum__", "")
    rows = found["metadata"].get("dagster_dbt/failed_row_count", {}).get("value")
    said = found.get("description") or (f"{rows} rows fail this test of dbt" if rows else "")
    return Evaluation(
        asset="/".join(json.loads(row["asset_key"])),
        name=row["check_name"],
        passed=row["execution_status"] == "SUCCEEDED",
        severity="warning" if severity.endswith(".WARN") else "error",
        said=" ".join(said.split())[:300],
        at=datetime.fromtimestamp(event["timestamp"], UTC),
    )
