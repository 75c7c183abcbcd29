"""Read, check, append, acknowledge: how messages reach the lake.

Exactly once: the position of every cursor is in the Delta log, in the same commit as the rows. A message that
has landed is at or below it (Kafka), or is found by its id (SQS), and is dropped when it comes again. The
rejected table is written first, with positions of its own; what has landed wholly is what the good table's position
says. After a crash between the two, the records that are in the rejected table already stay rejected, and the others
are landed as they are judged now: a judgement may change with the time, with a limit, with the contract. Who may be
between the two and alive is refused before anything is rejected that it may hold as good. A source is told only after
both commits.

Catching up, the next batches are read and checked in threads while one is written, and several go into one commit.
Only where reading takes nothing out of the source: who holds messages of a queue must have opened the tables before,
see ``read_ahead``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Generic, TypeVar

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.contracts import Contract, Limits
from headrace.contracts.unknown import added, noted
from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, Checked, Gap, MicroBatch, Position
from headrace.core.errors import Conflict
from headrace.flow.read_ahead import Reader, Tables, judged
from headrace.lake import ERASED, LakeTable, Snapshot
from headrace.lake.suppression import Erasures, Suppressed
from headrace.sources import Source

log = logging.getLogger(__name__)

#: That one pair of snapshots serves for: an old one is a little slower with each.
_COMMITS = 100
#: A commit waits so long for more batches.
_COMMIT_SECONDS = 0.5
#: A run that stays asks its source so seldom; whoever stops it waits for the answer.
_LONG_POLL_SECONDS = 10.0
_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}
_RACES = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How an ingest run proceeds.

    Attributes:
        batch_messages: Messages of one micro-batch.
        idle_seconds: The run ends when nothing came for this long, unless it stays.
        max_seconds: The run ends so long after its first batch, so that another can take over; None for no limit.
            (A source may take its time to get to where it left off; that must not eat up what a run may do.)
        batch_seconds: A read begins at least so long after the one before it, unless that filled its batch: commits
            cost as much for one message as for thousands.
        commit_batches: Micro-batches that one commit takes at most, catching up.
        linger_seconds: A run that may stay ends only when nothing came for this long; 0 for none that does. So a
            trickle keeps its run, instead of starting one for every few messages.
    """

    batch_messages: int = 48_000
    idle_seconds: float = 2.0
    max_seconds: float | None = None
    batch_seconds: float = 0.0
    commit_batches: int = 5
    linger_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Landed:
    """What one micro-batch became.

    Attributes:
        messages: Messages that were read.
        good: Rows in the lake table.
        rejected: Rows in the rejected table.
        repeated: Messages dropped because they had landed before.
        erased: Messages dropped because their person was erased.
        days: Partitions of the lake table that were touched.
        gaps: Ranges that the source had lost.
        refused: Why something in the source could not be read at all, a line each.
        unknown: Records by field that the contract does not name. Repeated messages count again beside new ones.
    """

    messages: int = 0
    good: int = 0
    rejected: int = 0
    repeated: int = 0
    days: frozenset[date] = field(default_factory=frozenset)
    gaps: tuple[Gap, ...] = ()
    refused: tuple[str, ...] = ()
    erased: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Landed) -> Landed:
        return Landed(
            self.messages + other.messages,
            self.good + other.good,
            self.rejected + other.rejected,
            self.repeated + other.repeated,
            self.days | other.days,
            self.gaps + other.gaps,
            self.refused + other.refused,
            self.erased + other.erased,
            added(self.unknown, other.unknown),
        )


T = TypeVar("T", bound=LakeTable, covariant=True)


@dataclass(frozen=True)
class StreamLake(Generic[T]):
    """The two lake tables of a stream, and who is not to land in them."""

    good: T
    rejected: T
    erasures: Erasures | None = None

    def suppressed(self, tables: Tables) -> Suppressed | None:
        """Whose rows are to be dropped from what is written through these snapshots."""
        return self.erasures.current(tuple(one.mark for one in tables)) if self.erasures else None


