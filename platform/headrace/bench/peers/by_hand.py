"""Ingest with the loop of the tutorials: a consumer, ``json.loads``, a check of the dict, a table per so many rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake
from kafka import KafkaConsumer

from headrace.bench.measure import Run, Stopwatch
from headrace.bench.peers.record import SCHEMA, is_right, with_times

#: Tutorials write 1,000 or 10,000 rows at a time; more is faster.
_ROWS = 50_000


def ingest(servers: str, topic: str, messages: int, folder: Path) -> Run:
    """Ingest; see ``Peer.module``."""
    watch = Stopwatch()
    consumer: Any = KafkaConsumer(
        topic, bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False
    )
    rows: list[dict[str, Any]] = []
    try:
        for count, message in enumerate(consumer, 1):
            row = json.loads(message.value)
            if is_right(row):
                row["properties"] = json.dumps(row.get("properties"))
                rows.append(with_times(row))
            if len(rows) >= _ROWS or count == messages:
                write(rows, folder / "events")
                rows = []
            if count == messages:
                break
    finally:
        consumer.close()
    return watch.read(messages)


def write(rows: list[dict[str, Any]], table: Path) -> None:
    """Append rows as one commit."""
    write_deltalake(
        table, pa.Table.from_pylist(rows, schema=SCHEMA), mode="append", partition_by=["event_date"]
    )
