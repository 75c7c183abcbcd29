"""A Metabase of the test's own, and what it should hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from headrace.dashboards.metabase import Access, Change, Client, Wanted, reconcile
from headrace.dashboards.metabase.cards import Card, Dashboard, Tile
from headrace.dashboards.metabase.wanted import Connection, Field, TableOf
from headrace.metrics.dialects import Tag

from .double import KEY, MetabaseDouble, running

TABLES = {
    "users_current": {"user_id": "key", "last_page": ""},
    "session_metrics": {"session_id": "key", "channel": "key", "user_id": "", "events": ""},
}
FROM = Tag("from", "From", "date")
CHANNEL = Tag("channel", "Channel", "text")


def card(key: str, sql: str = "select 1 where {{from}} and {{channel}}", name: str = "") -> Card:
    settings = {"graph.metrics": ["value"], "column_settings": {'["name","value"]': {"decimals": 0}}}
    return Card(key, "trend", name or key, f"Number of {key}.", "line", sql, (FROM, CHANNEL), settings)


WANTED = Wanted(
    Connection("Headrace", "127.0.0.1", 8123, False, "headrace_bi", "s3cret", "analytics"),
    "Headrace",
    (
        TableOf(
            "session_metrics",
            "One row per session.",
            (
                Field("session_id", "The session."),
                Field("channel", "Where.", "type/Category", values="list"),
                Field("user_id", "Who.", "type/FK", ("users_current", "user_id")),
                Field("events", "How many."),
            ),
        ),
        TableOf(
            "users_current",
            "One row per user.",
            (Field("user_id", "The user.", "type/PK"), Field("last_page", "", values="search")),
            "technical",
        ),
    ),
    (card("events.trend"), card("users.trend")),
    (
        Dashboard(
            "events",
            "Events",
            "What happens.",
            (FROM, CHANNEL),
            (Tile("events.trend", 0, 0, 12, 6), Tile("users.trend", 12, 0, 12, 6)),
        ),
    ),
    sync_seconds=10,
)


@pytest.fixture
def metabase() -> Iterator[MetabaseDouble]:
    with running(MetabaseDouble(TABLES, {"users_current": "as its comment says"})) as double:
        yield double


@pytest.fixture
def run(metabase: MetabaseDouble) -> Callable[..., list[Change]]:
    """Reconcile with what is wanted; waits are counted by nobody."""

    def reconciled(wanted: Wanted = WANTED, **options: Any) -> list[Change]:
        given = {"write": True, "sleep": lambda _: None, **options}
        return reconcile(Client(Access(metabase.url, KEY)), wanted, **given)

    return reconciled


def with_card(changed: Card) -> Wanted:
    """What is wanted, with another form of a question."""
    cards = tuple(changed if one.key == changed.key else one for one in WANTED.cards)
    return replace(WANTED, cards=cards)


def told(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(one.action, one.kind, one.key) for one in changes]
