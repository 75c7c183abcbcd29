"""The stream that the README shows loads, and lands what it says."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.contracts import Contract
from headrace.core.batch import CheckedBatch
from headrace.pipelines import Pipeline

README = (Path(__file__).parents[2] / "README.md").read_text()
#: What a reader adds: imports, and the contract of the model.
IMPORTS = """
from datetime import timedelta
from typing import Annotated

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field
from headrace.pipelines import Files, Kafka, Pipeline, Sqs, Thresholds
"""
CONTRACT = """
ORDERS = Contract(
    "orders", 1, Orders, key="order_id", time="placed_at", partition="order_date", order_by=("placed_at",)
)
"""
RECORD = b"""{"Order ID": " 7 ", "placed_at": "13.03.2024 10:21", "price": "9.99", "quantity": 3,
    "ship_to": {"address": {"country": "DE"}}}"""


def test_the_stream_of_the_readme_lands_a_record(judge: Callable[..., CheckedBatch]) -> None:
    [block] = [
        one for one in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S) if "class Orders" in one
    ]
    model, pipeline = block.split("\n\npipeline = ")
    names: dict[str, Any] = {"__name__": "readme"}
    whole = f"{IMPORTS}{model}\n{CONTRACT}\npipeline = {pipeline}"
    exec(compile(whole, "README.md", "exec", dont_inherit=True), names)
    declared, contract = names["pipeline"], names["ORDERS"]
    assert isinstance(declared, Pipeline) and isinstance(contract, Contract)
    checked = judge(contract, [RECORD, RECORD.replace(b"9.99", b"9.999")])
    [row] = checked.good.to_dicts()
    assert {name: row[name] for name in ("order_id", "placed_at", "amount", "country", "order_date")} == {
        "order_id": "7",
        "placed_at": datetime(2024, 3, 13, 9, 21, tzinfo=UTC),
        "amount": Decimal("29.97"),
        "country": "DE",
        "order_date": date(2024, 3, 13),
    }
    [reasons] = checked.rejected["reasons"].to_list()
    assert [reason["column"] for reason in reasons] == ["price"]
