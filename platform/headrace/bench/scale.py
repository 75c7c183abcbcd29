"""Whether an ingest run costs the same per event, and holds as much memory, whatever waits; and whether commits do.

A broker that keeps 50 million messages in memory is beyond many machines. So a topic of some millions is seeded, and
read again and again: ``Replayed`` is that topic with its messages repeated at offsets that go on. All that comes after
the broker sees one long topic.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import psutil
from rich.console import Console

from headrace.bench.load import Seeded, live
from headrace.bench.measure import Stopwatch, alone
from headrace.bench.tasks import own_stream, own_tables, pipeline, ready
from headrace.bench.throughput import seed_topic
from headrace.config.settings import Settings
from headrace.core.batch import RECORD_SCHEMA, Backlog, MicroBatch, Position
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.local.platform import backing_services
from headrace.pipelines import Kafka, Pipeline
from headrace.sources import Source
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.drain import drain
from headrace.streams.stream import Stream
from headrace.warehouse.ddl import quoted

#: Messages of the topic that is repeated: 0.15 GB a million in the embedded broker.
SEGMENT = 5_000_000
#: Events between two looks at time and memory.
_MARK = 1_000_000
#: Messages of each of the many commits.
_SMALL = 100
#: Commits that one figure is the median of.
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a run was.

    Attributes:
        events: That had landed.
        seconds: Since it began.
        cpu_seconds: Of the process since then.
        held_bytes: Memory that the process held.
        peak_bytes: The most that it had held.
    """

    events: int
    seconds: float
    cpu_seconds: float
    held_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Drained:
    """One ingest run.

    Attributes:
        backlog: Messages that waited.
        marks: The last of them is the end, with everything published.
        wrong: What did not reconcile, a line each.
    """

    backlog: int
    marks: tuple[Mark, ...]
    wrong: tuple[str, ...]

    @property
    def end(self) -> Mark:
        """What it took in all."""
        return self.marks[-1]


@dataclass(frozen=True, slots=True)
class Committed:
    """What small commits cost in a table that has many already.

    Attributes:
        commits: In the table.
        milliseconds: Of a micro-batch of 100 messages: read the position, check, commit to both tables; median.
    """

    commits: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Scaled:
    """What was measured.

    Attributes:
        drained: Ingest runs, by backlog.
        commits: As they came, with maintenance between two of them.
        maintenance_seconds: What it took, of both tables; the median.
    """

    drained: tuple[Drained, ...]
    commits: tuple[Committed, ...]
    maintenance_seconds: float

    @property
    def wrong(self) -> list[str]:
        """What did not reconcile, a line each."""
        return [f"{one.backlog:,}: {line}" for one in self.drained for line in one.wrong]

    def shown(self) -> dict[str, Any]:
        """For machines."""
        first, last = self.drained[0], self.drained[-1]
        return {
            "drained": [
                {
                    "backlog": one.backlog,
                    "events_per_second": round(one.backlog / one.end.seconds),
                    "cpu_seconds_per_million": round(one.end.cpu_seconds / one.backlog * 1e6, 3),
                    "peak_bytes": one.end.peak_bytes,
                    "marks": [asdict(mark) for mark in one.marks],
                }
                for one in self.drained
            ],
            "cost_to_smallest": round(
                last.end.seconds / last.backlog / (first.end.seconds / first.backlog), 3
            ),
            "commits": [asdict(one) for one in self.commits],
            "last_to_first_commit": round(self.commits[-1].milliseconds / self.commits[0].milliseconds, 3),
            "maintenance_seconds": round(self.maintenance_seconds, 2),
            "wrong": self.wrong,
            "reconciles": not self.wrong,
        }


def scale(home: Path, console: Console, *, events: int, commits: int) -> Scaled:
    """Start broker, queue and warehouse of its own, measure, and stop them.

    Args:
        home: State and logs; what is there of an earlier run must be gone.
        console: Where to tell.
        events: The largest backlog; smaller ones are a tenth of the next each, down to a million.
        commits: Into one table.
    """
    with backing_services(home) as (_, settings):
        return measure(settings, console, events=events, commits=commits)


