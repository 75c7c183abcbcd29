"""The rules by promtool: each alert fires and is silent where it should, and every wrong rule is noticed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from headrace.dashboards.prometheus import RULES

from . import servers

CASES = Path(__file__).parents[1] / "dashboards" / "prometheus" / "rules_test.yml"
GROUPS: dict[str, Any] = yaml.safe_load(RULES.read_text())


def every_rule(of: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (rule for group in of["groups"] for rule in group["rules"])


def name_of(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


@pytest.fixture(scope="module")
def promtool() -> str:
    return str(servers.fetched(servers.PROMETHEUS) / "usr" / "bin" / "promtool")


def run(promtool: str, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def tried(promtool: str, folder: Path, rules: dict[str, Any], of: str) -> tuple[int, str]:
    """Run the cases of one rule on rules that were changed."""
    cases = yaml.safe_load(CASES.read_text())
    own = [one for one in cases["tests"] if one["name"].split()[0] == of]
    recorded = [one for one in cases["tests"] if one["name"] == "what is recorded"]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    chosen = {**cases, "rule_files": ["rules.yml"], "tests": own or recorded}
    (folder / "cases.yml").write_text(yaml.safe_dump(chosen))
    return run(promtool, "test", "rules", str(folder / "cases.yml"))


def test_promtool_finds_the_rules_well(promtool: str) -> None:
    status, said = run(promtool, "check", "rules", str(RULES))
    assert status == 0, said
    status, said = run(promtool, "test", "rules", str(CASES))
    assert status == 0, said


@pytest.mark.parametrize("name", [name_of(rule) for rule in every_rule(GROUPS)])
def test_a_rule_that_never_or_always_fires_or_says_something_else_is_noticed(
    promtool: str, tmp_path: Path, name: str
) -> None:
    assert tried(promtool, tmp_path, GROUPS, name)[0] == 0
    for change in ({"expr": "vector(0) > 1"}, {"expr": "vector(1)"}):
        wrong = deepcopy(GROUPS)
        [rule] = [one for one in every_rule(wrong) if name_of(one) == name]
        rule.update(change)
        status, said = tried(promtool, tmp_path, wrong, name)
        assert status != 0, f"{change}: {said}"
