"""Metabase's REST API over loopback: the part that is used here, as strict as its published schema, and stricter.

Bodies and queries are closed: an unknown key is a 400. A key that is there has a value of its type; null where the
schema says so, and never as a display name. Each request needs the API key. Ids are given here, and what refers to
another thing must name one that is there. Tiles lie on 24 columns, and none on another.
https://www.metabase.com/docs/latest/api
"""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .schemas import (
    CARD,
    CONNECTION,
    DASHBOARD,
    DASHCARD,
    SEMANTIC,
    Body,
    Refusal,
    any_text,
    boolean,
    closed,
    faults,
    list_of,
    mapping,
    maybe,
    number,
    one_of,
    text,
)

KEY = "mb_key_of_an_administrator"


@dataclass
class MetabaseDouble:
    """What Metabase holds, and how it behaves.

    Attributes:
        tables: Tables that it finds in ClickHouse, with the columns of each and their comments; keys are its guess of
            the primary key.
        comments: Comments by table.
        schemas: Databases of tables that lie elsewhere than the marts.
        version: Its version.
        admin: Whether the key is an administrator's.
        newer: Whether questions are told in the form that came with version 57.
        slow: Looks at its tables until a sync shows.
        reaches: Whether it can connect to ClickHouse.
        fails_after: Writing requests until one fails with a 500; None for none.
        asked: Every request: method and path.
        writes: Every request that changes something: method, path and body.
    """

    tables: dict[str, dict[str, str]]
    comments: dict[str, str] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)
    version: str = "v0.58.2"
    admin: bool = True
    newer: bool = False
    slow: int = 2
    reaches: bool = True
    fails_after: int | None = None
    status: int = 0
    html: bool = False
    asked: list[str] = field(default_factory=list)
    writes: list[tuple[str, str, Body]] = field(default_factory=list)
    databases: dict[int, Body] = field(default_factory=dict)
    found: dict[int, Body] = field(default_factory=dict)
    collections: dict[int, Body] = field(default_factory=dict)
    cards: dict[int, Body] = field(default_factory=dict)
    dashboards: dict[int, Body] = field(default_factory=dict)
    url: str = ""
    _syncing: int = -1
    _last: int = 10

    def id(self) -> int:
        self._last += 7
        return self._last

    # what is asked

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, key: str) -> Any:
        self.asked.append(f"{method} {path}")
        if self.status:
            raise Refusal(self.status, "no")
        if path == "/api/session/properties":
            return {"version": {"tag": self.version}, "setup-token": None}
        if key != KEY:
            raise Refusal(401, "Unauthenticated")
        if method in ("POST", "PUT"):
            if not self.admin:
                raise Refusal(403, "You don't have permissions to do that.")
            if self.fails_after is not None and len(self.writes) >= self.fails_after:
                raise Refusal(500, "Java heap space")
        for verb, pattern, answers in self._routes():
            match = re.fullmatch(pattern, path)
            if verb == method and match:
                told = answers(
                    *(int(part) for part in match.groups()), *([query] if verb == "GET" else [body])
                )
                if verb != "GET":
                    self.writes.append((method, path, copy.deepcopy(body)))
                return copy.deepcopy(told)
        raise Refusal(404, "API endpoint does not exist.")

    def _routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        return [
            ("GET", "/api/user/current", lambda query: {"id": 1, "is_superuser": self.admin}),
            (
                "GET",
                "/api/database",
                lambda query: {"data": list(self.databases.values()), "total": len(self.databases)},
            ),
            ("POST", "/api/database", self._add_database),
            ("PUT", r"/api/database/(\d+)", self._change_database),
            ("POST", r"/api/database/(\d+)/sync_schema", self._sync),
            ("GET", r"/api/database/(\d+)/metadata", self._metadata),
            ("PUT", r"/api/table/(\d+)", self._change_table),
            ("PUT", r"/api/field/(\d+)", self._change_field),
            (
                "GET",
                "/api/collection",
                lambda query: [{"id": "root", "name": "Our analytics"}, *self.collections.values()],
            ),
            ("POST", "/api/collection", self._add_collection),
            ("PUT", r"/api/collection/(\d+)", self._change_collection),
            ("GET", r"/api/collection/(\d+)/items", self._items),
            ("GET", "/api/card", self._list_cards),
            ("POST", "/api/card", self._add_card),
            ("PUT", r"/api/card/(\d+)", self._change_card),
            ("POST", "/api/dashboard", self._add_dashboard),
            ("GET", r"/api/dashboard/(\d+)", lambda id, query: self._one(self.dashboards, id)),
            ("PUT", r"/api/dashboard/(\d+)", self._change_dashboard),
        ]

    @staticmethod
    def _one(things: dict[int, Body], id: int) -> Body:
        if id not in things:
            raise Refusal(404, "Not found.")
        return things[id]

    # connection and tables

    def _add_database(self, body: Any) -> Body:
        optional = {
            "is_full_sync": boolean,
            "is_on_demand": boolean,
            "auto_run_queries": boolean,
            "schedules": mapping,
            "cache_ttl": number,
        }
        required = {"name": text, "engine": one_of("clickhouse"), "details": closed(CONNECTION)}
        faults(body, required, {**required, **optional})
        if not self.reaches:
            raise Refusal(400, {"message": "Couldn't connect to the database. Connection refused"})
        id = self.id()
        shown = {**body["details"], "password": "**MetabasePass**"}
        self.databases[id] = {
            "id": id,
            **body,
            "details": shown,
            "description": None,
            "initial_sync_status": "complete",
        }
        return self.databases[id]

    def _change_database(self, id: int, body: Any) -> Body:
        there = self._one(self.databases, id)
        faults(
            body,
            {},
            {
                "name": maybe(text),
                "details": maybe(closed(CONNECTION)),
                "description": maybe(any_text),
                "caveats": maybe(any_text),
            },
        )
        if not self.reaches:
            raise Refusal(400, {"message": "Couldn't connect to the database. Connection refused"})
        shown = {"details": {**body["details"], "password": "**MetabasePass**"}} if "details" in body else {}
        there |= {**body, **shown}
        return there

    def _sync(self, id: int, body: Any) -> Body:
        self._one(self.databases, id)
        faults(body, {}, {})
        self._syncing = self.slow
        return {"status": "ok"}

    def _metadata(self, id: int, query: Mapping[str, str]) -> Body:
        there = self._one(self.databases, id)
        faults(
            dict(query),
            {},
            {"include_hidden": one_of("true", "false"), "include_editable_data_model": any_text},
        )
        if self._syncing == 0:
            self._take_over(there)
        self._syncing -= 1
        return {**there, "tables": list(self.found.values())}

    def _take_over(self, database: Body) -> None:
        known = {one["name"]: one for one in self.found.values()}
        for name, columns in self.tables.items():
            table = known.get(name)
            if table is None:
                id = self.id()
                table = self.found[id] = {
                    "id": id,
                    "name": name,
                    "schema": self.schemas.get(name, database["details"]["dbname"]),
                    "description": self.comments.get(name),
                    "caveats": None,
                    "visibility_type": None,
                    "fields": [],
                }
            there = {one["name"] for one in table["fields"]}
            for column, kind in columns.items():
                if column not in there:
                    table["fields"].append(
                        {
                            "id": self.id(),
                            "name": column,
                            "description": None,
                            "has_field_values": None,
                            "fk_target_field_id": None,
                            "semantic_type": "type/PK" if kind == "key" else None,
                            "display_name": column.title(),
                        }
                    )

    def _change_table(self, id: int, body: Any) -> Body:
        there = self._one(self.found, id)
        faults(
            body,
            {},
            {
                "display_name": text,
                "description": maybe(any_text),
                "caveats": maybe(any_text),
                "visibility_type": maybe(one_of("hidden", "technical", "cruft")),
                "points_of_interest": maybe(any_text),
            },
        )
        there |= body
        return there

    def _change_field(self, id: int, body: Any) -> Body:
        fields = {one["id"]: one for table in self.found.values() for one in table["fields"]}
        there = self._one(fields, id)
        faults(
            body,
            {},
            {
                "display_name": text,
                "description": maybe(text),
                "caveats": maybe(text),
                "fk_target_field_id": maybe(number),
                "semantic_type": maybe(lambda v: isinstance(v, str) and bool(SEMANTIC.fullmatch(v))),
                "has_field_values": maybe(one_of("list", "search", "none", "auto-list")),
                "visibility_type": maybe(one_of("normal", "details-only", "sensitive")),
            },
        )
        target = body.get("fk_target_field_id")
        if target is not None and target not in fields:
            raise Refusal(400, {"errors": {"fk_target_field_id": "no such field"}})
        if target is not None and {**there, **body}["semantic_type"] != "type/FK":
            raise Refusal(400, {"errors": {"fk_target_field_id": "the field is no foreign key"}})
        there |= body
        return there

    # collection

    def _add_collection(self, body: Any) -> Body:
        required = {"name": text}
        faults(
            body,
            required,
            {
                **required,
                "description": maybe(text),
                "parent_id": maybe(number),
                "authority_level": maybe(text),
            },
        )
        id = self.id()
        self.collections[id] = {"id": id, "archived": False, "description": None, **body}
        return self.collections[id]

    def _change_collection(self, id: int, body: Any) -> Body:
        there = self._one(self.collections, id)
        faults(body, {}, {"name": maybe(text), "description": maybe(text), "archived": maybe(boolean)})
        there |= body
        return there

    def _items(self, id: int, query: Mapping[str, str]) -> Body:
        self._one(self.collections, id)
        faults(dict(query), {}, {"models": one_of("dashboard", "card"), "archived": one_of("true", "false")})
        archived = query.get("archived") == "true"
        keys = ("id", "name", "description", "collection_id", "entity_id")
        return {
            "data": [
                {"model": "dashboard", **{key: one.get(key) for key in keys}}
                for one in self.dashboards.values()
                if one["collection_id"] == id and one["archived"] == archived
            ]
        }

    # questions

    def _list_cards(self, query: Mapping[str, str]) -> list[Body]:
        faults(dict(query), {}, {"f": one_of("all", "archived", "mine")})
        archived = query.get("f") == "archived"
        return [self._told(one) for one in self.cards.values() if one["archived"] == archived]

    def _told(self, card: Body) -> Body:
        if not self.newer:
            return card
        query = card["dataset_query"]
        stage = {
            "lib/type": "mbql.stage/native",
            "native": query["native"]["query"],
            "template-tags": query["native"].get("template-tags", {}),
        }
        return {
            **card,
            "dataset_query": {"lib/type": "mbql/query", "database": query["database"], "stages": [stage]},
        }

    def _check_card(self, card: Body) -> None:
        if card["dataset_query"]["database"] not in self.databases:
            raise Refusal(400, {"errors": {"dataset_query": "no such database"}})
        self._check_collection(card)
        tags = card["dataset_query"]["native"].get("template-tags", {})
        used = set(re.findall(r"\{\{(\w+)\}\}", card["dataset_query"]["native"]["query"]))
        if used != set(tags) or any(name != tag["name"] for name, tag in tags.items()):
            raise Refusal(
                400,
                {
                    "errors": {
                        "dataset_query": f"tags {sorted(tags)} are not those of the query, {sorted(used)}"
                    }
                },
            )

    def _check_collection(self, thing: Body) -> None:
        id = thing.get("collection_id")
        if id is not None and id not in self.collections:
            raise Refusal(404, "Not found.")

    def _add_card(self, body: Any) -> Body:
        required = {
            name: CARD[name] for name in ("name", "dataset_query", "display", "visualization_settings")
        }
        faults(
            body, required, {**CARD, "entity_id": maybe(lambda v: bool(re.fullmatch(r"[\w-]{21}", str(v))))}
        )
        self._check_card(body)
        if any(one["entity_id"] == body.get("entity_id") for one in self.cards.values()):
            raise Refusal(400, {"errors": {"entity_id": "is taken"}})
        id = self.id()
        self.cards[id] = {
            "id": id,
            "archived": False,
            "entity_id": None,
            "description": None,
            "collection_id": None,
            **body,
        }
        return self._told(self.cards[id])

    def _change_card(self, id: int, body: Any) -> Body:
        there = self._one(self.cards, id)
        faults(body, {}, {**CARD, "archived": maybe(boolean), "description": maybe(any_text)})
        self._check_card({**there, **body})
        there |= body
        return self._told(there)

    # dashboards

    def _add_dashboard(self, body: Any) -> Body:
        faults(body, {"name": text}, DASHBOARD)
        self._check_collection(body)
        id = self.id()
        self.dashboards[id] = {
            "id": id,
            "archived": False,
            "description": None,
            "collection_id": None,
            "parameters": [],
            "dashcards": [],
            "tabs": [],
            "entity_id": f"{id:021d}",
            **body,
        }
        return self.dashboards[id]

    def _change_dashboard(self, id: int, body: Any) -> Body:
        there = self._one(self.dashboards, id)
        faults(
            body,
            {},
            {
                **DASHBOARD,
                "archived": maybe(boolean),
                "dashcards": list_of(DASHCARD),
                "tabs": list_of(mapping),
            },
        )
        self._check_collection(body)
        if "dashcards" in body:
            self._check_tiles(there, body)
            kept = [
                {**one, "id": one["id"] if one["id"] > 0 else self.id(), "card": {}}
                for one in body["dashcards"]
            ]
            body = {**body, "dashcards": kept}
        there |= body
        return there

    def _check_tiles(self, there: Body, body: Body) -> None:
        known = {one["id"] for one in there["dashcards"]}
        parameters = {one["id"] for one in (body if "parameters" in body else there)["parameters"]}
        taken: set[tuple[int, int]] = set()
        ids = [one["id"] for one in body["dashcards"]]
        if len(ids) != len(set(ids)):
            raise Refusal(400, {"errors": {"dashcards": "value must be seq of maps in which ids are unique"}})
        for one in body["dashcards"]:
            if one["id"] == 0 or (one["id"] > 0 and one["id"] not in known):
                raise Refusal(
                    400, {"errors": {"dashcards": f"no such id {one['id']}; new ones are negative"}}
                )
            card = self.cards.get(one.get("card_id") or 0)
            if card is None or card["archived"]:
                raise Refusal(400, {"errors": {"dashcards": f"no such card {one.get('card_id')}"}})
            if one["col"] + one["size_x"] > 24:
                raise Refusal(400, {"errors": {"dashcards": "is wider than the grid"}})
            cells = {
                (x, y)
                for x in range(one["col"], one["col"] + one["size_x"])
                for y in range(one["row"], one["row"] + one["size_y"])
            }
            if cells & taken:
                raise Refusal(400, {"errors": {"dashcards": "overlaps another"}})
            taken |= cells
            for mapped in one.get("parameter_mappings", ()):
                tags = card["dataset_query"]["native"].get("template-tags", {})
                kind, target = mapped["target"]
                if mapped["parameter_id"] not in parameters or kind != "variable" or target[1] not in tags:
                    raise Refusal(400, {"errors": {"dashcards": f"maps nothing: {mapped}"}})


@contextmanager
def running(double: MetabaseDouble) -> Iterator[MetabaseDouble]:
    """Serve it until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            place = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            raw = self.rfile.read(length)
            try:
                body = json.loads(raw) if raw else None
                told, status = (
                    double.answer(
                        self.command,
                        place.path,
                        dict(parse_qsl(place.query)),
                        body,
                        self.headers.get("x-api-key", ""),
                    ),
                    200,
                )
            except Refusal as refusal:
                told, status = refusal.said, refusal.status
            answer = b"<html>Metabase is starting</html>" if double.html else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _serve

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
