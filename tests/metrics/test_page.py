"""The page of metrics in the docs: its definitions load, its code runs, its error is the one that is raised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from headrace.metrics import Catalogue, QuestionError, ask
from headrace.metrics.loading import Widths, family

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_definitions_load_and_the_code_runs() -> None:
    (text,), (code,) = blocks("yaml"), blocks("python")
    found = family(yaml.safe_load(text), "orders.yml", Widths())
    exec(code, {"catalogue": Catalogue({found.name: found})})


def test_the_error_is_the_one_that_is_raised(catalogue: Catalogue) -> None:
    with pytest.raises(QuestionError) as caught:
        ask(catalogue, "retention_rate", window="week", dimensions=["days_since"])
    assert f"```\n{caught.value}\n```" in PAGE


def test_importing_metrics_is_cheap() -> None:
    code = "import sys, headrace.metrics; print(*sorted({'polars', 'dbt', 'pandera', 'dagster'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
