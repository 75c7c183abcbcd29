"""Run the measured tasks, each in a process, a lake and a raw database of its own.

All tasks read the same messages: a stream's position is in its lake, and each lake is new.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TypeVar
from uuid import uuid4

import polars as pl

from headrace.bench import bare
from headrace.bench.load import Seeded
from headrace.bench.measure import Run, Stopwatch
from headrace.config.settings import Settings
from headrace.contracts import EVENTS, check_batch
from headrace.core.batch import RECORD_SCHEMA, MicroBatch, Position
from headrace.demo.reconcile import Comparison
from headrace.flow.commit import Landed
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.health.audit import audit
from headrace.lake.arrow import to_arrow
from headrace.local.prepare import compile_hot_path
from headrace.pipelines import Kafka, Pipeline, Sqs
from headrace.sources.kafka.decode import decode
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.drain import drain
from headrace.streams.stream import Stream
from headrace.warehouse.ddl import quoted
from headrace.warehouse.server import Server

S = TypeVar("S", bound=Stream)

#: Most events of the stages in memory, which take 1.5 GB per million.
_IN_MEMORY = 500_000
_INFERRED_LINES = 1_000


def fetching(settings: Settings, seeded: Seeded) -> dict[str, Run]:
    """Measure kafka-python by itself, with record batches left undecoded."""
    return {"fetch": bare.fetch(settings, _topic(seeded), seeded.acknowledged)}


def polling(settings: Settings, seeded: Seeded) -> dict[str, Run]:
    """Measure kafka-python by itself, in its usual way."""
    return {"poll": bare.poll(settings, _topic(seeded), seeded.acknowledged)}


def receiving(settings: Settings, seeded: Seeded) -> dict[str, Run]:
    """Measure boto3 by itself."""
    assert isinstance(seeded.place, Sqs)
    run = bare.receive_and_delete(settings, seeded.place.queue, seeded.acknowledged)
    lost = Comparison("messages received", seeded.acknowledged, run.events)
    return {"sqs_bare": replace(run, wrong=_said([lost]))}


def _topic(seeded: Seeded) -> str:
    assert isinstance(seeded.place, Kafka)
    return seeded.place.topic


def stages(settings: Settings, seeded: Seeded) -> dict[str, Run]:
    """Measure each step by itself, from memory to memory.

    The last two write to disk and warehouse, with as many rows at once as Headrace commits.
    """
    messages = min(seeded.acknowledged, _IN_MEMORY)
    fetched = bare.fetched(settings, _topic(seeded), messages)
    watch = Stopwatch()
    frames = [decode(batches) for batches in fetched.values()]
    framed = watch.read(sum(part.height for part in frames))
    del fetched
    parts = [part for whole in frames for part in whole.iter_slices(settings.batch_messages)]
    batches = [_batch(part) for part in parts]
    with own_stream(settings, seeded.place) as stream:
        watch = Stopwatch()
        checked = [
            check_batch(EVENTS, batch, batch_id="bench", now=datetime.now(UTC), limits=stream.limits).good
            for batch in batches
        ]
        judged = watch.read(sum(map(len, batches)))
        ours = settings.commit_batches  # the drivers write as many rows at once as Headrace commits
        groups = [pl.concat(checked[n : n + ours]) for n in range(0, len(checked), ours)]
        tables = [to_arrow(good, EVENTS.table) for good in groups]
        lines = b"\n".join(parts[0]["payload"].head(_INFERRED_LINES).to_list())
        return {
            "frame": framed,
            "check": judged,
            "parse": bare.parse([part["payload"] for part in parts], pl.read_ndjson(lines).schema),
            "write": bare.write(tables, Path(stream.settings.lake) / "bare", EVENTS.table),
            "insert": bare.insert(settings, stream.settings.raw_database, EVENTS.table.name, tables),
        }


def _batch(columns: pl.DataFrame) -> MicroBatch:
    """Make a micro-batch as a source does."""
    constant = {"cursor": "bench", "message_id": None, "redelivered": False}
    literals = [pl.lit(value, RECORD_SCHEMA[name]).alias(name) for name, value in constant.items()]
    records = columns.with_columns(literals).select(RECORD_SCHEMA.names())
    first, last = int(records["offset"][0]), int(records["offset"][-1])
    return MicroBatch("bench", records, Position({"bench": first}), Position({"bench": last + 1}))


def landing(settings: Settings, seeded: Seeded, name: str) -> dict[str, Run]:
    """Measure Kafka to Delta with full checks as ``name``, then the publication of the landed rows."""
    with own_stream(settings, seeded.place) as stream:
        landed, enough, watch = Landed(), Event(), Stopwatch()
        for step in ingest(
            stream.guarded(seeded.place.name),
            stream.contract,
            stream.lake,
            stream.limits,
            _pace(stream),
            stopping=enough.is_set,
        ):
            landed += step
            if landed.messages >= seeded.acknowledged:
                enough.set()  # instead of waiting for more
        run = watch.read(landed.messages)
        watch = Stopwatch()
        published = watch.read(stream.publish().rows)
        return {
            name: replace(run, wrong=reconcile(stream, seeded)),
            "publish" if not seeded.malformed else f"publish, {name}": published,
        }


def draining(settings: Settings, seeded: Seeded, name: str) -> dict[str, Run]:
    """Measure Kafka or SQS to Delta and ClickHouse with full checks, as ``name``."""
    with own_stream(settings, seeded.place) as stream:
        landed, enough, watch = Landed(), Event(), Stopwatch()
        for step in drain(stream, seeded.place.name, _pace(stream), stopping=enough.is_set):
            landed = step.landed
            if landed.messages >= seeded.acknowledged:
                enough.set()
        run = watch.read(landed.messages)
        return {name: replace(run, wrong=reconcile(stream, seeded))}


def _pace(stream: Stream) -> Pace:
    return replace(stream.pace, max_seconds=None)


@contextmanager
def own_stream(settings: Settings, place: Kafka | Sqs) -> Iterator[Stream]:
    """Open the stream ``events`` over ``place``, with tables of its own."""
    with own_tables(settings) as own, ready(Stream(pipeline(place), own)) as stream:
        yield stream


def pipeline(place: Kafka | Sqs) -> Pipeline:
    """Declare the stream ``events`` with another source."""
    return Pipeline(EVENTS, (place,), owner="team:bench", description="What is measured")


@contextmanager
def own_tables(settings: Settings) -> Iterator[Settings]:
    """Return settings with a lake and a raw database of their own, which are deleted afterwards."""
    name = f"bench_{uuid4().hex[:8]}"
    own = settings.model_copy(update={"lake_uri": str(settings.home / "lakes" / name), "raw_database": name})
    try:
        yield own
    finally:
        shutil.rmtree(own.lake, ignore_errors=True)
        server = Server(own)
        server.command(f"DROP DATABASE IF EXISTS {quoted(name)} SYNC")
        server.close()


@contextmanager
def ready(stream: S) -> Iterator[S]:
    """Create the stream's tables and load its decoders, as in a run worker; close the stream afterwards."""
    compile_hot_path()
    try:
        stream.prepare()
        stream.lake.good.open(), stream.lake.rejected.open()
        yield stream
    finally:
        stream.close()


