"""Commit micro-batches to the two tables of a stream, exactly once.

The position of every cursor is in the Delta log, in the same commit as the rows. A message that has landed is at or
below it (Kafka), or is found by its id (SQS), and is dropped when it comes again. The rejected table is written first,
with positions of its own; the good table's position says what has landed wholly. After a crash between the two, the
records in the rejected table stay rejected, and the others land as they are judged now: a judgement may change with
the time, with a limit, with the contract. Another writer may be alive between its two commits. It is refused before
anything is rejected here that it may hold as good.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Generic, TypeVar

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.contracts import Contract, Limits
from headrace.contracts.unknown import added, noted
from headrace.core.batch import ORIGIN_KEY, ORIGIN_SCHEMA, CheckedBatch, Gap, MicroBatch, Position
from headrace.core.errors import Conflict
from headrace.core.lanes import lanes_in, taken
from headrace.flow.growth import follow
from headrace.flow.validate import validate
from headrace.lake import AGAIN, ERASED, LakeTable, Snapshot
from headrace.lake.suppression import Erasures, Suppressed, person_columns

log = logging.getLogger(__name__)

#: Snapshots of the rejected table and of the good one.
Tables = tuple[Snapshot, Snapshot]
#: Commits before the tables are reopened; each one makes a snapshot slightly slower.
_COMMITS = 100
_KEY = {name: ORIGIN_SCHEMA[name] for name in ORIGIN_KEY}
_RACES = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class Landed:
    """Count what became of micro-batches.

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
        ahead: Tables whose contract is newer than this process', a line each.
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
    ahead: tuple[str, ...] = ()

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
            tuple(dict.fromkeys(self.ahead + other.ahead)),
        )


T = TypeVar("T", bound=LakeTable, covariant=True)


@dataclass(frozen=True)
class StreamLake(Generic[T]):
    """The two lake tables of a stream, and the people whose rows must not land in them."""

    good: T
    rejected: T
    erasures: Erasures | None = None

    def suppressed(self, tables: Tables) -> Suppressed | None:
        """Say whose rows to drop from what is written through these snapshots."""
        return self.erasures.current(tuple(one.mark for one in tables)) if self.erasures else None


class Writer:
    """Commit groups of validated micro-batches, through tables that are opened as seldom as is safe.

    Opening reads the log, which takes longer than a small commit. A source that can be read again keeps its snapshots
    from one commit to the next: a commit is refused if another writer has moved one of its cursors since. Messages of
    a queue are looked up by their ids, so its tables are opened for every batch.
    """

    def __init__(
        self, contract: Contract, lake: StreamLake[LakeTable], limits: Limits, *, replayable: bool
    ) -> None:
        """Open nothing yet.

        Args:
            contract: What the records should be.
            lake: Where they go.
            limits: What is accepted.
            replayable: Whether the source can be read again from a position.
        """
        self._contract, self._lake, self._limits, self._replayable = contract, lake, limits, replayable
        self._kept: Tables | None = None
        self._served = 0
        self._ahead: dict[str, bool] = {}  # lines, and whether they have been said

    def tables(self) -> Tables:
        """Return the tables as they were written through last, or open them; the good one follows its contract.

        Raises:
            Fatal: The contract would break who reads the table.
        """
        if self._kept is None or self._served >= _COMMITS:
            rejected, (good, ahead) = self._lake.rejected.open(), follow(self._lake.good)
            if ahead and ahead not in self._ahead:
                log.warning("%s", ahead)
                self._ahead[ahead] = False
            return rejected, good
        return self._kept

    def commit(
        self, batches: Iterable[tuple[MicroBatch, CheckedBatch]], tables: Tables | None = None
    ) -> Landed | None:
        """Stage validated micro-batches one by one, and commit them at once: rejected rows first, then good ones.

        Args:
            batches: Each staged before the next is asked for, so that little memory is held.
            tables: Opened before the read, for a queue; None takes the present ones.

        Returns:
            What they became; None if another writer was first, and they are to be read again.
        """
        commit = Commit(self._contract, self._lake, tables or self.tables())
        for batch, checked in batches:
            commit.add(batch, checked)
            if self._replayable:
                del batch, checked  # not to be held while more is waited for
        try:
            commit.commit()
        except Conflict as conflict:
            self._keep(None)
            if not self._replayable:  # what was taken out of a queue cannot be read again
                return land(batch, self._contract, self._lake, self._limits, checked=checked)
            log.info("%s; what it did not land is read again", conflict)
            return None
        self._keep(commit.tables if self._replayable else None)
        unsaid = tuple(line for line, said in self._ahead.items() if not said)
        self._ahead |= dict.fromkeys(unsaid, True)
        return commit.landed + Landed(ahead=unsaid) if unsaid else commit.landed

    def _keep(self, tables: Tables | None) -> None:
        self._served = self._served + 1 if tables is self._kept else 1
        self._kept = tables