def ingest(
    source: Source,
    contract: Contract,
    lake: StreamLake[LakeTable],
    limits: Limits,
    pace: Pace,
    *,
    stopping: Callable[[], bool] = lambda: False,
    may_linger: Callable[[], bool] = lambda: True,
) -> Iterator[Landed]:
    """Drain a source into the lake, one micro-batch at a time.

    Yields after each commit, and once without a message when it has caught up and stays: the caller may publish,
    report or stop there. ``may_linger`` is asked before it stays. The source has been told by then, or is
    told once the read that is under way is done. Three batches are in memory at most, what a commit gathers is Parquet
    by then, and there is what the source fetches ahead.

    Raises:
        Retriable: A service is away; everything that was yielded is safe.
        Fatal: The topic, the queue or the storage needs a person.
    """
    lost = _gone(source, lake)
    if lost:
        yield Landed(gaps=lost)
    reader = Reader(source, contract, limits, pace.batch_messages)
    try:
        yield from _drain(reader, _Tables(lake), _Clock(pace, may_linger), stopping)
    finally:
        reader.close()


class _Clock:
    """When a run ends, and how long its reads wait."""

    def __init__(self, pace: Pace, may_linger: Callable[[], bool]) -> None:
        self.pace, self._may_linger = pace, may_linger
        self._started: float | None = None
        self._idle_since: float | None = None
        self._lingers = False
        #: A read waits so long for the first message where more may well come.
        self.quick_seconds = min(1.0, pace.idle_seconds)

    def nothing_came(self, since: float) -> None:
        """A read that began then gave no messages."""
        self._idle_since = self._idle_since or since

    def something_came(self) -> None:
        """Messages, or more to read than before."""
        self._idle_since = None

    def landed(self) -> None:
        """A batch."""
        self._idle_since, self._started = None, self._started or time.monotonic()

    def over(self) -> bool:
        """Whether it ends now."""
        return self._left() <= 0

    def caught_up(self) -> bool:
        """Whether the run stays from now on: true once."""
        pace, quiet = self.pace, self._quiet()
        if self._lingers or quiet < pace.idle_seconds or pace.linger_seconds <= pace.idle_seconds:
            return False
        self._lingers = self._may_linger()
        return self._lingers

    def wait_seconds(self) -> float:
        """How long a read waits for the first message, with which it returns: long where few come."""
        if self._lingers:
            return min(_LONG_POLL_SECONDS, max(1.0, self._left()))
        return self.quick_seconds

    def _quiet(self) -> float:
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since

    def _left(self) -> float:
        pace, left = self.pace, float("inf")
        if self._idle_since is not None:
            left = (pace.linger_seconds if self._lingers else pace.idle_seconds) - self._quiet()
        if self._started is not None and pace.max_seconds:
            left = min(left, self._started + pace.max_seconds - time.monotonic())
        return left


def _drain(reader: Reader, tables: _Tables, clock: _Clock, stopping: Callable[[], bool]) -> Iterator[Landed]:
    source, pace = reader.source, clock.pace
    known: list[str] = []
    next_read, pause = 0.0, threading.Event()
    while not stopping():
        cursors = reader.cursors()
        if cursors != known:  # there is more to read than before
            known = cursors
            clock.something_came()
        if clock.caught_up():
            yield Landed()
        if clock.over():
            return
        pause.wait(max(0.0, next_read - time.monotonic()))
        asked = time.monotonic()
        found = reader.next(tables.present, cursors, clock.wait_seconds())
        batch, checked = found.batch, found.checked
        _report(source, batch)
        if checked is None:
            clock.nothing_came(asked)
            if batch.refused:
                yield Landed(refused=batch.refused)
                clock.something_came()
            continue
        full = len(batch) >= pace.batch_messages
        if full and batch.receipts is None:
            reader.read_ahead(found.after, clock.quick_seconds)
        try:
            if found.tables is not None:
                landed = tables.land(batch, reader.contract, reader.limits, found.tables, checked)
                del found, checked
            else:
                group = tables.group(reader.contract, batch, checked)
                del batch, found, checked  # not to be held while more is waited for
                full = _gather(group, reader, full, pace, stopping)
                if not tables.commit(group):
                    reader.stop()
                    continue
                batch, landed = group.batch, group.landed
                del group
        except BaseException:
            reader.stop()
            source.close()  # hands the batch back: others may land it now
            raise
        reader.acknowledge(batch)
        del batch
        yield landed
        next_read = 0.0 if full else asked + pace.batch_seconds
        clock.landed()


