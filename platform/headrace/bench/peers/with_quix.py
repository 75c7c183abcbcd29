"""Ingest with Quix Streams: a JSON topic, a filter, and a batching sink that writes one Delta commit per checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from quixstreams import Application
from quixstreams.sinks.base import BatchingSink, SinkBatch

from headrace.bench.measure import Run, Stopwatch
from headrace.bench.peers.by_hand import write
from headrace.bench.peers.record import is_right, with_times

#: Messages of a checkpoint, over all partitions. The default, a commit every 5 s, is not slower.
_ROWS = 50_000


class _DeltaSink(BatchingSink):  # type: ignore[misc]
    """Write the rows of a checkpoint as one commit. The base class would make one per partition."""

    def __init__(self, table: Path) -> None:
        super().__init__()
        self.watch: Stopwatch | None = None
        self._table = table

    def add(self, *arguments: Any, **named: Any) -> None:
        # joining the group takes seconds, which are not part of the measurement
        self.watch = self.watch or Stopwatch()
        super().add(*arguments, **named)

    def flush(self) -> None:
        rows = [item.value for batch in self._batches.values() for item in batch]
        if rows:
            write(rows, self._table)
        self._batches.clear()

    def write(self, batch: SinkBatch) -> None:
        raise NotImplementedError  # flush writes all of them


def ingest(servers: str, topic: str, messages: int, folder: Path) -> Run:
    """Ingest; see ``Peer.module``. The clock starts with the first message."""
    application = Application(
        broker_address=servers,
        consumer_group=f"bench-{uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        commit_every=_ROWS,
        consumer_extra_config={"session.timeout.ms": 6_000},
        state_dir=folder / "state",
        auto_create_topics=False,
        loglevel="ERROR",
    )
    sink = _DeltaSink(folder / "events")
    frame = application.dataframe(application.topic(topic, value_deserializer="json"))
    frame.filter(is_right).apply(_row).sink(sink)
    application.run(count=messages, collect=False)
    assert sink.watch is not None
    return sink.watch.read(messages)


def _row(value: dict[str, Any]) -> dict[str, Any]:
    value["properties"] = json.dumps(value.get("properties"))
    return with_times(value)
