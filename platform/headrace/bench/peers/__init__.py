"""Measure other ways from Kafka to Delta beside Headrace, as their documentation advises and as fast as they go.

None of them keeps offsets and rows in one commit, and none keeps rejected records. So they do less than Headrace.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from deltalake import DeltaTable

from headrace.bench.load import Seeded
from headrace.bench.measure import Run
from headrace.config.settings import Settings
from headrace.core.errors import Fatal
from headrace.pipelines import Kafka


@dataclass(frozen=True, slots=True)
class Peer:
    """Another way.

    Attributes:
        said: Description for people.
        module: Module in this folder. Its ``ingest(servers, topic, messages, folder)`` reads that many messages of the
            topic into Delta tables below the folder, and returns the measured run.
        needs: Package that must be installed.
        share: Share of the events that it gets. A slow one would take the whole day for all of them.
    """

    said: str
    module: str
    needs: str
    share: float = 1.0


PEERS = {
    "loop": Peer("a plain loop: kafka-python, json, pyarrow, delta-rs", "by_hand", "kafka", 0.2),
    "quix": Peer("Quix Streams: JSON topic, filter, batching sink to Delta", "with_quix", "quixstreams", 0.2),
    "dlt": Peer("dlt: generator of rows, Pydantic contract, Delta", "with_dlt", "dlt", 0.2),
    "dlt_arrow": Peer("dlt: generator of Arrow tables, types alone, Delta", "with_dlt_arrow", "dlt"),
}
#: The client below most peers, measured beside them.
RDKAFKA = Peer("confluent-kafka alone", "rdkafka", "confluent_kafka")

Ingest = Callable[[str, str, int, Path], Run]


def require() -> None:
    """Check that all peers are installed.

    Raises:
        Fatal: The dependency group is not installed.
    """
    missing = sorted({peer.needs for peer in (*PEERS.values(), RDKAFKA) if find_spec(peer.needs) is None})
    if missing:
        raise Fatal(
            f"peers are not installed: {', '.join(missing)}; 'make bench' installs them in an environment of their own"
        )


def require_collector() -> None:
    """Check that the collector of the usual kind is installed.

    Raises:
        Fatal: The dependency group is not installed.
    """
    missing = [name for name in ("aiokafka", "fastapi") if find_spec(name) is None]
    if missing:
        raise Fatal(
            f"peers are not installed: {', '.join(missing)}; 'make bench' installs them in an environment of their own"
        )


def measure_peer(settings: Settings, seeded: Seeded, name: str) -> dict[str, Run]:
    """Measure one peer on its share of the topic, and count the rows of its table afterwards."""
    assert isinstance(seeded.place, Kafka)
    peer = RDKAFKA if name == "rdkafka" else PEERS[name]
    messages = max(1, int(seeded.acknowledged * peer.share))
    folder = settings.home / "peers" / uuid4().hex[:8]
    folder.mkdir(parents=True)
    ingest: Ingest = importlib.import_module(f"{__name__}.{peer.module}").ingest
    try:
        run = ingest(settings.kafka_bootstrap_servers, seeded.place.topic, messages, folder)
        tables = [log.parent for log in folder.rglob("_delta_log") if not log.parent.name.startswith("_dlt")]
        rows = sum(DeltaTable(table).to_pyarrow_dataset().count_rows() for table in tables)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if peer is not RDKAFKA and rows != messages:
        run = replace(run, wrong=(f"rows in Delta: {rows:,} instead of {messages:,}",))
    return {name: run}
