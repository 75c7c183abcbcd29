"""Choose the adapters that the settings name: nowhere else does a pipeline meet a driver."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from headrace.clients.registry import Access, SchemaRegistry, verified
from headrace.clients.sqs import sqs_client
from headrace.config.settings import Settings
from headrace.contracts import Limits
from headrace.core.batch import Table
from headrace.core.errors import NotSet
from headrace.core.extras import require
from headrace.core.guard import Guard
from headrace.flow.reads import Pace
from headrace.formats import FileReader
from headrace.formats.registered import Framing
from headrace.lake.delta import DeltaLakeTable
from headrace.pipelines import Files, Kafka, Pipeline, Spec, Sqs, discover_for
from headrace.producers import Producer
from headrace.producers.http import HttpProducer
from headrace.producers.kafka import KafkaProducer
from headrace.producers.sqs import SqsProducer
from headrace.sources import Source
from headrace.sources.files.archive import Archive
from headrace.sources.files.source import FilesSource
from headrace.sources.kafka.source import KafkaSource
from headrace.sources.sqs import SqsSource
from headrace.warehouse.clickhouse import ClickHouse
from headrace.warehouse.migrations.files import ProjectMigrations


def lake_table(table: Table, settings: Settings, guard: Guard) -> DeltaLakeTable:
    """Open a table of the lake that the settings name."""
    return DeltaLakeTable(
        settings.lake,
        table,
        settings.lake_storage_options,
        guard,
        sync=settings.lake_sync,
        version_days=settings.lake_version_days,
    )


def source_of(
    spec: Spec,
    pipeline: Pipeline,
    settings: Settings,
    sqs: Any,
    share: int | None = None,
    framing: Framing | None = None,
) -> Source:
    """Make the adapter of a declared source.

    Args:
        spec: The declaration.
        pipeline: Whose it is.
        settings: Where everything is.
        sqs: A boto3 SQS client, for queues.
        share: Only this run's share of a topic's partitions; None for all.
        framing: Reads the messages of topics whose format is not JSON.
    """
    if isinstance(spec, Files):
        return FilesSource(
            spec.folder,
            Archive(settings.archive_uri, settings.archive_storage_options or settings.lake_storage_options),
            FileReader(pipeline.contract, spec.format),
            settings.home / "archive_index" / f"{pipeline.name}-{quote(spec.folder, safe='')}.json",
            quiet_seconds=settings.archive_quiet_seconds,
        )
    if isinstance(spec, Kafka):
        return KafkaSource(
            spec.topic,
            settings.kafka_servers,
            group=f"{settings.kafka_group}-{pipeline.name}",
            security=settings.kafka_security,
            share=(0, 1) if share is None else (share, spec.runs),
            unwrap=framing if spec.format == "confluent" else None,
        )
    return SqsSource(spec.queue, sqs, receivers=settings.sqs_receivers)


def framed(pipeline: Pipeline) -> bool:
    """Tell whether a pipeline has topics whose messages name a schema in a registry."""
    return any(isinstance(spec, Kafka) and spec.format == "confluent" for spec in pipeline.sources)


def framing(settings: Settings, guard: Guard) -> Framing:
    """Make what reads messages by the schemas of the registry that the settings name.

    Raises:
        Fatal: The settings do not fit each other, or the extra is missing.
        NotSet: They name no registry.
    """
    access = Access(
        settings.schema_registry,
        settings.schema_registry_user,
        settings.schema_registry_password.get_secret_value(),
        settings.schema_registry_token.get_secret_value(),
        settings.schema_registry_ca_file,
    )
    require("registry", "a topic of format 'confluent'")
    registry = SchemaRegistry(verified(access), guard)
    return Framing(registry.schema, registry.close)


def warehouse(
    settings: Settings, retry: Callable[[Callable[[], Any]], Any] = lambda call: call()
) -> ClickHouse:
    """Make the warehouse that the settings name, with the migrations of the user's project.

    Args:
        settings: Where everything is.
        retry: Makes every call; see ``ClickHouse``.

    Raises:
        NotSet: They name no ClickHouse server.
    """

    def tables() -> list[Table]:
        return [table for one in discover_for(settings).pipelines.values() for table in one.tables]

    project = settings.project
    own = ProjectMigrations(project.migrations, tables) if project else None
    return ClickHouse(settings.with_warehouse(), retry, own)


def queue_client(settings: Settings) -> Any:
    """Make a boto3 SQS client with a connection for every receiver."""
    secret = settings.aws_secret_access_key
    return sqs_client(
        region=settings.sqs_region,
        endpoint_url=settings.sqs_endpoint_url,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
        connections=settings.sqs_receivers + 2,  # one for visibility, one for looking
    )


def producer(settings: Settings, spec: Kafka | Sqs) -> Producer:
    """Make a producer for a topic or queue of this installation."""
    if isinstance(spec, Kafka):
        return KafkaProducer(settings.kafka_servers, spec.topic, settings.kafka_security)
    return queue_producer(settings, spec)


def queue_producer(settings: Settings, spec: Sqs) -> SqsProducer:
    """Make a producer for a queue of this installation."""
    secret = settings.aws_secret_access_key
    return SqsProducer(
        spec.queue,
        endpoint_url=settings.sqs_endpoint_url,
        region=settings.sqs_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=secret.get_secret_value() if secret else None,
    )


def http_producer(settings: Settings, stream: str, patience: float = 60.0) -> HttpProducer:
    """Make a producer for a collector; ``patience`` as ``HttpProducer`` takes it.

    Raises:
        NotSet: There is no write key.
    """
    key = settings.collector_key.get_secret_value()
    own = settings.collector_folder / "default.key"
    if not key and own.exists():
        key = own.read_text().strip()
    if not key:
        raise NotSet("no HEADRACE_COLLECTOR_KEY is set: make a key with 'headrace keys create', and set it")
    host, port = settings.collector_host, settings.collector_port
    near = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return HttpProducer(settings.collector_url or f"http://{near}:{port}", stream, key, patience)


def limits_of(pipeline: Pipeline, settings: Settings) -> Limits:
    """Say what the contract's check accepts, beside the contract itself."""
    earliest, start = settings.event_time_min, pipeline.start
    if start is not None:
        earliest = max(earliest, datetime(start.year, start.month, start.day, tzinfo=UTC))
    return Limits(
        settings.max_message_bytes, earliest, settings.event_time_ahead, settings.max_message_records
    )


def pace_of(settings: Settings) -> Pace:
    """Say how a run proceeds."""
    return Pace(
        settings.batch_messages,
        settings.ingest_idle_seconds,
        settings.ingest_max_seconds,
        settings.batch_seconds,
        settings.commit_batches,
    )
