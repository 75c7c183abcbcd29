"""Make views anew after the columns that they read have changed.

A view keeps the types that its columns had when it was made, and ClickHouse converts what it reads to them: an integer
that a narrower type does not hold wraps around, without an error. So whoever widens a column makes the views that
read its table again, with the text that they have, and then those that read these views.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace.warehouse import ddl
from headrace.warehouse.cluster import Placement
from headrace.warehouse.server import Refused, Server

log = logging.getLogger(__name__)

_VIEWS = """
    SELECT database, name, engine, as_select, comment, create_table_query
    FROM system.tables WHERE engine IN ('View', 'MaterializedView') AND lower(database) != 'information_schema'
"""
_SECURITY = re.compile(r"(?:DEFINER = (?:`(?:[^`\\]|\\.)*`|\S+) )?SQL SECURITY \w+(?=\s+AS\s)")


@dataclass(frozen=True, slots=True)
class View:
    """A view of the server.

    Attributes:
        database: Its database.
        name: Its name there.
        engine: ``View``, or ``MaterializedView``, which stores what it makes.
        text: What it selects.
        comment: Its comment.
        created: The statement that makes it.
    """

    database: str
    name: str
    engine: str
    text: str
    comment: str = ""
    created: str = ""

    @property
    def security(self) -> str:
        """As whom it reads, as its statement says; empty where it says nothing."""
        found = _SECURITY.search(self.created)
        return f" {found[0]}" if found else ""


def refresh(server: Server, placement: Placement, database: str, table: str) -> list[str]:
    """Make the views again that read a table, by themselves or through others.

    A view that the server refuses to make again is left as it is, with a warning.

    Args:
        server: The server.
        placement: On one server or on a cluster.
        database: Database of the table.
        table: Name of the table.

    Returns:
        Names of the views that were made again, in that order.
    """
    found = [View(*row) for row in server.query(_VIEWS)]
    made = []
    for view in in_order(found, (database, table)):
        name = f"{view.database}.{view.name}"
        if view.engine != "View":
            log.warning(
                "%s is a materialized view over %s.%s, whose columns have changed: what it stores keeps its types;"
                " build it anew if it reads one of those",
                name,
                database,
                table,
            )
            continue
        said = f" COMMENT {ddl.literal(view.comment)}" if view.comment else ""
        quoted = f"{ddl.quoted(view.database)}.{ddl.quoted(view.name)}"
        try:
            server.command(
                f"CREATE OR REPLACE VIEW {quoted}{placement.on}{view.security} AS {view.text}{said}"
            )
        except Refused as error:
            log.warning("view %s keeps the types of before, deploy it again: %s", name, error)
        else:
            made.append(name)
    return made


def in_order(views: Iterable[View], table: tuple[str, str]) -> list[View]:
    """Return the views that read a table, also through other views, each after those that it reads.

    Judged by the words in their texts, so a view may be there that does not read it.
    """
    words = {view: set(re.findall(r"\w+", view.text)) for view in views}
    wanted: dict[View, set[tuple[str, str]]] = {}
    reached = {table}
    while more := [v for v in words if v not in wanted and any({*one} <= words[v] for one in reached)]:
        wanted |= {view: set() for view in more}
        reached |= {(view.database, view.name) for view in more}
    for view in wanted:
        wanted[view] = {
            (v.database, v.name) for v in wanted if v != view and {v.database, v.name} <= words[view]
        }
    return list(_sorted(wanted))


def _sorted(reads: Mapping[View, set[tuple[str, str]]]) -> Iterable[View]:
    left = dict(reads)
    while left:
        names = {(view.database, view.name) for view in left}
        free = [view for view in left if not left[view] & names] or list(left)  # words may go in a circle
        for view in free:
            del left[view]
            yield view
