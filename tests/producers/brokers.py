"""Reading back what a producer has sent, with the drivers' plain clients."""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from headrace.local.queue import sqs_client
from headrace.producers.sqs import SqsProducer

WITHIN = 20.0


def read_topic(bootstrap: str, topic: str, count: int) -> list[Any]:
    """The first ``count`` records of a topic and any that come with them, by partition and offset."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=100_000_000,
    )
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in range(4)])
        records: list[Any] = []
        deadline = time.monotonic() + WITHIN
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records arrived"
            for found in consumer.poll(timeout_ms=200).values():
                records += found
        for found in consumer.poll(timeout_ms=200).values():
            records += found
        return sorted(records, key=lambda r: (r.partition, r.offset))
    finally:
        consumer.close()


def read_queue(url: str, queue: str, count: int) -> list[str]:
    """Receive and delete ``count`` messages of a queue, and whatever is left after them."""
    client = sqs_client(url)
    try:
        address = client.get_queue_url(QueueName=queue)["QueueUrl"]
        bodies: list[str] = []
        deadline = time.monotonic() + WITHIN
        while True:
            answer = client.receive_message(QueueUrl=address, MaxNumberOfMessages=10)
            messages = answer.get("Messages", [])
            if not messages and len(bodies) >= count:
                return bodies
            assert time.monotonic() < deadline, f"{len(bodies)} of {count} messages arrived"
            bodies += [m["Body"] for m in messages]
            if messages:
                entries = [
                    {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)
                ]
                client.delete_message_batch(QueueUrl=address, Entries=entries)
    finally:
        client.close()


def sqs_producer(url: str, queue: str, **options: Any) -> SqsProducer:
    """A producer for the embedded queue."""
    return SqsProducer(
        queue, endpoint_url=url, access_key_id="headrace", secret_access_key="headrace", **options
    )
