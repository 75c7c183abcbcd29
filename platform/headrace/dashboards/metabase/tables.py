"""Describe tables and columns in Metabase: descriptions, semantic types, foreign keys, values for filters.

Metabase changes some of that by itself: it guesses types, and takes comments over. So an unmarked table is taken over,
and one whose description in the models has not changed since is compared attribute by attribute: what differs was
changed in Metabase, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headrace.dashboards.metabase import contents
from headrace.dashboards.metabase.client import Client
from headrace.dashboards.metabase.differences import shown
from headrace.dashboards.metabase.marks import UNFINISHED, Mark, digest, parted, with_mark
from headrace.dashboards.metabase.wanted import TableOf, Wanted

#: Seconds between two looks at what Metabase has found.
_LOOK_SECONDS = 2.0
_NOTE = "Described by Headrace, from the models."
#: Action, kind, key, name and details, as of a change.
Told = tuple[Any, str, str, str, tuple[str, ...]]
Found = dict[str, dict[str, Any]]


def describe(
    client: Client, database: int, wanted: Wanted, write: bool, force: bool, sleep: Callable[[float], None]
) -> list[Told]:
    """Compare the descriptions of all tables, and write what differs.

    Args:
        client: Calls Metabase.
        database: Id of the connection.
        wanted: What Metabase should hold.
        write: Write the difference.
        force: Overwrite what was changed in Metabase, too.
        sleep: Waits between two looks.

    Returns:
        The changes.
    """
    found = _found(client, database, wanted)
    if _missing(found, wanted) and write:
        found = _synced(client, database, wanted, sleep)
    told: list[Told] = [
        ("missing", "table", name, name, ("Metabase has not found it in ClickHouse",))
        for name in _missing(found, wanted)
    ]
    columns = {
        int(field["id"]): (name, str(field["name"]))
        for name, table in found.items()
        for field in table["fields"]
    }
    for table in wanted.tables:
        if table.name in found:
            told += _one(client, table, found[table.name], columns, write, force)
    return told + list(_aside(client, database, wanted, write, force))


def _aside(client: Client, database: int, wanted: Wanted, write: bool, force: bool) -> Iterator[Told]:
    """Hide what lies beside the marts: questions are counted in it, and people cannot read it."""
    told = client.get(f"/api/database/{database}/metadata", include_hidden="true")
    for one in told.get("tables") or ():
        if one.get("schema") in (wanted.connection.database, None, "") or one.get("visibility_type"):
            continue
        name = f"{one['schema']}.{one['name']}"
        note, mark = parted(one.get("caveats"))
        action = "update" if mark is None or force else "edited"
        yield action, "table", name, name, ("visibility_type: None -> 'technical'",)
        if write and action == "update":
            text = with_mark(note or _NOTE, Mark("table", name, "hidden"))
            client.put(f"/api/table/{one['id']}", {"visibility_type": "technical", "caveats": text})


def _found(client: Client, database: int, wanted: Wanted) -> Found:
    told = client.get(f"/api/database/{database}/metadata", include_hidden="true")
    own = wanted.connection.database
    return {
        str(one["name"]): {**one, "fields": one.get("fields") or []}
        for one in told.get("tables") or ()
        if one.get("schema") in (own, None, "")
    }


def _missing(found: Found, wanted: Wanted) -> list[str]:
    names: list[str] = []
    for table in wanted.tables:
        there = {field["name"] for field in found.get(table.name, {"fields": ()})["fields"]}
        if table.name not in found:
            names.append(table.name)
        else:
            names += [f"{table.name}.{field.name}" for field in table.fields if field.name not in there]
    return names


def _synced(client: Client, database: int, wanted: Wanted, sleep: Callable[[float], None]) -> Found:
    """Let Metabase look for tables, until it has found all or the time is over."""
    client.post(f"/api/database/{database}/sync_schema")
    left = wanted.sync_seconds
    while True:
        found = _found(client, database, wanted)
        if not _missing(found, wanted) or left <= 0:
            return found
        sleep(_LOOK_SECONDS)
        left -= _LOOK_SECONDS


def _one(
    client: Client,
    wanted: TableOf,
    found: Mapping[str, Any],
    columns: Mapping[int, tuple[str, str]],
    write: bool,
    force: bool,
) -> Iterator[Told]:
    note, mark = parted(found.get("caveats"))
    asked = digest(contents.table(wanted))
    own, fields = contents.table_differences(wanted, found, columns)
    same = mark is not None and mark.state == asked
    complete = all(
        one.name in {name for table, name in columns.values() if table == wanted.name}
        and (one.target is None or one.target in columns.values())
        for one in wanted.fields
    )
    if not own and not fields and (same or (mark is not None and not complete)):
        return
    details = tuple(_lines(own, fields)) or ("mark",)
    if same and not force:
        yield "edited", "table", wanted.name, wanted.name, details
        return
    yield "update" if mark else "create", "table", wanted.name, wanted.name, details
    if not write:
        return
    path = f"/api/table/{found['id']}"

    def marked(state: str) -> dict[str, Any]:
        return {"caveats": with_mark(note or _NOTE, Mark("table", wanted.name, state))}

    if fields:
        client.put(path, marked(UNFINISHED))
        ids = {place: number for number, place in columns.items()}
        for name, changes in fields.items():
            body = {key: pair[1] for key, pair in changes.items()}
            if (target := body.pop("fk_target_field_id", None)) in ids:
                body["fk_target_field_id"] = ids[target]
            client.put(f"/api/field/{ids[wanted.name, name]}", body)
    client.put(
        path, {**{key: pair[1] for key, pair in own.items()}, **marked(asked if complete else UNFINISHED)}
    )


def _lines(own: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for key, (there, asked) in own.items():
        yield f"{key}: {shown(there)} -> {shown(asked)}"
    for name, changes in fields.items():
        for key, (there, asked) in changes.items():
            yield f"{name}.{key}: {shown(there)} -> {shown(asked)}"
