"""Ingest with dlt as its Kafka source does: librdkafka, a generator of lists of rows, a Pydantic contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt

from headrace.bench.measure import Run, Stopwatch
from headrace.bench.peers.rdkafka import consumed
from headrace.bench.peers.record import Event
from headrace.config.settings import exported

_SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "50000",  # the default is 5,000
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
}


def ingest(servers: str, topic: str, messages: int, folder: Path) -> Run:
    """Ingest; see ``Peer.module``."""

    def rows() -> Iterator[list[dict[str, Any]]]:
        for chunk in consumed(servers, topic, messages):
            found = [json.loads(message.value()) for message in chunk]
            for row in found:
                row["properties"] = json.dumps(row.get("properties"))
            yield found

    contract = {"columns": "discard_row", "data_type": "discard_row"}
    return load(dlt.resource(rows, name="events", columns=Event, schema_contract=contract), messages, folder)


def load(resource: Any, messages: int, folder: Path) -> Run:
    """Extract, normalise and load into a Delta table."""
    with exported({**_SETTINGS, "DLT_DATA_DIR": str(folder / ".dlt")}):
        watch = Stopwatch()
        pipeline = dlt.pipeline(
            "bench",
            pipelines_dir=str(folder / ".pipelines"),
            destination=dlt.destinations.filesystem(bucket_url=str(folder / "lake")),
            dataset_name="bench",
        )
        pipeline.run(resource, table_format="delta", write_disposition="append").raise_on_failed_jobs()
        return watch.read(messages)
