"""What Dagster has recorded of asset checks, read from its tables: to import Dagster takes longer than to look.

The tables are those of Dagster's own storages, in SQLite or Postgres; ``tests/test_status.py`` holds this against an
instance that Dagster wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from headrace.errors import Fatal
from headrace.settings import Settings

_LAST = """
    SELECT asset_key, check_name, execution_status, evaluation_event FROM asset_check_executions
    WHERE id IN (
        SELECT max(id) FROM asset_check_executions WHERE execution_status IN ('SUCCEEDED', 'FAILED')
        GROUP BY asset_key, check_name
    )
    ORDER BY asset_key, check_name
"""


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
    address = _address(config)
    if address is None:
        return None
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    engine = create_engine(address, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("asset_check_executions"):
                return None
            rows = connection.execute(text(_LAST)).mappings().all()
    except SQLAlchemyError as error:
        raise Fatal(f"Dagster's tables cannot be read: {str(error).splitlines()[0]}") from None
    finally:
        engine.dispose()
    return [_check(dict(row)) for row in rows]


def _address(config: Settings) -> str | None:
    if config.dagster_postgres is not None:
        from headrace.orchestration.instance import postgres  # imports Dagster; only it knows the driver

        return postgres(config)
    file = _dagster_home(config) / "history" / "runs" / "index.db"
    return f"sqlite:///file:{quote(str(file))}?mode=ro&uri=true" if file.is_file() else None


def _dagster_home(config: Settings) -> Path:
    return config.dagster_home or config.home / "dagster"


def _check(row: Mapping[str, Any]) -> Check:
    event = json.loads(row["evaluation_event"])
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
