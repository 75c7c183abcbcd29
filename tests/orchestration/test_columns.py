"""The lineage of columns: worked out from the compiled project, and told to Dagster with what was built."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckResult, AssetKey, MetadataValue, Output

from headrace.config.settings import load_settings
from headrace.contracts import EVENTS
from headrace.models import lineage
from headrace.models import project as models
from headrace.models.lineage import Lineage
from headrace.orchestration import columns
from headrace.orchestration.dbt import Translator
from headrace.pipelines import discover
from headrace.warehouse.ddl import KEY_HASH

MARTS = {
    "cohort_days", "conversion_funnel", "conversion_funnel_live", "daily_active_users", "data_quality_daily",
    "event_metrics", "event_metrics_live", "event_metrics_rollups", "event_states_live", "events_history",
    "landings_daily", "metric_windows", "metric_windows_live", "metric_windows_rollups", "performance_metrics",
    "performance_metrics_live", "performance_metrics_rollups", "performance_states_live", "rejections_daily",
    "session_metrics", "session_metrics_live", "sessions_current", "sessions_latest", "user_days", "user_retention",
    "users_current", "users_latest",
}  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, made where no warehouse answers."""
    home = tmp_path_factory.mktemp("the home")
    return models.manifest(load_settings(home=home, clickhouse_port=1))


@pytest.fixture(scope="module")
def manifest(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


@pytest.fixture(scope="module")
def known(path: Path) -> Lineage:
    return lineage.read(path)


def ends(known: Lineage, node: str, column: str) -> set[tuple[str, str]]:
    """What a column is made of in the end."""
    if node not in known.columns:
        return {(node, column)}
    return {end for parent, of in known.columns[node][column] for end in ends(known, parent, of)}


def test_every_model_has_lineage(known: Lineage, manifest: dict[str, Any]) -> None:
    found = set(known.columns)
    nodes = {name: n for name, n in manifest["nodes"].items() if n["resource_type"] == "model"}
    assert {n["name"] for n in nodes.values() if n["fqn"][1] == "marts"} == MARTS
    assert found == set(nodes)
    for name in found:
        declared = set(nodes[name]["columns"])
        assert not declared or declared == set(known.columns[name]), name


@pytest.mark.parametrize(
    ("mart", "column", "made_of"),
    [
        ("performance_metrics_live", "p95_ms", {"duration_ms"}),
        ("session_metrics", "entry_page", {"page_url", "screen_name"}),
        ("session_metrics_live", "session_id", {"session_id"}),
        ("event_metrics", "unique_users", {"user_id"}),
        ("user_retention", "days_since", {"event_date"}),
        ("event_metrics", "window_seconds", set()),  # a constant
    ],
)
def test_a_column_is_followed_to_the_raw_table(
    known: Lineage, mart: str, column: str, made_of: set[str]
) -> None:
    found = ends(known, f"model.headrace.{mart}", column)
    assert found == {("source.headrace.raw.events", name) for name in made_of}


def test_ends_exist_in_the_raw_tables(known: Lineage) -> None:
    raw = {
        of
        for made in known.columns.values()
        for sources in made.values()
        for node, of in sources
        if node == "source.headrace.raw.events"
    }
    assert raw and raw <= {*EVENTS.table.schema, KEY_HASH}


def test_a_model_that_cannot_be_followed_is_left_out_and_said(
    manifest: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = json.loads(json.dumps(manifest))
    damaged["nodes"]["model.headrace.user_days"]["compiled_code"] = "select from ((("
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damaged))
    with caplog.at_level(logging.DEBUG, logger="headrace.models.lineage"):
        lineage.write(path, [EVENTS.table])
    found = lineage.read(path).columns
    assert "model.headrace.user_days" not in found
    assert found["model.headrace.cohort_days"]["users"] == []
    [said] = [r.getMessage() for r in caplog.records if "user_days" in r.getMessage()]
    assert said.startswith("no column lineage of user_days: ") and "\n" not in said


def event(node: str) -> Output[None]:
    return Output(None, metadata={"unique_id": node, "status": "success"})


def test_what_is_built_says_what_its_columns_are_made_of(
    path: Path, known: Lineage, manifest: dict[str, Any]
) -> None:
    check = AssetCheckResult(
        passed=True,
        asset_key=AssetKey("a"),
        check_name="c",
        metadata={"unique_id": "model.headrace.user_days"},
    )
    stream = [event("model.headrace.stg_events"), check, event("test.headrace.unknown")]
    key_of = Translator(path, discover().pipelines.values(), load_settings()).get_asset_key
    told, *others = columns.with_lineage(stream, manifest, known, key_of)
    assert others == stream[1:]
    assert told.metadata["status"] == MetadataValue.text("success")
    [dep] = told.metadata["dagster/column_lineage"].value.deps_by_column["occurred_date"]
    assert (dep.asset_key, dep.column_name) == (AssetKey(["warehouse", "events"]), "event_date")


def test_a_model_that_has_changed_since_says_nothing(known: Lineage, manifest: dict[str, Any]) -> None:
    node = manifest["nodes"]["model.headrace.stg_events"]
    assert known.of(node)
    assert known.of({**node, "checksum": {"name": "sha256", "checksum": "another"}}) == {}
    assert known.of(manifest["sources"]["source.headrace.raw.events"]) == {}


def test_the_catalogue_has_the_columns_types_and_origins(path: Path, manifest: dict[str, Any]) -> None:
    translator = Translator(path, discover().pipelines.values(), load_settings())

    def column(model: str, name: str) -> Any:
        metadata = translator.get_metadata(manifest["nodes"][f"model.headrace.{model}"])
        [found] = [c for c in metadata["dagster/column_schema"].columns if c.name == name]
        return found

    mart = column("event_metrics", "unique_users")
    assert mart.type == "UInt64"
    assert mart.description.endswith("count none. From events_history.user_id.")
    view = column("int_events_deduplicated", "event_id")
    assert view.description == "The producer's id of the event. From stg_events.event_id."
    assert column("stg_events", "page").description.endswith(
        "From raw.events.page_url, raw.events.screen_name."
    )
