"""Ingest with dlt and Arrow tables, as its documentation advises for speed.

Rows are neither validated nor normalised one by one. The contract is the parser's types alone, and a malformed message
ends the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import dlt
import pyarrow as pa
import pyarrow.json as pj

from headrace.bench.measure import Run
from headrace.bench.peers.rdkafka import consumed
from headrace.bench.peers.record import SCHEMA
from headrace.bench.peers.with_dlt import load

#: A parser's block must hold a whole line.
_BLOCK_BYTES = 1 << 24
_PARSED = pa.schema(
    [field for field in SCHEMA if field.name not in ("event_date", "properties")]
    + [pa.field("properties", pa.struct([("referrer", pa.string()), ("position", pa.int64())]))]
)


def ingest(servers: str, topic: str, messages: int, folder: Path) -> Run:
    """Ingest; see ``Peer.module``."""

    def tables() -> Iterator[pa.Table]:
        for chunk in consumed(servers, topic, messages):
            lines = BytesIO(b"\n".join([message.value() for message in chunk]))
            yield pj.read_json(
                lines,
                read_options=pj.ReadOptions(block_size=_BLOCK_BYTES),
                parse_options=pj.ParseOptions(explicit_schema=_PARSED),
            )

    return load(dlt.resource(tables, name="events"), messages, folder)
