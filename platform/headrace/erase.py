"""Erase a person: from the lake, from what was rejected, from the warehouse, with a receipt.

Rows go from the lake first, so that no later rebuild can bring them back; publishing then replaces the days that
held them; then the old files are removed, and at the end everything is counted again. A run that breaks off is
finished by running it again. What the brokers still hold is theirs, until their retention ends.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from headrace.batch import ORIGIN_KEY, ORIGIN_SCHEMA
from headrace.errors import Fatal
from headrace.lake.delta import DeltaLakeTable
from headrace.stream import Stream

COLUMN = "user_id"
_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}


@dataclass(frozen=True, slots=True)
class StreamReceipt:
    """What was erased of one stream.

    Attributes:
        stream: Its name.
        rows: Rows of the lake table.
        rejected_rows: Rejected records whose payload or key named the person.
        days: Days of the warehouse that were replaced.
        files: Old lake files that were removed.
        still_in: Topics, queues and folders that may hold the person's messages.
    """

    stream: str
    rows: int
    rejected_rows: int
    days: tuple[str, ...]
    files: int
    still_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of an erasure; names the person by a hash only.

    Attributes:
        user_sha256: SHA-256 of the user id.
        at: When it was done (UTC).
        streams: By stream.
        models: Tables of the models that held rows of the person, with the number of rows deleted.
    """

    user_sha256: str
    at: str
    streams: tuple[StreamReceipt, ...]
    models: dict[str, int]

    def save(self, home: Path) -> Path:
        """Write it below ``home/receipts``."""
        folder = home / "receipts"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"erasure-{self.at.replace(':', '')}-{self.user_sha256[:12]}.json"
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")
        return path


def erase(streams: Iterable[Stream], user_id: str) -> Receipt:
    """Remove every row of a person.

    Raises:
        Retriable: A service is away; run it again.
        Fatal: The id is empty, or something is still there afterwards.
    """
    if not user_id.strip():
        raise Fatal("the user id is empty; erasing nobody is refused")
    streams = list(streams)
    receipts = tuple(_erase_stream(stream, user_id) for stream in streams)
    models: dict[str, int] = {}
    if streams:
        warehouse, settings = streams[0].warehouse, streams[0].settings
        left: dict[str, int] = {}
        for database in (settings.dbt_schema, f"{settings.dbt_schema}_speed"):
            models |= warehouse.erase(database, COLUMN, user_id)
            left |= warehouse.erase(database, COLUMN, user_id, only_count=True)
        if left:
            raise Fatal(f"rows of this person are still in {', '.join(left)}; run it again")
    digest = hashlib.sha256(user_id.encode()).hexdigest()
    return Receipt(digest, datetime.now(UTC).isoformat(timespec="seconds"), receipts, models)


def _erase_stream(stream: Stream, user_id: str) -> StreamReceipt:
    stream.publish()  # versions that the warehouse does not have yet need their files
    good, rejected = _good(stream, user_id), _rejected(stream, user_id)
    done = stream.lake.good.erase(good), stream.lake.rejected.erase(rejected)
    stream.publish()
    files = stream.lake.good.forget(done[0]) + stream.lake.rejected.forget(done[1])
    if _good(stream, user_id).height or _rejected(stream, user_id).height:
        raise Fatal(f"{stream.name}: rows of this person came in meanwhile; run it again")
    days = sorted({day.isoformat() for day in good["day"]})
    sources = tuple(spec.name for spec in stream.pipeline.sources)
    return StreamReceipt(stream.name, done[0].rows, done[1].rows, tuple(days), files, sources)


def _good(stream: Stream, user_id: str) -> pl.DataFrame:
    if COLUMN not in stream.contract.table.schema:
        return pl.DataFrame(schema={**_KEY, "day": pl.Date})
    return _rows(stream.lake.good, pl.col(COLUMN) == user_id)


def _rejected(stream: Stream, user_id: str) -> pl.DataFrame:
    """Rejected records that name the person: as a value anywhere in their JSON, or as a word where it is none."""
    spelled = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    hits = [pl.col(c).bin.contains(text.encode()) for c in ("payload", "_key") for text in sorted(spelled)]
    maybe = _rows(
        stream.lake.rejected, reduce(or_, [hit.fill_null(value=False) for hit in hits]), "payload", "_key"
    )
    # an id may be short: others' records that merely contain its characters are not the person's
    word = re.compile(
        rb"(?<!\w)(?:" + b"|".join(re.escape(t.encode()) for t in sorted(spelled)) + rb")(?!\w)"
    )
    named = [
        _names(payload or b"", user_id, word) or key == user_id.encode()
        for payload, key in maybe.select("payload", "_key").iter_rows()
    ]
    return maybe.filter(pl.Series(named, dtype=pl.Boolean)).drop("payload", "_key")


def _names(payload: bytes, user_id: str, word: re.Pattern[bytes]) -> bool:
    try:
        return _holds(msgspec.json.decode(payload), user_id)
    except msgspec.DecodeError:
        return word.search(payload) is not None


def _holds(value: Any, user_id: str, name: str = "") -> bool:
    if isinstance(value, dict):
        return any(_holds(inner, user_id, key) for key, inner in value.items())
    if isinstance(value, list):
        return any(_holds(inner, user_id, name) for inner in value)
    # a number is the person's id only where it says so
    return value == user_id or (name == COLUMN and str(value) == user_id)


def _rows(table: DeltaLakeTable, condition: pl.Expr, *more: str) -> pl.DataFrame:
    day = pl.col(table.table.partition).alias("day")
    return table.scan().filter(condition).select(*ORIGIN_KEY, day, *more).collect()
