"""What ``make lint`` holds the SQL to, and that it would say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlfluff.core import FluffConfig, Linter

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "dbt_project" / "models"


@pytest.fixture(scope="module")
def linter() -> Iterator[Linter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield Linter(config=FluffConfig.from_path(str(ROOT)))


@pytest.mark.parametrize(
    ("was", "wrong", "rule"),
    [
        ("from {{ ref('events_history') }}", "FROM {{ ref('events_history') }}", "CP01"),
        ("        session_id,\n", "        session_id\n        ,", "LT04"),
        ("max(window_time) as", "max(window_time)  as", "LT01"),
        ("from newest", "from (newest", "PRS"),
        ("{{ ref('events_history') }}", "{{ ref('events_history'", "TMP"),
    ],
)
def test_sql_that_reads_otherwise_is_refused(linter: Linter, was: str, wrong: str, rule: str) -> None:
    path = MODELS / "marts" / "sessions" / "sessions_latest.sql"
    text = path.read_text()
    assert was in text
    assert linter.lint_string(text, fname=str(path)).get_violations() == []
    found = linter.lint_string(text.replace(was, wrong, 1), fname=str(path)).get_violations()
    assert rule in {one.rule_code() for one in found}


def test_every_model_becomes_sql(linter: Linter) -> None:
    """A file of which the templater makes nothing would pass as clean."""
    for path in MODELS.rglob("*.sql"):
        rendered = linter.render_string(path.read_text(), str(path), linter.config, "utf-8")
        assert rendered.templated_variants, path
        for variant in rendered.templated_variants:
            assert "select" in str(variant) and "{{" not in str(variant), path
