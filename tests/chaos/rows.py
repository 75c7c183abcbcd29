"""What tells one row from another: where it came from, or, of what came over HTTP, its producer's id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from chaos.judge import Row

TABLES = ("events", "events_rejected")
_ORIGIN = ["_cursor", "_offset", "_message_id", "_index"]
#: The queue, so to say, of messages that a collector acknowledged.
DOOR = "http"


@dataclass(frozen=True)
class Naming:
    """How rows are named.

    Attributes:
        columns: What has to be read of each table.
        name: Makes a row's name of its table and of these columns' values.
    """

    columns: Mapping[str, list[str]]
    name: Callable[..., Row]

    def rows(self, table: str, values: Iterable[tuple[Any, ...]]) -> list[Row]:
        """Name rows."""
        return [self.name(table, *row) for row in values]


def _by_origin(
    whole: bool, _: str, cursor: str, offset: int | None, message_id: str | None, index: int
) -> Row:
    """The partition or queue, offset or message id, and the place in the message.

    With ``whole``, the partition carries its topic's id, to tell a recreated topic from the one before.
    """
    place = "/".join(cursor.split("/")[-2 if whole else -1 :])
    return (place, message_id if offset is None else offset, index)  # type: ignore[return-value]


def _by_id(table: str, value: Any) -> Row:
    """The producer's id: what a collector sends again comes by another offset."""
    return (DOOR, str(value if table == TABLES[0] else json.loads(value)["event_id"]), 0)


def by_origin(*, whole: bool = False) -> Naming:
    """Rows by the message that they came from."""
    return Naming(dict.fromkeys(TABLES, _ORIGIN), partial(_by_origin, whole))


def by_id() -> Naming:
    """Rows by the id that their producer gave them; a rejected one has it in its payload."""
    return Naming({TABLES[0]: ["event_id"], TABLES[1]: ["payload"]}, _by_id)
