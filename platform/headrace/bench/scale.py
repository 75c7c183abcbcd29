"""Measure whether cost per event and memory stay constant as the backlog grows, and cost per commit as a table grows.

A broker that keeps 50 million messages in memory exceeds many machines. So a topic of a few million messages is seeded
and read repeatedly: ``Replayed`` is that topic with its messages repeated at growing offsets. Everything behind the
broker sees one long topic.
"""

from __future__ import annotations

import re
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
from headrace.bench.measure import Stopwatch, in_own_process
from headrace.bench.tasks import own_stream, own_tables, pipeline, ready
from headrace.bench.throughput import seed_topic
from headrace.config.settings import Settings
from headrace.core.batch import RECORD_SCHEMA, Backlog, MicroBatch, Position
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.delta import DeltaLakeTable, history
from headrace.local.platform import backing_services
from headrace.pipelines import Kafka, Pipeline
from headrace.sources import Source
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.drain import drain
from headrace.streams.stream import Stream
from headrace.warehouse.ddl import quoted

#: Messages of the repeated topic: 0.15 GB per million in the embedded broker.
SEGMENT = 5_000_000
#: Events between two checkpoints.
_CHECKPOINT = 1_000_000
#: Messages of each of the many commits.
_SMALL = 100
#: Commits per figure, which is their median.
_WINDOW = 500


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of a run.

    Attributes:
        events: Landed events.
        seconds: Time since the start.
        cpu_seconds: Core seconds of the process since then.
        held_bytes: Memory of the process now.
        peak_bytes: Peak memory of the process.
    """

    events: int
    seconds: float
    cpu_seconds: float
    held_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class DrainResult:
    """One ingest run.

    Attributes:
        backlog: Messages that waited.
        marks: Checkpoints. At the last one, everything is published.
        wrong: Differences found by the reconciliation, a line each.
    """

    backlog: int
    marks: tuple[Checkpoint, ...]
    wrong: tuple[str, ...]

    @property
    def end(self) -> Checkpoint:
        """The last checkpoint: the cost of the whole run."""
        return self.marks[-1]


@dataclass(frozen=True, slots=True)
class CommitCost:
    """Cost of small commits in a table that has many already.

    Attributes:
        commits: Commits in the table.
        milliseconds: Median time of a micro-batch of 100 messages: read the position, check, commit to both tables.
        cpu_milliseconds: Median processor time of the same, which others on the machine hardly change.
    """

    commits: int
    milliseconds: float
    cpu_milliseconds: float


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """Results of all runs.

    Attributes:
        drained: Ingest runs, by backlog.
        commits: Cost of commits in their order, with maintenance between two of them.
        maintenance_seconds: Median time to maintain both tables.
        daily_versions: Versions of the good table that were kept by the day at the end.
    """

    drained: tuple[DrainResult, ...]
    commits: tuple[CommitCost, ...]
    maintenance_seconds: float
    daily_versions: int = 0

    @property
    def wrong(self) -> list[str]:
        """Differences found by the reconciliation, a line each."""
        return [f"{one.backlog:,}: {line}" for one in self.drained for line in one.wrong]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as data for JSON."""
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
            "last_to_first_commit": round(
                self.commits[-1].cpu_milliseconds / self.commits[0].cpu_milliseconds, 3
            ),
            "maintenance_seconds": round(self.maintenance_seconds, 2),
            "daily_versions": self.daily_versions,
            "wrong": self.wrong,
            "reconciles": not self.wrong,
        }


def scale(home: Path, console: Console, *, events: int, commits: int) -> ScaleResult:
    """Start broker, queue and warehouse of its own, measure, and stop them.

    Args:
        home: Folder for state and logs, without those of an earlier run.
        console: Terminal that shows the progress.
        events: The largest backlog. Each smaller one is a tenth of the next, down to a million.
        commits: Commits into one table.
    """
    with backing_services(home) as (_, settings):
        return measure(settings, console, events=events, commits=commits)


