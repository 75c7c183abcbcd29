"""Say what is compared: the content of each thing, as it is wanted and as Metabase tells it, in one form.

Ids of Metabase are not in it, so that a mark holds in another installation, too. Keys that Metabase adds are left out.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

from headrace.dashboards.metabase.cards import Card, Dashboard, parameter_id
from headrace.dashboards.metabase.marks import parted
from headrace.dashboards.metabase.wanted import PK, Connection, Field, TableOf
from headrace.metrics.dialects import Tag

Content = dict[str, Any]
#: Metabase's type of a filter, by type of the tag.
_PARAMETERS = {"text": "string/=", "number": "number/=", "date": "date/single"}


def connection(wanted: Connection) -> Content:
    """Return the content of a connection without its password."""
    return {
        "name": wanted.name,
        "host": wanted.host,
        "port": wanted.port,
        "user": wanted.user,
        "dbname": wanted.database,
        "ssl": wanted.secure,
    }


def connection_found(found: Mapping[str, Any]) -> Content:
    """Return what Metabase tells of a connection."""
    details = found.get("details") or {}
    port = details.get("port")
    return {
        "name": found["name"],
        "host": details.get("host"),
        "port": int(str(port)) if str(port).isdigit() else port,
        "user": details.get("user"),
        "dbname": details.get("dbname"),
        "ssl": bool(details.get("ssl")),
    }


def card(wanted: Card) -> Content:
    """Return the content of a question."""
    return {
        "name": wanted.name,
        "description": wanted.description,
        "display": wanted.display,
        "sql": wanted.sql,
        "tags": {tag.name: [tag.type, tag.label] for tag in wanted.tags},
        "settings": wanted.settings,
        "placed": True,
    }


def card_found(found: Mapping[str, Any], database: int | None, collection: int | None) -> Content:
    """Return what Metabase tells of a question, before version 57 and since."""
    query = found.get("dataset_query") or {}
    stage = (query.get("stages") or [{}])[0] if "stages" in query else query.get("native") or {}
    tags = stage.get("template-tags") or {}
    return {
        "name": found.get("name"),
        "description": parted(found.get("description"))[0],
        "display": found.get("display"),
        "sql": stage.get("native") if "stages" in query else stage.get("query"),
        "tags": {name: [tag.get("type"), tag.get("display-name")] for name, tag in tags.items()},
        "settings": found.get("visualization_settings") or {},
        "placed": query.get("database") == database and found.get("collection_id") == collection,
    }


def card_body(wanted: Card, description: str, database: int, collection: int) -> Content:
    """Return what is sent for a question; for a new one, its ``entity_id`` comes to it."""
    tags = {
        tag.name: {"id": tag_id(wanted, tag), "name": tag.name, "display-name": tag.label, "type": tag.type}
        for tag in wanted.tags
    }
    return {
        "name": wanted.name,
        "type": "question",
        "description": description,
        "display": wanted.display,
        "dataset_query": {
            "type": "native",
            "database": database,
            "native": {"query": wanted.sql, "template-tags": tags},
        },
        "visualization_settings": wanted.settings,
        "parameters": [
            {
                "id": tag_id(wanted, tag),
                "type": "category" if tag.type == "text" else _PARAMETERS[tag.type],
                "name": tag.label,
                "slug": tag.name,
                "target": _target(tag.name),
            }
            for tag in wanted.tags
        ],
        "collection_id": collection,
    }


def tag_id(wanted: Card, tag: Tag) -> str:
    """Return the id of a template tag, always the same."""
    return str(uuid.UUID(bytes=sha256(f"headrace:tag:{wanted.key}.{tag.name}".encode()).digest()[:16]))


def dashboard(wanted: Dashboard, cards: Mapping[str, Card]) -> Content:
    """Return the content of a dashboard."""
    return {
        "name": wanted.name,
        "description": wanted.description,
        "filters": [
            [parameter_id(wanted.key, tag.name), tag.name, tag.label, _PARAMETERS[tag.type]]
            for tag in wanted.tags
        ],
        "tiles": sorted(
            [
                tile.card,
                tile.column,
                tile.row,
                tile.width,
                tile.height,
                sorted(t.name for t in cards[tile.card].tags),
            ]
            for tile in wanted.tiles
        ),
        "placed": True,
    }


def dashboard_found(found: Mapping[str, Any], keys: Mapping[int, str], collection: int | None) -> Content:
    """Return what Metabase tells of a dashboard; ``keys`` has our questions by Metabase's id."""
    filters = [
        [p.get("id"), p.get("slug"), p.get("name"), p.get("type")] for p in found.get("parameters") or ()
    ]
    tiles = [
        [
            keys.get(one.get("card_id") or 0, f"#{one.get('card_id')}"),
            one.get("col"),
            one.get("row"),
            one.get("size_x"),
            one.get("size_y"),
            sorted(filter(None, (_tag_in(m.get("target")) for m in one.get("parameter_mappings") or ()))),
        ]
        for one in found.get("dashcards") or ()
    ]
    return {
        "name": found.get("name"),
        "description": parted(found.get("description"))[0],
        "filters": filters,
        "tiles": sorted(tiles, key=str),
        "placed": found.get("collection_id") == collection,
    }