def measure(settings: Settings, console: Console, *, events: int, commits: int, run: Any = alone) -> Scaled:
    """As ``scale``, on the services that ``settings`` point at; ``run`` calls a task with its arguments."""
    segment = min(events, SEGMENT)
    with console.status(f"seeding {segment:,} events"):
        seeded = seed_topic(settings, segment, 0, "lz4")
    drained = []
    for backlog in backlogs(events):
        with console.status(f"draining {backlog:,} events"):
            drained.append(run(draining, settings, seeded, backlog))
    with console.status(f"{commits:,} commits"):
        made, took = run(committing, settings, commits)
    return Scaled(tuple(drained), tuple(made), took)


def backlogs(most: int) -> list[int]:
    """Growing ones up to ``most``."""
    found = [most]
    while found[0] > _MARK:
        found.insert(0, max(_MARK, found[0] // 10))
    return found


class Replayed:
    """A topic whose messages come again, at offsets that go on, until so many have come. See ``Source``.

    A partition of 10 messages has its first again at offset 10.
    """

    replayable = True

    def __init__(self, inner: KafkaSource, messages: int) -> None:
        self._inner = inner
        self.name = inner.name
        self._messages = messages
        self._spans: dict[str, int] = {}
        self.ends: dict[str, int] = {}

    def cursors(self) -> list[str]:
        """Those of the topic."""
        if not self._spans:
            self._spans = {cursor: end for cursor, (_, end) in self._inner.offsets().items()}
            left, whole = self._messages, sum(self._spans.values())
            for n, (cursor, span) in enumerate(self._spans.items()):
                self.ends[cursor] = left if n == len(self._spans) - 1 else self._messages * span // whole
                left -= self.ends[cursor]
        return self._inner.cursors()

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """From the topic, with the offsets moved on."""
        asked = {cursor: after.get(cursor, 0) for cursor in self.cursors()}
        moved = {c: at - at % self._spans[c] for c, at in asked.items()}
        # a partition that is through is asked for what comes after its end
        real = {c: self._spans[c] if at >= self.ends[c] else at - moved[c] for c, at in asked.items()}
        batch = self._inner.read(Position(real), max_messages, wait_seconds)
        now = {c: min(self.ends[c], at + moved[c]) for c, at in batch.after.items()}
        through = {c: at for c, at in asked.items() if at >= self.ends[c]}
        shift = pl.col("cursor").replace_strict(moved, return_dtype=pl.Int64)
        end = pl.col("cursor").replace_strict(self.ends, return_dtype=pl.Int64)
        records = batch.records.with_columns(pl.col("offset") + shift).filter(pl.col("offset") < end)
        return replace(batch, records=records, before=Position(asked), after=Position({**now, **through}))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Nobody looks at the group's offsets."""

    def backlog(self, after: Position, /) -> Backlog:
        """What has not come yet."""
        waiting = {c: self.ends[c] - after.get(c, 0) for c in self.cursors()}
        return Backlog(sum(waiting.values()), by_cursor=waiting)

    def close(self) -> None:
        """Close the topic."""
        self._inner.close()


class _Replaying(Stream):
    """A stream whose topic is ``Replayed``."""

    def __init__(self, declared: Pipeline, settings: Settings, messages: int) -> None:
        super().__init__(declared, settings)
        self._length = messages
        self.replayed: Replayed | None = None

    def source(self, name: str, share: int | None = None) -> Source:
        """The topic, repeated."""
        if self.replayed is None:
            inner = super().source(name, share)
            assert isinstance(inner, KafkaSource)
            self.replayed = Replayed(inner, self._length)
        return self.replayed


def draining(settings: Settings, seeded: Seeded, backlog: int) -> Drained:
    """One ingest run over so many messages, as the platform makes it: landed, and published meanwhile."""

    with own_tables(settings) as own, ready(_Replaying(pipeline(seeded.place), own, backlog)) as stream:
        marks: list[Mark] = []
        enough, me = Event(), psutil.Process()
        watch, pace = Stopwatch(), replace(stream.pace, max_seconds=None)

        def mark(events: int) -> Mark:
            run = watch.read(events)
            return Mark(events, run.seconds, run.cpu_seconds, me.memory_info().rss, run.peak_bytes)

        landed = 0
        for step in drain(stream, seeded.place.name, pace, stopping=enough.is_set):
            if step.landed.messages // _MARK > landed // _MARK:
                marks.append(mark(step.landed.messages))
            landed = step.landed.messages
            if landed >= backlog:
                enough.set()
        marks.append(mark(landed))
        assert stream.replayed is not None
        return Drained(backlog, tuple(marks), _judge(stream, stream.replayed.ends))


def _judge(stream: Stream, ends: dict[str, int]) -> tuple[str, ...]:
    """Every offset of every partition once, in lake and warehouse.

    By number, smallest, largest and sum: a set of 50 million would take the memory that was measured.
    """
    offset = pl.col("_offset")
    counted = [pl.len().cast(pl.Int64), offset.min(), offset.max(), offset.sum()]
    named = [one.alias(f"c{n}") for n, one in enumerate(counted)]
    lake = stream.lake.good.scan().group_by("_cursor").agg(named).collect()
    raw = f"{quoted(stream.settings.raw_database)}.{quoted(stream.contract.table.name)}"
    warehouse = stream.warehouse.query(
        f"SELECT _cursor, count(), min(_offset), max(_offset), sum(_offset) FROM {raw} GROUP BY _cursor"
    )
    due = {c: (end, 0, end - 1, end * (end - 1) // 2) for c, end in ends.items() if end}
    wrong = []
    for where, rows in (("lake", lake.rows()), ("warehouse", warehouse)):
        found = {str(row[0]): tuple(map(int, row[1:])) for row in rows}
        wrong += [
            f"{where}, {cursor}: {found.get(cursor)} instead of {due.get(cursor)}"
            for cursor in sorted({*found, *due})
            if found.get(cursor) != due.get(cursor)
        ]
    return tuple(wrong)


class _Ticks:
    """A source that always has a few messages, as one has at a low rate. See ``Source``."""

    name = "memory/ticks"
    replayable = True

    def __init__(self) -> None:
        made = live(0, _SMALL, datetime.now(UTC))
        constant: dict[str, Any] = {
            "headers": None, "timestamp": None, "cursor": "memory/ticks/0", "message_id": None, "redelivered": False,
        }  # fmt: skip
        literals = [pl.lit(value, RECORD_SCHEMA[name]).alias(name) for name, value in constant.items()]
        self._records = made.with_columns(literals)

    def cursors(self) -> list[str]:
        """One."""
        return ["memory/ticks/0"]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """The next few."""
        first = after.get("memory/ticks/0", 0)
        offset = pl.int_range(first, first + _SMALL, dtype=pl.Int64).alias("offset")
        records = self._records.with_columns(offset).select(RECORD_SCHEMA.names())
        before = Position({"memory/ticks/0": first})
        return MicroBatch(self.name, records, before, Position({"memory/ticks/0": first + _SMALL}))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Nothing to do."""

    def backlog(self, after: Position, /) -> Backlog:
        """There is always more."""
        return Backlog(_SMALL)

    def close(self) -> None:
        """Nothing to release."""


def committing(settings: Settings, commits: int) -> tuple[list[Committed], float]:
    """So many small micro-batches into tables of their own, maintained between two windows."""
    with own_stream(settings, Kafka("none")) as stream:
        made: list[Committed] = []
        spent: list[float] = []
        took = _commits(stream)
        while len(made) * _WINDOW < commits:
            made.append(_window(len(made) + 1, took))
            began = time.perf_counter()
            for table in (stream.lake.good, stream.lake.rejected):
                table.maintain(
                    timedelta(days=settings.lake_keep_days), timedelta(hours=settings.lake_log_hours)
                )
            spent.append(time.perf_counter() - began)
        return made, statistics.median(spent)


def _window(number: int, took: Iterator[float]) -> Committed:
    return Committed(number * _WINDOW, statistics.median(next(took) for _ in range(_WINDOW)) * 1e3)


def _commits(stream: Stream) -> Iterator[float]:
    """Seconds of one micro-batch after the other, without end; what is between two of them does not count.

    The logs are shortened as publishing does it, as if all had been published at once.
    """
    pace = Pace(batch_messages=_SMALL, max_seconds=None, commit_batches=1)
    landing = ingest(_Ticks(), stream.contract, stream.lake, stream.limits, pace)
    for version in count(1):
        began = time.perf_counter()
        next(landing)
        for table in (stream.lake.good, stream.lake.rejected):
            table.shorten_log(version, stream.settings.lake_log_commits)
        yield time.perf_counter() - began
