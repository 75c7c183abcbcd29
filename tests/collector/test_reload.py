"""Pipeline files that change while the collector runs."""

from __future__ import annotations

import json
import logging
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from builders import event, eventually
from collector.server import PATIENCE, Server, collector
from headrace.collector.prepare import Target
from headrace.collector.reload import Streams
from headrace.collector.topics import QUEUE_BYTES
from headrace.config.settings import load_settings

PIPELINE = '''
from typing import ClassVar

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field
from headrace.pipelines import Kafka, Pipeline


class Orders(pa.DataFrameModel):
    """An order."""

    order_id: pl.String = field("number", length=(1, 64), required=True)
    placed_at: Time = field("when", required=True)
    country: pl.String = field("where to", required=True, isin=["DE", "FR"])

    class Config:
        strict = True


ORDERS = Contract(
    name="NAME", version=1, model=Orders, key="order_id", time="placed_at", partition="order_date",
    order_by=("country", "placed_at"),
)
pipeline = Pipeline(ORDERS, (Kafka("NAME"),), owner="team:shop", description="orders")
'''


def write(folder: Path, name: str = "orders", countries: str = '["DE", "FR"]') -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}_pipeline.py"
    file.write_text(PIPELINE.replace("NAME", name).replace('["DE", "FR"]', countries))
    return file


def order(number: int, country: str = "DE") -> dict[str, str]:
    return {"order_id": f"o-{number}", "placed_at": "2026-11-30T12:00:00Z", "country": country}


def streams_in(tmp_path: Path) -> Streams:
    return Streams(
        load_settings(with_stack=False, home=tmp_path / "home", pipelines=write(tmp_path / "own").parent)
    )


def load(streams: Streams) -> list[str]:
    """Load, and return the streams that the ways were told of."""
    told: list[str] = []
    streams.load(told.extend)
    return told


def test_what_is_new_changed_broken_and_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    streams = streams_in(tmp_path)
    folder = tmp_path / "own"
    live = streams.targets
    before = live["orders"]
    write(folder, "parcels")
    assert load(streams) == ["events", "metrics", "orders", "parcels"]
    assert "stream 'parcels' can be sent to" in caplog.text
    write(folder, countries='["DE", "FR", "IT"]')
    load(streams)
    assert live["orders"] is not before and "'orders' is judged by its contract" in caplog.text
    good = live["orders"]
    (folder / "orders_pipeline.py").write_text("pipeline = 1 / 0\n")
    write(folder, "parcels", countries='["IT"]')
    parcels = live["parcels"]
    assert "orders" in load(streams)
    assert live["orders"] is good and live["parcels"] is not parcels
    assert "orders_pipeline.py does not load: line 1: ZeroDivisionError" in caplog.text
    assert "orders is taken as before" in caplog.text
    said = len(caplog.records)
    write(folder, "more")
    load(streams)
    assert "does not load" not in " ".join(r.getMessage() for r in caplog.records[said:]), "once is enough"
    write(folder)
    load(streams)
    assert "orders_pipeline.py loads again" in caplog.text
    (folder / "parcels_pipeline.py").unlink()
    load(streams)
    assert "parcels" not in live and "parcels" in streams.judged
    assert "'parcels' is no more" in caplog.text


def test_a_stream_with_a_queue_takes_what_a_queue_takes(tmp_path: Path) -> None:
    streams = streams_in(tmp_path)
    assert streams.targets["orders"].longest is None
    file = tmp_path / "own" / "orders_pipeline.py"
    file.write_text(file.read_text().replace("Kafka", "Sqs"))
    load(streams)
    assert streams.targets["orders"].longest == QUEUE_BYTES


def test_a_stream_whose_contract_cannot_be_used_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(contract: Any, *rest: Any) -> Target:
        if contract.name == "orders":
            raise ValueError("no such check")
        return Target(contract, *rest)

    monkeypatch.setattr("headrace.collector.reload.Target", refusing)
    streams = streams_in(tmp_path)
    assert sorted(streams.targets) == ["events", "metrics"]
    assert "orders_pipeline.py does not load: ValueError: no such check" in caplog.text


def post(server: Server, number: int, country: str, stream: str) -> str:
    """Send an order; returns what became of it, or why it was refused."""
    body = {"streams": {stream: [order(number, country)]}}
    status, answer = server.post("/v1/batch", json.dumps(body).encode())
    said = msgspec.json.decode(answer)
    return str(said["events"][0]["status"] if status == 202 else said["message"])


@pytest.mark.long
def test_a_running_collector_takes_a_new_stream_and_an_edited_contract(tmp_path: Path) -> None:
    folder, number = tmp_path / "own", count()
    folder.mkdir()
    with collector(tmp_path / "home", HEADRACE_PIPELINES=str(folder)) as server:

        def sent(country: str = "DE", stream: str = "orders") -> str:
            return post(server, next(number), country, stream)

        def becomes(said: str, country: str = "DE", stream: str = "orders") -> None:
            eventually(lambda: said in sent(country, stream), PATIENCE, f"{said} for {stream} to {country}")

        assert "no stream 'orders'" in sent()
        write(folder)
        becomes("accepted")
        assert sent("IT") == "rejected"
        assert b"record.orders" in server.get("/openapi.json")
        write(folder, countries='["DE", "FR", "IT"]')
        becomes("accepted", "IT")
        assert sent("ES") == "rejected"
        (folder / "orders_pipeline.py").write_text("pipeline = oops\n")
        eventually(
            lambda: "does not load" in server.said.read_text(), PATIENCE, "the name of the broken file"
        )
        assert sent("IT") == "accepted", "the last good version goes on"
        assert server.post("/v1/analytics/track", event())[0] == 202, "others, too"
        write(folder, "parcels")
        becomes("accepted", stream="parcels")
        shutil.rmtree(folder)
        folder.mkdir()
        becomes("no stream 'orders'")
        assert server.stop() == 0, server.said.read_text()
    there = [one for one in server.records() if one["stream"] == "orders"]
    assert len(there) == len({one["order_id"] for one in there}) >= 5
