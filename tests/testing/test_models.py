"""``headrace.testing`` builds the models of a project on the embedded engine, with their tests, as the docs say."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from headrace import testing
from headrace.core.errors import Fatal
from headrace.scaffold.project import create

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def documented() -> list[Callable[[], None]]:
    """The tests in the docs, below "Tests of your own"."""
    section = DOCS.read_text().partition("### Tests of your own\n")[2]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(compile(code[1], str(DOCS), "exec"), names)
    return [value for name, value in names.items() if name.startswith("test_")]


@pytest.mark.long
def test_what_the_docs_say_holds_and_a_wrong_model_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = create(tmp_path / "my shop", "shop").root
    monkeypatch.chdir(shop)
    with testing.warehouse() as warehouse:
        with monkeypatch.context() as shared:
            shared.setattr(testing, "warehouse", lambda: nullcontext(warehouse))
            tests = documented()
            assert len(tests) == 2
            for test in tests:
                test()
        mart = shop / "dbt" / "models" / "marts" / "orders_daily.sql"
        right = mart.read_text()
        mart.write_text(right.replace("count() as orders", "count() + 1 as orders"))
        with pytest.raises(Fatal, match="FAIL 1 orders_daily::orders_daily_counts_an_order_once"):
            warehouse.unit_test("orders")
        mart.write_text(right.replace("ref('stg_orders')", "ref('stg_order')"))
        with pytest.raises(Fatal, match=r"dbt/models/marts/orders_daily\.sql.*stg_order"):
            warehouse.build("orders", date(2026, 5, 1))
