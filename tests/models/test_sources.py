"""dbt's sources are as the contracts of a person's streams are, and a stale file is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from headrace.core.errors import Fatal
from headrace.models import sources
from headrace.pipelines import Discovered, discover
from pipelines.test_discovery import CONTRACT
from pipelines.test_modules import PIPELINE, project

FIELDS = """
    paid: pl.String = field("{{ not Jinja }} {% nor this %}: 'quotes' # no comment", isin=("no", "yes: 1"))
    kind: pl.Int32 = field("one of two", required=True, isin={2, 1})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with one stream, whose contract has every kind of check that dbt knows."""
    folder = project(tmp_path)
    text = CONTRACT.format(dtype="pl.String").replace('    paid: pl.String = field("flag")\n', FIELDS)
    (tmp_path / "contracts" / "orders.py").write_text(text)
    (folder / "orders_pipeline.py").write_text(
        PIPELINE.replace('description="', 'models="shop", description="')
    )
    return tmp_path


def found_in(root: Path) -> Discovered:
    return discover(root / "pipelines")


def written(root: Path) -> Any:
    assert sources.write(root / "dbt", found_in(root))
    return yaml.safe_load((root / "dbt" / "models" / "sources" / "orders.yml").read_text())


def test_a_source_says_what_the_contract_says(shop: Path) -> None:
    [source] = written(shop)["sources"]
    good, rejected = source["tables"]
    assert (source["name"], good["name"], rejected["name"]) == ("raw", "orders", "orders_rejected")
    assert good["config"]["tags"] == ["shop"]
    assert good["config"]["meta"] == {
        "owner": "a@example.com", "contract_version": 1, "key": "order_id", "time": "placed_at"
    }  # fmt: skip
    columns = {one["name"]: one for one in good["columns"]}
    contract = found_in(shop).pipelines["orders"].contract
    assert list(columns) == list(contract.landed_schema)
    assert all(one["description"] and one["data_type"] for one in columns.values())
    assert columns["order_id"]["data_tests"] == ["not_null"]
    assert columns["placed_at"]["data_type"] == "DateTime64(6, 'UTC')"
    assert columns["paid"]["data_type"] == "Nullable(String)"
    recent = {"where": "_ingested_at >= now() - interval 2 day"}
    assert columns["paid"]["data_tests"] == [
        {"accepted_values": {"arguments": {"values": ["no", "yes: 1"]}, "config": recent}}
    ]
    assert columns["kind"]["data_tests"] == [
        "not_null", {"accepted_values": {"arguments": {"values": [1, 2], "quote": False}, "config": recent}}
    ]  # fmt: skip
    assert "data_tests" not in columns["_offset"]


def test_dbt_reads_it_without_a_warning_and_renders_nothing_of_it(shop: Path) -> None:
    written(shop)
    (shop / "dbt" / "dbt_project.yml").write_text("name: shop\nprofile: shop\nmodel-paths: [models]\n")
    (shop / "dbt" / "profiles.yml").write_text(
        "shop: {target: x, outputs: {x: {type: clickhouse, host: 127.0.0.1, port: 1, schema: x}}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "dbt.cli.main", "--no-use-colors", "ls", "--output", "json",
         "--output-keys", "name description columns", "--select", "source:raw.orders", "--resource-type", "source"],
        cwd=shop / "dbt", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "{ { not Jinja }} { % nor this %}: 'quotes' # no comment" in done.stdout
    assert "WARNING" not in done.stdout and "deprecat" not in done.stdout.lower()


def test_each_kind_of_stale_file_is_named_and_mended(shop: Path) -> None:
    dbt, file = shop / "dbt", shop / "dbt" / "models" / "sources" / "orders.yml"

    def stale() -> list[tuple[str, str]]:
        return [(one.path.name, one.why) for one in sources.compare(dbt, found_in(shop))]

    assert stale() == [("orders.yml", "missing")]
    sources.write(dbt, found_in(shop))
    assert stale() == []
    contract = shop / "contracts" / "orders.py"
    contract.write_text(contract.read_text().replace("one of two", "one of three"))
    assert stale() == [("orders.yml", "out of date")]
    sources.write(dbt, found_in(shop))
    assert "one of three" in file.read_text()
    mine = dbt / "models" / "sources" / "mine.yml"
    mine.write_text("version: 2\n")
    (shop / "pipelines" / "orders_pipeline.py").rename(shop / "orders_pipeline.py.txt")
    assert stale() == [("orders.yml", "of no stream")]
    sources.write(dbt, found_in(shop))
    assert not file.exists() and mine.exists()


def test_a_broken_pipeline_loses_no_source(shop: Path) -> None:
    written(shop)
    (shop / "contracts" / "orders.py").write_text("x = (\n")
    assert found_in(shop).broken
    assert sources.write(shop / "dbt", found_in(shop)) == []
    assert (shop / "dbt" / "models" / "sources" / "orders.yml").exists()


def test_a_file_that_somebody_wrote_is_not_overwritten(shop: Path) -> None:
    file = shop / "dbt" / "models" / "sources" / "orders.yml"
    file.parent.mkdir(parents=True)
    file.write_text("version: 2\n")
    with pytest.raises(Fatal, match=r"orders\.yml is not generated, and would be overwritten: move"):
        sources.write(shop / "dbt", found_in(shop))
    assert file.read_text() == "version: 2\n"
