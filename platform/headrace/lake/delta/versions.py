"""Tell which versions of a Delta table can be read, when they were made, and what changed in them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from headrace.core.errors import HistoryGone
from headrace.lake.delta import history
from headrace.lake.delta.storage import ERASURE, RESTORE, DeltaStorage


@dataclass(frozen=True, slots=True)
class Version:
    """A version that can be read.

    Attributes:
        version: Its number.
        at: When it was committed (UTC); None if nothing tells.
        rows: Rows that it holds.
        daily: The day (UTC) whose last version it is; None if it is none.
        changed: What its commit did, for people.
    """

    version: int
    at: datetime | None
    rows: int
    daily: date | None
    changed: str


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of a table that can be read.

    Attributes:
        listed: The newest ones and all that are kept, the newest first.
        first: The first version of the log; all from there on can be read.
        newest: The newest version.
    """

    listed: tuple[Version, ...]
    first: int
    newest: int


def versions(storage: DeltaStorage, most: int) -> Versions:
    """List the newest versions, ``most`` of them, and all that are kept by the day or from before a restore."""
    log = history.read_log(storage)
    stay, readable = history.kept(storage, log), log.readable
    chosen = sorted({*readable[-most:], *stay.versions}, reverse=True)
    found = tuple(one for version in chosen if (one := _version(storage, version, stay)))
    return Versions(found, readable.start, readable.stop - 1)


def _version(storage: DeltaStorage, version: int, stay: history.Kept) -> Version | None:
    at, changed = None, ""
    with suppress(HistoryGone):
        changed = _changed(storage.actions(version))
        at = history.committed_at(storage, version)
    if version in stay.before_restores:
        changed = f"{changed}; before a restore"
    try:
        actions = pl.DataFrame(history.at_version(storage, version).get_add_actions(flatten=True))
    except HistoryGone:
        return None
    rows = int(actions["num_records"].sum()) if actions.height else 0
    return Version(version, at, rows, stay.daily.get(version), changed)


def _changed(actions: list[dict[str, dict[str, Any]]]) -> str:
    """Say in a few words what a commit did."""
    said = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    added = [a["add"] for a in actions if "add" in a]
    removed = [a["remove"] for a in actions if "remove" in a]
    files = f"{len(removed):,} {'file' if len(removed) == 1 else 'files'}"
    if RESTORE in said:
        to = str(said[RESTORE])
        return (
            "restore undone" if to == "undone" else f"restored to {history.said(datetime.fromisoformat(to))}"
        )
    if ERASURE in said:
        return f"erasure: {files} rewritten"
    if removed and not any(one["dataChange"] for one in removed):
        return f"compaction: {files} into {len(added):,}"
    if removed:
        return f"rewritten: {files}"
    if added:
        rows = sum(_rows(one) for one in added)
        return f"+{rows:,} {'row' if rows == 1 else 'rows'}"
    if any("metaData" in a for a in actions):
        return "created" if any("protocol" in a for a in actions) else "properties of the table"
    return (
        str(said.get("operation", "")).lower() if not any("txn" in a for a in actions) else "positions only"
    )


def _rows(add: dict[str, Any]) -> int:
    return int(json.loads(add["stats"])["numRecords"]) if add.get("stats") else 0
