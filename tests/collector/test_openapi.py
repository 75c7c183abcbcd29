"""What the collector does is what its description says, tried by schemathesis against a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from collector.server import collector

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: Requests per route.
EXAMPLES = 5


def test_the_description_is_what_it_does(tmp_path: Path) -> None:
    with collector(tmp_path / "home") as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
        assert len(operations) > 30
        for operation in operations:

            @hypothesis.given(case=operation.as_strategy())
            @hypothesis.settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            def tried(case: Any) -> None:
                case.call_and_validate(checks=CHECKS, headers={"authorization": f"Bearer {server.key}"})

            tried()
        assert server.stop() == 0
        assert "defect" not in server.said.read_text()


def test_without_a_key_no_route_takes_anything(tmp_path: Path) -> None:
    with collector(tmp_path / "home") as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        for found in schema.get_all_operations():
            operation: Any = found.ok()  # type: ignore[union-attr]
            if operation.method.upper() != "POST":
                continue
            for wrong in ({}, {"authorization": "Bearer hr_wrong"}):
                answer = operation.Case(headers=wrong, body={}, media_type="application/json").call()
                assert answer.status_code in (400, 401, 415), (operation.path, answer.status_code)
        assert server.stop() == 0
        assert server.records() == []
