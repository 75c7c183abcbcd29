"""Erase a person from the lake, from the rejected rows and from the warehouse, with a receipt.

1. The id is remembered, hashed, so that nothing of the person lands any more.
2. Rows go from the lake, so that no later rebuild can bring them back.
3. Publishing replaces the days that held them, and the old files are removed.
4. Everything is counted again.

The receipt is written after each step. A run that breaks off is finished by running it again. Messages in the brokers
stay until the brokers' own retention ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial, reduce
from itertools import product
from operator import or_
from pathlib import Path

import msgspec
import polars as pl

from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA
from headrace.core.errors import Fatal
from headrace.lake import Erased
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.suppression import MESSAGE, NO_JSON, PERSON, person_columns, possible_ids
from headrace.streams.stream import Stream

_FOUND = pl.Schema({**{name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}, "day": pl.Date()})


@dataclass(frozen=True, slots=True)
class StreamReceipt:
    """The part of a receipt about one stream.

    Attributes:
        stream: Its name.
        rows: Rows erased from the lake table.
        rejected_rows: Rejected records erased because their payload or key named the person.
        versions: Versions that the erasure made of the lake table, each without some of the rows.
        rejected_versions: Versions that it made of the rejected table.
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
    """Proof of an erasure; it names the person by a hash only.

    Attributes:
        user_sha256: SHA-256 of the user id.
        at: Begin of the erasure (UTC).
        streams: Parts by stream.
        models: Rows deleted by table of the models.
        finished: Whether all of it is done.
        stopped_by: Error that ended it early; the erasure has to be run again.
    """

    user_sha256: str
    at: str
    streams: tuple[StreamReceipt, ...] = ()
    models: dict[str, int] = field(default_factory=dict)
    finished: bool = False
    stopped_by: str = ""

    def path(self, home: Path) -> Path:
        """Give its file, in ``home/receipts``."""
        return home / "receipts" / f"erasure-{self.at.replace(':', '')}-{self.user_sha256[:12]}.json"

    def save(self, home: Path) -> Path:
        """Write it, whole or not at all; returns its file."""
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
    """Remove every row of a person, and let none land again.

    Args:
        streams: Streams to erase the person from.
        user_id: User id, exactly as producers send it.
        tell: Receives the receipt so far after every step, and when an error ends the erasure.

    Raises:
        Retriable: A service is away, or another erasure is at it; run it again.
        Fatal: The id is empty, the storage refuses, or a row is still there afterwards.
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
        # two at once would write the same kept versions, and each would undo what the other has done
        with streams[0].warehouse.erasing() if streams else nullcontext(lambda: None) as still_alone:
            for stream in streams:
                _erase_stream(stream, user_id, partial(_add, receipt.streams, noted), still_alone)
        models: dict[str, int] = {}
        if streams:
            warehouse, settings = streams[0].warehouse, streams[0].settings
            left: dict[str, int] = {}
            names = {PERSON, *(name for one in streams for name in person_columns(one.lake.good.shape()))}
            for database, name in product(
                (settings.dbt_schema, f"{settings.dbt_schema}_speed"), sorted(names)
            ):
                models |= warehouse.erase(database, name, user_id)
                noted(models=dict(models))
                left |= warehouse.erase(database, name, user_id, only_count=True)
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
    """Make every writer drop a person's records from now on, a writer that is about to commit included."""
    _change(streams, lambda stream: stream.erasures.suppress(user_id))


def lift(streams: Iterable[Stream], user_id: str) -> bool:
    """Let rows of a person land again from now on; returns whether they were suppressed."""
    was = [False]

    def change(stream: Stream) -> None:
        was[0] = stream.erasures.lift(user_id)

    _change(streams, change)
    return was[0]


def _change(streams: Iterable[Stream], change: Callable[[Stream], None]) -> None:
    streams, mark = list(streams), uuid.uuid4().hex
    for stream in streams[:1]:  # the list belongs to the lake, which all streams share
        change(stream)
    for stream in streams:
        stream.lake.rejected.fence(mark)
        stream.lake.good.fence(mark)


def _erase_stream(
    stream: Stream, user_id: str, tell: Callable[[StreamReceipt], None], still_alone: Callable[[], None]
) -> None:
    done = StreamReceipt(stream.name, still_in=tuple(spec.name for spec in stream.pipeline.sources))
    tell(done)
    stream.publish()  # unpublished versions still need the files that go
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
    still_alone()
    if _good(stream, user_id).height or _rejected(stream, user_id).height:
        raise Fatal(f"{stream.name}: rows of this person came in meanwhile; run it again")
    tell(replace(done, finished=True))


def _ends(stream: Stream, good: pl.DataFrame, rejected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Add ``ends`` to both: true for the last row of a message that is erased whole."""
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
    """Find rows that name the person in whichever column: it may have another name in a newer or older contract."""
    names = person_columns(stream.lake.good.shape())

    def condition(columns: Collection[str]) -> pl.Expr:
        # an id may be a number; a version of before lacks columns
        there = [
            (pl.col(one).cast(pl.String) == user_id).fill_null(value=False) for one in names if one in columns
        ]
        return reduce(or_, there, pl.lit(value=False))

    return _rows(stream.lake.good, condition) if names else pl.DataFrame(schema=_FOUND)


def _rejected(stream: Stream, user_id: str) -> pl.DataFrame:
    """Find rejected records that name the person: as a value in their JSON, or as a word if they are no JSON."""
    spelled = {user_id, json.dumps(user_id)[1:-1], json.dumps(user_id, ensure_ascii=False)[1:-1]}
    texts = sorted(text.encode(errors="surrogatepass") for text in spelled)
    hits = [
        pl.col(c).bin.contains(text).fill_null(value=False) for c in ("payload", "_key") for text in texts
    ]
    # an id may be short: a record that merely contains its characters is somebody else's
    word = re.compile(rb"(?<!\w)(?:" + b"|".join(map(re.escape, texts)) + rb")(?!\w)")

    def theirs(rows: pl.DataFrame) -> list[bool]:
        return [
            user_id in possible_ids(payload or b"", key)
            or (not _is_json(payload) and bool(word.search(payload or b"")))
            for payload, key in rows.select("payload", "_key").iter_rows()
        ]

    return _rows(stream.lake.rejected, lambda _: reduce(or_, hits), "payload", "_key", theirs=theirs)


def _is_json(payload: bytes | None) -> bool:
    try:
        msgspec.json.decode(payload or b"")
    except NO_JSON:
        return False
    return True


def _rows(
    table: DeltaLakeTable,
    condition: Callable[[Collection[str]], pl.Expr],
    *more: str,
    theirs: Callable[[pl.DataFrame], list[bool]] = lambda rows: [True] * rows.height,
) -> pl.DataFrame:
    """Read origins and days of the rows that meet a condition; memory holds one day at a time."""
    day, found = pl.col(table.table.partition).alias("day"), [pl.DataFrame(schema=_FOUND)]
    # rows that only kept versions hold: an erasure was interrupted, or a restore took them out
    for part in (*(table.scan([one]) for one in sorted(table.counts_by_day())), table.scan_kept()):
        rows = part.filter(condition(part.collect_schema().names())).select(*ORIGIN_KEY, day, *more).collect()
        found.append(rows.filter(pl.Series(theirs(rows), dtype=pl.Boolean)).select(*_FOUND))
    return pl.concat(found).unique(ORIGIN_KEY, maintain_order=True)
