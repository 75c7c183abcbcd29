"""``headrace bench shaping``, small."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from headrace.bench import shaping
from headrace.cli import app


def test_costs_are_measured_on_records_that_land() -> None:
    done = CliRunner().invoke(app, ["bench", "shaping", "--records", "200", "--runs", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["shaping"]
    assert [one["name"] for one in found] == [case.name for case in shaping.CASES]
    assert all(one["plain"] > 0 and one["shaped"] > 0 for one in found)


def test_a_case_whose_records_are_refused_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = shaping.Case("wrong", shaping.NUMBER, shaping._text, shaping.TEXT, shaping._text)
    monkeypatch.setattr(shaping, "CASES", (wrong,))
    with pytest.raises(AssertionError, match=r"type\(number\)"):
        shaping.shaping_costs(records=100, repetitions=1)