def _gather(group: _Group, reader: Reader, full: bool, pace: Pace, stopping: Callable[[], bool]) -> bool:
    """Add to a group what has been read ahead and is there in time; whether the last batch of it is full."""
    until = time.monotonic() + _COMMIT_SECONDS
    while group.batches < pace.commit_batches and not stopping():
        more = reader.more(until - time.monotonic())
        if more is None or more.checked is None:
            break
        _report(reader.source, more.batch)
        group.add(more.batch, more.checked)
        full = len(more.batch) >= pace.batch_messages
        del more
    return full


def _report(source: Source, batch: MicroBatch) -> None:
    for gap in batch.gaps:
        log.error("%s lost messages before they were read: offsets %s", source.name, gap)
    for problem in batch.refused:
        log.error("%s", problem)


class _Tables:
    """The lake's two tables, opened no more often than that tells anything new.

    Opening reads the log, which takes longer than a small commit. Where offsets tell what has landed, the snapshots
    that one batch was written through serve for the next: a commit is refused where anybody else has moved one of its
    cursors since. Messages of a queue are looked up by their ids, in tables that are opened for each batch.
    """

    def __init__(self, lake: StreamLake[LakeTable]) -> None:
        self._lake = lake
        self._kept: Tables | None = None
        self._served = 0

    def present(self) -> Tables:
        """As they were written through last, or as they are now."""
        if self._kept is None or self._served >= _COMMITS:
            return self._lake.rejected.open(), self._lake.good.open()
        return self._kept

    def land(
        self, batch: MicroBatch, contract: Contract, limits: Limits, tables: Tables | None, checked: Checked
    ) -> Landed:
        """As the function of this name, through ``tables``, or through the present ones."""
        tables = tables or self.present()
        landed, written = _land(batch, contract, self._lake, limits, tables, checked)
        self._keep(written if batch.receipts is None else None)
        return landed

    def group(self, contract: Contract, batch: MicroBatch, checked: Checked) -> _Group:
        """For one commit through the present tables, of the batch and of those that are added to it."""
        return _Group(contract, self._lake, self.present(), batch, checked)

    def commit(self, group: _Group) -> bool:
        """False if another writer was first: then the tables are opened anew, and tell from where to read again."""
        try:
            group.commit()
        except Conflict as conflict:
            log.info("%s; what it did not land is read again", conflict)
            self._keep(None)
            return False
        self._keep(group.tables)
        return True

    def _keep(self, tables: Tables | None) -> None:
        self._served = self._served + 1 if tables is self._kept else 1
        self._kept = tables


def _gone(source: Source, lake: StreamLake[LakeTable]) -> tuple[Gap, ...]:
    """What was lost with a topic that has been deleted and created again: said until the new one has landed rows."""
    cursors, table = source.cursors(), lake.good.open()
    if not cursors or table.position(cursors):
        return ()
    present = {cursor.rpartition("/")[0] for cursor in cursors}
    landed = table.below(f"{source.name}/")
    if any(cursor.rpartition("/")[0] in present for cursor in landed):
        return ()  # other partitions of the same topic
    lost = tuple(Gap(cursor, offset, None) for cursor, offset in landed.items())
    for gap in lost:
        log.error(
            "%s was deleted and created again since offset %d of %s landed: what it held beyond is lost, what the new"
            " one holds is read from its beginning",
            source.name,
            gap.first,
            gap.cursor,
        )
    return lost


