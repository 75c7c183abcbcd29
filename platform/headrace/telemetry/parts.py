"""Measure one stream, part by part: each part fails by itself, and names what it is of.

A part has a stream, and so connections, of its own, because it is measured by a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from headrace.collector.held import held
from headrace.collector.topics import collected
from headrace.config.settings import Settings
from headrace.core.batch import Backlog, Position
from headrace.health.checks import max_behind, reject_limits
from headrace.health.freshness import last_landed, unpublished_since, unpublished_versions
from headrace.health.reject_rate import arrived
from headrace.pipelines import Pipeline
from headrace.streams.stream import Stream
from headrace.telemetry import families as f
from headrace.telemetry.families import Reading

#: Partitions of a topic that are told one by one; of a topic with more there is the sum alone.
MOST_PARTITIONS = 256
#: How often parts are measured, as multiples of the setting; what costs a table scan, seldom.
USUAL, SELDOM = 1, 6


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is measured by itself, in a thread of its own.

    Attributes:
        name: Kind of the part, such as ``source`` or ``lake``.
        measure: Measures it. Raises a ``HeadraceError`` if the service is away.
        stream: The stream that it is of; empty for none.
        source: The source that it is of; empty for none.
        every: Pause between two looks, as a multiple of the setting.
        close: Releases its connections.
    """

    name: str
    measure: Callable[[], Iterable[Reading]]
    stream: str = ""
    source: str = ""
    every: int = USUAL
    close: Callable[[], object] = field(default=lambda: None)

    @property
    def labels(self) -> tuple[str, str, str]:
        """What tells it from other parts."""
        return self.name, self.stream, self.source


def of_stream(pipeline: Pipeline, settings: Settings) -> Iterator[Part]:
    """Yield the parts of a stream."""

    def part(
        name: str, measure: Callable[[Stream], Iterable[Reading]], source: str = "", every: int = USUAL
    ) -> Part:
        own = Stream(pipeline, settings, retry=False)
        return Part(name, lambda: list(measure(own)), pipeline.name, source, every, own.close)

    for spec in pipeline.sources:
        yield part("source", lambda own, name=spec.name, kind=spec.kind: source(own, name, kind), spec.name)  # type: ignore[misc]
    grown = Grown()
    yield part("lake", lambda own: lake(own, grown))
    yield part("arrived", arrived_rows, every=SELDOM)
    yield part("warehouse", warehouse)
    yield part("warehouse_rows", warehouse_rows, every=SELDOM)
    if collected(pipeline):
        yield part("collector_log", collector_log)


def source(stream: Stream, name: str, kind: str) -> Iterator[Reading]:
    """Measure what waits in a source."""
    backlog, position = stream.look(name)
    where = stream.name, name, kind
    yield f.WAITING(backlog.waiting, *where)
    yield f.SOURCE_PROBLEMS(len(backlog.problems), *where)
    if kind == "sqs":
        yield f.IN_FLIGHT(backlog.in_flight, *where)
    if kind == "kafka":
        group = f"{stream.settings.kafka_group}-{stream.name}"
        yield from partitions(group, name.removeprefix("kafka/"), backlog, position)


def partitions(group: str, topic: str, backlog: Backlog, position: Position) -> Iterator[Reading]:
    """Tell the lag of a topic as kafka_exporter does, by the positions of the lake's log.

    Args:
        group: Where Headrace commits offsets for Kafka's own tools.
        topic: Name of the topic.
        backlog: What waits, by cursor.
        position: Next offset to land, by cursor.
    """
    yield f.LAG_SUM(backlog.waiting, group, topic)
    if len(backlog.by_cursor) > MOST_PARTITIONS:
        return
    for cursor, waiting in backlog.by_cursor.items():
        partition = cursor.rpartition("/")[2]
        yield f.LAG(waiting, group, topic, partition)
        if cursor in position:
            yield f.OFFSET(position[cursor], group, topic, partition)


