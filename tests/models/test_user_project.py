"""A dbt project of the user's own, with Headrace's as its package."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from conftest import Stack
from headrace.config.settings import Settings, load_settings
from headrace.config.shipped import DBT, shipped
from headrace.models import composition, lineage
from headrace.models import project as models
from headrace.models import versions as dbt_versions
from headrace.warehouse.server import Server

DBT_PROJECT = """\
name: shop
version: "1.0"
config-version: 2
profile: headrace
vars:
  headrace:
    conversion_event_types: [order]
models:
  shop:
    marts:
      +materialized: incremental
      +incremental_strategy: insert_overwrite
      +tags: [orders, daily]
"""
SOURCES = """\
sources:
  - name: raw
    schema: "{{ env_var('HEADRACE_RAW_DATABASE', 'raw') }}"
    tables: [{name: orders}]
"""
STAGING = """\
select order_id, placed_at, order_date, amount, _cursor, _offset, _message_id, _index, _ingested_at
from {{ source('raw', 'orders') }}
"""
MART = """\
{{ config(partition_by='order_date', order_by='window_start') }}
select
    order_date,
    {{ headrace.window_start('placed_at', headrace.setting('window_seconds')) }} as window_start,
    sum(amount) as revenue
from ({{ headrace.first_of_each(ref('stg_orders'), 'order_date', 'order_id') }})
where {{ headrace.in_rebuilt_days('order_date') }}
group by order_date, window_start
"""
TESTS = """\
models:
  - name: revenue
    data_tests:
      - headrace.holds:
          arguments: {grain: [window_start], day: order_date, conditions: [revenue >= 0]}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a stream's staging model and a mart."""
    root = tmp_path_factory.mktemp("projects") / "shop"
    written = {
        "headrace.toml": "[settings]\nbuiltin_streams = ['metrics']\nwindow_seconds = 300\nclickhouse_port = 1\n",
        "dbt/dbt_project.yml": DBT_PROJECT,
        "dbt/models/sources.yml": SOURCES,
        "dbt/models/staging/stg_orders.sql": STAGING,
        "dbt/models/marts/revenue.sql": MART,
        "dbt/models/marts/revenue.yml": TESTS,
    }
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "dbt" / "macros").mkdir()
    shutil.copy(shipped(DBT) / "root" / "headrace.sql", root / "dbt" / "macros")
    return root


