"""Files of definitions: what is wrong is named with file, key and choice, and never loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from headrace.config.settings import load_settings
from headrace.metrics import DefinitionError, load
from headrace.metrics.definitions import columns_of, qualified
from headrace.metrics.loading import Widths, family, read

GOOD: dict[str, Any] = {
    "family": "shop",
    "label": "Shop",
    "stream": "orders",
    "owner": "team:shop",
    "models": {
        "orders_daily": {
            "time": "order_date",
            "day": "order_date",
            "widths": 86_400,
            "dimensions": ["country"],
        }
    },
    "dimensions": {"country": {"kind": "category"}},
    "metrics": {"orders": {"label": "Orders", "measure": "sum(orders)", "models": ["orders_daily"]}},
}
Change = Callable[[dict[str, Any]], object]


def test_a_good_family_is_loaded_with_defaults() -> None:
    content = copy.deepcopy(GOOD)
    content["metrics"]["orders"]["where"] = "country != 'select {a}; --'"
    found = family(content, "shop.yml", Widths())
    metric = found.metrics["orders"]
    assert (metric.owner, metric.dimensions, *metric.columns) == ("team:shop", ("country",), "orders")
    assert found.dimensions["country"].label == "Country"


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (lambda c: c.pop("stream"), "stream", "it is missing"),
        (lambda c: c.update(metric={}), "metric", "did you mean metrics?"),
        (lambda c: c.update(owner="me"), "owner", "'me' is neither"),
        (lambda c: c.update(metrics=[]), "metrics", "no table of names"),
        (lambda c: c["metrics"]["orders"].update(measure="orders"), "metrics.orders.measure", "such as sum"),
        (lambda c: c["metrics"]["orders"].update(measure="sum(orders"), "metrics.orders.measure", "bracket"),
        (
            lambda c: c["metrics"]["orders"].update(measure="sum(x); drop table y"),
            "metrics.orders.measure",
            "';' is in it",
        ),
        (
            lambda c: c["metrics"]["orders"].update(measure="max((select 1))"),
            "metrics.orders.measure",
            "'select' is in it",
        ),
        (lambda c: c["metrics"]["orders"].update(where="`a` = 1"), "metrics.orders.where", "is in it"),
        (lambda c: c["metrics"]["orders"].update(format="integr"), "metrics.orders.format", "mean integer"),
        (lambda c: c["metrics"]["orders"].update(show="lines"), "metrics.orders.show", "mean line"),
        (lambda c: c["metrics"]["orders"].update(models=["order_daily"]), "metrics.orders.models", "orders_daily"),
        (lambda c: c["metrics"]["orders"].update(dimensions=["land"]), "metrics.orders.dimensions", "country"),
        (
            lambda c: c["metrics"]["orders"].update(adds_up_over=["windows"]),
            "metrics.orders.adds_up_over",
            "mean window",
        ),
        (lambda c: c["metrics"]["orders"].update(empty=3), "metrics.orders.empty", "3 is no value"),
        (lambda c: c["metrics"].update({"my orders": {}}), "metrics.my orders", "no identifier"),
        (lambda c: c["dimensions"]["country"].update(kind="text"), "dimensions.country.kind", "no choice"),
        (lambda c: c["dimensions"].update(value={"kind": "number"}), "dimensions.value", "another name"),
        (
            lambda c: c["dimensions"]["country"].update(sql="lower(country)", column="land"),
            "dimensions.country",
            "keep one",
        ),
        (lambda c: c["models"]["orders_daily"].update(widths="rollup"), "models.orders_daily.widths", "rollups"),
        (lambda c: c["models"]["orders_daily"].update(widths=[60, 3600]), "models.orders_daily", "width_column"),
        (lambda c: c["models"]["orders_daily"].update(widths=0), "models.orders_daily.widths", "no width"),
        (lambda c: c["models"]["orders_daily"].update(live="yes"), "models.orders_daily.live", "true nor false"),
        (lambda c: c["models"]["orders_daily"].update(schema="mart"), "models.orders_daily.schema", "mean marts"),
        (lambda c: c["models"]["orders_daily"].pop("day"), "models.orders_daily.day", "it is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_key(change: Change, key: str, said: str) -> None:
    content = copy.deepcopy(GOOD)
    change(content)
    with pytest.raises(DefinitionError, match=said) as caught:
        family(content, "shop.yml", Widths())
    assert caught.value.key == key
    assert str(caught.value).startswith(f"shop.yml: {key}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"a: [", "line 1: it is no YAML"), (b"\xff", "byte 0xff is no UTF-8"), (b"", "no table")],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "shop.yml"
    file.write_bytes(text)
    with pytest.raises(DefinitionError, match=said):
        read(file, Widths())
    with pytest.raises(DefinitionError, match="cannot be read"):
        read(tmp_path / "other.yml", Widths())


def project(root: Path, **families: dict[str, Any]) -> Any:
    """Settings of a project with these families."""
    (root / "headrace.toml").write_text("")
    (root / "metrics").mkdir()
    for name, content in families.items():
        (root / "metrics" / f"{name}.yml").write_text(yaml.safe_dump(content))
    return load_settings(project_dir=str(root), home=root / "home", builtin_streams=("events",))


def test_a_project_brings_its_own_beside_those_of_streams_in_use(tmp_path: Path) -> None:
    catalogue = load(project(tmp_path, shop=GOOD), {})
    assert "orders" in catalogue.metrics and "events" in catalogue.metrics
    assert "measurements" not in catalogue.metrics, "the stream is left out"
    assert "analytics.orders_daily" in catalogue.relations


def test_a_name_is_defined_once(tmp_path: Path) -> None:
    taken = copy.deepcopy(GOOD)
    taken["metrics"]["events"] = taken["metrics"].pop("orders")
    with pytest.raises(DefinitionError, match=r"metrics\.events: it is already defined in .*events\.yml"):
        load(project(tmp_path, shop=taken), {})


def test_a_stream_without_a_file_has_what_landed_and_what_was_rejected(tmp_path: Path) -> None:
    from headrace.pipelines import discover

    config = project(tmp_path)
    pipelines = discover(builtin=("events", "metrics")).pipelines
    catalogue = load(config, {"metrics": pipelines["metrics"]})
    assert {"metrics_landed", "metrics_rejected"} <= catalogue.metrics.keys()
    assert "raw.metrics_rejected" in catalogue.relations


def test_columns_are_told_from_functions_texts_and_arguments() -> None:
    sql = "sumIf(a, b = 'c d' and not has(e, x -> x > f)) / if(count() > 0, g, null)[1]"
    assert columns_of(sql) == {"a", "b", "e", "f", "g"}
    assert qualified("a = 'a' and fa(a)", "t") == "t.a = 'a' and fa(t.a)"
