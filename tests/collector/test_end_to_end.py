"""From a POST to lake and warehouse, through kill -9 and repeats: what was acknowledged is there, once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from builders import EVENT
from collector.server import Server, collector
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.lake.delta import DeltaLakeTable
from headrace.streams.drain import drain
from headrace.streams.stream import Stream, streams

SOURCE = "kafka/analytics_events"


def of_stack(stack: Stack, home: Path) -> dict[str, str]:
    """The stack's services, for an installation of its own."""
    return {**stack.environment, "HEADRACE_HOME": str(home), "HEADRACE_RAW_DATABASE": "raw_http"}


def opened(stack: Stack, home: Path) -> Stream:
    values: dict[str, Any] = {
        name.removeprefix("HEADRACE_").lower(): value for name, value in of_stack(stack, home).items()
    }
    return streams(load_settings(**values), "events")["events"]


def ingest(stream: Stream) -> None:
    for _ in drain(stream, SOURCE, replace(stream.pace, idle_seconds=0.5)):
        pass
    stream.publish()


def post(server: Server, events: list[dict[str, Any]]) -> dict[str, Any]:
    status, answer = server.post("/v1/analytics", json.dumps(events).encode())
    assert status == 202, answer
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def told(server: Server, receipt: str, wait: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(
        server.get(f"/v1/receipts/{receipt}?wait={wait}&seconds=60&write_key={server.key}")
    )
    assert found[wait] is True, (found, server.said.read_text()[-2_000:])
    return found


def rows(table: DeltaLakeTable, column: str) -> list[Any]:
    return table.open().rows([column])[column].to_list()


def _id(payload: bytes) -> str:
    """The id of a rejected record; empty for what is not this test's: the topic is shared."""
    try:
        return str(msgspec.json.decode(payload, type=dict[str, Any]).get("event_id"))
    except msgspec.DecodeError:
        return ""


def test_what_is_acknowledged_lands_once(stack: Stack, tmp_path: Path) -> None:
    home = tmp_path / "home"
    own: dict[str, Any] = {
        name: value for name, value in of_stack(stack, home).items() if name != "HEADRACE_HOME"
    }
    batches = [
        [
            {**EVENT, "event_id": f"http-{at + n}", "channel": "fax" if n % 10 == 9 else "web"}
            for n in range(10)
        ]
        for at in range(0, 200, 10)
    ]
    with collector(home, **own) as server:
        receipts = [post(server, batch)["receipt"] for batch in batches[:10]]
        assert {post(server, batch)["repeated"] for batch in batches[:5]} == {10}
        told(server, receipts[-1], "topic")
        stream = opened(stack, home)
        try:
            ingest(stream)
            said = told(server, receipts[0], "lake")
            assert said["entries"][0]["lake_version"] is not None
            told(server, receipts[-1], "warehouse")
            receipts += [post(server, batch)["receipt"] for batch in batches[10:]]
            server.stop(signal.SIGKILL)
            with collector(home, **own) as after:
                assert {post(after, batch)["repeated"] for batch in batches} == {10}
                told(after, receipts[-1], "topic")
                ingest(stream)
                for receipt in receipts:
                    told(after, receipt, "lake")
                assert after.stop() == 0, after.said.read_text()
            landed = Counter(rows(stream.lake.good, "event_id"))
            names = Counter(_id(payload) for payload in rows(stream.lake.rejected, "payload"))
            good = {f"http-{n}": 1 for n in range(200) if n % 10 != 9}
            wrong = {f"http-{n}": 1 for n in range(200) if n % 10 == 9}
            assert {name: n for name, n in landed.items() if name.startswith("http-")} == good
            assert {name: n for name, n in names.items() if name.startswith("http-")} == wrong
            assert sum(stream.warehouse_counts().values()) >= 180
        finally:
            stream.close()