@pytest.fixture
def settings(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings of the project, whose files are as they were afterwards."""
    before = {
        path: path.read_bytes()
        for path in shop.rglob("*")
        if path.is_file() and ".headrace" not in path.parts
    }
    monkeypatch.chdir(shop / "dbt")
    yield load_settings()
    for path, content in before.items():
        path.write_bytes(content)


def nodes(settings: Settings) -> dict[str, Any]:
    return models.read(models.manifest(settings))["nodes"]  # type: ignore[no-any-return]


@pytest.mark.long
def test_models_of_both_packages_are_parsed_without_dbt_deps(settings: Settings) -> None:
    found = nodes(settings)
    assert {"model.shop.revenue", "model.shop.stg_orders", "model.headrace.metric_windows"} <= set(found)
    assert "model.headrace.event_metrics" not in found, "events are left out"
    sql = found["model.shop.revenue"]["compiled_code"]
    assert "% 86400 % 300" in sql, "a setting of headrace.toml"
    assert "left any join seen" in sql
    assert "% 86400 % 300" not in found["model.headrace.metric_windows"]["raw_code"]
    assert "300" in found["model.headrace.metric_windows"]["compiled_code"]
    tested = [
        one for one in found.values() if one["resource_type"] == "test" and one["package_name"] == "shop"
    ]
    assert [one["attached_node"] for one in tested] == ["model.shop.revenue"]


def test_the_lineage_of_columns_reaches_the_raw_table(settings: Settings) -> None:
    manifest = models.manifest(settings)
    made = lineage.read(manifest).of(nodes(settings)["model.shop.revenue"])
    assert ("model.shop.stg_orders", "amount") in made["revenue"]


def test_what_is_there_of_a_package_does_not_count(settings: Settings, shop: Path) -> None:
    before = dbt_versions.digest(settings)
    linked = shop / "dbt" / "dbt_packages"
    linked.mkdir()
    try:
        (linked / "headrace").symlink_to(composition.package_folder(settings))  # as `dbt deps` leaves it
        assert dbt_versions.digest(settings) == before
        (linked / "utils").mkdir()
        (linked / "utils" / "dbt_project.yml").write_text("name: utils\n")
        assert dbt_versions.digest(settings) != before, "another package does"
    finally:
        shutil.rmtree(linked)


MISTAKES = {
    "a reference": ("models/marts/revenue.sql", MART + "-- {{ ref('nothing') }}\n", "dbt/models/marts/revenue.sql:9: ", "'nothing' which was not found"),
    "a macro": ("models/marts/revenue.sql", MART + "{{ headrace.in_rebuilt_day('x') }}\n", "dbt/models/marts/revenue.sql", "in_rebuilt_day"),
    "YAML": ("models/marts/revenue.yml", "models:\n  - name: x\n   bad: [\n", "dbt/models/marts/revenue.yml:3: ", "near line 3"),
    "an unknown var": ("dbt_project.yml", DBT_PROJECT.replace("conversion_event_types", "conversion_types"), "dbt/dbt_project.yml:7: ", "there is no var 'conversion_types' of Headrace; did you mean 'conversion_event_types'?"),
    "a setting": ("dbt_project.yml", DBT_PROJECT.replace("conversion_event_types: [order]", "window_seconds: 60"), "dbt/dbt_project.yml:7: ", "write window_seconds = 60 below [settings] of headrace.toml"),
    "no vars": ("dbt_project.yml", DBT_PROJECT.replace("    conversion_event_types: [order]\n", ""), "dbt/dbt_project.yml:6: ", "below vars, 'headrace' is null; write vars of Headrace below it"),
    "a wrong list": ("dbt_project.yml", DBT_PROJECT.replace("conversion_event_types: [order]", "rollup_seconds: [hour]"), "dbt/dbt_project.yml:7: ", "var 'rollup_seconds' is ['hour']; expected a list of widths in s"),
    "no overrides": ("macros/headrace.sql", "", "dbt/macros/headrace.sql: model revenue is rebuilt by day", "root/headrace.sql into it"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("file", "text", "place", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_project_is_named_and_the_last_good_version_is_used(
    settings: Settings, shop: Path, file: str, text: str, place: str, said: str
) -> None:
    good = dbt_versions.current(settings)
    assert good.problem is None, good.problem
    (shop / "dbt" / file).write_text(text)
    found = dbt_versions.current(settings)
    assert str(found.problem).startswith(place), found.problem
    assert said in str(found.problem)
    assert found.usable == good.usable


STEPS = {
    "none": ("[]", "has 0 steps; expected 1 to 20"),
    "text": ("visit", "is visit; expected a list such as [{name: cart, event_types: [add_to_cart]}]"),
    "a text among them": ("[visit]", "has step 1, visit; expected a list such as"),
    "no name": ("[{event_types: [a]}]", "has step 1 without a name; "),
    "twice": (
        "[{name: a, event_types: [a]}, {name: a, event_types: [b]}]",
        "has two steps 'a'; give each a name",
    ),
    "no types": ("[{name: a}]", "has step 'a' without event_types; "),
    "types that are none": ("[{name: a, event_types: b}]", "has step 'a' without event_types; "),
    "a typo": ("[{name: a, event_types: [b], event_type: c}]", "has step 'a' with event_type; "),
}


def test_a_wrong_funnel_is_named_with_its_step(settings: Settings, shop: Path) -> None:
    """Rendered as dbt renders it, without asking dbt for each: that takes seconds."""
    import jinja2

    class Stop(Exception):
        pass

    def returned(value: Any) -> None:
        raise Stop(value)

    text = (shipped(DBT) / "macros" / "settings.sql").read_text()
    environment = jinja2.Environment(extensions=["jinja2.ext.do"])

    class Package:
        @staticmethod
        def is_list(value: Any) -> bool:
            return isinstance(value, list)

    environment.globals |= {"return": returned, "headrace": Package}
    wrong_funnel: Any = environment.from_string(text).module.wrong_funnel  # type: ignore[attr-defined]
    for given, said in STEPS.values():
        with pytest.raises(Stop) as stopped:
            wrong_funnel(yaml.safe_load(given))
        assert str(stopped.value).startswith(said), given
    with pytest.raises(Stop, match=r"^$"):
        wrong_funnel([{"name": "a", "event_types": ["b"]}])


def test_the_defaults_of_vars_are_the_same_in_both_places() -> None:
    vars_ = yaml.safe_load((shipped(DBT) / "dbt_project.yml").read_text())["vars"]
    text = (shipped(DBT) / "macros" / "settings.sql").read_text()
    found = re.search(r"set defaults = (\{.*?\n  \}) -%", text, re.DOTALL)
    assert found
    defaults = yaml.safe_load(found[1])
    assert defaults == {
        name: value for name, value in vars_.items() if name not in ("start_date", "end_date")
    }
    settings = load_settings()
    assert {name: getattr(settings, name) for name in composition.SETTINGS} == {
        name: defaults[name] for name in composition.SETTINGS
    }


def test_every_macro_names_those_of_its_own_package_with_the_package() -> None:
    """An unqualified one is not found where a model of another package calls the macro."""
    folder = shipped(DBT)
    files = [*(folder / "macros").glob("*.sql"), *(folder / "tests" / "generic").glob("*.sql")]
    names = {name for file in files for name in re.findall(r"\{%-?\s*macro\s+(\w+)\(", file.read_text())}
    call = re.compile(rf"(?<![\w.'\"])({'|'.join(names)})\(")
    unqualified = {
        f"{file.name}: {found[1]}"
        for file in files
        for block in re.findall(r"\{%.*?%\}|\{\{.*?\}\}", file.read_text(), re.DOTALL)
        if not re.match(r"\{%-?\s*(macro|test)\b", block)
        for found in call.finditer(block)
    }
    assert not unqualified
    assert call.search("{{ in_rebuilt_days(day) }}") and not call.search(
        "{{ headrace.in_rebuilt_days(day) }}"
    )


#: Macros that are made for one model of Headrace's own.
INNER = {
    "event_windows", "measured_windows", "metric_columns", "performance_windows", "performance_columns", "series",
    "cluster_name", "engine_clause", "checked_setting", "wrong_funnel", "is_list",
}  # fmt: skip
INNER_TESTS = {"latest_of_history", "holds_every_user_day"}


def test_every_public_macro_and_test_is_documented_with_its_arguments() -> None:
    folder = shipped(DBT)
    said = yaml.safe_load((folder / "macros" / "macros.yml").read_text())["macros"]
    documented = {one["name"]: [argument["name"] for argument in one.get("arguments", [])] for one in said}
    declared = {}
    for file in sorted([*(folder / "macros").glob("*.sql"), *(folder / "tests" / "generic").glob("*.sql")]):
        for kind, name, given in re.findall(
            r"\{%-?\s*(macro|test)\s+(\w+)\((.*?)\)\s*-?%\}", file.read_text(), re.DOTALL
        ):
            names = re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"'[^']*'", "", given))
            public = not name.startswith("clickhouse__") and name not in INNER | INNER_TESTS
            if public:
                declared["test_" * (kind == "test") + name] = [one for one in names if one != "model"]
    assert documented == declared
    assert all(one["description"] for one in said)


@pytest.mark.long
def test_days_of_a_model_of_ones_own_are_replaced_whole(settings: Settings, stack: Stack) -> None:
    """A day that has become empty is empty in the mart: dbt-clickhouse's own way leaves it as it was."""
    config = settings.model_copy(
        update={
            "clickhouse_host": stack.settings.clickhouse_host,
            "clickhouse_port": stack.settings.clickhouse_port,
            "clickhouse_user": stack.settings.clickhouse_user,
            "clickhouse_password": stack.settings.clickhouse_password,
            "raw_database": "raw_of_shop",
            "dbt_schema": "shop",
        }
    )
    server = Server(config)
    server.command("CREATE DATABASE IF NOT EXISTS raw_of_shop")
    server.command(
        "CREATE TABLE raw_of_shop.orders (order_id String, placed_at DateTime64(6, 'UTC'), order_date Date, amount Float64,"
        " _cursor String, _offset Int64, _message_id String, _index Int64, _ingested_at DateTime64(6, 'UTC'))"
        " ENGINE = MergeTree PARTITION BY order_date ORDER BY order_id"
    )
    server.command(
        "INSERT INTO raw_of_shop.orders SELECT toString(number), toDateTime64('2026-05-01 12:00:00', 6, 'UTC')"
        " + toIntervalDay(intDiv(number, 2) % 2) AS placed_at, toDate(placed_at), 10, '', number, '', 0, placed_at FROM numbers(4)"
    )
    orders: Any = SimpleNamespace(name="orders", models="orders")
    days = date(2026, 5, 1), date(2026, 5, 2)
    sql = "SELECT order_date, revenue FROM shop.revenue ORDER BY order_date"
    models.build(config, orders, *days)
    assert server.query(sql) == [(days[0], 20.0), (days[1], 20.0)]
    server.command("ALTER TABLE raw_of_shop.orders DROP PARTITION '2026-05-01'")
    models.build(config, orders, *days)
    assert server.query(sql) == [(days[1], 20.0)]
