"""Measure each driver by itself, without Headrace.

Each measurement is the least work that the step needs with that library. So the slowest one bounds the speed of the
whole on this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import clickhouse_connect
import polars as pl
import pyarrow as pa
from botocore.config import Config
from clickhouse_connect.driver.client import Client
from deltalake import write_deltalake
from kafka import KafkaConsumer, TopicPartition

from headrace.bench.measure import Run, Stopwatch
from headrace.clients.kafka import connect
from headrace.config.settings import Settings
from headrace.core.batch import Table
from headrace.core.errors import Fatal
from headrace.lake.delta.parquet import writer_properties
from headrace.sources.kafka.batch import RawBatch
from headrace.sources.kafka.fetch import Fetched, whole_batches

_FETCH_BYTES = 1 << 20
_POLL_MS = 5_000
_TEN = 10  # SQS' limit for one call


def fetch(settings: Settings, topic: str, messages: int) -> Run:
    """Measure kafka-python's network, CRC and decompression. Records stay undecoded and are discarded."""
    watch, count = Stopwatch(), 0
    for _, records in _polled(settings, topic, messages, undecoded=True):
        count += sum(record.value.decompressed().count for record in records)
    return watch.read(count)


def poll(settings: Settings, topic: str, messages: int) -> Run:
    """Measure ``KafkaConsumer.poll``, the usual way to use kafka-python. Records are discarded."""
    watch, count = Stopwatch(), 0
    for _, records in _polled(settings, topic, messages, undecoded=False):
        count += len(records)
    return watch.read(count)


def fetched(settings: Settings, topic: str, messages: int) -> dict[TopicPartition, list[RawBatch]]:
    """Fetch at least ``messages`` messages of a topic, decompressed and undecoded, by partition."""
    kept: dict[TopicPartition, list[RawBatch]] = {}
    for partition, records in _polled(settings, topic, messages, undecoded=True):
        kept.setdefault(partition, []).extend(record.value.decompressed() for record in records)
    return kept


def _polled(
    settings: Settings, topic: str, messages: int, *, undecoded: bool
) -> Iterator[tuple[TopicPartition, list[Any]]]:
    consumer: Any = connect(
        KafkaConsumer,
        settings.kafka_bootstrap_servers,
        settings.kafka_security,
        enable_auto_commit=False,
        max_partition_fetch_bytes=_FETCH_BYTES,
        metrics_enabled=False,
    )
    try:
        if undecoded and not whole_batches(consumer):
            raise Fatal("this kafka-python cannot hand over whole record batches")
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        count = 0
        while count < messages:
            found = consumer.poll(_POLL_MS, max_records=settings.batch_messages)
            if not found:
                raise Fatal(f"topic {topic!r} gave {count:,} of {messages:,} messages and then nothing")
            for partition, records in found.items():
                count += sum(map(_messages, records))
                yield partition, records
    finally:
        consumer.close()


def _messages(record: Any) -> int:
    return record.value.count if isinstance(record.value, Fetched) else 1


def parse(payloads: Sequence[pl.Series], schema: pl.Schema) -> Run:
    """Measure Polars' JSON parser on lines that are joined beforehand."""
    texts = [b"\n".join(part.to_list()) for part in payloads]
    watch, rows = Stopwatch(), 0
    for text in texts:
        rows += pl.read_ndjson(text, schema=schema).height
    return watch.read(rows)


def write(rows: Sequence[pa.Table], folder: Path, table: Table) -> Run:
    """Measure delta-rs with one commit per table, into files like the lake's."""
    days, properties = [table.partition], writer_properties(table)
    watch = Stopwatch()
    for one in rows:
        write_deltalake(folder, one, mode="append", partition_by=days, writer_properties=properties)
    return watch.read(sum(one.num_rows for one in rows))


def clickhouse(settings: Settings) -> Client:
    """Make a clickhouse-connect client with its usual options."""
    return clickhouse_connect.get_client(
        host=settings.clickhouse_host,
        port=settings.clickhouse_port,
        username=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        secure=settings.clickhouse_secure,
    )


def insert(settings: Settings, database: str, name: str, tables: Sequence[pa.Table]) -> Run:
    """Measure clickhouse-connect's Arrow insert into an existing table, one request per table."""
    client = clickhouse(settings)
    blocks = [table.combine_chunks() for table in tables]
    try:
        watch = Stopwatch()
        for block in blocks:
            client.insert_arrow(name, block, database=database)
        return watch.read(sum(block.num_rows for block in blocks))
    finally:
        client.close()


def receive_and_delete(settings: Settings, queue: str, messages: int) -> Run:
    """Measure boto3 with as many threads as Headrace has receivers: receive and delete ten at a time until empty."""
    secret = settings.aws_secret_access_key
    client = boto3.client(
        "sqs",
        region_name=settings.sqs_region,
        endpoint_url=settings.sqs_endpoint_url,
        aws_access_key_id=settings.aws_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(max_pool_connections=settings.sqs_receivers),
    )
    left, counting = messages, threading.Lock()

    def receive(url: str) -> None:
        nonlocal left
        empty = 0
        while left > 0 and empty < 2:  # a queue may answer empty while other receivers hold the rest
            found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=_TEN, WaitTimeSeconds=1).get(
                "Messages"
            )
            if not found:
                empty += 1
                continue
            entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(found)]
            client.delete_message_batch(QueueUrl=url, Entries=entries)
            with counting:
                left -= len(found)

    watch = Stopwatch()
    url = client.get_queue_url(QueueName=queue)["QueueUrl"]
    with ThreadPoolExecutor(settings.sqs_receivers) as pool:
        list(pool.map(receive, [url] * settings.sqs_receivers))
    return watch.read(messages - left)