def land(
    batch: MicroBatch,
    contract: Contract,
    lake: StreamLake[LakeTable],
    limits: Limits,
    tables: Tables | None = None,
    checked: Checked | None = None,
) -> Landed:
    """Check a micro-batch and commit it, starting over from the tables when another writer was first.

    Args:
        batch: Read from the position in ``tables``.
        contract: What the records should be.
        lake: Where they go.
        limits: What is accepted.
        tables: Opened before the read; None opens new ones and treats every message as possibly landed.
        checked: What ``judged`` says of it, if that has been asked.
    """
    return _land(batch, contract, lake, limits, tables, checked or judged(batch, contract, limits))[0]


def _land(
    batch: MicroBatch,
    contract: Contract,
    lake: StreamLake[LakeTable],
    limits: Limits,
    tables: Tables | None,
    checked: Checked,
) -> tuple[Landed, Tables]:
    """Also the tables as they were written through."""
    attempt_batch = batch
    for attempt in _RACES:
        with attempt:
            if tables is None:
                tables = lake.rejected.open(), lake.good.open()
                attempt_batch = replace(batch, records=batch.records.with_columns(redelivered=pl.lit(True)))
            group = _Group(contract, lake, tables, attempt_batch, checked)
            tables = None  # a conflict starts over from the tables
            group.commit()
    return group.landed, group.tables


class _Group:
    """Micro-batches on their way into one commit of each table. Their rows are staged, so that they take little memory.

    Attributes:
        tables: What they are committed through.
        landed: What they become.
        batches: How many they are.
        batch: All of them as one, without its records.
    """

    def __init__(
        self,
        contract: Contract,
        lake: StreamLake[LakeTable],
        tables: Tables,
        batch: MicroBatch,
        checked: Checked,
    ) -> None:
        self.tables, self.landed, self.batches = tables, Landed(), 0
        self.batch = replace(batch, records=batch.records.clear())
        self._contract, self._lake, self._suppressed = contract, lake, lake.suppressed(tables)
        self._erased: Counter[str] = Counter()
        self._staged = lake.rejected.stage(), lake.good.stage()
        self._moved: dict[str, int] = {}
        self._ids: list[str] = []
        self.add(batch, checked)

    def add(self, batch: MicroBatch, checked: Checked) -> None:
        """Take the batch that follows, without what has landed of it before."""
        done = _Done.of(batch, *self.tables)
        rejected, good = done.dropped(checked.rejected), done.dropped(checked.good)
        new, erased = _messages(good, rejected), Counter[str]()
        if self._suppressed is not None:
            rejected, good, dropped = self._suppressed.drop(rejected, good)
            erased.update(dropped)
        self._erased += erased
        for staged, rows in zip(self._staged, (rejected, good), strict=True):
            staged.add(rows)
        self._moved |= {c: o for c, o in batch.after.items() if batch.before.get(c) != o}
        self._ids.append(checked.batch_id)
        self.batch = replace(self.batch, after=batch.after)
        self.batches += 1
        self.landed += Landed(
            messages=len(batch),
            good=good.height,
            rejected=rejected.height,
            repeated=len(batch) - new,
            erased=erased.total(),
            days=frozenset(good[self._contract.partition].unique().to_list()),
            gaps=batch.gaps,
            refused=batch.refused,
            unknown=checked.unknown if good.height or rejected.height else {},
        )

    def commit(self) -> None:
        """The rejected rows first. Also without rows: whoever judged the same messages otherwise is refused then.

        Raises:
            Conflict: Another writer moved one of the cursors first.
        """
        if self._staged[0].height:
            self._overtake()
        erased = {ERASED + cursor: n for cursor, n in self._erased.items()}
        notes: tuple[dict[str, str], ...] = ({}, noted(self.landed.unknown))
        for table, staged, counted, note in zip(self.tables, self._staged, ({}, erased), notes, strict=True):
            now = table.position([*self._moved, *counted])  # never backwards
            advance = {c: max(o, now.get(c, 0)) for c, o in self._moved.items()}
            advance |= {name: now.get(name, 0) + n for name, n in counted.items()}
            table.append(staged, advance, ",".join(self._ids), note)

    def _overtake(self) -> None:
        """Have the good commit of anyone refused who is between the two commits: it may hold what is rejected here.

        Whoever is there has moved a cursor in the rejected table and not yet in the good one, and opened the good one
        before. It may be dead, frozen, or just slower. Touching the cursor is enough, and moves nothing.
        """
        rejected, good = self.tables
        names = list(self._moved)
        landed, judged = good.position(names), rejected.position(names)
        between = {
            c: landed.get(c, self.batch.before.get(c, 0))
            for c in names
            if c in judged and judged[c] > landed.get(c, -1)
        }
        if between:
            good.append(self._lake.good.stage(), between, ",".join(self._ids))
            if good.position(names) != landed.advanced(between):
                raise Conflict("another writer landed the same messages meanwhile")


