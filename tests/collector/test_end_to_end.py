"""From a POST to lake and warehouse, through kill -9 and repeats: what was acknowledged is there, once."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import EVENT
from collector.server import Server, collector
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.lake.delta import DeltaLakeTable
from headrace.streams.drain import drain
from headrace.streams.stream import Stream, streams

SOURCE = "kafka/analytics_events"


def of_stack(stack: Stack, home: Path, database: str = "raw_http") -> dict[str, str]:
    """The stack's services, for an installation of its own."""
    return {**stack.environment, "HEADRACE_HOME": str(home), "HEADRACE_RAW_DATABASE": database}


def opened(settings: Mapping[str, str]) -> Stream:
    values: dict[str, Any] = {n.removeprefix("HEADRACE_").lower(): value for n, value in settings.items()}
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


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_what_is_acknowledged_lands_once(stack: Stack, tmp_path: Path, workers: int) -> None:
    home, name = tmp_path / "home", f"http{workers}-"  # the topic is shared
    settings = of_stack(stack, home, f"raw_http_{workers}")
    own: dict[str, Any] = {n: value for n, value in settings.items() if n != "HEADRACE_HOME"}
    batches = [
        [
            {**EVENT, "event_id": f"{name}{at + n}", "channel": "fax" if n % 10 == 9 else "web"}
            for n in range(10)
        ]
        for at in range(0, 200, 10)
    ]
    with collector(home, workers=workers, **own) as server:
        receipts = [post(server, batch)["receipt"] for batch in batches[:10]]
        assert {post(server, batch)["repeated"] for batch in batches[:5]} == {10}
        told(server, receipts[-1], "topic")
        stream = opened(settings)
        try:
            ingest(stream)
            said = told(server, receipts[0], "lake")
            assert said["entries"][0]["lake_version"] is not None
            told(server, receipts[-1], "warehouse")
            receipts += [post(server, batch)["receipt"] for batch in batches[10:]]
            server.stop(signal.SIGKILL)
            with collector(home, workers=workers, **own) as after:
                assert {post(after, batch)["repeated"] for batch in batches} == {10}
                told(after, receipts[-1], "topic")
                ingest(stream)
                for receipt in receipts:
                    told(after, receipt, "lake")
                assert after.stop() == 0, after.said.read_text()
            landed = Counter(one for one in rows(stream.lake.good, "event_id") if one.startswith(name))
            ids = map(_id, rows(stream.lake.rejected, "payload"))
            rejected = Counter(one for one in ids if one.startswith(name))
            assert landed == {f"{name}{n}": 1 for n in range(200) if n % 10 != 9}
            assert rejected == {f"{name}{n}": 1 for n in range(200) if n % 10 == 9}
            assert sum(stream.warehouse_counts().values()) >= 180
        finally:
            stream.close()
