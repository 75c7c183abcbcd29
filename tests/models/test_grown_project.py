"""A project of one's own whose contract grows: its dbt models are right, or one line says what to write in which."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import commands
from conftest import Stack
from headrace.scaffold.project import create
from headrace.warehouse.server import Server

CONTRACT = '''"""The contract of ``orders``."""

import pandera.polars as pa
import polars as pl
from headrace.contracts import Contract, Time, Was, field


class Orders(pa.DataFrameModel):
    """An order that a customer placed, one row per order."""

    order_id: pl.String = field("the shop's number of the order", required=True)
    placed_at: Time = field("when it was placed", required=True)
    country: pl.String = field("where it goes", required=True, low_cardinality=True)
{fields}
    schema_version: pl.Int32 = field("version of this contract")


ORDERS = Contract(
    name="orders",
    version={version},
    claims="schema_version",
    model=Orders,
    key="order_id",
    time="placed_at",
    partition="order_date",
    order_by=("country", "placed_at"),
)
'''
FIRST = """
    amount: pl.Int32 = field("what it costs, EUR", required=True, ge=0)
    coupon: pl.String = field("the coupon, if there was one")
    note: pl.String = field("a note")
"""
SECOND = """
    amount: pl.Int64 = field("what it costs, EUR", required=True, ge=0, was={1: Was(dtype=pl.Int32)})
    voucher: pl.String = field("the voucher, if there was one", was={1: Was(name="coupon")})
    note: pl.String = field("a note", retired=2)
    channel: pl.String = field("how it came", required=True, since=2, default="web")