def measure(
    settings: Settings, console: Console, *, events: int, commits: int, run: Any = in_own_process
) -> ScaleResult:
    """Measure on the services that ``settings`` name. ``run`` calls a task with its arguments."""
    segment = min(events, SEGMENT)
    with console.status(f"seeding {segment:,} events"):
        seeded = seed_topic(settings, segment, 0, "lz4")
    drained = []
    for backlog in backlogs(events):
        with console.status(f"draining {backlog:,} events"):
            drained.append(run(draining, settings, seeded, backlog))
    with console.status(f"{commits:,} commits"):
        made, took, daily = run(committing, settings, commits)
    return ScaleResult(tuple(drained), tuple(made), took, daily)


def backlogs(most: int) -> list[int]:
    """Return growing backlogs up to ``most``."""
    found = [most]
    while found[0] > _CHECKPOINT:
        found.insert(0, max(_CHECKPOINT, found[0] // 10))
    return found


class Replayed:
    """A ``Source`` that repeats a topic's messages at growing offsets until it has delivered ``messages``.

    In a partition of 10 messages, offset 10 is the first message again.
    """

    replayable = True

    def __init__(self, inner: KafkaSource, messages: int) -> None:
        self._inner = inner
        self.name = inner.name
        self._messages = messages
        self._spans: dict[str, int] = {}
        self.ends: dict[str, int] = {}

    def cursors(self) -> list[str]:
        """Return the topic's cursors."""
        if not self._spans:
            self._spans = {cursor: end for cursor, (_, end) in self._inner.offsets().items()}
            left, whole = self._messages, sum(self._spans.values())
            for n, (cursor, span) in enumerate(self._spans.items()):
                self.ends[cursor] = left if n == len(self._spans) - 1 else self._messages * span // whole
                left -= self.ends[cursor]
        return self._inner.cursors()

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Read from the topic and shift the offsets."""
        asked = {cursor: after.get(cursor, 0) for cursor in self.cursors()}
        moved = {c: at - at % self._spans[c] for c, at in asked.items()}
        # a finished partition is read from its end
        real = {c: self._spans[c] if at >= self.ends[c] else at - moved[c] for c, at in asked.items()}
        batch = self._inner.read(Position(real), max_messages, wait_seconds)
        now = {c: min(self.ends[c], at + moved[c]) for c, at in batch.after.items()}
        finished = {c: at for c, at in asked.items() if at >= self.ends[c]}
        shift = pl.col("cursor").replace_strict(moved, return_dtype=pl.Int64)
        end = pl.col("cursor").replace_strict(self.ends, return_dtype=pl.Int64)
        records = batch.records.with_columns(pl.col("offset") + shift).filter(pl.col("offset") < end)
        return replace(batch, records=records, before=Position(asked), after=Position({**now, **finished}))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Do nothing: the group's offsets are not used here."""

    def backlog(self, after: Position, /) -> Backlog:
        """Count the messages not delivered yet."""
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
        """Return the repeated topic."""
        if self.replayed is None:
            inner = super().source(name, share)
            assert isinstance(inner, KafkaSource)
            self.replayed = Replayed(inner, self._length)
        return self.replayed


def draining(settings: Settings, seeded: Seeded, backlog: int) -> DrainResult:
    """Drain ``backlog`` messages in one ingest run as the platform does, publishing meanwhile."""
    with own_tables(settings) as own, ready(_Replaying(pipeline(seeded.place), own, backlog)) as stream:
        marks: list[Checkpoint] = []
        enough, me = Event(), psutil.Process()
        watch, pace = Stopwatch(), replace(stream.pace, max_seconds=None)

        def mark(events: int) -> Checkpoint:
            run = watch.read(events)
            return Checkpoint(events, run.seconds, run.cpu_seconds, me.memory_info().rss, run.peak_bytes)

        landed = 0
        for step in drain(stream, seeded.place.name, pace, stopping=enough.is_set):
            if step.landed.messages // _CHECKPOINT > landed // _CHECKPOINT:
                marks.append(mark(step.landed.messages))
            landed = step.landed.messages
            if landed >= backlog:
                enough.set()
        marks.append(mark(landed))
        assert stream.replayed is not None
        return DrainResult(backlog, tuple(marks), _differences(stream, stream.replayed.ends))


def _differences(stream: Stream, ends: dict[str, int]) -> tuple[str, ...]:
    """Check that lake and warehouse have every offset of every partition once.

    Compare number, smallest, largest and sum of the offsets. A set of 50 million offsets would use the memory that is
    measured.
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


class _SmallBatches:
    """A ``Source`` that always has a few messages, as at a low rate."""

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
        """Return the only cursor."""
        return ["memory/ticks/0"]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Return the next few messages."""
        first = after.get("memory/ticks/0", 0)
        offset = pl.int_range(first, first + _SMALL, dtype=pl.Int64).alias("offset")
        records = self._records.with_columns(offset).select(RECORD_SCHEMA.names())
        before = Position({"memory/ticks/0": first})
        return MicroBatch(self.name, records, before, Position({"memory/ticks/0": first + _SMALL}))

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Do nothing."""

    def backlog(self, after: Position, /) -> Backlog:
        """Report that more messages wait, as always."""
        return Backlog(_SMALL)

    def close(self) -> None:
        """Do nothing."""


def committing(settings: Settings, commits: int) -> tuple[list[CommitCost], float, int]:
    """Commit many small micro-batches into tables of their own, with maintenance between two windows.

    Between two commits, the last one is dated: all of them together take as long as versions are kept, so that at the
    end there is one of each of those days.

    Returns:
        Cost of a commit by window, the median time of a maintenance, s, and the number of versions kept by the day.
    """
    with own_stream(settings, Kafka("none")) as stream:
        made: list[CommitCost] = []
        spent: list[float] = []
        took = _commits(stream, _Calendar(commits, settings.lake_version_days))
        while len(made) * _WINDOW < commits:
            made.append(_window(len(made) + 1, took))
            began = time.perf_counter()
            for table in (stream.lake.good, stream.lake.rejected):
                table.maintain(
                    timedelta(days=settings.lake_keep_days), timedelta(hours=settings.lake_log_hours)
                )
            spent.append(time.perf_counter() - began)
        daily = history.kept(stream.lake.good).daily
        return made, statistics.median(spent), len(daily)


class _Calendar:
    """Dates commits, so that a number of them takes a number of days."""

    def __init__(self, commits: int, days: int) -> None:
        self._each = timedelta(days=days) / max(1, commits)
        self._at = datetime.now(UTC) - timedelta(days=days)
        self._dated: dict[str, int] = {}  # by table, the first version that is not

    def date(self, table: DeltaLakeTable, newest: int) -> None:
        """Have the commits since the last call say that they were made some time after those before."""
        for version in range(self._dated.get(table.uri, 0), newest + 1):
            commit = Path(table.uri) / "_delta_log" / f"{version:020d}.json"
            said = b'"timestamp":%d' % (self._at.timestamp() * 1_000)
            commit.write_bytes(re.sub(rb'"timestamp":\d+', said, commit.read_bytes(), count=1))
        self._dated[table.uri] = newest + 1

    def next(self) -> None:
        """Go on by one commit."""
        self._at += self._each


def _window(number: int, took: Iterator[tuple[float, float]]) -> CommitCost:
    wall, cpu = zip(*(next(took) for _ in range(_WINDOW)), strict=True)
    return CommitCost(number * _WINDOW, statistics.median(wall) * 1e3, statistics.median(cpu) * 1e3)


def _commits(stream: Stream, calendar: _Calendar) -> Iterator[tuple[float, float]]:
    """Yield seconds, and seconds of processor time, of one micro-batch after the other. What is between does not count.

    The logs are shortened as publishing does it, as if everything were published at once.
    """
    pace = Pace(batch_messages=_SMALL, max_seconds=None, commit_batches=1)
    landing = ingest(_SmallBatches(), stream.contract, stream.lake, stream.limits, pace)
    for version in count(1):
        began, cpu = time.perf_counter(), time.process_time()
        next(landing)
        for table in (stream.lake.good, stream.lake.rejected):
            table.shorten_log(version, stream.settings.lake_log_commits)
        spent = time.perf_counter() - began, time.process_time() - cpu
        for table in (stream.lake.good, stream.lake.rejected):
            calendar.date(table, table.open().version)
        calendar.next()
        yield spent
