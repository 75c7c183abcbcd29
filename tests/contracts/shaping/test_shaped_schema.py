"""The JSON Schema of a contract with shaping describes what a producer sends: what lands, it accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.shaping.test_shaped_records import records
from headrace.contracts.schema import json_schema
from headrace.contracts.shaping.formats import pattern_of
from headrace.core.batch import CheckedBatch
from shaped import VISIT, VISITS

NAMES = [("at", "ts", "Time Stamp"), ("user", "User Name"), ("price", "Price, EUR"), ("quantity", "qty", "n"),
         ("tags", "Tags"), ("context", "w")]  # fmt: skip
VALID = jsonschema.Draft202012Validator(json_schema(VISITS), format_checker=jsonschema.FormatChecker())


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=records())
def test_a_record_that_lands_fits_the_schema(
    judge: Callable[..., CheckedBatch], record: dict[str, Any]
) -> None:
    for (
        names
    ) in NAMES:  # a wrong value under a name that is not looked at lands, and is no producer's to send
        for name in [name for name in names if record.get(name) is not None][1:]:
            record.pop(name)
    if judge(VISITS, [json.dumps(record).encode()]).good.height:
        assert [error.message for error in VALID.iter_errors(record)] == []


def test_computed_fields_are_not_asked_for_and_others_are_under_all_their_names() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema(VISITS))
    properties = json_schema(VISITS)["properties"]
    assert not {"visit_id", "total", "shop", "url", "sku"} & properties.keys()
    assert {"at", "ts", "Time Stamp", "User Name", "note"} <= properties.keys()
    assert properties["context"]["properties"]["page"]["properties"]["url"]["type"] == ["string", "null"]
    assert (
        properties["items"]["prefixItems"][0]["properties"]["sku"]["description"]
        == "first thing in the basket"
    )
    assert "stripped and lower-cased" in properties["user"]["description"]
    assert properties["ts"]["description"].startswith(
        "another name of at: when; format %Y-%m-%d %H:%M:%S or epoch_ms"
    )
    assert properties["day"]["anyOf"][0]["pattern"] == r"^ ?\d{1,2}\.\d{1,2}\.\d{4}$"
    assert json_schema(replace(VISITS, unknown="reject"))["additionalProperties"] is False


WRONG: list[dict[str, Any]] = [
    {"at": None, "ts": None}, {"user": 5}, {"day": "2024-01-01"}, {"price": "x"}, {"channel": 1},
    {"context": {"page": "x"}}, {"items": {}}, {"w": "1"}, {"seen_at": 5}, {"quantity": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_record_of_other_types_does_not_fit_it(changes: dict[str, Any]) -> None:
    record = {**VISIT, **changes}
    assert list(VALID.iter_errors({name: value for name, value in record.items() if value is not None}))


def test_one_of_several_names_is_required() -> None:
    assert not list(VALID.iter_errors({"ts": 1710321674000, "User Name": "anna"}))
    assert list(VALID.iter_errors({"ts": 1710321674000}))
    assert list(VALID.iter_errors({"user": "anna"}))


@settings(deadline=None)
@given(moment=st.datetimes(datetime(1000, 1, 1)))
def test_what_a_format_writes_matches_its_pattern(moment: Any) -> None:
    for format in ("%d.%m.%Y %H:%M", "%b %d, %Y (%I:%M %p)", "%Y%m%dT%H%M%S.%f", "%a é %d/%m/%y"):
        assert re.search(pattern_of(format), moment.strftime(format))