def land(
    batch: MicroBatch,
    contract: Contract,
    lake: StreamLake[LakeTable],
    limits: Limits,
    tables: Tables | None = None,
    checked: CheckedBatch | None = None,
) -> Landed:
    """Validate a micro-batch and commit it, starting over from the tables when another writer was first.

    Args:
        batch: Read from the position in ``tables``.
        contract: What the records should be.
        lake: Where they go.
        limits: What is accepted.
        tables: Opened before the read; None opens new ones and treats every message as possibly landed.
        checked: What ``validate`` returned, if it was called already.
    """
    checked = checked or validate(batch, contract, limits)
    for attempt in _RACES:
        with attempt:
            if tables is None:
                tables = lake.rejected.open(), follow(lake.good)[0]
                batch = replace(batch, records=batch.records.with_columns(redelivered=pl.lit(True)))
            commit = Commit(contract, lake, tables)
            tables = None  # a conflict starts over from the tables
            commit.add(batch, checked)
            commit.commit()
    return commit.landed


class Commit:
    """Micro-batches on their way into one commit of each table, staged so that their rows take little memory.

    Attributes:
        tables: What they are committed through.
        landed: What they become.
    """

    def __init__(self, contract: Contract, lake: StreamLake[LakeTable], tables: Tables) -> None:
        """Stage nothing yet."""
        self.tables, self.landed = tables, Landed()
        self._contract, self._lake, self._suppressed = contract, lake, lake.suppressed(tables)
        self._erased: Counter[str] = Counter()
        self._again: Counter[str] = Counter()
        self._staged = lake.rejected.stage(), lake.good.stage()
        self._before: Mapping[str, int] = {}
        self._moved: dict[str, int] = {}
        self._ids: list[str] = []

    def add(self, batch: MicroBatch, checked: CheckedBatch) -> None:
        """Stage a batch minus the records already in the lake."""
        known = AlreadyLanded.of(batch, *self.tables)
        rejected, good = known.filter_out(checked.rejected), known.filter_out(checked.good)
        if batch.lanes is not None:
            rejected, good = self._next_of_lanes(batch, known.position, rejected, good)
        new, erased = _messages(good, rejected), Counter[str]()
        if self._suppressed is not None:
            rejected, good, dropped = self._suppressed.drop(
                rejected, good, person_columns(self._contract.table)
            )
            erased.update(dropped)
        self._erased += erased
        for staged, rows in zip(self._staged, (rejected, good), strict=True):
            staged.add(rows)
        if not self._ids:
            self._before = batch.before
        self._moved |= {c: o for c, o in batch.after.items() if batch.before.get(c) != o}
        self._ids.append(checked.batch_id)
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

    def _next_of_lanes(
        self, batch: MicroBatch, landed: Position, *tables: pl.DataFrame
    ) -> tuple[pl.DataFrame, ...]:
        """Keep of messages that their senders number those that are next, and go along with them.

        Where another writer, or one that crashed, is ahead in the rejected table, the same messages may have come to it
        by way of other offsets, which a broker has lost since.
        """
        rejected, good = self.tables
        lanes = lanes_in(batch)
        position = good.position(lanes).advanced({c: n for c, n in self._moved.items() if c in lanes})
        judged = rejected.position(lanes)
        found = taken(batch, position, landed, judged)
        self._moved |= found.moved
        self._again.update(found.again)
        if found.early:
            log.warning(
                "%s: %d messages came before one that they follow, and are left to be sent again: %s",
                batch.source,
                sum(found.early.values()),
                ", ".join(found.early),
            )
        tables = tuple(found.filter_out(rows) for rows in tables)
        unsure = [c for c in lanes if judged.get(c, 0) > position.get(c, 0)]
        if unsure:
            ids = batch.records["message_id"].filter(batch.lanes["lane"].is_in(unsure))  # type: ignore[index]
            there = rejected.origins_sent(ids).select("_message_id", "_index").unique()
            tables = tuple(
                rows.join(there, on=["_message_id", "_index"], how="anti", maintain_order="left")
                for rows in tables
            )
        return tables

    def commit(self) -> None:
        """Commit the rejected rows, then the good ones.

        A commit without rows counts, too: another writer that judged the same messages otherwise is refused by it.

        Raises:
            Conflict: Another writer moved one of the cursors first.
        """
        if self._staged[0].height:
            self._overtake()
        erased = {ERASED + cursor: n for cursor, n in self._erased.items()}
        erased |= {AGAIN + cursor: n for cursor, n in self._again.items()}
        notes: tuple[dict[str, str], ...] = ({}, noted(self.landed.unknown))
        for table, staged, counted, note in zip(self.tables, self._staged, ({}, erased), notes, strict=True):
            now = table.position([*self._moved, *counted])  # never backwards
            advance = {c: max(o, now.get(c, 0)) for c, o in self._moved.items()}
            advance |= {name: now.get(name, 0) + n for name, n in counted.items()}
            table.append(staged, advance, ",".join(self._ids), note)

    def _overtake(self) -> None:
        """Have the good commit of a writer refused that is between its two commits: it may hold what is rejected here.

        Such a writer has moved a cursor in the rejected table and not yet in the good one, and opened the good one
        before. It may be dead, frozen, or just slower. Touching the cursor is enough, and moves nothing.
        """
        rejected, good = self.tables
        names = list(self._moved)
        landed, judged = good.position(names), rejected.position(names)
        between = {
            c: landed.get(c, self._before.get(c, 0))
            for c in names
            if c in judged and judged[c] > landed.get(c, -1)
        }
        if between:
            good.append(self._lake.good.stage(), between, ",".join(self._ids))
            if good.position(names) != landed.advanced(between):
                raise Conflict("another writer landed the same messages meanwhile")


