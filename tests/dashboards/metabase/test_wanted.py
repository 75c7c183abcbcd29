"""What Metabase should hold, from dbt's manifest and the definitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import NotSet
from headrace.dashboards.metabase import Access, Client, Wanted, reconcile
from headrace.dashboards.metabase.cards import COLUMNS
from headrace.dashboards.metabase.wanted import connection_of, of, tables_of
from headrace.metrics import Catalogue, load
from headrace.metrics.dialects import expanded, statement

from .double import KEY, MetabaseDouble, running


def model(name: str, columns: Mapping[str, Any], schema: str = "analytics", **meta: Any) -> dict[str, Any]:
    described = {
        column: {
            "name": column,
            "description": f"The\n  {column}.",
            "data_type": kind,
            "config": {"meta": own},
        }
        for column, (kind, own) in columns.items()
    }
    return {
        "resource_type": "model", "name": name, "schema": schema, "description": f"One row\n  per {name}.",
        "columns": described, "config": {"enabled": True, "meta": meta},
    }  # fmt: skip


PLAIN: dict[str, Any] = {}
KEYED = {"metabase.semantic_type": "type/PK"}


def manifest(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": {f"model.headrace.{one['name']}": one for one in nodes}}


MANIFEST = manifest(
    model("users_current", {"user_id": ("String", KEYED), "last_page": ("Nullable(String)", PLAIN)}),
    model(
        "session_metrics",
        {
            "user_id": ("Nullable(String)", PLAIN),
            "channel": ("LowCardinality(String)", PLAIN),
            "country": ("LowCardinality(String)", {"metabase.semantic_type": "type/Country"}),
            "events": ("UInt64", PLAIN),
        },
    ),
    model("events_history", {}, **{"metabase.visibility_type": "technical"}),
    model("users_latest", {"user_id": ("String", PLAIN)}, bi=False),
    model("stg_events", {}, schema="analytics_staging"),
    {"resource_type": "test", "name": "a_test", "schema": "analytics"},
)


def test_tables_are_marts_with_types_and_keys() -> None:
    found = {one.name: one for one in tables_of(MANIFEST, "analytics")}
    assert list(found) == ["events_history", "session_metrics", "users_current"]
    assert found["session_metrics"].description == "One row per session_metrics."
    assert found["events_history"].visibility == "technical"
    fields = {one.name: one for one in found["session_metrics"].fields}
    assert fields["user_id"].semantic == "type/FK" and fields["user_id"].target == (
        "users_current",
        "user_id",
    )
    assert (fields["channel"].semantic, fields["channel"].values) == ("type/Category", "list")
    assert fields["country"].semantic == "type/Country"
    assert (fields["events"].semantic, fields["events"].values) == (None, "")
    [user, page] = found["users_current"].fields
    assert (user.semantic, user.target) == ("type/PK", None) and page.values == "search"


def test_a_key_of_two_tables_is_nobodys() -> None:
    twice = manifest(
        *(model(name, {"id": ("String", KEYED)}) for name in "ab"), model("c", {"id": ("String", PLAIN)})
    )
    assert [one.fields[0].target for one in tables_of(twice, "analytics")] == [None, None, None]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(with_stack=False, clickhouse_host="h", clickhouse_port=1, bi_password="s3cret")


@pytest.fixture(scope="module")
def catalogue(settings: Settings) -> Catalogue:
    return load(settings)


@pytest.fixture(scope="module")
def wanted(settings: Settings, catalogue: Catalogue) -> Wanted:
    """All models of all definitions, without their columns."""
    nodes = [
        model(one.name, {})
        if one.place == "marts"
        else model(one.name, {}, f"analytics_{one.place}", bi=one.place)
        for _, one in catalogue.models()
    ]
    return of(settings, manifest(*nodes), catalogue)


def test_every_number_has_its_questions_and_their_sql_is_that_of_the_definition(
    wanted: Wanted, catalogue: Catalogue
) -> None:
    asked = {card.key.partition(".")[0] for card in wanted.cards}
    assert asked | set(wanted.skipped) == set(catalogue.metrics) and len(asked) > len(wanted.skipped)
    [trend] = [card for card in wanted.cards if card.key == "events.trend"]
    variables = [tag.name for tag in trend.tags if tag.name not in ("from", "to")]
    told = statement(catalogue, "events", "metabase", window="day", variables=variables)
    assert trend.sql == told.sql and {"channel", "event_type"} == set(variables)
    assert "{{" not in expanded(trend.sql, "metabase", {"from": "2026-01-01", "channel": "web"})
    assert len({card.key for card in wanted.cards}) == len(wanted.cards)
    assert all(card.description and card.name and card.sql for card in wanted.cards)


def test_every_number_has_one(wanted: Wanted, catalogue: Catalogue) -> None:
    assert wanted.skipped == {}
    assert {card.key.partition(".")[0] for card in wanted.cards} == set(catalogue.metrics)


def test_tiles_are_on_the_grid_and_on_no_other(wanted: Wanted, catalogue: Catalogue) -> None:
    assert {one.key for one in wanted.dashboards} == set(catalogue.families)
    for dashboard in wanted.dashboards:
        cells = [
            (x, y)
            for tile in dashboard.tiles
            for x in range(tile.column, tile.column + tile.width)
            for y in range(tile.row, tile.row + tile.height)
        ]
        assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < COLUMNS


def test_all_of_it_is_taken_by_a_strict_metabase(wanted: Wanted) -> None:
    with running(MetabaseDouble({table.name: {} for table in wanted.tables})) as double:
        client = Client(Access(double.url, KEY))
        assert reconcile(client, wanted, write=True, sleep=lambda _: None)
        before = client.writes
        assert reconcile(client, wanted, write=True, sleep=lambda _: None) == []
        assert client.writes == before and len(double.cards) == len(wanted.cards)


def test_what_is_not_built_or_not_readable_is_left_out_with_a_reason(
    settings: Settings, catalogue: Catalogue
) -> None:
    names = {one.name for _, one in catalogue.models() if one.place == "marts"}
    given = manifest(*(model(name, {}) for name in sorted(names)))
    some = of(settings, given, catalogue, built=names - {"event_metrics_live"})
    assert some.skipped["event_metrics_live"] == "dbt has not built it yet"
    assert "which the BI user does not read" in some.skipped["unique_users"]
    assert not any("analytics_speed." in card.sql for card in some.cards)


def test_the_connection_is_as_metabase_reaches_it(settings: Settings) -> None:
    own = connection_of(settings)
    assert (own.host, own.port, own.user, own.password) == ("h", 1, "headrace_bi", "s3cret")
    assert "s3cret" not in repr(own)
    other = load_settings(
        with_stack=False, clickhouse_host="h", bi_password="x", metabase_clickhouse_host="from.inside",
        metabase_clickhouse_port=2,
    )  # fmt: skip
    assert (connection_of(other).host, connection_of(other).port) == ("from.inside", 2)
    assert replace(own, port=2) != own
    with pytest.raises(NotSet):
        connection_of(load_settings(with_stack=False))
