"""Erase a person: from the lake, from what was rejected, from the warehouse, with a receipt.

The id is remembered first, hashed, so that nothing lands of the person any more. Then rows go from the lake, so that no
later rebuild can bring them back; publishing replaces the days that held them; the old files are removed,
and at the end everything is counted again. The receipt is written after each step. A run that breaks off is finished by
running it again. What the brokers still hold is theirs, until their retention ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial, reduce
from operator import or_
from pathlib import Path

import msgspec
import polars as pl

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA
from headrace.core.errors import Fatal
from headrace.lake import Erased
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.suppression import MESSAGE, NO_JSON, PERSON, possible_ids
from headrace.streams.stream import Stream

_FOUND = pl.Schema({**{name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}, "day": pl.Date()})


@dataclass(frozen=True, slots=True)
class StreamReceipt:
    """What was erased of one stream.

    Attributes:
        stream: Its name.
        rows: Rows of the lake table.
        rejected_rows: Rejected records whose payload or key named the person.
        versions: Versions of the lake table, each without some of the rows.
        rejected_versions: The same of the rejected table.
        days: Days whose rows were erased. The warehouse replaced them if the stream is ``finished``.
        files: Old lake files that were removed.
        still_in: Topics, queues and folders that may hold the person's messages.
        finished: Whether nothing of the person is left in lake and raw warehouse tables.
    """

    stream: str
    rows: int = 0
    rejected_rows: int = 0
    versions: tuple[int, ...] = ()
    rejected_versions: tuple[int, ...] = ()
    days: tuple[str, ...] = ()
    files: int = 0
    still_in: tuple[str, ...] = ()
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of an erasure; names the person by a hash only.

    Attributes:
        user_sha256: SHA-256 of the user id.
        at: When it began (UTC).
        streams: By stream.
        models: Tables of the models that held rows of the person, with the number of rows deleted.
        finished: Whether all of it is done.
        stopped_by: What ended it before; then it is to be run again.
    """

    user_sha256: str
    at: str
    streams: tuple[StreamReceipt, ...] = ()
    models: dict[str, int] = field(default_factory=dict)
    finished: bool = False
    stopped_by: str = ""

    def path(self, home: Path) -> Path:
        """Where it is kept, below ``home/receipts``."""
        return home / "receipts" / f"erasure-{self.at.replace(':', '')}-{self.user_sha256[:12]}.json"

    def save(self, home: Path) -> Path:
        """Write it, whole or not at all."""
        path = self.path(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.new")
        try:
            new.write_text(json.dumps(asdict(self), indent=2) + "\n")
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)
        return path


def erase(
    streams: Iterable[Stream], user_id: str, *, tell: Callable[[Receipt], object] = lambda receipt: None
) -> Receipt:
    """Remove every row of a person, and let none of them land again.

    Args:
        streams: Of which.
        user_id: Exactly as producers send it.
        tell: Called with what has been done so far, after every step, and when something ended it.

    Raises:
        Retriable: A service is away; run it again.
        Fatal: The id is empty, the storage refuses, or something is still there afterwards.
    """
    if not user_id.strip():
        raise Fatal("the user id is empty; erasing nobody is refused")
    streams = list(streams)
    digest = hashlib.sha256(user_id.encode(errors="surrogatepass")).hexdigest()
    receipt = Receipt(digest, datetime.now(UTC).isoformat(timespec="milliseconds"))

    def noted(**done: object) -> None:
        nonlocal receipt
        receipt = replace(receipt, **done)  # type: ignore[arg-type]
        tell(receipt)

    try:
        suppress(streams, user_id)
        for stream in streams:
            _erase_stream(stream, user_id, partial(_add, receipt.streams, noted))
        models: dict[str, int] = {}
        if streams:
            warehouse, settings = streams[0].warehouse, streams[0].settings
            left: dict[str, int] = {}
            for database in (settings.dbt_schema, f"{settings.dbt_schema}_speed"):
                models |= warehouse.erase(database, PERSON, user_id)
                noted(models=dict(models))
                left |= warehouse.erase(database, PERSON, user_id, only_count=True)
            if left:
                raise Fatal(f"rows of this person are still in {', '.join(left)}; run it again")
        noted(finished=True)
    except BaseException as error:
        noted(stopped_by=f"{type(error).__name__}: {str(error).replace(user_id, '(the person)')}")
        raise
    return receipt


def _add(before: tuple[StreamReceipt, ...], noted: Callable[..., None], one: StreamReceipt) -> None:
    noted(streams=(*before, one))


def suppress(streams: Iterable[Stream], user_id: str) -> None:
    """Drop from now on what would land of a person, in every writer, those that are about to commit included."""
    _change(streams, lambda stream: stream.erasures.suppress(user_id))


def lift(streams: Iterable[Stream], user_id: str) -> bool:
    """Let rows of a person land again from now on; whether they were suppressed."""
    was = [False]

    def change(stream: Stream) -> None:
        was[0] = stream.erasures.lift(user_id)

    _change(streams, change)
    return was[0]


