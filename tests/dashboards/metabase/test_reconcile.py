"""What is written to Metabase, and what is not: on a strict double of its API."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace.core.errors import Fatal, Retriable
from headrace.dashboards.metabase import Access, Change, Client, reconcile
from headrace.dashboards.metabase.client import Refused
from headrace.dashboards.metabase.marks import entity_id, parted

from .conftest import TABLES, WANTED, card, told, with_card
from .double import KEY, MetabaseDouble
from .schemas import Refusal

Run = Callable[..., list[Change]]
EVERYTHING = [
    ("create", "database", "clickhouse"),
    ("create", "table", "session_metrics"),
    ("create", "table", "users_current"),
    ("create", "collection", "headrace"),
    ("create", "card", "events.trend"),
    ("create", "card", "users.trend"),
    ("create", "dashboard", "events"),
]


def fields(metabase: MetabaseDouble) -> dict[str, dict[str, Any]]:
    return {f"{t['name']}.{f['name']}": f for t in metabase.found.values() for f in t["fields"]}


def test_the_first_run_makes_everything_as_it_is_wanted(run: Run, metabase: MetabaseDouble) -> None:
    assert told(run()) == EVERYTHING
    [database] = metabase.databases.values()
    assert database["details"]["user"] == "headrace_bi" and database["is_full_sync"] is False
    assert {t["name"]: t["description"] for t in metabase.found.values()} == {
        "session_metrics": "One row per session.",
        "users_current": "One row per user.",
    }
    there = fields(metabase)
    assert (
        there["session_metrics.session_id"]["semantic_type"] is None
    )  # no key of the table, only of its order
    assert there["session_metrics.channel"]["semantic_type"] == "type/Category"
    assert there["session_metrics.channel"]["has_field_values"] == "list"
    assert there["session_metrics.user_id"]["fk_target_field_id"] == there["users_current.user_id"]["id"]
    assert there["users_current.user_id"]["semantic_type"] == "type/PK"
    assert {c["entity_id"] for c in metabase.cards.values()} == {
        entity_id("card", "events.trend"),
        entity_id("card", "users.trend"),
    }
    assert all(len(c["entity_id"]) == 21 for c in metabase.cards.values())
    [dashboard] = metabase.dashboards.values()
    assert [(d["col"], d["size_x"]) for d in dashboard["dashcards"]] == [(0, 12), (12, 12)]
    assert {len(d["parameter_mappings"]) for d in dashboard["dashcards"]} == {2}
    assert parted(dashboard["description"])[0] == "What happens."


@pytest.mark.parametrize("newer", [False, True])
def test_a_second_run_writes_nothing(newer: bool, run: Run, metabase: MetabaseDouble) -> None:
    metabase.newer = newer
    run()
    before = len(metabase.writes)
    assert run() == run(write=False) == run(force=True) == []
    assert len(metabase.writes) == before > 0


def test_a_plan_writes_nothing_and_says_what_a_run_does(run: Run, metabase: MetabaseDouble) -> None:
    assert told(run(write=False)) == EVERYTHING
    assert metabase.writes == [] and not metabase.databases


def test_what_is_defined_anew_is_written_and_nothing_else(run: Run, metabase: MetabaseDouble) -> None:
    run()
    before = len(metabase.writes)
    wanted = with_card(card("events.trend", "select 2 where {{from}} and {{channel}}"))
    [planned] = run(wanted, write=False)
    assert (
        "  -select 1 where {{from}} and {{channel}}" not in planned.details
    )  # one line needs no difference of lines
    assert any("select 2" in line for line in planned.details)
    assert told(run(wanted)) == [("update", "card", "events.trend")]
    assert [(method, path.split("/")[2]) for method, path, _ in metabase.writes[before:]] == [("PUT", "card")]
    assert run(wanted) == []


EDITS: dict[str, Callable[[MetabaseDouble], Any]] = {
    "a question's name": lambda m: next(iter(m.cards.values())).update(name="Mine"),
    "its description": lambda m: next(iter(m.cards.values())).update(
        description=next(iter(m.cards.values()))["description"].replace("Number", "Sum")
    ),
    "its SQL": lambda m: next(iter(m.cards.values()))["dataset_query"]["native"].update(
        query="select 3 where {{from}} and {{channel}}"
    ),
    "its display": lambda m: next(iter(m.cards.values())).update(display="bar"),
    "its settings": lambda m: next(iter(m.cards.values()))["visualization_settings"].update({"graph.x": 1}),
    "its place": lambda m: next(iter(m.cards.values())).update(collection_id=None),
    "archived": lambda m: next(iter(m.cards.values())).update(archived=True),
    "a dashboard's name": lambda m: next(iter(m.dashboards.values())).update(name="Mine"),
    "a tile is moved": lambda m: next(iter(m.dashboards.values()))["dashcards"][0].update(row=9),
    "a tile is removed": lambda m: next(iter(m.dashboards.values()))["dashcards"].pop(),
    "a filter is removed": lambda m: next(iter(m.dashboards.values()))["parameters"].pop(),
    "a mapping is removed": lambda m: next(iter(m.dashboards.values()))["dashcards"][0][
        "parameter_mappings"
    ].pop(),
    "a column's type": lambda m: fields(m)["session_metrics.channel"].update(semantic_type="type/Name"),
    "a column's description": lambda m: fields(m)["session_metrics.events"].update(description="Mine"),
    "a table's description": lambda m: next(iter(m.found.values())).update(description="Mine"),
    "a table is shown": lambda m: next(iter(m.found.values())).update(visibility_type=None),
    "the connection's host": lambda m: next(iter(m.databases.values()))["details"].update(host="elsewhere"),
    "the collection's name": lambda m: next(iter(m.collections.values())).update(name="Mine"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edit_by_hand_is_reported_and_left_unless_forced(
    edit: Callable[[MetabaseDouble], Any], run: Run, metabase: MetabaseDouble
) -> None:
    run()
    as_made = _things(metabase)
    edit(metabase)
    edited, before = _things(metabase), len(metabase.writes)
    assert edited != as_made, "the edit changes nothing"
    changes = run()
    assert {one.action for one in changes} == {"edited"} and all(one.details for one in changes)
    assert _things(metabase) == edited and len(metabase.writes) == before
    assert run(force=True)
    assert run() == []
    assert _things(metabase) == as_made


def _things(metabase: MetabaseDouble) -> Any:
    things = copy.deepcopy(
        [metabase.databases, metabase.found, metabase.collections, metabase.cards, metabase.dashboards]
    )
    for dashboard in things[-1].values():
        for tile in dashboard["dashcards"]:
            tile["id"] = 0  # a tile that was removed comes back as another
    return things


def test_what_somebody_made_is_not_touched(run: Run, metabase: MetabaseDouble) -> None:
    run()
    [one, _] = list(metabase.cards.values())
    [dashboard] = metabase.dashboards.values()
    # copies have the descriptions of what they were copied from
    own = {**copy.deepcopy(one), "id": 9_001, "entity_id": "a" * 21, "name": "Copy"}
    metabase.cards[9_001] = own
    metabase.dashboards[9_002] = {**copy.deepcopy(dashboard), "id": 9_002, "name": "Copy"}
    before = len(metabase.writes)
    assert run() == []
    less = replace(WANTED, cards=WANTED.cards[1:], dashboards=())
    run(less)
    assert metabase.cards[9_001] is own and not own["archived"]
    assert all("9001" not in path for _, path, _ in metabase.writes[before:])


def test_what_is_no_longer_defined_is_archived_and_comes_back(run: Run, metabase: MetabaseDouble) -> None:
    run()
    less = replace(WANTED, cards=WANTED.cards[:1], dashboards=())
    assert told(run(less)) == [("archive", "card", "users.trend"), ("archive", "dashboard", "events")]
    assert [c["archived"] for c in metabase.cards.values()] == [False, True]
    assert [d["archived"] for d in metabase.dashboards.values()] == [True]
    assert run(less) == []
    assert told(run()) == [("restore", "card", "users.trend"), ("restore", "dashboard", "events")]
    assert not any(one["archived"] for one in (*metabase.cards.values(), *metabase.dashboards.values()))
    assert len(metabase.cards) == 2 and len(metabase.dashboards) == 1
    assert run() == []


def test_what_is_no_longer_defined_but_edited_is_left(run: Run, metabase: MetabaseDouble) -> None:
    run()
    list(metabase.cards.values())[1]["display"] = "area"
    less = replace(WANTED, cards=WANTED.cards[:1], dashboards=())
    assert ("edited", "card", "users.trend") in told(run(less))
    assert not any(one["archived"] for one in metabase.cards.values())
    run(less, force=True)
    assert [c["archived"] for c in metabase.cards.values()] == [False, True]


@pytest.mark.parametrize("count", range(17))
def test_a_run_that_fails_half_way_is_taken_up(count: int, run: Run, metabase: MetabaseDouble) -> None:
    metabase.fails_after = count
    try:
        run()
    except Refused as error:
        assert error.status == 500
        assert len(metabase.writes) == count
    else:
        assert count >= len(metabase.writes)
    metabase.fails_after = None
    assert "edited" not in {one.action for one in run()}
    assert run() == []
    assert len(metabase.databases) == len(metabase.collections) == len(metabase.dashboards) == 1
    assert len(metabase.cards) == 2
    assert all(len(d["dashcards"]) == 2 for d in metabase.dashboards.values())


def test_a_change_that_fails_half_way_is_taken_up(run: Run, metabase: MetabaseDouble) -> None:
    run()
    session, users = WANTED.tables
    changed = tuple(replace(field, description=f"{field.description} Anew.") for field in session.fields)
    wanted = replace(WANTED, tables=(replace(session, fields=changed), users))
    metabase.fails_after = len(metabase.writes) + 2
    with pytest.raises(Refused):
        run(wanted)
    metabase.fails_after = None
    assert told(run(wanted)) == [("update", "table", "session_metrics")]
    assert run(wanted) == []


def test_a_new_password_is_sent(run: Run, metabase: MetabaseDouble) -> None:
    run()
    wanted = replace(WANTED, connection=replace(WANTED.connection, password="another"))
    [change] = run(wanted)
    assert (change.action, change.kind, change.details) == ("update", "database", ("password",))
    sent = [
        body["details"]["password"]
        for _, path, body in metabase.writes
        if "details" in body and path.startswith("/api/database")
    ]
    assert sent == ["s3cret", "another"]
    assert run(wanted) == []
    assert "another" not in repr(wanted) and "s3cret" not in str(metabase.databases)


def test_tables_that_metabase_does_not_find_are_named(run: Run, metabase: MetabaseDouble) -> None:
    metabase.tables = {
        "session_metrics": {k: v for k, v in TABLES["session_metrics"].items() if k != "events"}
    }
    changes = run()
    assert [one.key for one in changes if one.action == "missing"] == [
        "session_metrics.events",
        "users_current",
    ]
    metabase.tables = TABLES
    assert {one.action for one in run()} == {"create", "update"}
    assert run() == []
    there = fields(metabase)
    assert there["session_metrics.user_id"]["fk_target_field_id"] == there["users_current.user_id"]["id"]


def test_how_metabase_writes_a_question_down_is_no_edit(run: Run, metabase: MetabaseDouble) -> None:
    """It may add to settings or reword them as it saves."""
    honest = metabase._add_card

    def adds(body: Any) -> Any:
        body["visualization_settings"] = {**body["visualization_settings"], "table.pivot": False}
        return honest(body)

    metabase._add_card = adds  # type: ignore[method-assign]
    run()
    assert run() == []
    next(iter(metabase.cards.values()))["visualization_settings"]["table.pivot"] = True
    assert {one.action for one in run()} == {"edited"}


FAULTS = {
    "nobody": (lambda m: setattr(m, "url", "http://127.0.0.1:9"), Retriable, "does not answer; is it up"),
    "starting": (lambda m: setattr(m, "status", 503), Retriable, "busy or starting"),
    "another program": (lambda m: setattr(m, "html", True), Fatal, "does not answer as Metabase does"),
    "too old": (
        lambda m: setattr(m, "version", "v0.53.9"),
        Fatal,
        "is v0.53.9; its ClickHouse driver is built in since v0.54",
    ),
    "no version": (lambda m: setattr(m, "version", ""), Fatal, "does not answer as Metabase does"),
    "no administrator": (lambda m: setattr(m, "admin", False), Fatal, "is not of the group Administrators"),
    "no way to ClickHouse": (
        lambda m: setattr(m, "reaches", False),
        Fatal,
        "HEADRACE_METABASE_CLICKHOUSE_HOST",
    ),
}


@pytest.mark.parametrize(("fault", "kind", "said"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(
    fault: Callable[[MetabaseDouble], None],
    kind: type[Exception],
    said: str,
    run: Run,
    metabase: MetabaseDouble,
) -> None:
    url = metabase.url
    fault(metabase)
    with pytest.raises(kind, match=said):
        run()
    metabase.url = url


def test_a_wrong_key_is_named_and_not_told(metabase: MetabaseDouble) -> None:
    with pytest.raises(Refused, match="does not know the API key of HEADRACE_METABASE_API_KEY") as raised:
        reconcile(Client(Access(metabase.url, "mb_wrong")), WANTED, write=True)
    assert "mb_wrong" not in str(raised.value) and "mb_wrong" not in repr(Access(metabase.url, "mb_wrong"))
    assert metabase.writes == []


@pytest.mark.parametrize("version", ["v0.54.0", "v1.58.2", "v0.100.1"])
def test_versions_with_the_driver_are_taken(version: str, metabase: MetabaseDouble) -> None:
    metabase.version = version
    assert Client(Access(metabase.url, KEY)).check() == version


WRONG: dict[str, tuple[str, str, Any]] = {
    "an unknown key": ("POST", "/api/collection", {"name": "x", "colour": "red"}),
    "no name": ("POST", "/api/collection", {}),
    "a null that is none": ("PUT", "/api/field/{field}", {"display_name": None}),
    "no such semantic type": ("PUT", "/api/field/{field}", {"semantic_type": "category"}),
    "a key to nothing": ("PUT", "/api/field/{field}", {"semantic_type": "type/FK", "fk_target_field_id": 1}),
    "a short entity id": ("POST", "/api/card", {"entity_id": "short"}),
    "an entity id twice": ("POST", "/api/card", {}),
    "another's tags": (
        "PUT",
        "/api/card/{card}",
        {"dataset_query": {"type": "native", "database": 0, "native": {"query": "{{x}}"}}},
    ),
    "an entity id of a dashboard": ("POST", "/api/dashboard", {"name": "x", "entity_id": "a" * 21}),
    "tiles that overlap": ("PUT", "/api/dashboard/{dashboard}", {"dashcards": "overlap"}),
    "a tile beside the grid": ("PUT", "/api/dashboard/{dashboard}", {"dashcards": "beside"}),
    "a tile's id of nowhere": ("PUT", "/api/dashboard/{dashboard}", {"dashcards": "nowhere"}),
}


@pytest.mark.parametrize(("method", "path", "body"), WRONG.values(), ids=WRONG)
def test_the_double_refuses_what_metabase_refuses(
    method: str, path: str, body: Any, run: Run, metabase: MetabaseDouble
) -> None:
    run()
    [database], [dashboard] = metabase.databases, metabase.dashboards
    number = next(iter(metabase.cards))
    path = path.format(
        field=fields(metabase)["users_current.user_id"]["id"], card=number, dashboard=dashboard
    )
    tiles = copy.deepcopy(metabase.dashboards[dashboard]["dashcards"])
    for tile in tiles:
        del tile["card"]
    metabase.answer(
        "PUT", f"/api/dashboard/{dashboard}", {}, {"dashcards": copy.deepcopy(tiles)}, KEY
    )  # taken
    if path == "/api/card":
        as_made = {k: v for k, v in metabase.cards[number].items() if k not in ("id", "archived")}
        body = {**as_made, **body}
    if "dataset_query" in body and path.startswith("/api/card/"):
        body["dataset_query"]["database"] = database
    kind = body.get("dashcards")
    if kind == "overlap":
        tiles[1]["col"] = 11
    elif kind == "beside":
        tiles[1]["col"] = 13
    elif kind == "nowhere":
        tiles[1]["id"] = 1
    with pytest.raises(Refusal) as raised:
        metabase.answer(method, path, {}, {**body, "dashcards": tiles} if kind else body, KEY)
    assert raised.value.status == 400


def test_what_lies_beside_the_marts_is_put_aside(run: Run, metabase: MetabaseDouble) -> None:
    metabase.tables = {**TABLES, "event_states_live": {"users": ""}}
    metabase.schemas = {"event_states_live": "analytics_speed"}
    run()
    [aside] = [one for one in metabase.found.values() if one["schema"] == "analytics_speed"]
    assert aside["visibility_type"] == "technical" and run() == []
    aside["visibility_type"] = None
    assert told(run()) == [("edited", "table", "analytics_speed.event_states_live")]
    assert aside["visibility_type"] is None
    run(force=True)
    assert aside["visibility_type"] == "technical" and run() == []
