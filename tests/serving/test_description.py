"""What the server does is what its description says, tried by schemathesis; and it never ends in a defect."""

from __future__ import annotations

from typing import Any

import hypothesis
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import Served

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
#: Requests per route.
EXAMPLES = 8


def test_the_description_is_what_it_does(served: Served) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) == 7
    statuses: set[int] = set()
    for operation in operations:
        if operation.path == "/v1/stream":  # has no end; test_semantics listens
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def tried(case: Any) -> None:
            answer = case.call_and_validate(checks=CHECKS)
            statuses.add(answer.status_code)
            assert answer.status_code != 500, answer.text

        tried()
    assert {200, 400} <= statuses


def test_the_page_names_every_route(served: Served) -> None:
    found = served.get("/docs")
    assert found.status_code == 200
    for path in served.get("/openapi.json").json()["paths"]:
        assert path in found.text


def test_a_metric_whose_models_are_not_built_is_a_503_and_the_overview_goes_on(served: Served) -> None:
    found = served.get("/v1/metrics/sessions?from=2026-05-01&to=2026-05-02")
    assert (found.status_code, "not built" in found.json()["detail"]) == (503, True)
    metrics = {one["metric"]: one for one in served.get("/v1/overview").json()["metrics"]}
    assert metrics["events"]["value"] is not None
    assert "not built" in metrics["sessions"]["problem"]
