"""PromQL taken apart: which measurements an expression asks for, with which labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser as promql
import yaml  # type: ignore[import-untyped]

from headrace.collector.meters import Counts
from headrace.dashboards.prometheus import RULES
from headrace.telemetry.families import FAMILIES

GROUPS: dict[str, Any] = yaml.safe_load(RULES.read_text())
RULE_LIST: list[dict[str, Any]] = [rule for group in GROUPS["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULE_LIST if "record" in rule}
#: Labels that every series has, whoever scrapes.
_TARGET = {"instance", "job"}
#: What Prometheus and the client library tell besides.
_OTHERS = {
    "up", "ALERTS", "scrape_duration_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes",
    "process_open_fds", "process_start_time_seconds",
}  # fmt: skip
_SUFFIXES = re.compile("_(bucket|sum|count)$")


@cache
def of_the_collector() -> frozenset[str]:
    """Names that the collector tells itself, which are passed on."""
    gauges = ("log_bytes", "waiting_entries", "problems")
    text = Counts().text({f"headrace_collector_{name}": ("", 0.0) for name in gauges})
    return frozenset(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def selectors(expression: promql.Expr) -> Iterator[promql.VectorSelector]:
    """Every selector in an expression."""
    match expression:
        case promql.VectorSelector():
            yield expression
        case promql.MatrixSelector():
            yield expression.vector_selector
        case promql.BinaryExpr():
            yield from selectors(expression.lhs)
            yield from selectors(expression.rhs)
        case promql.Call():
            for argument in expression.args:
                yield from selectors(argument)
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            yield from selectors(expression.expr)


def unknown(text: str) -> list[str]:
    """Measurements of an expression that nothing tells, and labels that they do not have.

    Raises:
        ValueError: It is no PromQL.
    """
    families = {one.name: {*one.labels, *_TARGET} for one in FAMILIES}
    found = []
    for one in selectors(promql.parse(text)):
        name = one.name or ""
        if name in RECORDED or name in _OTHERS or _SUFFIXES.sub("", name) in of_the_collector():
            continue
        if name not in families:
            found.append(name)
            continue
        found += [f"{name}: {m.name}" for m in one.matchers.matchers if m.name not in families[name]]
    return found
