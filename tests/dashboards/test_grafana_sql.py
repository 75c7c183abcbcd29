"""Every panel's SQL on a warehouse with models, its macros filled in as Grafana's plugin does, beside the API."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from headrace.dashboards.grafana.boards import boards
from headrace.dashboards.grafana.check import statements
from headrace.dashboards.grafana.panels import rendered, sql_of
from headrace.metrics import ask, compile_question, expanded
from metrics.conftest import Answers, answers, clickhouse_port, new_warehouse

__all__ = ["answers", "clickhouse_port", "new_warehouse"]

pytestmark = pytest.mark.long


def run(
    answers: Answers, sql: str, start: datetime, end: datetime, **chosen: list[str]
) -> list[dict[str, Any]]:
    filled = expanded(sql, "grafana", {"from": start, "to": end, **chosen})
    assert "$" not in filled, filled
    return list(answers.warehouse.client.query(filled).named_results())


def test_every_panel_and_variable_is_answered_and_a_wrong_one_is_not(answers: Answers) -> None:
    start, end = answers.now - timedelta(hours=6), answers.now
    tried = 0
    for board in boards(answers.catalogue):
        for what, sql in statements(rendered(board, answers.catalogue)):
            run(answers, sql, start, end)
            tried += 1
            with pytest.raises(Exception, match="Code: "):
                run(answers, sql.replace("select ", "select no_such_column, ", 1), start, end)
            assert what
    assert tried > 40


def test_a_panel_has_the_numbers_of_the_api(answers: Answers) -> None:
    midnight = answers.now.replace(hour=0, minute=0, second=0)
    start, end = midnight - timedelta(days=2), midnight
    compared = 0
    for board in boards(answers.catalogue):
        for number in board.numbers:
            question = ask(
                answers.catalogue,
                number.metric,
                start=start,
                end=end,
                window=number.window,
                dimensions=number.by,
                limit=10_000,
            )
            own = compile_question(question, answers.catalogue, now=answers.now)
            told = list(answers.warehouse.client.query(own.sql, parameters=own.parameters).named_results())
            keys = [column.name for column in own.columns if column.role in ("window", "dimension")]

            def keyed(rows: list[dict[str, Any]], keys: list[str] = keys) -> dict[tuple[str, ...], Any]:
                return {tuple(str(row[key]) for key in keys): row["value"] for row in rows}

            # a panel shows the day of the last moment of its range whole, so that moment lies before the end
            last = end - timedelta(seconds=1)
            shown = keyed(run(answers, sql_of(number, board, answers.catalogue).sql, start, last))
            wanted = keyed(told)
            assert shown.items() <= wanted.items(), number
            if not number.limit:
                assert shown == wanted, number
            compared += bool(shown)
    assert compared > 20


def test_a_variable_filters_and_all_does_not(answers: Answers) -> None:
    [product] = [board for board in boards(answers.catalogue) if board.uid == "headrace-product"]
    [events] = [one for one in product.numbers if (one.metric, one.shape) == ("events", "number")]
    sql, start = sql_of(events, product, answers.catalogue).sql, answers.now - timedelta(days=3)
    [every] = run(answers, sql, start, answers.now)
    [web] = run(answers, sql, start, answers.now, channel=["web"])
    assert 0 < web["value"] < every["value"]