def _change(streams: Iterable[Stream], change: Callable[[Stream], None]) -> None:
    streams, mark = list(streams), uuid.uuid4().hex
    for stream in streams[:1]:  # the list is the lake's, not a stream's
        change(stream)
    for stream in streams:
        stream.lake.rejected.fence(mark)
        stream.lake.good.fence(mark)


def _erase_stream(stream: Stream, user_id: str, tell: Callable[[StreamReceipt], None]) -> None:
    done = StreamReceipt(stream.name, still_in=tuple(spec.name for spec in stream.pipeline.sources))
    tell(done)
    stream.publish()  # versions that the warehouse does not have yet need their files
    good, rejected = _ends(stream, _good(stream, user_id), _rejected(stream, user_id))

    def rejected_gone(one: Erased) -> None:
        nonlocal done
        rows, versions = done.rejected_rows + one.rows, (*done.rejected_versions, *one.versions)
        done = replace(done, rejected_rows=rows, rejected_versions=versions)
        tell(done)

    def good_gone(one: Erased) -> None:
        nonlocal done
        done = replace(done, rows=done.rows + one.rows, versions=(*done.versions, *one.versions), days=days)
        tell(done)

    days = tuple(sorted(day.isoformat() for day in good["day"].unique()))
    left = (
        (stream.lake.rejected, stream.lake.rejected.erase(rejected, tell=rejected_gone)),
        (stream.lake.good, stream.lake.good.erase(good, tell=good_gone)),
    )
    stream.publish()
    for table, erased in left:
        done = replace(done, files=done.files + table.forget(erased))
        tell(done)
    if _good(stream, user_id).height or _rejected(stream, user_id).height:
        raise Fatal(f"{stream.name}: rows of this person came in meanwhile; run it again")
    tell(replace(done, finished=True))


def _ends(stream: Stream, good: pl.DataFrame, rejected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both with ``ends``: true for the row that is erased last of a message of which nothing is left then."""
    found = pl.concat([rejected.with_columns(table=pl.lit(0)), good.with_columns(table=pl.lit(1))])
    others = [pl.DataFrame(schema={name: ORIGIN_SCHEMA[name] for name in MESSAGE})]
    messages = found.select(MESSAGE).unique()
    for table in (stream.lake.rejected, stream.lake.good) if found.height else ():
        for day in table.counts_by_day():
            rows = table.scan([day]).select(ORIGIN_KEY).collect()
            rows = rows.join(messages, on=MESSAGE, how="semi", nulls_equal=True)
            others.append(rows.join(found, on=ORIGIN_KEY, how="anti", nulls_equal=True).select(MESSAGE))
    stay = pl.concat(others).unique().with_columns(stays=pl.lit(value=True))
    found = found.sort("table", "day", "_index").with_row_index("at")
    found = found.join(stay, on=MESSAGE, how="left", nulls_equal=True, maintain_order="left")
    last = pl.col("at") == pl.col("at").max().over(MESSAGE)
    found = found.with_columns(ends=last & pl.col("stays").is_null())
    parts = (found.filter(pl.col("table") == n).select(*_FOUND, "ends") for n in (1, 0))
    return next(parts), next(parts)


def _good(stream: Stream, user_id: str) -> pl.DataFrame:
    if PERSON not in stream.contract.table.schema:
        return pl.DataFrame(schema=_FOUND)
    return _rows(stream.lake.good, pl.col(PERSON) == user_id)


def _rejected(stream: Stream, user_id: str) -> pl.DataFrame:
    """Rejected records that name the person: as a value anywhere in their JSON, or as a word where it is none."""
    spelled = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    texts = sorted(text.encode(errors="surrogatepass") for text in spelled)
    hits = [
        pl.col(c).bin.contains(text).fill_null(value=False) for c in ("payload", "_key") for text in texts
    ]
    # an id may be short: others' records that merely contain its characters are not the person's
    word = re.compile(rb"(?<!\w)(?:" + b"|".join(map(re.escape, texts)) + rb")(?!\w)")

    def theirs(rows: pl.DataFrame) -> list[bool]:
        return [
            user_id in possible_ids(payload or b"", key)
            or (not _is_json(payload) and bool(word.search(payload or b"")))
            for payload, key in rows.select("payload", "_key").iter_rows()
        ]

    return _rows(stream.lake.rejected, reduce(or_, hits), "payload", "_key", theirs=theirs)


def _is_json(payload: bytes | None) -> bool:
    try:
        msgspec.json.decode(payload or b"")
    except NO_JSON:
        return False
    return True


def _rows(
    table: DeltaLakeTable,
    condition: pl.Expr,
    *more: str,
    theirs: Callable[[pl.DataFrame], list[bool]] = lambda rows: [True] * rows.height,
) -> pl.DataFrame:
    """Origins and days; a day at a time, which is what memory has to hold."""
    day, found = pl.col(table.table.partition).alias("day"), [pl.DataFrame(schema=_FOUND)]
    for one in sorted(table.counts_by_day()):
        rows = table.scan([one]).filter(condition).select(*ORIGIN_KEY, day, *more).collect()
        found.append(rows.filter(pl.Series(theirs(rows), dtype=pl.Boolean)).select(*_FOUND))
    return pl.concat(found)
