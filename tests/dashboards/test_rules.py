"""The rules as text: every expression parses, asks for what is told, and every alert has its cases for promtool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from dashboards.promql import RECORDED, RULE_LIST, unknown

CASES = yaml.safe_load(Path(__file__).with_name("prometheus").joinpath("rules_test.yml").read_text())["tests"]
ALERTS = [rule for rule in RULE_LIST if "alert" in rule]


@pytest.mark.parametrize("rule", RULE_LIST, ids=lambda rule: rule.get("alert") or rule["record"])
def test_an_expression_asks_for_what_is_told(rule: dict[str, str]) -> None:
    assert unknown(rule["expr"]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("headrace_lake_row > 1", ["headrace_lake_row"]),
        ('sum(rate(headrace_landed_rows_total{steam="events"}[5m]))', ["headrace_landed_rows_total: steam"]),
        ("absent(headrace_nothing) or (up == 0)", ["headrace_nothing"]),
        ("up and on (instance) stream:headrace_other:sum", ["stream:headrace_other:sum"]),
        ("headrace_alerts == 1", []),
        ("headrace_collector_held_requests == 1", []),
        ("headrace_collector_hold == 1", ["headrace_collector_hold"]),
        ("rate(headrace_collector_request_seconds_bucket[5m])", []),
    ],
)
def test_what_nothing_tells_would_be_noticed(text: str, found: list[str]) -> None:
    assert unknown(text) == found


def test_what_is_no_promql_would_be_noticed() -> None:
    with pytest.raises(ValueError, match=r"parenthesis"):
        unknown("sum(headrace_lake_rows")


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for case in CASES:
        for one in case.get("alert_rule_test", []):
            (fires if one["exp_alerts"] else silent).add(one["alertname"])
    names = {rule["alert"] for rule in ALERTS}
    assert fires == names
    assert silent == names


def test_every_recorded_value_has_a_case() -> None:
    tried = {one["expr"] for case in CASES for one in case.get("promql_expr_test", [])}
    assert tried == RECORDED


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_is_wrong(rule: dict[str, dict[str, str]]) -> None:
    own = rule.get("labels", {}).get("severity")
    assert own in ("error", "warning") or "headrace_check_failed" in rule["expr"]
    assert re.fullmatch(r"\d+m", str(rule["for"]))
    assert len(rule["annotations"]["summary"]) <= 160
