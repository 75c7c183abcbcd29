"""One stream in this installation: its pipeline, its settings and the adapters that they name.

Commands and Dagster assets talk to this; it is where adapters are chosen, and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from headrace.clients.sqs import sqs_client
from headrace.config.settings import Settings
from headrace.contracts import Limits
from headrace.core.batch import Backlog, Position, Table
from headrace.core.errors import Busy, Fatal, HistoryGone
from headrace.core.guard import SERVICES, Guard, GuardedSource
from headrace.core.locks import file_lock
from headrace.flow.ingest import Landed, Pace, StreamLake, ingest, position_of
from headrace.flow.publish import (
    Published,
    Publishing,
    another_history,
    first_unpublished,
    publish,
    replace_days,
)
from headrace.formats import Reader
from headrace.health.audit import Audit, Ranges, Skipped, audit, skipped
from headrace.health.parity import Parity, arriving, compare
from headrace.health.reject_rate import DAY, RejectRate, arrived, judge
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.suppression import ERASURES, Erasures
from headrace.pipelines import Files, Kafka, Pipeline, Spec, Sqs, discover
from headrace.producers import Producer
from headrace.producers.kafka import KafkaProducer
from headrace.producers.sqs import SqsProducer
from headrace.sources import Source
from headrace.sources.files.archive import Archive
from headrace.sources.files.source import FilesSource
from headrace.sources.kafka.source import KafkaSource
from headrace.sources.sqs import SqsSource
from headrace.warehouse import Touched
from headrace.warehouse.clickhouse import ClickHouse

log = logging.getLogger(__name__)

_LOOKS_AGAIN = (
    10.0  # seconds in which lake and warehouse can be compared, unless days are rewritten all the time
)

#: A version that is half in is another publisher's for so long, seconds.
_HALF_IN_SECONDS = 3.0
#: Versions in which the last one with rows is looked for.
_LOOK_BACK = 20


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of a drain: what has landed and what is published so far, since it began."""

    landed: Landed
    published: Published


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a stream is behind its sources.

    Attributes:
        waiting: Messages by source.
        landed_at: When rows last landed or were rejected; None if none were lately.
        unpublished_since: When the first lake version was committed that the warehouse lacks; None if it has all.
        touched_since: When the first row was published that the models lack; None if they have all.
    """

    waiting: dict[str, int]
    landed_at: datetime | None = None
    unpublished_since: datetime | None = None
    touched_since: datetime | None = None


class Stream:
    """A pipeline with its adapters, which connect on first use. For one thread; ``close`` when done."""

    def __init__(
        self, pipeline: Pipeline, settings: Settings, *, sqs: Any = None, patient: bool = True
    ) -> None:
        """Args:
        pipeline: The declaration.
        settings: Where everything is.
        sqs: A boto3 SQS client; None makes one from the settings.
        patient: Retry when a service is away; False for those who only look.
        """
        self.pipeline = pipeline
        self.contract = pipeline.contract
        self.settings = settings
        self._sqs = sqs
        self._sources: dict[tuple[str, int | None], Source] = {}
        self._sure: set[str] = (
            set()
        )  # tables whose tokens the warehouse has kept since this process published
        self._guards = {name: Guard(name, settings, patient=patient) for name in SERVICES}

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.pipeline.name

    @cached_property
    def lake(self) -> StreamLake[DeltaLakeTable]:
        """The two lake tables."""
        return StreamLake(
            self._lake_table(self.contract.table),
            self._lake_table(self.contract.rejected_table),
            self.erasures,
        )

    @cached_property
    def erasures(self) -> Erasures:
        """Who was erased from the lake; the same for all of its streams."""
        days = self.settings.erased_keep_days
        return Erasures(self._lake_table(ERASURES), timedelta(days=days) if days else None)

    def _lake_table(self, table: Table) -> DeltaLakeTable:
        root, options = self.settings.lake, self.settings.lake_storage_options
        return DeltaLakeTable(root, table, options, self._guards["lake"], sync=self.settings.lake_sync)

    @cached_property
    def warehouse(self) -> ClickHouse:
        """The warehouse.

        Raises:
            Fatal: Nobody has said where it is.
        """
        return ClickHouse(self.settings.with_warehouse(), self._guards["warehouse"])

    @property
    def limits(self) -> Limits:
        """What is accepted."""
        s, start = self.settings, self.pipeline.start
        earliest = s.event_time_min
        if start is not None:
            earliest = max(earliest, datetime(start.year, start.month, start.day, tzinfo=UTC))
        return Limits(s.max_message_bytes, earliest, s.event_time_ahead, s.max_message_records)

    @property
    def pace(self) -> Pace:
        """How a run proceeds."""
        s = self.settings
        return Pace(
            s.batch_messages, s.ingest_idle_seconds, s.ingest_max_seconds, s.batch_seconds, s.commit_batches
        )

    def guarded(self, name: str, share: int | None = None) -> Source:
        """The source of that name, with retries and circuit breaker; arguments as of ``source``."""
        source = self.source(name, share)
        return GuardedSource(source, self._guards[self._spec(name).kind])

    def source(self, name: str, share: int | None = None) -> Source:
        """The source of that name, as it is; with ``share``, only that run's share of its partitions.

        Raises:
            Fatal: The pipeline does not declare it.
        """
        key = (name, share)
        if key not in self._sources:
            self._sources[key] = self._build(self._spec(name), share)
        return self._sources[key]

    def _spec(self, name: str) -> Spec:
        specs = {spec.name: spec for spec in self.pipeline.sources}
        if name not in specs:
            raise Fatal(f"stream {self.name!r} has no source {name!r}; it has {', '.join(specs)}")
        return specs[name]

    def _build(self, spec: Spec, share: int | None) -> Source:
        s = self.settings
        if isinstance(spec, Files):
            return FilesSource(
                spec.folder,
                Archive(s.archive_uri, s.archive_storage_options or s.lake_storage_options),
                Reader(self.contract, spec.format),
                s.home / "archive_index" / f"{self.name}-{quote(spec.folder, safe='')}.json",
                quiet_seconds=s.archive_quiet_seconds,
            )
        if isinstance(spec, Kafka):
            return KafkaSource(
                spec.topic,
                s.kafka_servers,
                group=f"{s.kafka_group}-{self.name}",
                security=s.kafka_security,
                share=(0, 1) if share is None else (share, spec.runs),
            )
        if self._sqs is None:
            secret = s.aws_secret_access_key
            self._sqs = sqs_client(
                region=s.sqs_region,
                endpoint_url=s.sqs_endpoint_url,
                access_key_id=s.aws_access_key_id,
                secret_access_key=secret.get_secret_value() if secret else None,
                connections=s.sqs_receivers + 2,  # one for visibility, one for looking
            )
        return SqsSource(spec.queue, self._sqs, receivers=s.sqs_receivers)

    def backlog(self, source: str) -> Backlog:
        """What waits in a source beyond what has landed."""
        return self.look(source)[0]

    def look(self, source: str) -> tuple[Backlog, Position]:
        """What waits in a source, and the position beyond which it does."""
        found = self.guarded(source)
        position = position_of(found, self.lake)
        return found.backlog(position), position

    def latest(self) -> datetime | None:
        """When anything last landed, good or rejected (UTC); None if nothing ever did."""
        found = [at for table in (self.lake.good, self.lake.rejected) if (at := table.latest())]
        return max(found, default=None)

    def unpublished(self) -> int:
        """Lake versions that are not in the warehouse yet."""
        behind = 0
        for table in (self.lake.good, self.lake.rejected):
            first, newest = first_unpublished(table, self.warehouse)
            behind += newest + 1 - first
        return behind

    def drain(
        self,
        source: str,
        pace: Pace | None = None,
        *,
        share: int | None = None,
        stopping: Callable[[], bool] = lambda: False,
        may_linger: Callable[[], bool] = lambda: True,
    ) -> Iterator[Step]:
        """Land what a source holds and publish it meanwhile; yields after every landed batch and at the end.

        Where the pace lets it stay for what comes later, it yields once more when it has caught up.

        A warehouse that is away, or a publisher that does not go on, does not stop landing: publishing catches up,
        at the latest in the next run.

        Raises:
            Retriable: The source or the lake is away, or at the end the warehouse still is.
            Busy: At the end, another process is publishing for longer than it is worth waiting.
        """
        landed = Landed()
        publishing = Publishing(self.publish)
        try:
            for step in ingest(
                self.guarded(source, share),
                self.contract,
                self.lake,
                self.limits,
                pace or self.pace,
                stopping=lambda: stopping() or publishing.failed(),
                may_linger=may_linger,
            ):
                landed += step
                publishing.more()
                yield Step(landed, publishing.published)
        finally:
            publishing.close()
        if isinstance(held := publishing.put_off, Busy):
            raise held  # it has been waited for already
        yield Step(landed, publishing.published + self.publish())

    def standing(self) -> Standing:
        """How far lake, warehouse and models are behind what waits."""
        waiting = {spec.name: self.backlog(spec.name).waiting for spec in self.pipeline.sources}
        landed = [at for table in (self.lake.good, self.lake.rejected) if (at := _last_rows_at(table))]
        return Standing(
            waiting=waiting,
            landed_at=max(landed, default=None),
            unpublished_since=self.unpublished_since(),
            touched_since=min((one.since for one in self.touched()), default=None),
        )

    def unpublished_since(self) -> datetime | None:
        """When the first lake version was committed that is not in the warehouse; None if all are."""
        found = []
        for table in (self.lake.good, self.lake.rejected):
            first, newest = first_unpublished(table, self.warehouse)
            added = next((v for v in range(first, newest + 1) if _rows_of(table, v)), None)
            if added is not None:  # epoch: before all that the log still knows
                found.append(_committed_at(table, added) or datetime.fromtimestamp(0, UTC))
        return min(found, default=None)

    def needed_since(self, table: DeltaLakeTable) -> datetime | None:
        """When the version was committed that publishing begins with, rows or none; None if it has nothing to read."""
        first, newest = first_unpublished(table, self.warehouse)
        # where that is lost already, keeping the rest helps nobody
        return _committed_at(table, first) if first <= newest else None

    def newest_rows(self, most: int) -> pl.DataFrame:
        """About ``most`` of the good rows that landed last, fewer where the log does not reach back so far."""
        good, found, rows = self.lake.good, [], 0
        for version in range(good.open().version, -1, -1):
            try:
                for chunk in good.read(good.describe(version)):
                    found += [pl.DataFrame(pl.from_arrow(part)) for part in chunk]
                    rows += chunk.num_rows
            except HistoryGone:
                break
            if rows >= most:
                break
        empty = pl.DataFrame(schema=self.contract.landed_schema)
        return pl.concat([empty, *(one.cast(self.contract.landed_schema) for one in found)]).head(most)

    def prepare(self) -> None:
        """Create the warehouse tables that are missing."""
        for table in (self.contract.table, self.contract.rejected_table):
            self.warehouse.prepare(table)

    def publish(self) -> Published:
        """Bring both warehouse tables up to the lake; returns what became of the good rows.

        Raises:
            Retriable: Warehouse or lake are away.
            Busy: Another process is publishing for longer than it is worth waiting; nothing is published beside it.
        """
        self._publish(self.lake.rejected)
        return self._publish(self.lake.good)

    def _publish(self, table: DeltaLakeTable) -> Published:
        name = table.table.name
        unsure = name not in self._sure
        self._sure.discard(
            name
        )  # until it ends well: a warehouse that went away may come back without its tokens
        done = publish(
            table,
            self.warehouse,
            alone=self._alone(table),
            unsure=unsure,
            settle_seconds=_HALF_IN_SECONDS,
        )
        self._sure.add(name)
        if (
            self.settings.lake_log_commits
        ):  # the last published version is what lake and warehouse are compared by
            table.shorten_log(done.end - 1, self.settings.lake_log_commits)
        return done

    def replace_days(self, days: Iterable[date]) -> Iterator[tuple[date, int]]:
        """Rebuild days of the warehouse table from the lake, one after the other; yields each with its rows.

        Others may publish between two days, so that a long backfill does not hold up what lands meanwhile.
        """
        for day in days:
            done = replace_days(self.lake.good, self.warehouse, [day], alone=self._alone(self.lake.good))
            yield day, done[day]

    def _alone(self, table: DeltaLakeTable) -> AbstractContextManager[None]:
        purpose = f"publishing {table.table.name}"
        return file_lock(self._alone_path(table), purpose, self.settings.lock_patience)

    def _alone_path(self, table: DeltaLakeTable) -> Path:
        return self.settings.home / "locks" / f"warehouse-{table.table.name}.lock"

    def touched(self) -> list[Touched]:
        """Days whose models are older than their rows; none for a stream without models."""
        if self.pipeline.models is None:
            return []
        self.warehouse.prepare(self.contract.table)
        by_landing = self.settings.window_time == "processing"
        return self.warehouse.touched(self.contract.table, self.lake.good.id, by_landing=by_landing)

    def published_version(self) -> int:
        """Last lake version that is wholly in the warehouse, -1 if none."""
        self.warehouse.prepare(self.contract.table)
        last = self.warehouse.published(self.contract.table, self.lake.good.id)
        return -1 if last is None else last.version

    def restored(self) -> str:
        """Say that the lake is another one than was published from, until the next publish; empty if it is not."""
        for table in (self.lake.good, self.lake.rejected):
            self.warehouse.prepare(table.table)
            last = self.warehouse.published(table.table, table.id)
            if last is not None and (why := another_history(table, table.open().version, last)):
                return f"{why}; the next publish replaces what the warehouse holds of it"
        return ""

    def refreshed(self, version: int, days: Iterable[date], began_at: datetime) -> None:
        """Note that the models of ``days`` were built from ``version``, by a build that ``began_at`` (UTC)."""
        self.warehouse.refreshed(self.contract.table, self.lake.good.id, version, days, began_at)

    def ever_refreshed(self) -> bool:
        """Whether the models were built at least once."""
        self.warehouse.prepare(self.contract.table)
        return self.warehouse.ever_refreshed(self.contract.table, self.lake.good.id)

    def warehouse_counts(self) -> dict[date, int]:
        """Rows of the raw warehouse table by day."""
        return self.warehouse.counts_by_day(self.contract.table)

    def reject_rate(self, now: datetime | None = None) -> RejectRate:
        """Judge the share of rejected rows, of the newest and of a day's, by the limits of pipeline or settings."""
        own, s = self.pipeline.thresholds, self.settings
        windows = [timedelta(seconds=s.reject_seconds), DAY]
        counted = arrived(self.lake, f"redrive/{self.name}", windows, now or datetime.now(UTC))
        return judge(
            counted,
            warn=s.max_reject_rate if own.reject_rate is None else own.reject_rate,
            error=s.error_reject_rate if own.error_reject_rate is None else own.error_reject_rate,
        )

    def kafka(self, name: str) -> KafkaSource:
        """The source of that name, which is a topic.

        Raises:
            Fatal: It is none.
        """
        source = self.source(name)
        if not isinstance(source, KafkaSource):
            raise Fatal(f"{name} is not a Kafka topic")
        return source

    def compare(self, days: Collection[date] | None = None, *, within: float = _LOOKS_AGAIN) -> Parity:
        """Lake and warehouse as of one published version: of these days, or of all that have not expired.

        Args:
            days: Compare only these.
            within: Seconds in which a look that says nothing is repeated.
        """
        keep = self.settings.raw_ttl_days
        after = datetime.now(UTC).date() - timedelta(days=keep) if keep else date.min
        return compare(self.lake.good, self.warehouse, days, after=after, within=within)

    def arriving(self, version: int) -> frozenset[date]:
        """Days of the models whose rows are in the lake in versions after ``version``."""
        return arriving(self.lake.good, version, by_landing=self.settings.window_time == "processing")

    def parity(self, days: Collection[date] | None = None) -> Mapping[date, tuple[int, int]]:
        """Days on which lake and warehouse differ, with both counts; see ``compare``."""
        return self.compare(days).different

    def audit(self, days: Collection[date] | None = None, cursors: Collection[str] = ()) -> Audit:
        """Count the lake by origin: the rejected table, and these days of the good table or all."""
        return audit(self.lake, days, cursors)

    def skipped(self, missing: Ranges, erased: Mapping[str, int]) -> Skipped:
        """Ask the brokers for offsets that left no row: those that they still hold have been skipped."""
        by_source: dict[str, Ranges] = {
            spec.name: {} for spec in self.pipeline.sources if isinstance(spec, Kafka)
        }
        for cursor, ranges in missing.items():
            name = cursor.rpartition("/")[0].rpartition("/")[0]
            if name in by_source:
                by_source[name][cursor] = ranges
        found = Skipped()
        for name, asked in by_source.items():
            if asked:
                found += skipped(self.kafka(name), asked, erased)
        return found

    def close(self) -> None:
        """Release every connection."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        if "warehouse" in self.__dict__:
            self.warehouse.close()


def _rows_of(table: DeltaLakeTable, version: int) -> int:
    """Rows that a version added; one for a version that nobody can look at any more."""
    try:
        return table.describe(version).rows
    except HistoryGone:
        return 1


def _last_rows_at(table: DeltaLakeTable) -> datetime | None:
    """When the last of the newest versions was committed that added rows; None if none did."""
    newest = table.open().version
    looked_at = range(newest, max(-1, newest - _LOOK_BACK), -1)
    added = next((version for version in looked_at if _rows_of(table, version)), None)
    return None if added is None else _committed_at(table, added)


def _committed_at(table: DeltaLakeTable, version: int) -> datetime | None:
    """None for a version that nobody can look at any more."""
    try:
        return table.committed_at(version)
    except HistoryGone:
        return None


def producer(settings: Settings, spec: Kafka | Sqs) -> Producer:
    """A producer for a topic or queue of this installation."""
    if isinstance(spec, Kafka):
        return KafkaProducer(settings.kafka_servers, spec.topic, settings.kafka_security)
    secret = settings.aws_secret_access_key
    return SqsProducer(
        spec.queue,
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.sqs_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )


def streams(settings: Settings, only: str | None = None, *, patient: bool = True) -> dict[str, Stream]:
    """The streams of this installation, by name; ``patient`` as ``Stream`` takes it.

    Raises:
        Fatal: ``only`` names no stream.
    """
    discovered = discover(*settings.pipeline_folders, seconds=settings.pipeline_seconds)
    found = discovered.pipelines
    if only is not None and only not in found:
        broken = "".join(f"; {file} does not load: {why}" for file, why in discovered.broken.items())
        raise Fatal(f"there is no stream {only!r}; there are {', '.join(found)}{broken}")
    return {name: Stream(p, settings, patient=patient) for name, p in found.items() if only in (None, name)}
