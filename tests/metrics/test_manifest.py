"""Definitions against dbt's manifest, and the exposures that are made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.metrics import Catalogue, QuestionError, ask, defaults, exposures, load
from headrace.metrics.manifest import faults
from headrace.models import project as models
from headrace.pipelines import discover


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Made where no warehouse answers."""
    path = models.manifest(load_settings(home=tmp_path_factory.mktemp("home"), clickhouse_port=1))
    return dict(json.loads(path.read_bytes()))


def changed(catalogue: Catalogue, **change: Any) -> Catalogue:
    """The definitions with another events_history."""
    family = catalogue.families["events"]
    own = {**family.models, "events_history": replace(family.models["events_history"], **change)}
    return replace(catalogue, families={**catalogue.families, "events": replace(family, models=own)})


def test_dbt_has_every_model_and_column_that_is_named(catalogue: Catalogue, manifest: dict[str, Any]) -> None:
    assert faults(catalogue, manifest) == []


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"name": "event_history"}, "models.event_history", "did you mean events_history"),
        ({"time": "window_tim"}, "models.events_history.time", "did you mean window_time"),
        ({"place": "speed"}, "models.events_history.schema", "lies in analytics"),
        (
            {"states": {"users": "uniqExactState(user)"}},
            "models.events_history.users",
            "did you mean user_id",
        ),
        ({"states": {}}, "metrics.events", "no column events"),
    ],
)
def test_what_dbt_does_not_have_is_named(
    catalogue: Catalogue, manifest: dict[str, Any], change: dict[str, Any], key: str, said: str
) -> None:
    wrong = changed(catalogue, **change)
    if "name" in change:  # as if the file named it so
        family = wrong.families["events"]
        own = {**family.models, change["name"]: family.models["events_history"]}
        one = {"events": replace(family.metrics["events"], models=(change["name"],))}
        wrong = replace(wrong, families={"events": replace(family, models=own, metrics=one)})
    found = [one for one in faults(wrong, manifest) if one.key == key]
    assert found and said in str(found[0]) and "events.yml" in str(found[0])


def test_the_exposures_are_as_the_definitions_are() -> None:
    settings = load_settings()
    assert exposures.file_of(settings).read_text() == exposures.text_for(settings), exposures.COMMAND


def test_exposures_of_a_project_are_its_own_and_nobodys_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text("")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "shop.yml").write_text(
        "{family: shop, stream: orders, owner: a@b.example, label: Shop, models: {orders_daily: {time: d, day: d}},"
        " metrics: {orders: {label: Orders, measure: sum(orders), models: orders_daily}}}"
    )
    settings = load_settings(project_dir=str(tmp_path), home=tmp_path / "home")
    assert exposures.is_stale(settings) and exposures.write(settings)
    written = exposures.file_of(settings)
    assert "ref('orders_daily')" in written.read_text() and "email: a@b.example" in written.read_text()
    assert not exposures.is_stale(settings) and not exposures.write(settings)
    assert load(settings, {}).metrics["orders"].owner == "a@b.example"
    written.write_text("version: 2\n")
    with pytest.raises(Fatal, match="is not generated"):
        exposures.write(settings)


def test_a_stream_without_a_file_offers_its_marts_as_they_are(manifest: dict[str, Any]) -> None:
    pipeline = discover(builtin=("events",)).pipelines["events"]
    family = defaults.family(pipeline, manifest)
    assert {
        "events_landed",
        "daily_active_users_new_users",
        "conversion_funnel_sessions",
    } <= family.metrics.keys()
    assert family.metrics["conversion_funnel_sessions"].adds_up_over == ()
    catalogue = Catalogue({family.name: family})
    days: dict[str, Any] = {"start": "2026-05-01", "end": "2026-05-02", "window": "day"}
    assert ask(catalogue, "conversion_funnel_sessions", dimensions=["channel", "step"], **days)
    with pytest.raises(QuestionError, match="does not add up over step"):
        ask(catalogue, "conversion_funnel_sessions", dimensions=["channel"], **days)
    assert faults(catalogue, manifest) == []
