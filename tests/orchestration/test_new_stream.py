"""A stream that is added while the platform runs: one contract, one pipeline file, nothing edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from builders import eventually
from headrace.config.settings import load_settings
from headrace.local.dagster_api import DagsterApi
from headrace.producers.kafka import KafkaProducer
from headrace.warehouse.server import Server
from staying import staying

ROOT = Path(__file__).parents[2]
CONTRACT = '''
"""Orders of the shop."""

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field


class Orders(pa.DataFrameModel):
    """An order that a customer placed."""

    order_id: pl.String = field("the shop's number", length=(1, 64), required=True)
    placed_at: Time = field("when it was placed", required=True)
    amount: pl.Float64 = field("what it costs, EUR", required=True, ge=0.0)
    country: pl.String = field("where it goes", required=True, low_cardinality=True, isin=["DE", "FR", "IT"])

    class Config:
        strict = True


ORDERS = Contract(
    name="orders",
    version=1,
    model=Orders,
    key="order_id",
    time="placed_at",
    partition="order_date",
    order_by=("country", "placed_at"),
)
'''
PIPELINE = '''
"""Orders of the shop."""

from datetime import timedelta

from orders_contract import ORDERS

from headrace.pipelines import Cadence, Kafka, Pipeline, Thresholds

pipeline = Pipeline(
    contract=ORDERS,
    sources=(Kafka("orders"),),
    owner="shop@example.com",
    description="What customers bought, one row per order",
    cadence=Cadence(look=timedelta(seconds=2)),
    thresholds=Thresholds(reject_rate=0.5, warn_only=frozenset({"freshness"})),
)
'''
ASSETS = "query Assets { assetNodes { assetKey { path } description owners { __typename } } }"


@pytest.fixture
def up(tmp_path: Path) -> Any:
    """``headrace up`` without traffic, and with an empty folder for pipelines."""
    folder, checkout = tmp_path / "my pipelines", tmp_path / "my checkout"
    folder.mkdir()
    for part in ("dbt_project", "dagster_home"):
        shutil.copytree(ROOT / part, checkout / part)
    clean = {
        n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "DBT_", "AWS_"))
    }
    env = {
        **clean,
        "HEADRACE_HOME": str(tmp_path / "home"),
        "HEADRACE_PIPELINES": str(folder),
        "HEADRACE_PROJECT_DIR": str(checkout),
        "HEADRACE_INGEST_LINGER_SECONDS": "0",  # its run ends when idle
        "HEADRACE_PIPELINE_SECONDS": "5",
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "headrace.cli", "up", "--rate", "0"]
    with staying(command, Path.cwd(), env, tmp_path / "up.log") as ui:
        yield folder, env, ui


def headrace(env: dict[str, str], *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments, "--json"],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.long
def test_one_contract_and_one_file_make_a_stream_while_the_platform_runs(
    up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, env, ui = up
    monkeypatch.setenv("HEADRACE_HOME", env["HEADRACE_HOME"])  # where its settings are
    servers = load_settings()
    (folder / "orders_contract.py").write_text(CONTRACT)
    (folder / "orders_pipeline.py").write_text(PIPELINE)
    (folder / "half_pipeline.py").write_text("pipeline = 3\n")
    (folder / "stuck_pipeline.py").write_text("import time\ntime.sleep(100_000)\n")
    (folder / "exiting_pipeline.py").write_text("import sys\n\nsys.exit(3)\n")
    flagged = CONTRACT.replace("pl.Float64", "pl.Categorical")
    (folder / "flagged_contract.py").write_text(flagged)
    (folder / "flagged_pipeline.py").write_text(PIPELINE.replace("orders_contract", "flagged_contract"))
    assert "orders" in headrace(env, "stack", "create")["topics"]

    def ask(query: str) -> Any:
        return requests.post(f"{ui}/graphql", json={"query": query}, timeout=120).json()["data"]

    def assets() -> set[str]:
        return {"/".join(node["assetKey"]["path"]) for node in ask(ASSETS)["assetNodes"]}

    eventually(
        lambda: {"lake/orders", "warehouse/orders", "broken/half_pipeline"} <= assets(), 120,
        "the stream, without anybody pressing Reload",
    )  # fmt: skip
    broken = {"broken/stuck_pipeline", "broken/exiting_pipeline", "broken/flagged_pipeline"}
    eventually(lambda: broken <= assets(), 120, "the broken ones")
    assert "lake/events" in assets(), "a broken file must not take the others down"
    found = {finding["what"]: finding for finding in headrace(env, "doctor")}
    assert not found["half_pipeline.py"]["ok"]
    assert "define `pipeline = Pipeline(...)`" in found["half_pipeline.py"]["said"]
    assert found["stuck_pipeline.py"]["said"].startswith("line 2: it still loads after 5 s")
    assert found["exiting_pipeline.py"]["said"] == "line 3: it ends the process: SystemExit(3)"
    assert (
        "field 'amount' has dtype Categorical, which is not supported" in found["flagged_pipeline.py"]["said"]
    )
    line = CONTRACT[: CONTRACT.index("ORDERS = ")].count("\n") + 1
    assert found["flagged_pipeline.py"]["said"].startswith(f"flagged_contract.py line {line}: contract ")

    producer = KafkaProducer(servers.kafka_bootstrap_servers, "orders")
    order = {"order_id": "o-1", "placed_at": "2026-05-01T10:00:00Z", "amount": 12.5, "country": "DE"}
    producer.send([json.dumps(one).encode() for one in (
        order, {**order, "order_id": "o-2", "amount": 7.25}, {**order, "order_id": "o-3", "country": "XX"},
    )])  # fmt: skip
    producer.flush()
    producer.close()

    warehouse = Server(servers)
    rows = "SELECT total_rows FROM system.tables WHERE database = 'raw' AND name = 'orders'"
    # the daemon looks at what is in the workspace once a minute
    eventually(
        lambda: warehouse.query(rows) == [(2,)], 180, "two orders in the warehouse, by way of the sensor"
    )
    orders = headrace(env, "query", "SELECT count() AS n, sum(amount) AS amount FROM raw.orders")
    assert orders == [{"n": 2, "amount": 19.75}]
    status = {one["stream"]: one for one in headrace(env, "status")["streams"]}["orders"]
    assert (status["lake_rows"], status["rejected_rows"], status["warehouse_rows"]) == (2, 1, 2)
    model = Path(env["HEADRACE_PROJECT_DIR"]) / "dbt_project" / "models" / "marts" / "half.sql"
    model.write_text("select *\nfrom {{ ref('nothing') }}\n")
    eventually(lambda: "broken/dbt_project" in assets(), 120, "the broken model among the assets")
    assert {"lake/orders", "lake/events", "marts/event_metrics"} <= assets()
    found = {finding["what"]: finding for finding in headrace(env, "doctor")}
    said = "dbt_project/models/marts/half.sql:2: Model 'model.headrace.half'"
    assert found["dbt project"]["said"].startswith(said)
    assert any(problem.startswith(said) for problem in headrace(env, "status")["problems"])
    model.unlink()
    eventually(lambda: "broken/dbt_project" not in assets(), 120, "its repair, without a hand")
    api = DagsterApi(ui)
    eventually(
        lambda: [r for r in api.runs() if r.job == "ingest_orders" and r.status == "SUCCESS"], 60, "its run"
    )