"""
#: Every column, as a person writes it who wants them all.
EVERYTHING = "{{ config(tags=['orders']) }}\n\nselect * from {{ source('raw', 'orders') }}\n"
OLD = {"schema_version": 1, "placed_at": "2026-05-01T10:00:00Z", "country": "DE"}
NEW = {**OLD, "schema_version": 2}
MART = "select orders, revenue, with_coupon, largest from analytics.orders_daily"

Run = Callable[..., Any]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose contract is at its first version."""
    root = create(tmp_path / "shop", "shop").root
    grow(root, FIRST, 1)
    (root / "data" / "orders" / "sample.csv").unlink()
    (root / "dbt" / "models" / "staging" / "everything.sql").write_text(EVERYTHING)
    mart = root / "dbt" / "models" / "marts" / "orders_daily.sql"
    mart.write_text(mart.read_text().replace("as with_coupon", "as with_coupon,\n    max(amount) as largest"))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def name() -> str:
    """What the databases of the project end with."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def run(shop: Path, stack: Stack, name: str) -> Run:
    """``run(*arguments)``: what a command of that project says as JSON; ``status`` is what it must end with."""
    env = {
        **stack.environment,
        "HEADRACE_HOME": str(shop / ".headrace"),
        "HEADRACE_RAW_DATABASE": f"raw_{name}",
        "HEADRACE_DBT_SCHEMA": f"analytics_{name}",
        "HEADRACE_ARCHIVE_QUIET_SECONDS": "0",
    }

    def command(*arguments: str, status: int = 0) -> Any:
        given = [
            one.replace("analytics.", f"analytics_{name}.").replace("staging.", f"analytics_{name}_staging.")
            for one in arguments
        ]
        done = commands.run(*given, "--json", env=env)
        assert done.returncode == status, f"{arguments}: {done.stdout.decode()}{done.stderr.decode()}"
        return json.loads(done.stdout) if done.stdout else done.stderr.decode()

    return command


def grow(shop: Path, fields: str, version: int) -> None:
    text = CONTRACT.replace("{fields}", fields.strip("\n")).replace("{version}", str(version))
    (shop / "contracts" / "orders.py").write_text(text)


def land(shop: Path, run: Run, name: str, *records: dict[str, Any]) -> None:
    """Put a file into the archive, land and publish it."""
    folder = shop / "data" / "orders"
    (folder / f"{name}.ndjson").write_text("".join(json.dumps(one) + "\n" for one in records))
    run("ingest", "orders", "--until-idle")


def build(run: Run, status: int = 0) -> Any:
    return run("backfill", "orders", "--from", "2026-05-01", "--to", "2026-05-01", status=status)


def edit(path: Path, line: int, said: str) -> None:
    """Do to a model what the line says."""
    lines = path.read_text().splitlines()
    if said.startswith("add "):
        lines.insert(line, said.split("'")[1])
    else:
        new, old = said.split("'")[5], said.split("'")[3]
        lines[line - 1] = lines[line - 1].replace(old, new)
    path.write_text("\n".join(lines) + "\n")


def test_models_are_right_once_what_is_said_has_been_done(
    shop: Path, run: Run, stack: Stack, name: str
) -> None:
    server = Server(stack.settings)
    run("dbt", "sources")
    land(
        shop, run, "first",
        {**OLD, "order_id": "a", "amount": 10, "coupon": "SPRING", "note": "x"},
        {**OLD, "order_id": "b", "amount": 5},
    )  # fmt: skip
    build(run)
    assert run("query", MART) == [{"orders": 2, "revenue": 15, "with_coupon": 1, "largest": 10}]

    grow(shop, SECOND, 2)
    planned = run("migrate", "plan")
    assert any("MODIFY COLUMN" in sql and "amount" in sql for sql in planned["generated"][0]["statements"])
    assert {Path(one["file"]).name for one in planned["models"]} == {"stg_orders.sql"}
    assert [Path(one["file"]).name for one in run("dbt", "sources", "--check", status=1)["stale"]] == [
        "orders.yml"
    ]
    assert run("dbt", "sources")["models"] == planned["models"]
    both = (
        {**NEW, "order_id": "c", "amount": 2**40, "voucher": "SUMMER", "channel": "app"},
        {**NEW, "order_id": "d", "amount": 1},
        {**OLD, "order_id": "e", "amount": 7, "coupon": "AUTUMN", "note": "y"},
        {**OLD, "order_id": "a", "amount": 10, "coupon": "SPRING", "note": "x"},  # sent again
    )
    land(shop, run, "second", *both)
    [seen] = run("query", "select max(amount) as largest from staging.stg_orders")
    assert seen == {"largest": 2**40}, "no view keeps the narrow type, which would wrap around"
    said = build(run, status=1)
    assert "orders_daily" in said and "largest Int64" in said, "a mart that holds the narrow type is named"
    server.command(f"DROP TABLE analytics_{name}.orders_daily")
    build(run)
    expected = {"orders": 5, "revenue": 23 + 2**40, "with_coupon": 3, "largest": 2**40}
    assert run("query", MART) == [expected], (
        "a model that reads the old name is right before anybody edits it"
    )

    staging = shop / "dbt" / "models" / "staging" / "stg_orders.sql"
    for one in reversed(planned["models"]):
        edit(staging, one["line"], one["said"])
    assert run("migrate", "plan")["models"] == []
    build(run)
    assert run("query", MART) == [expected]
    names = "order_id, amount, voucher, note, channel"
    columns = f"select {names} from staging.everything order by order_id, _offset, _cursor"
    assert [tuple(one.values()) for one in run("query", columns)] == [
        ("a", 10, "SPRING", "x", "web"),
        ("a", 10, "SPRING", "x", "web"),
        ("b", 5, None, None, "web"),
        ("c", 2**40, "SUMMER", None, "app"),
        ("d", 1, None, None, "web"),
        ("e", 7, "AUTUMN", "y", "web"),
    ]
    staged = run("query", "select channel, coupon from staging.stg_orders where order_id = 'c'")
    assert staged == [{"channel": "app", "coupon": "SUMMER"}]
    [source] = yaml.safe_load((shop / "dbt" / "models" / "sources" / "orders.yml").read_text())["sources"]
    described = {one["name"]: one["description"] for one in source["tables"][0]["columns"]}
    assert described["voucher"].startswith("the voucher") and described["channel"].startswith("how it came")
