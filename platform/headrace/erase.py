"""Erase a person: from the lake, from what was rejected, from the warehouse, with a receipt.

Rows go from the lake first, so that no later rebuild can bring them back; publishing then replaces the days that
held them; then the old files are removed, and at the end everything is counted again. A run that breaks off is
finished by running it again. What the brokers still hold is theirs, until their retention ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from pathlib import Path

import polars as pl

from headrace.batch import ORIGIN_KEY
from headrace.errors import Fatal
from headrace.lake.delta import DeltaLakeTable
from headrace.stream import Stream

COLUMN = "user_id"


@dataclass(frozen=True, slots=True)
class StreamReceipt:
    """What was erased of one stream.

    Attributes:
        stream: Its name.
        rows: Rows of the lake table.
        rejected_rows: Rejected records that named the person anywhere.
        days: Days of the warehouse that were replaced.
        files: Old lake files that were removed.
        still_in: Topics and queues that may hold the person's messages until their retention ends.
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
        models = warehouse.erase(settings.dbt_schema, COLUMN, user_id)
        left = warehouse.erase(settings.dbt_schema, COLUMN, user_id, only_count=True)
        if left:
            raise Fatal(f"rows of this person are still in {', '.join(left)}; run it again")
    digest = hashlib.sha256(user_id.encode()).hexdigest()
    return Receipt(digest, datetime.now(UTC).isoformat(timespec="seconds"), receipts, models)


def _erase_stream(stream: Stream, user_id: str) -> StreamReceipt:
    stream.publish()  # versions that the warehouse does not have yet need their files
    good = _origins(stream.lake.good, _of(stream, user_id))
    rejected = _origins(stream.lake.rejected, _named(user_id))
    done = stream.lake.good.erase(good), stream.lake.rejected.erase(rejected)
    stream.publish()
    files = stream.lake.good.forget(done[0]) + stream.lake.rejected.forget(done[1])
    still = [
        table.table.name
        for table, condition in (
            (stream.lake.good, _of(stream, user_id)),
            (stream.lake.rejected, _named(user_id)),
        )
        if _origins(table, condition).height
    ]
    if still:
        raise Fatal(f"rows of this person came into {', '.join(still)} meanwhile; run it again")
    days = sorted({day.isoformat() for day in good["day"]})
    sources = tuple(spec.name for spec in stream.pipeline.sources)
    return StreamReceipt(stream.name, done[0].rows, done[1].rows, tuple(days), files, sources)


def _of(stream: Stream, user_id: str) -> pl.Expr:
    if COLUMN in stream.contract.table.schema:
        return pl.col(COLUMN) == user_id
    return pl.lit(value=False)


def _named(user_id: str) -> pl.Expr:
    """A rejected record may name the person anywhere: its payload was never understood."""
    spelled = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    hits = [
        pl.col(column).bin.contains(text.encode())
        for column in ("payload", "_key")
        for text in sorted(spelled)
    ]
    return reduce(or_, [hit.fill_null(value=False) for hit in hits])


def _origins(table: DeltaLakeTable, condition: pl.Expr) -> pl.DataFrame:
    day = pl.col(table.table.partition).alias("day")
    return table.scan().filter(condition).select(*ORIGIN_KEY, day).collect()