def dashboard_body(
    wanted: Dashboard,
    description: str,
    collection: int,
    cards: Mapping[str, Card],
    ids: Mapping[str, int],
    there: Collection[Mapping[str, Any]] = (),
) -> Content:
    """Return what is sent for a dashboard.

    Args:
        wanted: The dashboard.
        description: Its description with the mark.
        collection: Id of the collection.
        cards: Questions by key.
        ids: Metabase's ids of them.
        there: Its tiles now; those of the same question keep their id.
    """
    known = {one.get("card_id"): one.get("id") for one in there}
    tiles: list[Content] = []
    for place, tile in enumerate(wanted.tiles, 1):
        card_id = ids[tile.card]
        tiles.append(
            {
                "id": known.get(card_id) or -place,
                "card_id": card_id,
                "col": tile.column,
                "row": tile.row,
                "size_x": tile.width,
                "size_y": tile.height,
                "series": [],
                "visualization_settings": {},
                "parameter_mappings": [
                    {
                        "parameter_id": parameter_id(wanted.key, tag.name),
                        "card_id": card_id,
                        "target": _target(tag.name),
                    }
                    for tag in cards[tile.card].tags
                ],
            }
        )
    return {
        "name": wanted.name,
        "description": description,
        "collection_id": collection,
        "parameters": [
            {
                "id": parameter_id(wanted.key, tag.name),
                "name": tag.label,
                "slug": tag.name,
                "type": _PARAMETERS[tag.type],
                "sectionId": _PARAMETERS[tag.type].partition("/")[0],
            }
            for tag in wanted.tags
        ],
        "dashcards": tiles,
        "tabs": [],
    }


def _target(tag: str) -> list[Any]:
    return ["variable", ["template-tag", tag]]


def _tag_in(target: Any) -> str | None:
    """Return the tag that a mapping points at, however it is written."""
    if isinstance(target, list):
        if len(target) > 1 and target[0] == "template-tag":
            return str(target[1])
        return next(filter(None, map(_tag_in, target)), None)
    return None


def table(wanted: TableOf) -> Content:
    """Return the content of a table's description."""
    return {
        "description": wanted.description,
        "visibility": wanted.visibility,
        "fields": {
            one.name: [one.description, one.semantic, list(one.target or ()), one.values]
            for one in wanted.fields
        },
    }


def table_differences(
    wanted: TableOf, found: Mapping[str, Any], columns: Mapping[int, tuple[str, str]]
) -> tuple[Content, dict[str, Content]]:
    """Compare a table's description with what Metabase tells.

    Args:
        wanted: The table.
        found: What Metabase tells of it, with its fields.
        columns: Table and column by Metabase's id.

    Returns:
        What is to be sent for the table, and for each of its columns: keys with pairs of what is there and what is
        wanted; empty where nothing is.
    """
    own: Content = {}
    for key, value, there in (
        ("description", wanted.description, found.get("description") or ""),
        ("visibility_type", wanted.visibility, found.get("visibility_type")),
    ):
        if value != there and (value or there):
            own[key] = (there, value)
    fields = {one["name"]: one for one in found.get("fields") or ()}
    told = {
        one.name: dict(_field(one, fields[one.name], columns)) for one in wanted.fields if one.name in fields
    }
    return own, {name: changes for name, changes in told.items() if changes}


def _field(
    wanted: Field, found: Mapping[str, Any], columns: Mapping[int, tuple[str, str]]
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if wanted.description and wanted.description != found.get("description"):
        yield "description", (found.get("description"), wanted.description)
    semantic = found.get("semantic_type")
    # Metabase takes every column of the sorting key for one of the primary key
    if semantic != wanted.semantic and (wanted.semantic or semantic == PK):
        yield "semantic_type", (semantic, wanted.semantic)
    if wanted.target:
        target = columns.get(found.get("fk_target_field_id") or 0)
        if target != wanted.target:
            yield "fk_target_field_id", (target, wanted.target)
    if wanted.values and wanted.values != found.get("has_field_values"):
        yield "has_field_values", (found.get("has_field_values"), wanted.values)
