"""Compare what Metabase should hold with what it holds, and write the difference.

Each thing is judged by its mark: what Headrace wrote and nobody touched is brought up to date, what somebody edited is
reported and left, unless that is forced. Things come in the order in which they need each other. Each is whole after
its own request, or marked as unfinished, so a run that was interrupted is simply run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Literal

from headrace.core.errors import Fatal
from headrace.dashboards.metabase import contents
from headrace.dashboards.metabase.client import Client, Refused
from headrace.dashboards.metabase.differences import between
from headrace.dashboards.metabase.marks import (
    ARCHIVED,
    UNFINISHED,
    Mark,
    digest,
    entity_id,
    parted,
    with_mark,
)
from headrace.dashboards.metabase.tables import describe
from headrace.dashboards.metabase.wanted import Wanted

Action = Literal["create", "update", "archive", "restore", "edited", "missing"]
#: Changes that are reported and not made.
REPORTED = ("edited", "missing")


@dataclass(frozen=True, slots=True)
class Change:
    """A difference between what is wanted and what is there.

    Attributes:
        action: What is done about it; ``edited`` and ``missing`` are reported alone.
        kind: ``database``, ``table``, ``collection``, ``card`` or ``dashboard``.
        key: Which one.
        name: Its name, for people.
        details: The difference, line by line.
    """

    action: Action
    kind: str
    key: str
    name: str
    details: tuple[str, ...] = ()


def reconcile(
    client: Client,
    wanted: Wanted,
    *,
    write: bool,
    force: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Change]:
    """Compare, and write the difference if ``write`` says so.

    Args:
        client: Calls Metabase.
        wanted: What it should hold.
        write: Write the difference; otherwise nothing is written.
        force: Overwrite what was edited by hand, too.
        sleep: Waits between two looks at what Metabase has found in ClickHouse.

    Returns:
        What was done, or would be.

    Raises:
        Fatal: Metabase refuses something. What was written until then is taken up by the next run.
        Retriable: It does not answer.
    """
    return _Run(client, wanted, write, force, sleep).all()


class _Run:
    def __init__(
        self, client: Client, wanted: Wanted, write: bool, force: bool, sleep: Callable[[float], None]
    ) -> None:
        self._client, self._wanted, self._write, self._force, self._sleep = (
            client,
            wanted,
            write,
            force,
            sleep,
        )
        self._changes: list[Change] = []
        self._database: int | None = None
        self._collection: int | None = None
        self._cards: dict[str, int] = {}
        #: Questions that Headrace made, by Metabase's id: those that are no longer wanted, too.
        self._made: dict[int, str] = {}

    def all(self) -> list[Change]:
        self._client.check()
        self._connection()
        if self._database is not None:
            told = describe(self._client, self._database, self._wanted, self._write, self._force, self._sleep)
            self._changes += [Change(*one) for one in told]
        else:
            self._changes += [Change("create", "table", t.name, t.name) for t in self._wanted.tables]
        self._find_collection()
        self._questions()
        self._dashboards()
        return self._changes

    def _judge(
        self,
        kind: str,
        key: str,
        name: str,
        mark: Mark | None,
        found: Any,
        wanted: Any,
        *,
        archived: bool = False,
        secret: str = "",
    ) -> bool:
        """Note what is to be done about something that is there; tell whether it is to be written now."""
        asked, there = digest([wanted, secret] if secret else wanted), digest(found)
        known_as, known = _states(mark)
        if known == there and known_as == asked and not archived:
            return False
        ours = mark is not None and (mark.kind, mark.key) == (kind, key)
        equal = found == wanted and not archived
        free = ours and mark is not None and (not mark.is_settled or (known == there and not archived))
        action: Action = "restore" if archived else "update"
        if not (free or equal or self._force):
            action = "edited"
        details = ("archived by hand",) if archived and not free else tuple(between(found, wanted))
        if known == there and known_as != asked and not details:
            details = ("password",) if secret else ("mark",)
        self._changes.append(Change(action, kind, key, name, details))
        return self._write and action != "edited"

    def _create(self, kind: str, key: str, name: str) -> bool:
        self._changes.append(Change("create", kind, key, name))
        return self._write

    def _connection(self) -> None:
        wanted = self._wanted.connection
        content = contents.connection(wanted)
        secret = sha256(wanted.password.encode()).hexdigest()
        details = {name: content[name] for name in ("host", "port", "user", "dbname", "ssl")}
        details |= {"password": wanted.password, "scan-all-databases": False}
        found = next(
            (
                one
                for one in self._client.listed("/api/database")
                if one.get("engine") == "clickhouse" and one.get("name") == wanted.name
            ),
            None,
        )
        asked = digest([content, secret])
        if found is None:
            if not self._create("database", "clickhouse", wanted.name):
                return
            body = {
                "name": wanted.name,
                "engine": "clickhouse",
                "details": details,
                # no scans by the clock: values for filters are read when somebody opens one
                "is_full_sync": False,
                "is_on_demand": True,
                "auto_run_queries": True,
            }
            found = _reached(partial(self._client.post, "/api/database", body))
            self._database = int(found["id"])
        else:
            self._database = int(found["id"])
            mark = parted(found.get("description"))[1]
            there = contents.connection_found(found)
            if not self._judge("database", "clickhouse", wanted.name, mark, there, content, secret=secret):
                return
            _reached(partial(self._client.put, f"/api/database/{self._database}", {"details": details}))
        state = f"{asked}_{digest(content)}"
        text = with_mark(
            "Marts and live views of Headrace, read-only.", Mark("database", "clickhouse", state)
        )
        self._client.put(f"/api/database/{self._database}", {"description": text})

    def _find_collection(self) -> None:
        name = self._wanted.collection
        text = "What Headrace defines. Copy a question to change it: changes made here are reported as differences."
        wanted = {"name": name, "description": text}
        marked = []
        for one in self._client.listed("/api/collection"):
            mark = parted(one.get("description"))[1]
            if (
                isinstance(one.get("id"), int)
                and not one.get("archived")
                and mark
                and mark.kind == "collection"
            ):
                marked.append((one, mark))
        body = {**wanted, "description": with_mark(text, Mark("collection", "headrace", digest(wanted)))}
        if not marked:
            if self._create("collection", "headrace", name):
                self._collection = int(self._client.post("/api/collection", body)["id"])
            return
        found, mark = min(marked, key=lambda pair: int(pair[0]["id"]))
        self._collection = int(found["id"])
        there = {"name": found.get("name"), "description": parted(found.get("description"))[0]}
        if self._judge("collection", "headrace", name, mark, there, wanted):
            self._client.put(f"/api/collection/{self._collection}", body)

    def _questions(self) -> None:
        there: dict[str, dict[str, Any]] = {}
        for query in ({}, {"f": "archived"}):
            for one in self._client.listed("/api/card", **query):
                there.setdefault(str(one.get("entity_id")), one)
                mark = parted(one.get("description"))[1]
                if mark and mark.kind == "card" and one.get("entity_id") == entity_id("card", mark.key):
                    self._made[int(one["id"])] = mark.key
        for card in self._wanted.cards:
            found = there.pop(entity_id("card", card.key), None)
            wanted = contents.card(card)
            body = partial(self._card_body, card, wanted)
            if found is None:
                if self._create("card", card.key, card.name):
                    made = self._client.post(
                        "/api/card", {**body(""), "entity_id": entity_id("card", card.key)}
                    )
                    self._cards[card.key] = int(made["id"])
                    self._settle("card", card.key, made, wanted, body)
                continue
            self._cards[card.key] = int(found["id"])
            mark = parted(found.get("description"))[1]
            content = contents.card_found(found, self._database, self._collection)
            gone = bool(found.get("archived"))
            if self._judge("card", card.key, card.name, mark, content, wanted, archived=gone):
                made = self._client.put(f"/api/card/{found['id']}", {**body(""), "archived": False})
                self._settle("card", card.key, made, wanted, body)
        for one in there.values():
            mark = parted(one.get("description"))[1]
            if mark and int(one["id"]) in self._made:
                content = contents.card_found(one, self._database, self._collection)
                self._retire("card", mark, one, content, "/api/card")

    def _card_body(self, card: Any, wanted: Any, state: str) -> dict[str, Any]:
        assert self._database is not None and self._collection is not None
        text = with_mark(card.description, Mark("card", card.key, state or digest(wanted)))
        return contents.card_body(card, text, self._database, self._collection)

    def _settle(
        self, kind: str, key: str, made: Mapping[str, Any], wanted: Any, body: Callable[[str], dict[str, Any]]
    ) -> None:
        """Note in the mark how Metabase tells what was written, where it is not as it was sent."""
        if kind == "card":
            told, path = contents.card_found(made, self._database, self._collection), "/api/card"
        else:
            told, path = contents.dashboard_found(made, self._keys(), self._collection), "/api/dashboard"
        if told != wanted:
            state = f"{digest(wanted)}_{digest(told)}"
            self._client.put(f"{path}/{made['id']}", {"description": body(state)["description"]})

    def _keys(self) -> dict[int, str]:
        return self._made | {number: key for key, number in self._cards.items()}

    def _dashboards(self) -> None:
        there = self._marked_dashboards()
        cards = {card.key: card for card in self._wanted.cards}
        for one in self._wanted.dashboards:
            wanted = contents.dashboard(one, cards)
            found = there.pop(one.key, None)
            if found is None:
                if not self._create("dashboard", one.key, one.name):
                    continue
                mark = with_mark(one.description, Mark("dashboard", one.key, UNFINISHED))
                place = {"collection_id": self._collection} if self._collection else {}
                found = self._client.post("/api/dashboard", {"name": one.name, "description": mark, **place})
                extra: dict[str, Any] = {}
            else:
                mark_ = parted(found.get("description"))[1]
                content = contents.dashboard_found(found, self._keys(), self._collection)
                gone = bool(found.get("archived"))
                if not self._judge("dashboard", one.key, one.name, mark_, content, wanted, archived=gone):
                    continue
                extra = {"archived": False} if gone else {}
            assert self._collection is not None

            def body(state: str, one: Any = one, wanted: Any = wanted, found: Any = found) -> dict[str, Any]:
                text = with_mark(one.description, Mark("dashboard", one.key, state or digest(wanted)))
                tiles = found.get("dashcards") or ()
                return contents.dashboard_body(one, text, self._collection or 0, cards, self._cards, tiles)

            made = self._client.put(f"/api/dashboard/{found['id']}", {**body(""), **extra})
            self._settle("dashboard", one.key, made, wanted, body)
        for found in there.values():
            mark_ = parted(found.get("description"))[1]
            assert mark_ is not None
            content = contents.dashboard_found(found, self._keys(), self._collection)
            self._retire("dashboard", mark_, found, content, "/api/dashboard")

    def _marked_dashboards(self) -> dict[str, dict[str, Any]]:
        """Return our dashboards by key, as a whole; of copies, the oldest."""
        found: dict[str, dict[str, Any]] = {}
        if self._collection is None:
            return found
        for query in ({}, {"archived": "true"}):
            path = f"/api/collection/{self._collection}/items"
            for one in sorted(
                self._client.listed(path, models="dashboard", **query), key=lambda d: int(d["id"])
            ):
                mark = parted(one.get("description"))[1]
                if mark and mark.kind == "dashboard" and mark.key not in found:
                    found[mark.key] = self._client.get(f"/api/dashboard/{one['id']}")
        return found

    def _retire(self, kind: str, mark: Mark, found: Mapping[str, Any], content: Any, path: str) -> None:
        """Archive what is no longer wanted, unless somebody edited it or it is archived."""
        if found.get("archived"):
            return
        untouched = not mark.is_settled or _states(mark)[1] == digest(content)
        action: Action = "archive" if untouched or self._force else "edited"
        details = () if action == "archive" else ("no longer defined, and edited by hand",)
        self._changes.append(Change(action, kind, mark.key, str(found.get("name")), details))
        if self._write and action == "archive":
            text = with_mark(parted(found.get("description"))[0], Mark(kind, mark.key, ARCHIVED))
            self._client.put(f"{path}/{found['id']}", {"archived": True, "description": text})


def _states(mark: Mark | None) -> tuple[str, str]:
    """Return the digests of a mark: of what was wanted, and of how Metabase told it."""
    if mark is None:
        return "", ""
    wanted, _, found = mark.state.partition("_")
    return wanted, found or wanted


def _reached(call: Callable[[], Any]) -> Any:
    """Call Metabase for a connection, which it tries at once."""
    try:
        return call()
    except Refused as error:
        if error.status != 400:
            raise
        raise Fatal(
            f"{error}; HEADRACE_METABASE_CLICKHOUSE_HOST and _PORT are ClickHouse as Metabase reaches it, and"
            " 'headrace metabase user' makes the user on a server of your own"
        ) from error
