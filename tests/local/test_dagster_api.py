"""What is made of Dagster's answers."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.local.dagster_api import latest

PASSED = {"status": "SUCCEEDED", "evaluation": {"severity": "ERROR", "description": "all there"}}
DIED = {"status": "EXECUTION_FAILED", "evaluation": None}
RUNNING = {"status": "IN_PROGRESS", "evaluation": None}
SKIPPED = {"status": "SKIPPED", "evaluation": None}


@pytest.mark.parametrize(
    ("executions", "status", "description"),
    [
        ([], None, None),
        ([PASSED], "SUCCEEDED", "all there"),
        ([RUNNING, SKIPPED, PASSED, DIED], "SUCCEEDED", "all there"),
        ([DIED, PASSED], "EXECUTION_FAILED", None),
        ([RUNNING, SKIPPED], "IN_PROGRESS", None),
    ],
)
def test_a_check_shows_its_newest_result(
    executions: list[dict[str, Any]], status: str | None, description: str | None
) -> None:
    found = latest("lake/events", "every_message_once", executions)
    assert (found.asset, found.name) == ("lake/events", "every_message_once")
    assert (found.status, found.description) == (status, description)
