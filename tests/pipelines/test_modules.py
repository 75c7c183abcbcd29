"""In a project, pipeline files import its contracts: as they are now, its own, and named where they are wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from headrace.pipelines import discover
from headrace.pipelines.modules import module_files
from pipelines.test_discovery import CONTRACT

PIPELINE = """
from contracts.orders import ORDERS

from headrace.pipelines import Kafka, Pipeline

pipeline = Pipeline(contract=ORDERS, sources=(Kafka("orders"),), owner="a@example.com", description="Orders")
"""


def project(root: Path, dtype: str = "pl.String") -> Path:
    """A project with one stream; gives its folder of pipelines."""
    for name in ("contracts", "pipelines"):
        (root / name).mkdir(parents=True)
    (root / "headrace.toml").touch()
    (root / "contracts" / "orders.py").write_text(CONTRACT.format(dtype=dtype))
    (root / "pipelines" / "orders_pipeline.py").write_text(PIPELINE)
    return root / "pipelines"


def dtype_of_paid(folder: Path) -> str:
    found = discover(folder)
    assert not found.broken
    return str(found.pipelines["orders"].contract.landed_schema["paid"])


def test_a_pipeline_imports_the_contract_of_its_project(tmp_path: Path) -> None:
    folder = project(tmp_path / "a shop")
    assert dtype_of_paid(folder) == "String"
    assert str(tmp_path) not in " ".join(sys.path)
    assert not [*tmp_path.rglob("__pycache__")], "nothing is left in the repository of a person"


def test_without_a_project_the_root_is_nobodys(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (tmp_path / "headrace.toml").unlink()
    assert "No module named 'contracts" in discover(folder).broken["orders_pipeline.py"]


def test_a_contract_is_read_again_when_it_changes_even_within_a_second(tmp_path: Path) -> None:
    folder = project(tmp_path, "pl.Int32")
    contract = tmp_path / "contracts" / "orders.py"
    seconds = contract.stat().st_mtime_ns // 10**9
    for n, (dtype, said) in enumerate([("pl.Int32", "Int32"), ("pl.Int64", "Int64"), ("pl.Int32", "Int32")]):
        contract.write_text(CONTRACT.format(dtype=dtype))  # as long as before
        os.utime(contract, ns=(0, seconds * 10**9 + n))
        assert dtype_of_paid(folder) == said


def test_what_a_contract_imports_is_read_again_too(tmp_path: Path) -> None:
    folder = project(tmp_path)
    shared = tmp_path / "contracts" / "shop" / "money.py"
    shared.parent.mkdir()
    contract = tmp_path / "contracts" / "orders.py"
    contract.write_text("from contracts.shop.money import PAID\n" + CONTRACT.format(dtype="PAID"))
    for dtype in ("Int64", "String"):
        shared.write_text(f"import polars as pl\nPAID = pl.{dtype}\n")
        assert dtype_of_paid(folder) == dtype
        assert shared in module_files(folder)


def test_two_projects_with_the_same_names_keep_their_own(tmp_path: Path) -> None:
    one, other = project(tmp_path / "one", "pl.Int32"), project(tmp_path / "other", "pl.Float64")
    assert [dtype_of_paid(folder) for folder in (one, other)] == ["Int32", "Float64"]
    (other / "orders_pipeline.py").write_text(PIPELINE + "# later\n")
    (one / "orders_pipeline.py").write_text(PIPELINE + "# later\n")
    assert [dtype_of_paid(folder) for folder in (other, one)] == ["Float64", "Int32"]


def test_an_installed_package_of_that_name_is_neither_taken_nor_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed" / "contracts").mkdir(parents=True)
    (tmp_path / "installed" / "contracts" / "__init__.py").write_text("WHOSE = 'of somebody else'\n")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    known = ModuleType("contracts")
    monkeypatch.setitem(sys.modules, "contracts", known)
    folder = project(tmp_path / "shop")
    assert dtype_of_paid(folder) == "String"
    assert sys.modules["contracts"] is known
    monkeypatch.delitem(sys.modules, "contracts")
    (folder / "orders_pipeline.py").write_text(PIPELINE + "# not imported yet\n")
    assert dtype_of_paid(folder) == "String"


def test_a_module_beside_a_pipeline_does_not_hide_an_installed_one(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (tmp_path / "polars.py").write_text("raise OSError('shadowed')\n")
    (tmp_path / "json.py").write_text("raise OSError('shadowed')\n")
    (tmp_path / "owners.py").write_text("SHOP = 'shop@example.com'\n")
    text = PIPELINE.replace("from contracts", "import json\nfrom owners import SHOP\nfrom contracts")
    (folder / "orders_pipeline.py").write_text(text.replace('"a@example.com"', "SHOP"))
    found = discover(folder)
    assert not found.broken
    assert found.pipelines["orders"].owner == "shop@example.com"


@pytest.mark.parametrize(
    ("contract", "said"),
    [
        ("x = 1\ny = (\n", "contracts/orders.py line 2: SyntaxError"),
        ("import polars\nx = polars.nothing\n", "contracts/orders.py line 2: AttributeError"),
        ("from contracts.order import X\n", "contracts/orders.py line 1: ModuleNotFoundError: No module"),
        ("ORDER = 1\n", "line 2: ImportError: cannot import name 'ORDERS' from 'contracts.orders'"),
    ],
)
def test_a_mistake_in_a_contract_is_named_with_file_and_line_and_forgotten_when_mended(
    tmp_path: Path, contract: str, said: str
) -> None:
    folder = project(tmp_path)
    (tmp_path / "contracts" / "orders.py").write_text(contract)
    assert discover(folder).broken["orders_pipeline.py"].startswith(said)
    (tmp_path / "contracts" / "orders.py").write_text(CONTRACT.format(dtype="pl.String"))
    assert dtype_of_paid(folder) == "String"


def test_a_fault_of_a_contract_is_named_in_its_file(tmp_path: Path) -> None:
    text = CONTRACT.format(dtype="pl.String").replace('time="placed_at"', 'time="placed"')
    folder = project(tmp_path)
    (tmp_path / "contracts" / "orders.py").write_text(text)
    why = discover(folder).broken["orders_pipeline.py"]
    line = text[: text.index("ORDERS =")].count("\n") + 1
    assert why.startswith(f"contracts/orders.py line {line}: contract 'orders': time 'placed' is no field"), (
        why
    )


def test_changes_of_a_contract_are_noticed_and_those_of_tests_are_not(tmp_path: Path) -> None:
    folder = project(tmp_path)
    for name in ("tests/test_streams.py", ".venv/x.py", "dbt/x.py", "owners.py", "contracts/deep/er/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [file.relative_to(tmp_path).as_posix() for file in module_files(folder)]
    assert names == [
        "contracts/deep/er/x.py", "contracts/orders.py", "owners.py", "pipelines/orders_pipeline.py"
    ]  # fmt: skip