@dataclass(slots=True)
class Grown:
    """Adds up the rows that came into tables since the first look.

    It counts from zero, not from what a table holds. A counter that starts at the rows of a table, and starts lower
    after an erasure, would look as if all of them had just landed.
    """

    before: dict[str, int] = field(default_factory=dict)
    since: dict[str, int] = field(default_factory=dict)

    def seen(self, table: str, rows: int) -> int:
        """Note the rows of a table; returns how many have come."""
        came = max(0, rows - self.before.get(table, rows))
        self.before[table], self.since[table] = rows, self.since.get(table, 0) + came
        return self.since[table]


def lake(stream: Stream, grown: Grown) -> Iterator[Reading]:
    """Measure the tables of a stream in the lake."""
    for kind, table in (("good", stream.lake.good), ("rejected", stream.lake.rejected)):
        where, extent, version = (stream.name, table.table.name, kind), table.extent(), table.open().version
        yield f.LAKE_VERSION(version, *where)
        yield f.LAKE_ROWS(extent.rows, *where)
        yield f.LAKE_BYTES(extent.bytes, *where)
        yield f.LAKE_FILES(extent.files, *where)
        yield f.LANDED(grown.seen(kind, extent.rows), *where)
        yield f.LAKE_COMMIT(table.committed_at(version), *where)
    if (at := last_landed(stream)) is not None:
        yield f.LAST_LANDED(at, stream.name)
    yield f.LIMIT_BEHIND(max_behind(stream).total_seconds(), stream.name)
    warn, error = reject_limits(stream.pipeline, stream.settings)
    yield f.LIMIT_REJECTS(warn, stream.name, "warning")
    yield f.LIMIT_REJECTS(error, stream.name, "error")
    own = stream.pipeline.thresholds.lag
    yield f.LIMIT_LAG(stream.settings.max_lag_messages if own is None else own, stream.name)


def arrived_rows(stream: Stream) -> Iterator[Reading]:
    """Count the rows that were ingested of late, as the check ``reject_rate`` does."""
    for window, one in zip(("recent", "day"), arrived(stream), strict=True):
        for kind, rows in (("good", one.good), ("rejected", one.rejected), ("repaired", one.repaired)):
            yield f.ARRIVED(rows, stream.name, window, kind)


def warehouse(stream: Stream) -> Iterator[Reading]:
    """Measure how far warehouse and models are behind the lake, and what was built."""
    name = stream.name
    yield f.UNPUBLISHED(unpublished_versions(stream), name)
    if (since := unpublished_since(stream)) is not None:
        yield f.UNPUBLISHED_SINCE(since, name)
    yield f.PUBLISHED_VERSION(stream.published_version(), name)
    if stream.pipeline.models is None:
        return
    stale = stream.stale_days()
    yield f.STALE_DAYS(len(stale), name)
    if stale:
        yield f.STALE_SINCE(min(one.since for one in stale), name)
    builds = stream.warehouse.builds(stream.contract.table, stream.lake.good.id)
    yield f.BUILDS(builds.count, name)
    yield f.BUILT_DAYS(builds.days, name)
    if builds.latest is not None:
        yield f.LAST_BUILD(builds.latest, name)


def warehouse_rows(stream: Stream) -> Iterator[Reading]:
    """Count the rows of a stream's raw tables."""
    for table in (stream.contract.table, stream.contract.rejected_table):
        yield f.WAREHOUSE_ROWS(sum(stream.warehouse.counts_by_day(table).values()), stream.name, table.name)


def collector_log(stream: Stream) -> Iterator[Reading]:
    """Measure what the collector acknowledged for a stream and the lake lacks; nothing if none has run here."""
    found = held(stream)
    if found is None:
        return
    yield f.HELD(found.entries, stream.name)
    yield f.HELD_BYTES(found.bytes, stream.name)
    if found.since is not None:
        yield f.HELD_SINCE(found.since, stream.name)
