"""Let the lake's tables follow their contracts before anything lands.

A table records the description of the contract that changed it last. What opens a table for landing compares that text
with the contract's own: as long as they are the same, that is all. A newer contract changes the table, unless that
breaks who reads lake or marts. What only asks more of producers is no matter of the table: their records are rejected
with the reason. A process whose contract is older than the table's goes on with the columns that it knows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.contracts.growth.describe import described_table, ever_null, landed_types, text_of
from headrace.contracts.growth.differences import READERS, Difference, differences
from headrace.contracts.unknown import EXTRA
from headrace.core.batch import Table
from headrace.core.errors import Conflict, Fatal
from headrace.lake import LakeTable, Snapshot

log = logging.getLogger(__name__)

_RACES = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a contract is to a table that another one has changed last.

    Attributes:
        broken: Differences that break who reads.
        newer: Whether the table's contract is the newer one.
        changes: Whether the contract changes the table.
        stricter: Differences that break producers alone.
    """

    broken: tuple[Difference, ...] = ()
    newer: bool = False
    changes: bool = False
    stricter: tuple[Difference, ...] = ()


def follow(table: LakeTable) -> tuple[Snapshot, str]:
    """Open a table for landing, after it has followed its contract.

    Returns:
        The newest snapshot; and a line that says that the table's contract is newer, empty if it is not.

    Raises:
        Fatal: The contract would break who reads the table. Nothing was changed.
        Conflict: Others change the table all the time.
    """
    for attempt in _RACES:
        with attempt:
            snapshot = table.open()
            ours = table.table.description_json
            recorded = snapshot.described
            if recorded == ours:
                if not ours or not snapshot.behind:
                    return snapshot, ""
                snapshot.grow()  # somebody has changed it beside Headrace, or restored an older copy
                return snapshot, ""
            if not ours:
                return snapshot, ""
            found = judge(recorded or _by_columns(table.table, snapshot), ours)
            if found.broken:
                raise Fatal(refusal(table.table, found.broken))
            if found.newer:
                return snapshot, _ahead(table.table, recorded, snapshot)
            if found.changes or not recorded or snapshot.behind:
                for one in found.stricter:
                    log.warning("contract %s: %s", table.table.name, one)
                snapshot.grow()
    return snapshot, ""


def as_recorded(table: Table, snapshot: Snapshot) -> Table:
    """Return the columns of a table as they are read, in the types of the contract that changed it last.

    The lake itself stores some types in wider ones, and does not say where null is allowed.
    """
    view, recorded = snapshot.view, snapshot.described
    if not recorded or recorded == table.description_json:
        return replace(view, nullable=table.nullable)
    newest = json.loads(recorded)
    types = landed_types(newest)

    def type_of(name: str) -> pl.DataType:
        names = (name, *view.renamed.get(name, ()))
        return next((types[one] for one in names if one in types), view.schema[name])

    return replace(
        view,
        schema=pl.Schema({name: type_of(name) for name in view.schema}),
        nullable=table.nullable | ever_null(newest),
        uuids=frozenset(field["name"] for field in newest["fields"] if field.get("wire") == "uuid"),
    )


def _by_columns(table: Table, snapshot: Snapshot) -> str:
    """Describe a table that records no contract by its columns."""
    known = {n: dtype for n, dtype in snapshot.columns.items() if n != EXTRA or n not in table.schema}
    return text_of(described_table(table.name, pl.Schema(known), table.partition))


@lru_cache(maxsize=64)
def judge(recorded: str, ours: str) -> Judgement:
    """Judge a contract by the description that a table records.

    Two contracts of one version that differ are judged both ways: one of them may be the older text of it.
    """
    before, after = json.loads(recorded), json.loads(ours)
    there, version = before.get("version"), int(after["version"])
    if there is not None and int(there) > version:
        return Judgement(newer=True)
    found = differences(before, after)
    broken = _breaking(found)
    if there is not None and int(there) == version:
        back = _breaking(differences(after, before))
        if not back and (broken or _fewer(before, after)):
            return Judgement(newer=True)
        if not back:
            return Judgement(stricter=_stricter(found))
    return Judgement(broken, changes=True, stricter=_stricter(found))


def _fewer(before: dict, after: dict) -> bool:  # type: ignore[type-arg]
    names = {field["name"] for field in after["fields"]}
    return any(field["name"] not in names for field in before["fields"])


def _breaking(found: Sequence[Difference]) -> tuple[Difference, ...]:
    return tuple(one for one in found if one.breaks & READERS)


def _stricter(found: Sequence[Difference]) -> tuple[Difference, ...]:
    return tuple(one for one in found if one.breaks and not one.breaks & READERS)


def refusal(table: Table, broken: Sequence[Difference]) -> str:
    """Say which changes of a contract break who reads, and what to do instead."""
    return (
        f"contract {table.name} version {table.version} would break who reads what has landed, so nothing lands: "
        + "; ".join(map(str, broken))
    )


def _ahead(table: Table, recorded: str, snapshot: Snapshot) -> str:
    version = json.loads(recorded).get("version")
    which = f"another text of version {version}" if version == table.version else f"version {version}"
    unknown = f"; it leaves {', '.join(snapshot.unknown)} null" if snapshot.unknown else ""
    return (
        f"the lake's {table.name} follows {which} of its contract, and this process has version"
        f" {table.version}: it lands on with its own columns{unknown}"
    )
