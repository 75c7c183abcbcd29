"""``headrace bench versions``, small."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from headrace.bench import versions
from headrace.cli import app


def test_costs_are_measured_on_records_that_land() -> None:
    done = CliRunner().invoke(app, ["bench", "versions", "--records", "200", "--runs", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)["versions"]
    assert len(found) == 6
    assert all(one["plain"] > 0 and one["ratio"] == one["grown"] / one["plain"] for one in found)


def test_records_that_are_refused_measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = versions._sent_now
    monkeypatch.setattr(versions, "_sent_now", lambda n: {**now(n), "schema_version": 4})
    with pytest.raises(AssertionError, match=r"known_version\(3\)|known_version\(1\.\.3\)"):
        versions.version_costs(records=100, repetitions=1)
