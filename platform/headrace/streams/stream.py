"""A pipeline in this installation, with the adapters that the settings name.

Commands and Dagster's assets are given one of these. What is done with it lies in the rooms: ``streams.drain`` lands,
``health`` judges, ``repair`` mends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import polars as pl

from headrace.config.settings import Settings
from headrace.contracts import Limits
from headrace.core.batch import Backlog, Position, Table
from headrace.core.errors import Fatal
from headrace.core.guard import SERVICES, Guard
from headrace.flow.commit import StreamLake
from headrace.flow.ingest import position_of
from headrace.flow.publish import Published, another_history, version_of
from headrace.flow.reads import Pace
from headrace.formats.registered import Framing
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.suppression import ERASURES, Erasures
from headrace.pipelines import Pipeline, Spec, discover_for
from headrace.sources import Source
from headrace.sources.guarded import GuardedSource
from headrace.sources.kafka.source import KafkaSource
from headrace.streams import adapters
from headrace.streams.publisher import Publisher
from headrace.warehouse import StaleDay
from headrace.warehouse.clickhouse import ClickHouse


class Stream:
    """A pipeline with its adapters, which connect on first use. For one thread; ``close`` when done."""

    def __init__(
        self, pipeline: Pipeline, settings: Settings, *, sqs: Any = None, retry: bool = True
    ) -> None:
        """Connect to nothing yet.

        Args:
            pipeline: The declaration.
            settings: Where everything is.
            sqs: A boto3 SQS client; None makes one from the settings.
            retry: Call a service again that is away; False for callers that only look.
        """
        self.pipeline = pipeline
        self.contract = pipeline.contract
        self.settings = settings
        self._sqs = sqs
        self._sources: dict[tuple[str, int | None], Source] = {}
        policy = settings.retry_policy if retry else settings.retry_policy.without_retries()
        self._guards = {name: Guard(name, policy) for name in SERVICES}

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self.pipeline.name

    @cached_property
    def lake(self) -> StreamLake[DeltaLakeTable]:
        """The two lake tables."""
        good, rejected = self.contract.table, self.contract.rejected_table
        return StreamLake(self._lake_table(good), self._lake_table(rejected), self.erasures)

    @cached_property
    def erasures(self) -> Erasures:
        """The people who were erased from the lake; all streams share the list."""
        days = self.settings.erased_keep_days
        return Erasures(self._lake_table(ERASURES), timedelta(days=days) if days else None)

    def _lake_table(self, table: Table) -> DeltaLakeTable:
        return adapters.lake_table(table, self.settings, self._guards["lake"])

    @cached_property
    def warehouse(self) -> ClickHouse:
        """The warehouse.

        Raises:
            NotSet: No setting says where it is.
        """
        return adapters.warehouse(self.settings, self._guards["warehouse"])

    def as_of(self, moment: datetime, *, rejected: bool = False) -> pl.LazyFrame:
        """Return the rows of the lake as they were known at a moment, however long ago, as a lazy frame.

        Args:
            moment: With its time zone.
            rejected: Of the rejected table instead.

        Raises:
            Fatal: The moment has no time zone.
            HistoryGone: The lake was restored since, and what it held at that moment is no longer kept.
        """
        if moment.tzinfo is None:
            raise Fatal(f"{moment} has no time zone; a moment of the lake needs one, e.g. tzinfo=UTC")
        return (self.lake.rejected if rejected else self.lake.good).as_of(moment)

    @property
    def limits(self) -> Limits:
        """What the check accepts beside the contract."""
        return adapters.limits_of(self.pipeline, self.settings)

    @property
    def pace(self) -> Pace:
        """How a run proceeds."""
        return adapters.pace_of(self.settings)

    def source(self, name: str, share: int | None = None) -> Source:
        """Return a source without retries.

        Args:
            name: As the pipeline declares it.
            share: Only this run's share of its partitions; None for all.

        Raises:
            Fatal: The pipeline does not declare it.
        """
        key = (name, share)
        if key not in self._sources:
            spec = self._spec(name)
            if spec.kind == "sqs" and self._sqs is None:
                self._sqs = adapters.queue_client(self.settings)
            self._sources[key] = adapters.source_of(
                spec, self.pipeline, self.settings, self._sqs, share, self.framing
            )
        return self._sources[key]

    @cached_property
    def framing(self) -> Framing | None:
        """What reads messages by schemas in a registry; None for a stream without such a topic.

        Raises:
            Fatal: The settings of the registry cannot work, or the extra is missing.
        """
        if not adapters.framed(self.pipeline):
            return None
        return adapters.framing(self.settings, self._guards["registry"])

    def guarded(self, name: str, share: int | None = None) -> Source:
        """Return a source with retries and circuit breaker; arguments and errors as of ``source``."""
        return GuardedSource(self.source(name, share), self._guards[self._spec(name).kind])

    def kafka(self, name: str) -> KafkaSource:
        """Return a source that is a topic.

        Raises:
            Fatal: It is none.
        """
        source = self.source(name)
        if not isinstance(source, KafkaSource):
            raise Fatal(f"{name} is not a Kafka topic")
        return source

    def _spec(self, name: str) -> Spec:
        specs = {spec.name: spec for spec in self.pipeline.sources}
        if name not in specs:
            raise Fatal(f"stream {self.name!r} has no source {name!r}; it has {', '.join(specs)}")
        return specs[name]

    def backlog(self, source: str) -> Backlog:
        """Count what waits in a source beyond what has landed."""
        return self.look(source)[0]

    def look(self, source: str) -> tuple[Backlog, Position]:
        """Count what waits in a source, and return the position beyond which it does."""
        found = self.guarded(source)
        position = position_of(found, self.lake)
        return found.backlog(position), position

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(self.lake, self.warehouse, self.settings)

    def publish(self) -> Published:
        """Bring both warehouse tables up to the lake; see ``Publisher.publish``."""
        return self._publisher.publish()

    def replace_days(self, days: Iterable[date]) -> Iterator[tuple[date, int]]:
        """Rebuild days of the warehouse table from the lake; see ``Publisher.replace_days``."""
        return self._publisher.replace_days(days)

    def prepare(self) -> None:
        """Create the warehouse tables that are missing."""
        for table in (self.contract.table, self.contract.rejected_table):
            self.warehouse.prepare(table)

    def published_version(self) -> int:
        """Return the last lake version that is wholly in the warehouse, -1 for none."""
        self.warehouse.prepare(self.contract.table)
        last = self.warehouse.published(self.contract.table, self.lake.good.id)
        return version_of(last)

    def restored(self) -> str:
        """Say that the lake is another one than was published from, until the next publish; empty if it is not."""
        for table in (self.lake.good, self.lake.rejected):
            self.warehouse.prepare(table.table)
            last = self.warehouse.published(table.table, table.id)
            if last is not None and (why := another_history(table, table.open().version, last)):
                return f"{why}; the next publish replaces what the warehouse holds of it"
        return ""

    def warehouse_counts(self) -> dict[date, int]:
        """Count the rows of the raw warehouse table by day."""
        return self.warehouse.counts_by_day(self.contract.table)

    def stale_days(self) -> list[StaleDay]:
        """List days whose models are older than their rows; none for a stream without models."""
        if self.pipeline.models is None:
            return []
        self.warehouse.prepare(self.contract.table)
        by_landing = self.settings.window_time == "processing"
        return self.warehouse.stale_days(self.contract.table, self.lake.good.id, by_landing=by_landing)

    def refreshed(self, version: int, days: Iterable[date], began_at: datetime) -> None:
        """Note that the models of ``days`` were built from ``version``, by a build that ``began_at`` (UTC)."""
        self.warehouse.refreshed(self.contract.table, self.lake.good.id, version, days, began_at)

    def ever_refreshed(self) -> bool:
        """Tell whether the models were built at least once."""
        self.warehouse.prepare(self.contract.table)
        return self.warehouse.ever_refreshed(self.contract.table, self.lake.good.id)

    def close(self) -> None:
        """Release every connection."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()
        if (framing := self.__dict__.get("framing")) is not None:
            framing.close()
        if "warehouse" in self.__dict__:
            self.warehouse.close()


def streams(settings: Settings, only: str | None = None, *, retry: bool = True) -> dict[str, Stream]:
    """Return the streams of this installation by name; ``retry`` as ``Stream`` takes it.

    Raises:
        Fatal: ``only`` names no stream.
    """
    discovered = discover_for(settings)
    found = discovered.pipelines
    if only is not None and only not in found:
        broken = "".join(f"; {file} does not load: {why}" for file, why in discovered.broken.items())
        raise Fatal(f"there is no stream {only!r}; there are {', '.join(found) or 'none yet'}{broken}")
    return {name: Stream(p, settings, retry=retry) for name, p in found.items() if only in (None, name)}
