"""From a POST through a queue to lake and warehouse, through kill -9 and repeats, for a stream without a topic."""

from __future__ import annotations

import json
import signal
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import eventually
from collector.server import PATIENCE, Server, collector
from collector.test_end_to_end import of_stack, rows, told
from collector.test_reload import order, write
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.local.queue import create_queues
from headrace.streams.drain import drain
from headrace.streams.stream import Stream, streams


def post(server: Server, name: str, numbers: range) -> dict[str, Any]:
    """Send orders; every fifth goes to a country that the contract rejects."""
    items = [order(n, "XX" if n % 5 == 4 else "DE") for n in numbers]
    body = json.dumps({"streams": {name: items}}).encode()
    status, answer = server.post("/v1/batch", body)
    assert status == 202, answer
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def opened(stack: Stack, home: Path, folder: Path, name: str) -> Stream:
    values: dict[str, Any] = {
        n.removeprefix("HEADRACE_").lower(): value for n, value in of_stack(stack, home).items()
    }
    return streams(load_settings(**values, pipelines=folder), name)[name]


@pytest.mark.long
def test_what_is_acknowledged_lands_once(stack: Stack, tmp_path: Path) -> None:
    home, folder, name = tmp_path / "home", tmp_path / "own", f"o{uuid.uuid4().hex[:8]}"
    file = write(folder, name)
    file.write_text(file.read_text().replace("Kafka", "Sqs"))
    create_queues(str(stack.settings.sqs_endpoint_url), [name])
    own: dict[str, Any] = {n: v for n, v in of_stack(stack, home).items() if n != "HEADRACE_HOME"}
    own["HEADRACE_PIPELINES"] = str(folder)
    parts = [range(at, at + 10) for at in range(0, 200, 10)]
    stream = opened(stack, home, folder, name)

    def ingest() -> None:
        for _ in drain(stream, f"sqs/{name}", replace(stream.pace, idle_seconds=0.5)):
            pass
        stream.publish()

    def lands(server: Server, receipt: str) -> None:
        def there() -> bool:
            ingest()
            said = server.get(f"/v1/receipts/{receipt}?write_key={server.key}")
            return bool(msgspec.json.decode(said)["warehouse"])

        eventually(there, PATIENCE, f"landing, while the collector says {server.said.read_text()[-500:]!r}")

    try:
        with collector(home, **own) as server:
            receipts = [post(server, name, part)["receipt"] for part in parts[:10]]
            assert {post(server, name, part)["repeated"] for part in parts[:5]} == {10}
            told(server, receipts[0], "topic")
            lands(server, receipts[-1])
            receipts += [post(server, name, part)["receipt"] for part in parts[10:]]
            server.stop(signal.SIGKILL)
        with collector(home, **own) as server:
            assert {post(server, name, part)["repeated"] for part in parts} == {10}
            for receipt in receipts:
                lands(server, receipt)
            assert b"headrace_collector_problems 0" in server.get("/metrics")
            assert server.stop() == 0, server.said.read_text()
        good = Counter(rows(stream.lake.good, "order_id"))
        bad = Counter(msgspec.json.decode(p)["order_id"] for p in rows(stream.lake.rejected, "payload"))
        assert good == {f"o-{n}": 1 for n in range(200) if n % 5 != 4}
        assert bad == {f"o-{n}": 1 for n in range(200) if n % 5 == 4}
        assert sum(stream.warehouse_counts().values()) >= 160
    finally:
        stream.close()