@dataclass(frozen=True, slots=True)
class _Done:
    """What has landed of a batch before.

    Attributes:
        position: Everything below it has; only cursors of which the batch holds some of that.
        messages: Ids of messages that have, by cursor.
        records: ``ORIGIN_KEY`` of records that are in the rejected table although their messages have not.
    """

    position: Position
    messages: pl.DataFrame
    records: pl.DataFrame

    @classmethod
    def of(cls, batch: MicroBatch, rejected: Snapshot, good: Snapshot) -> _Done:
        position, judged = good.position(list(batch.after)), rejected.position(list(batch.after))
        records = [pl.DataFrame(schema=_KEY)]
        for cursor, end in judged.items():
            first = position.get(cursor, batch.before.get(cursor, 0))
            if first < end and not batch.records["offset"].is_null().all():
                records.append(rejected.origins(cursor, first, end))
        position = Position({c: o for c, o in position.items() if o > batch.before.get(c, 0)})
        messages = [pl.DataFrame(schema=_KEY)]
        known = pl.col("redelivered") & pl.col("message_id").is_not_null()
        again = batch.records.select("cursor", "message_id", "redelivered", "timestamp").filter(known)
        for (cursor,), part in again.group_by("cursor"):
            asked = str(cursor), part["message_id"], _sent_since(batch, part["timestamp"]), batch.again_within
            messages.append(good.origins_of(*asked))
            records.append(rejected.origins_of(*asked))
        return cls(
            position, pl.concat(messages).select("_cursor", "_message_id").unique(), pl.concat(records)
        )

    def dropped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """``rows`` without what has landed."""
        if self.position:
            marks = pl.DataFrame(
                {"_cursor": list(self.position), "_landed": list(self.position.values())},
                schema={"_cursor": pl.String, "_landed": pl.Int64},
            )
            rows = rows.join(marks, on="_cursor", how="left", maintain_order="left")
            behind = pl.col("_offset") < pl.col("_landed")
            rows = rows.filter(~behind.fill_null(False)).drop("_landed")
        if self.messages.height:
            rows = rows.join(self.messages, on=["_cursor", "_message_id"], how="anti", maintain_order="left")
        if self.records.height:
            rows = rows.join(self.records, on=ORIGIN_KEY, how="anti", nulls_equal=True, maintain_order="left")
        return rows


def _sent_since(batch: MicroBatch, sent: pl.Series) -> datetime | None:
    """When the first of these messages was sent; None if that does not say when they may have landed."""
    first = sent.min() if batch.again_within is not None and not sent.null_count() else None
    assert first is None or isinstance(first, datetime)
    return first


def _messages(*frames: pl.DataFrame) -> int:
    if not any((frame["_index"] != 0).any() for frame in frames):
        return sum(frame.height for frame in frames)
    origin = ["_cursor", "_offset", "_message_id"]
    return pl.concat([frame.select(origin) for frame in frames]).unique().height


def position_of(source: Source, lake: StreamLake[LakeTable]) -> Position:
    """How far a source has landed, from the lake's log."""
    cursors = source.cursors()
    return lake.good.open().position(cursors) if cursors else Position()
