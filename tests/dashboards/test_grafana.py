"""The dashboards as Grafana's JSON: well formed, as the definitions say, asking for what there is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml  # type: ignore[import-untyped]

from dashboards.promql import unknown
from headrace.config.settings import load_settings
from headrace.dashboards.grafana.boards import PERFORMANCE, PRODUCT, SESSIONS, boards
from headrace.dashboards.grafana.check import differences, expressions, panels_of, problems, statements
from headrace.dashboards.grafana.files import Places, files
from headrace.dashboards.grafana.panels import UNITS, rendered, sql_of
from headrace.dashboards.grafana.platform import PLATFORM
from headrace.dashboards.grafana.spec import Board
from headrace.metrics import Catalogue, defaults, load
from headrace.metrics.definitions import FORMATS
from headrace.pipelines import discover

Dashboard = dict[str, Any]
ALL = (PRODUCT, SESSIONS, PERFORMANCE, PLATFORM)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load(load_settings())


@pytest.fixture(scope="module")
def made(catalogue: Catalogue) -> dict[str, str]:
    """Every dashboard of an installation that has Headrace's own streams."""
    return {board.uid: rendered(board, catalogue) for board in boards(catalogue)}


def test_nothing_is_left_out_where_all_of_headraces_streams_are(catalogue: Catalogue) -> None:
    assert list(boards(catalogue)) == list(ALL)


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_a_dashboard_is_well(board: Board, made: dict[str, str]) -> None:
    assert list(problems(made[board.uid])) == []


def test_dashboards_are_the_same_whenever_they_are_made(catalogue: Catalogue, made: dict[str, str]) -> None:
    assert {board.uid: rendered(board, catalogue) for board in boards(catalogue)} == made
    assert list(made) == [
        "headrace-product",
        "headrace-sessions",
        "headrace-performance",
        "headrace-platform",
    ]


def test_a_panel_of_a_metric_says_what_its_definition_says(
    catalogue: Catalogue, made: dict[str, str]
) -> None:
    assert set(UNITS) == set(FORMATS)
    for board in ALL:
        for number in board.numbers:
            metric = catalogue.metric(number.metric)
            own = [
                one
                for one in panels_of(json.loads(made[board.uid]))
                if one["targets"][0].get("rawSql") == sql_of(number, board, catalogue).sql
            ]
            assert own, number
            assert own[0]["title"].startswith(metric.label)
            assert " ".join(metric.description.split()) in own[0]["description"]
            assert own[0]["fieldConfig"]["defaults"]["unit"] == UNITS[metric.format]


def test_a_panel_over_time_has_no_second_number_beside_its_value(catalogue: Catalogue) -> None:
    """Grafana takes every numeric column of a time series for a value."""
    for board in ALL:
        for number in board.numbers:
            if number.window != "all" and number.shape in ("line", "bars"):
                kinds = {c.kind for c in sql_of(number, board, catalogue).columns if c.role == "dimension"}
                assert "number" not in kinds, number


def _panel(data: Dashboard, of: str) -> Dashboard:
    return next(one for one in panels_of(data) if one["datasource"]["type"].endswith(of))


def _measured(data: Dashboard) -> Dashboard:
    return _panel(data, "prometheus")


def _promql(expr: str) -> Callable[[Dashboard], object]:
    return lambda data: _measured(data)["targets"][0].update(expr=expr)


def _sql(sql: str) -> Callable[[Dashboard], object]:
    return lambda data: _panel(data, "clickhouse-datasource")["targets"][0].update(rawSql=sql)


def _source(uid: str) -> Callable[[Dashboard], object]:
    return lambda data: _measured(data)["targets"][0]["datasource"].update(uid=uid)


WRONG: list[tuple[str, Callable[[Dashboard], object], str]] = [
    ("no title", lambda d: _measured(d).pop("title"), "it has no title"),
    ("no description", lambda d: _measured(d).update(description=" "), "it has no description"),
    ("no unit", lambda d: _measured(d)["fieldConfig"]["defaults"].pop("unit"), "it has no unit"),
    ("two ids", lambda d: _measured(d).update(id=3), "two panels have one id"),
    ("overlap", lambda d: _measured(d)["gridPos"].update(x=3), "lie upon each other"),
    ("too wide", lambda d: _measured(d)["gridPos"].update(w=30), "does not fit into 24 columns"),
    ("no target", lambda d: _measured(d).update(targets=[]), "it asks for nothing"),
    ("another source", _source("x"), "'x' is none of ours"),
    ("not the panel's", _source("headrace-clickhouse"), "not the panel's"),
    ("other measurement", _promql("headrace_lak_rows"), "nothing tells headrace_lak_rows"),
    ("a constant", _promql("vector(1)"), "asks for no measurement of ours"),
    ("no SQL", _sql(""), "it has no SQL"),
    ("a macro", _sql("select $__timeFiltre(a)"), "there is no macro $__timeFiltre"),
    ("a variable", _sql("select '$chanel'"), "there is no variable $chanel"),
    ("refresh", lambda d: d.update(refresh="1m"), "it refreshes every 1m"),
    ("uid", lambda d: d.update(uid="a"), "uid 'a' is none of ours"),
    ("a key of nothing", lambda d: d.update(titel="x"), "Grafana has no titel"),
    ("a key of no panel", lambda d: _measured(d).update(grid={}), "Grafana has no panels"),
]