def reconcile(stream: Stream, seeded: Seeded) -> tuple[str, ...]:
    """Compare source, lake and warehouse by counts of their own, without the writer's counts.

    Returns:
        Differences, a line each.
    """
    audited, contract = audit(stream.lake), stream.contract
    ids, durations = pl.col(contract.key).n_unique(), pl.col("duration_ms").sum()
    [lake] = stream.lake.good.scan().select(ids.alias("ids"), durations.alias("durations")).collect().rows()
    raw = f"{quoted(stream.settings.raw_database)}.{quoted(contract.table.name)}"
    [warehouse] = stream.warehouse.query(
        f"SELECT count(), uniqExact({quoted(contract.key)}), sum(duration_ms) FROM {raw}"
    )
    rejected = sum(stream.warehouse.counts_by_day(contract.rejected_table).values())
    source = stream.source(seeded.place.name)
    spans = source.offsets() if isinstance(source, KafkaSource) else {}
    offsets = {cursor: end - begin for cursor, (begin, end) in spans.items()}
    lines = [
        Comparison("messages landed + rejected", seeded.acknowledged, audited.messages),
        Comparison("rows in the lake", seeded.good, audited.good),
        Comparison("rows rejected", seeded.malformed, audited.rejected),
        Comparison("rows doubled", 0, audited.doubled),
        Comparison("distinct events in the lake", seeded.good, int(lake[0])),
        Comparison("milliseconds in the lake", round(seeded.duration_ms), round(lake[1])),
        Comparison("rows in the warehouse", seeded.good, int(warehouse[0])),
        Comparison("distinct events in the warehouse", seeded.good, int(warehouse[1])),
        Comparison("milliseconds in the warehouse", round(seeded.duration_ms), round(warehouse[2])),
        Comparison("rejected rows in the warehouse", seeded.malformed, rejected),
        *(
            Comparison(f"rejected for {name}", seeded.reasons[name], audited.reasons.get(name, 0))
            for name in sorted({*seeded.reasons, *audited.reasons})
        ),
        Comparison("messages that wait in the source", 0, stream.backlog(seeded.place.name).waiting),
    ]
    if offsets:
        lines.append(Comparison("offsets in the topic", seeded.acknowledged, sum(offsets.values())))
        cursors = {*offsets, *audited.by_cursor}
        lines += [Comparison(c, offsets.get(c, 0), audited.by_cursor.get(c, 0)) for c in sorted(cursors)]
    return _said(lines)


def _said(lines: list[Comparison]) -> tuple[str, ...]:
    return tuple(f"{one.what}: {one.found:,} instead of {one.expected:,}" for one in lines if not one.agrees)
