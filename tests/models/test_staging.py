"""A model that lists columns and lacks some since its contract grew is named, with the line and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from headrace.models import sources
from headrace.models.staging import edits
from headrace.pipelines import discover
from pipelines.test_discovery import CONTRACT
from pipelines.test_modules import project

GREW = """
    store: pl.String = field("where", was={2: Was(name="shop")})
    country: pl.String = field("where to", since=2)
    gone: pl.String = field("no longer", since=2, retired=3)
"""
MODEL = """with source as (
    select * from {{ source('raw', 'orders') }}
)
select
    order_id,
    shop
from source
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project whose contract is at version 3."""
    project(tmp_path)
    text = CONTRACT.format(dtype="pl.String").replace('    paid: pl.String = field("flag")\n', GREW)
    text = "from headrace.contracts import Was\n" + text.replace("version=1", "version=3")
    (tmp_path / "contracts" / "orders.py").write_text(text)
    (tmp_path / "dbt" / "models" / "staging").mkdir(parents=True)
    return tmp_path


def said(shop: Path, model: str) -> list[tuple[int, str]]:
    path = shop / "dbt" / "models" / "staging" / "stg_orders.sql"
    path.write_text(model)
    found = discover(shop / "pipelines")
    assert not found.broken
    lacking = edits(shop / "dbt", found)
    assert {one.path for one in lacking} <= {path}
    return [(one.line, one.said) for one in lacking]


def test_what_a_model_lacks_is_said_with_its_line(shop: Path) -> None:
    assert said(shop, MODEL) == [
        (6, "write 'store' instead of 'shop', or 'store as shop' for those who read it"),
        (6, "add 'country,' after this line, or a comment that names it to leave it out"),
    ]


@pytest.mark.parametrize(
    "model",
    [
        MODEL.replace("    shop\n", "    store,\n    country\n"),
        MODEL.replace("    shop\n", "    store as shop -- without country\n"),
        "select * from {{ source('raw', 'orders') }}\n",
        MODEL.replace("'orders'", "'others'"),
        MODEL.replace("source('raw'", "source('other'"),
    ],
    ids=["all", "left out on purpose", "all columns", "another stream", "another source"],
)
def test_a_model_that_lacks_nothing_is_left_alone(shop: Path, model: str) -> None:
    assert said(shop, model) == []


def test_tests_of_sources_are_such_that_rows_of_every_version_pass(shop: Path) -> None:
    text = (shop / "contracts" / "orders.py").read_text()
    (shop / "contracts" / "orders.py").write_text(
        text.replace(
            '    country: pl.String = field("where to", since=2)\n',
            '    country: pl.String = field("where to", since=2, required=True)\n'
            '    kind: pl.String = field("one of", isin=("a",), required=True, was={1: Was(isin=("a", "b"))})\n'
            '    size: pl.String = field("one of", isin=("s", "m"))\n',
        )
    )
    found = discover(shop / "pipelines")
    assert not found.broken
    sources.write(shop / "dbt", found)
    [source] = yaml.safe_load((shop / "dbt" / "models" / "sources" / "orders.yml").read_text())["sources"]
    tested = {one["name"]: one.get("data_tests", []) for one in source["tables"][0]["columns"]}
    assert tested["country"] == [], "rows of version 1 have none"
    assert tested["kind"] == ["not_null"], "others are accepted still"
    assert list(tested["size"][0]) == ["accepted_values"]


def test_what_is_said_is_enough(shop: Path) -> None:
    lines = MODEL.splitlines()
    lines[5] = "    store,"
    lines.insert(6, "    country")
    assert said(shop, "\n".join(lines)) == []
