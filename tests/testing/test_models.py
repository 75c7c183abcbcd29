"""``headrace.testing`` builds the models of a project on the embedded engine, with their tests."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from headrace import testing
from headrace.core.errors import Fatal
from headrace.scaffold.project import create

pytestmark = pytest.mark.timeout(600)

DAILY = "select order_date, sum(orders) as orders from analytics.orders_daily group by 1 order by 1"


def test_the_models_of_a_project_are_built_and_tested_by_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = create(tmp_path / "my shop", "shop").root
    monkeypatch.chdir(shop)
    with testing.warehouse() as warehouse:
        warehouse.load(testing.land("orders"))
        warehouse.build("orders", date(2026, 5, 1))
        assert warehouse.query(DAILY).rows() == [(date(2026, 5, 1), 20)], "no other day is built"
        mart = shop / "dbt" / "models" / "marts" / "orders_daily.sql"
        right = mart.read_text()
        mart.write_text(right.replace("count() as orders", "count() + 1 as orders"))
        with pytest.raises(Fatal, match="FAIL 1 orders_daily::orders_daily_counts_an_order_once"):
            warehouse.unit_test("orders")
        mart.write_text(right.replace("ref('stg_orders')", "ref('stg_order')"))
        with pytest.raises(Fatal, match=r"dbt/models/marts/orders_daily\.sql.*stg_order"):
            warehouse.build("orders", date(2026, 5, 1))