@pytest.mark.parametrize(("change", "said"), [one[1:] for one in WRONG], ids=[one[0] for one in WRONG])
def test_a_dashboard_that_is_wrong_is_noticed(
    made: dict[str, str], change: Callable[[Dashboard], object], said: str
) -> None:
    data = json.loads(made["headrace-platform"])
    change(data)
    assert said in "\n".join(problems(json.dumps(data)))


def test_every_expression_parses_and_asks_for_what_is_told(made: dict[str, str]) -> None:
    found = [one for text in made.values() for one in expressions(text)]
    assert len(found) > 30
    for title, expression in found:
        plain = expression.replace("$__rate_interval", "1m")
        assert promql_parser.parse(plain)
        assert unknown(plain) == [], title


def test_every_panel_and_variable_with_sql_is_listed(made: dict[str, str]) -> None:
    listed = [what for what, _ in statements(made["headrace-product"])]
    assert "variable 'channel'" in listed
    assert len([one for one in listed if one.startswith("panel")]) == len(list(PRODUCT.numbers))


def test_a_stream_without_a_dashboard_gets_one_of_its_own(catalogue: Catalogue) -> None:
    own = defaults.family(discover().pipelines["metrics"])
    found = {b.uid: b for b in boards(replace(catalogue, families={**catalogue.families, own.name: own}))}
    board = found["headrace-metrics"]
    assert [one.metric for one in board.numbers] == list(own.metrics)
    assert list(problems(rendered(board, replace(catalogue, families={own.name: own})))) == []


def test_panels_that_are_left_out_leave_no_place_where_others_do_not_fit(catalogue: Catalogue) -> None:
    for name in catalogue.families:
        some = {one: family for one, family in catalogue.families.items() if one != name}
        for board in boards(replace(catalogue, families=some)):
            assert list(problems(rendered(board, replace(catalogue, families=some)))) == [], name


def test_without_headraces_streams_there_is_the_platform_alone(catalogue: Catalogue) -> None:
    [board] = boards(replace(catalogue, families={}))
    assert board.uid == "headrace-platform"
    assert list(board.numbers) == []


def test_files_hold_no_password_and_lead_to_each_other(catalogue: Catalogue) -> None:
    config = load_settings(clickhouse_password="a secret of mine", clickhouse_port=8124)
    found = files(catalogue, config, Places("/etc/grafana/headrace", clickhouse="db:1", target="api:2"))
    assert "a secret of mine" not in "".join(found.values())
    sources = yaml.safe_load(found["provisioning/datasources/headrace.yaml"])["datasources"]
    assert sources[0]["secureJsonData"] == {"password": "$HEADRACE_CLICKHOUSE_PASSWORD"}
    assert (sources[0]["jsonData"]["host"], sources[0]["jsonData"]["port"]) == ("db", 1)
    used = {
        panel["datasource"]["uid"]
        for name, text in found.items()
        if name.endswith(".json")
        for panel in panels_of(json.loads(text))
    }
    assert used == {one["uid"] for one in sources}
    [provider] = yaml.safe_load(found["provisioning/dashboards/headrace.yaml"])["providers"]
    assert provider["options"]["path"] == "/etc/grafana/headrace"
    scrape = yaml.safe_load(found["prometheus/headrace-scrape.yml"])
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": ["api:2"]}]
    plain = files(catalogue, config, Places("/x"))
    [own, _] = yaml.safe_load(plain["provisioning/datasources/headrace.yaml"])["datasources"]
    assert (own["jsonData"]["port"], own["jsonData"]["username"]) == (8124, "headrace")
    reader = load_settings(serve_user="reader", serve_password="another secret")
    text = files(catalogue, reader, Places("/x"))["provisioning/datasources/headrace.yaml"]
    [own, _] = yaml.safe_load(text)["datasources"]
    assert own["jsonData"]["username"] == "reader"
    assert own["secureJsonData"] == {"password": "$HEADRACE_SERVE_PASSWORD"}


def test_files_that_are_not_those_of_now_are_named(catalogue: Catalogue, tmp_path: Path) -> None:
    wanted = files(catalogue, load_settings(), Places("/x"))
    for name, text in wanted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert list(differences(tmp_path, wanted)) == []
    (tmp_path / "dashboards/headrace-product.json").write_text("{}")
    (tmp_path / "dashboards/headrace-gone.json").write_text("{}")
    (tmp_path / "prometheus/headrace-rules.yml").unlink()
    assert list(differences(tmp_path, wanted)) == [
        "dashboards/headrace-product.json is another one than would be exported now",
        "prometheus/headrace-rules.yml is missing",
        "dashboards/headrace-gone.json is exported no longer; remove it",
    ]
