"""A project of the user's own with an installed wheel: Dagster, dg and dbt find everything without a checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installed import Installation, files_below

GRAPH = """
import json, warnings
warnings.simplefilter("ignore")
from headrace.orchestration.definitions import defs
graph = defs.get_repository_def().asset_graph
found = {}
for key in graph.get_all_asset_keys():
    node = graph.get(key)
    code = node.metadata.get("dagster/code_references")
    found["/".join(key.path)] = {
        "parents": sorted("/".join(parent.path) for parent in node.parent_keys),
        "group": node.group_name,
        "partitions": type(node.partitions_def).__name__,
        "checks": sorted(check.name for check in node.check_keys),
        "files": [one.file_path for one in code.code_references] if code else [],
        "columns": [c.name for c in node.metadata["dagster/column_schema"].columns]
        if "dagster/column_schema" in node.metadata else [],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def shop(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project as `headrace init` makes it; nothing of this module writes into the package."""
    folder = tmp_path_factory.mktemp("projects")
    before = files_below(installation.package)
    installation.run("headrace", "init", "shop", cwd=folder)
    yield folder / "shop"
    assert files_below(installation.package) == before


def environment(installation: Installation, shop: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(installation.run("headrace", "env", "--json", cwd=shop / "dbt").stdout)
    return found


@pytest.mark.long
def test_the_project_is_named_and_its_models_parse(installation: Installation, shop: Path) -> None:
    done = installation.run("headrace", "doctor", "--json", cwd=shop / "dbt" / "models", check=False)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["project"] == {"what": "project", "ok": True, "said": str(shop)}
    assert found["pipelines"]["said"] == "orders", "the built-in streams are left out"
    assert found["dbt project"]["ok"], found["dbt project"]


def test_dagster_shows_own_models_with_lineage_partitions_and_checks(
    installation: Installation, shop: Path
) -> None:
    graph: dict[str, Any] = json.loads(installation.python(GRAPH, shop / "pipelines").splitlines()[-1])
    assert not [key for key in graph if key.startswith("broken/")]
    mart = graph["marts/orders_daily"]
    assert mart["parents"] == ["staging/stg_orders", "warehouse/orders"]
    assert (mart["group"], mart["partitions"]) == ("marts", "DailyPartitionsDefinition")
    assert mart["checks"] == ["orders_daily_rows_hold"]
    assert mart["files"] == [str(shop / "dbt" / "models" / "marts" / "orders_daily.sql")]
    assert "revenue" in mart["columns"]
    assert graph["staging/stg_orders"]["parents"] == ["warehouse/orders"]
    assert graph["warehouse/orders"]["parents"] == ["lake/orders"]
    assert not [key for key in graph if key.endswith("/event_metrics")]


@pytest.mark.long
def test_dagster_and_dg_load_the_project(installation: Installation, shop: Path) -> None:
    env = environment(installation, shop)
    assert env["DAGSTER_HOME"] == str(shop / ".headrace" / "dagster")
    assert (shop / ".headrace" / "dagster" / "dagster.yaml").is_file()
    done = installation.run("dagster", "definitions", "validate", cwd=shop, env=env)
    assert "Validation successful for code location headrace" in done.stdout + done.stderr
    assert "orders_daily" in installation.run("dg", "list", "defs", "--json", cwd=shop, env=env).stdout


@pytest.mark.long
def test_plain_dbt_parses_and_compiles_offline(installation: Installation, shop: Path) -> None:
    dbt = shop / "dbt"
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    installation.run("dbt", "deps", "--quiet", cwd=dbt, env=nowhere)
    installation.run(
        "dbt", "compile", "--quiet", "--no-introspect", "--no-populate-cache", "--select", "orders_daily",
        cwd=dbt, env=nowhere,
    )  # fmt: skip
    sql = (dbt / "target" / "compiled" / "shop" / "models" / "marts" / "orders_daily.sql").read_text()
    assert "first_landed as (" in sql, "the package's macros are found"
    assert not (dbt / ".user.yml").exists(), "dbt reports nothing to anybody"
