"""``dbt docs generate`` makes a catalogue in which everything that people query is explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Warehouse

pytestmark = pytest.mark.xdist_group("dbt_docs")


@pytest.fixture(scope="module")
def generated(new_warehouse: Callable[..., Warehouse]) -> Path:
    """The folder with the generated files; the tables are empty."""
    warehouse = new_warehouse("documented")
    built = warehouse.dbt("run")
    assert built, built.error
    assert warehouse.dbt("docs", "generate")
    return warehouse.folder / "the target"


@pytest.fixture(scope="module")
def models(generated: Path) -> dict[str, dict[str, Any]]:
    nodes = json.loads((generated / "manifest.json").read_bytes())["nodes"]
    return {name: node for name, node in nodes.items() if node["resource_type"] == "model"}


def unexplained(models: dict[str, dict[str, Any]]) -> list[str]:
    """Models without a description, and columns of marts and staging without one."""
    missing = [node["name"] for node in models.values() if not node["description"].strip()]
    for node in models.values():
        if node["fqn"][1] in ("marts", "staging"):
            missing += [] if node["columns"] else [f"{node['name']}: columns"]
            missing += [
                f"{node['name']}.{column['name']}"
                for column in node["columns"].values()
                if not column["description"].strip()
            ]
    return missing


def test_every_model_and_every_column_of_the_marts_is_explained(models: dict[str, dict[str, Any]]) -> None:
    assert unexplained(models) == []
    damaged = json.loads(json.dumps(models))
    damaged["model.headrace.user_days"]["description"] = " "
    damaged["model.headrace.user_days"]["columns"]["user_id"]["description"] = ""
    assert unexplained(damaged) == ["user_days", "user_days.user_id"]


def test_the_catalogue_has_every_mart_with_its_columns_and_comments(
    generated: Path, models: dict[str, dict[str, Any]]
) -> None:
    catalogue = json.loads((generated / "catalog.json").read_bytes())
    assert not catalogue["errors"]
    marts = {name: node for name, node in models.items() if node["fqn"][1] == "marts"}
    assert len(marts) >= 18 and set(models) <= set(catalogue["nodes"])
    for name, node in marts.items():
        found = catalogue["nodes"][name]["columns"]
        assert list(found) == list(node["columns"]), name
        for column, said in node["columns"].items():
            assert found[column]["type"] == said["data_type"], (name, column)
            assert found[column]["comment"].strip() == said["description"].strip(), (name, column)
    assert (generated / "index.html").stat().st_size > 100_000
