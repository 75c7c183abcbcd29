"""The lake: its tables, and of each its rows, versions, files and columns, and what two versions differ in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.serving.page.address import View, Wrong, chosen, day_of, moment_of, whole
from headrace.serving.page.seen import OPERATORS, Condition, Which
from headrace.serving.page.site import Looking, Panel, Screen

TABS = {
    "rows": "Rows",
    "versions": "Versions",
    "files": "Files",
    "schema": "Columns",
    "difference": "Difference",
}
#: Rows of a page, and seconds for which they are looked for.
ROWS, SECONDS = 50, 5.0
_MOST_CONDITIONS = 8
_VERSION = 2**53


async def _tables(looking: Looking) -> Mapping[str, Any]:
    return {"tables": await looking.sources.look("tables")}


def which(view: View) -> Which:
    """Return the rows that an address asks for.

    Raises:
        Wrong: A parameter is none that there is.
    """
    conditions = [_condition(text) for text in view.every("where")]
    if column := view.of("column"):
        conditions.append(
            Condition(
                column, chosen("operator", view.of("operator", "eq"), list(OPERATORS)), view.of("value")
            )
        )
    if len(conditions) > _MOST_CONDITIONS:
        raise Wrong(f"there are {len(conditions)} conditions; give up to {_MOST_CONDITIONS}")
    version, at, day = view.of("version"), view.of("at"), view.of("day")
    if version and at:
        raise Wrong("version and at exclude each other: give one of them")
    return Which(
        table_of(view),
        tuple(dict.fromkeys(conditions)),
        whole("version", version, 0, _VERSION) if version else None,
        moment_of("at", at) if at else None,
        day_of("day", day) if day else None,
    )


def table_of(view: View) -> str:
    """Return the name of the table in a path; whether there is one is known to who reads it."""
    return view.path.removeprefix("/lake/")


def _condition(text: str) -> Condition:
    column, _, rest = text.partition(":")
    operator, _, value = rest.partition(":")
    if not column or not operator:
        raise Wrong(f"where={text!r} is no condition; write it as column:eq:value")
    return Condition(column, chosen("operator", operator, list(OPERATORS)), value)


async def _rows(looking: Looking) -> Mapping[str, Any]:
    asked = which(looking.view)
    found = await looking.sources.look("rows", asked, ROWS, SECONDS)
    return {
        "which": asked,
        "found": found,
        "csv": _export(looking.view, "csv"),
        "parquet": _export(looking.view, "parquet"),
    }


async def _filters(looking: Looking) -> Mapping[str, Any]:
    asked = which(looking.view)
    columns = await looking.sources.look("columns", asked.table)
    view = looking.view
    without = [
        (one.said, _link(view, [c.text for c in asked.conditions if c != one])) for one in asked.conditions
    ]
    return {
        "which": asked,
        "columns": columns,
        "operators": OPERATORS,
        "without": without,
        "at": view.of("at"),
        "texts": [one.text for one in asked.conditions],
    }


def _link(view: View, conditions: list[str]) -> str:
    """Return the address with other conditions; those of the form's fields are among them."""
    from urllib.parse import urlencode

    kept = [(n, v) for n, v in view.extra if n in ("at", "version", "day")]
    query = urlencode(
        [*kept, *(("where", one) for one in conditions), *([("plain", "1")] if view.plain else [])]
    )
    return f"{view.path}{'?' if query else ''}{query}"


def _export(view: View, form: str) -> str:
    query = _link(view, [one.text for one in which(view).conditions]).partition("?")[2]
    return f"{view.path}/export.{form}{'?' if query else ''}{query}"


async def _versions(looking: Looking) -> Mapping[str, Any]:
    return {"found": await looking.sources.look("versions", table_of(looking.view), 40)}


async def _files(looking: Looking) -> Mapping[str, Any]:
    return {"found": await looking.sources.look("files", table_of(looking.view), 100)}


async def _schema(looking: Looking) -> Mapping[str, Any]:
    return {"columns": await looking.sources.look("columns", table_of(looking.view))}


async def _difference(looking: Looking) -> Mapping[str, Any]:
    view, name = looking.view, table_of(looking.view)
    listed = await looking.sources.look("versions", name, 40)
    given = [view.of("before"), view.of("after")]
    if not listed.listed:
        return {"listed": listed, "found": None, "before": None, "after": None}
    after = whole("after", given[1], 0, _VERSION) if given[1] else listed.newest
    older = [one.version for one in listed.listed if one.version < after]
    before = whole("before", given[0], 0, _VERSION) if given[0] else (older[0] if older else after)
    if before > after:
        raise Wrong(f"before={before} is newer than after={after}; turn them round")
    found = await looking.sources.look("difference", name, before, after, 20)
    return {"listed": listed, "found": found, "before": before, "after": after}


_PANELS = {
    "rows": (
        Panel("filters", "", "lake_filters", _filters, "w12 h-tiles", label="Which rows"),
        Panel("rows", "", "lake_rows", _rows, "w12 h-tall", label="Rows", flush=True),
    ),
    "versions": (
        Panel("versions", "Versions that can be read", "lake_versions", _versions, "w12 h-tall", flush=True),
    ),
    "files": (Panel("files", "Files of the newest version", "lake_files", _files, "w12 h-tall", flush=True),),
    "schema": (Panel("schema", "Columns", "lake_schema", _schema, "w12 h-tall", flush=True),),
    "difference": (
        Panel("difference", "What changed", "lake_difference", _difference, "w12 h-tall", flush=True),
    ),
}


def _of_table(looking: Looking) -> Mapping[str, Any]:
    view = looking.view
    tab, name = view.one_of("tab", list(TABS)), table_of(view)
    return {
        "title": name,
        "said": "Rows as they landed, and what each version of the table holds.",
        "crumbs": [("/lake", "Lake")],
        "tabs": [
            (said, view.link("/lake/" + name, tab=one if one != "rows" else None), one == tab)
            for one, said in TABS.items()
        ],
        "panels": _PANELS[tab],
    }


INDEX = Screen(
    "lake",
    "Lake",
    "Every message that came, good or rejected, in Delta tables that remember each version.",
    "Data",
    (Panel("tables", "Tables", "lake_tables", _tables, "w12 h-table", flush=True),),
    dated=False,
    foot="Read from the Delta log; times are UTC.",
)
TABLE = Screen(
    "lake",
    "Lake",
    "",
    "Data",
    tuple(panel for panels in _PANELS.values() for panel in panels),
    template="table.html",
    parameters=("tab", "where", "column", "operator", "value", "version", "at", "day", "before", "after"),
    dated=False,
    foot="Read from the Delta table; times are UTC.",
    extra=_of_table,
)