@dataclass(frozen=True, slots=True)
class AlreadyLanded:
    """Records of a batch that are in the lake already.

    Attributes:
        position: Everything below it has; only cursors of which the batch holds some of that.
        messages: Ids of messages that have, by cursor.
        records: ``ORIGIN_KEY`` of records that are in the rejected table although their messages have not.
    """

    position: Position
    messages: pl.DataFrame
    records: pl.DataFrame

    @classmethod
    def of(cls, batch: MicroBatch, rejected: Snapshot, good: Snapshot) -> AlreadyLanded:
        """Look a batch up: by its offsets in the log, by the ids of its messages in the tables."""
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
            asked = (
                str(cursor),
                part["message_id"],
                _sent_since(batch, part["timestamp"]),
                batch.redelivery_window,
            )
            messages.append(good.origins_of(*asked))
            records.append(rejected.origins_of(*asked))
        return cls(
            position, pl.concat(messages).select("_cursor", "_message_id").unique(), pl.concat(records)
        )

    def filter_out(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return ``rows`` minus the records that have landed."""
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
    """Tell when the first of these was sent; None if that does not say when they may have landed."""
    first = sent.min() if batch.redelivery_window is not None and not sent.null_count() else None
    assert first is None or isinstance(first, datetime)
    return first


def _messages(*frames: pl.DataFrame) -> int:
    if not any((frame["_index"] != 0).any() for frame in frames):
        return sum(frame.height for frame in frames)
    origin = ["_cursor", "_offset", "_message_id"]
    return pl.concat([frame.select(origin) for frame in frames]).unique().height
