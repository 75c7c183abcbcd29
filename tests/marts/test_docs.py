"""Every model is explained, held to a contract and tested; ``dbt docs generate`` makes the catalogue of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Warehouse

STATES = "model.headrace.speed_sessions"


@pytest.fixture(scope="module")
def generated(new_warehouse: Callable[..., Warehouse]) -> Path:
    """The folder with the generated files; the tables are empty."""
    warehouse = new_warehouse("documented")
    built = warehouse.dbt("run")
    assert built, built.error
    assert warehouse.dbt("docs", "generate")
    return warehouse.folder / "the target"


@pytest.fixture(scope="module")
def manifest(generated: Path) -> dict[str, Any]:
    return dict(json.loads((generated / "manifest.json").read_bytes()))


@pytest.fixture(scope="module")
def models(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return models_of(manifest)


def models_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: node for name, node in manifest["nodes"].items() if node["resource_type"] == "model"}


def lacking(manifest: dict[str, Any]) -> list[str]:
    """What a model lacks of what every model has."""
    tests = [node for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    tested = {node.get("attached_node") for node in tests}
    unit_tested = {node for test in manifest["unit_tests"].values() for node in test["depends_on"]["nodes"]}
    missing = []
    for name, node in models_of(manifest).items():
        has = {
            "description": node["description"].strip(),
            "grain": "one row per" in node["description"].lower() or "same grain" in node["description"],
            "contract": node["config"]["contract"]["enforced"],
            "columns": node["columns"],
            "data test": name in tested,
            "unit test": name in unit_tested,
        }
        missing += [f"{node['name']}: {what}" for what, there in has.items() if not there]
        missing += [
            f"{node['name']}.{column['name']}"
            for column in node["columns"].values()
            if not (column["description"].strip() and column["data_type"])
        ]
    return missing


def test_every_model_has_description_grain_contract_tests_and_unit_tests(manifest: dict[str, Any]) -> None:
    assert lacking(manifest) == []
    damaged = json.loads(json.dumps(manifest))
    node = damaged["nodes"]["model.headrace.user_days"]
    node["description"], node["columns"]["user_id"]["description"] = " ", ""
    damaged["nodes"]["model.headrace.stg_events"]["config"]["contract"]["enforced"] = False
    for name in [n for n, test in damaged["nodes"].items() if test.get("attached_node") == STATES]:
        del damaged["nodes"][name]
    for name in [n for n in damaged["unit_tests"] if ".stg_metrics." in n]:
        del damaged["unit_tests"][name]
    assert set(lacking(damaged)) == {
        "user_days: description",
        "user_days: grain",
        "user_days.user_id",
        "stg_events: contract",
        "stg_metrics: unit test",
        "speed_sessions: data test",
    }


def test_the_catalogue_has_every_mart_with_its_columns_and_comments(
    generated: Path, models: dict[str, dict[str, Any]]
) -> None:
    catalogue = json.loads((generated / "catalog.json").read_bytes())
    assert not catalogue["errors"]
    marts = {name: node for name, node in models.items() if node["fqn"][1] == "marts"}
    assert len(marts) >= 20 and set(models) <= set(catalogue["nodes"])
    for name, node in marts.items():
        found = catalogue["nodes"][name]["columns"]
        assert list(found) == list(node["columns"]), name
        for column, said in node["columns"].items():
            assert found[column]["type"] == said["data_type"], (name, column)
            assert found[column]["comment"].strip() == said["description"].strip(), (name, column)
    assert (generated / "index.html").stat().st_size > 100_000
