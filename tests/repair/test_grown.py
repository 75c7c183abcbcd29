"""Tables that have grown: counted right by whoever asks, and whoever is erased is in none of their versions."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandera.polars as pa
import polars as pl
import pytest

from builders import eventually
from conftest import Stack
from growing import dated, today
from headrace.contracts import Contract, Time, Was, field
from headrace.core.batch import MicroBatch
from headrace.flow.commit import land
from headrace.health.parity import parity
from headrace.lake.delta import history as lake_history
from headrace.lake.delta.history import kept
from headrace.lake.delta.storage import DeltaStorage
from headrace.pipelines import Files, Pipeline
from headrace.repair.erase import erase
from headrace.streams.stream import Stream
from headrace.warehouse.lock import MigrationLock
from headrace.warehouse.server import Server

DAY = datetime(2026, 1, 2).date()


class OldVisits(pa.DataFrameModel):
    """A visit, as it was."""

    visit_id: pl.String = field("key", required=True)
    at: Time = field("when", required=True)
    user_id: pl.Int32 = field("who")
    pages: pl.Int32 = field("how many")


class NewVisits(pa.DataFrameModel):
    """A visit."""

    visit_id: pl.String = field("key", required=True)
    at: Time = field("when", required=True)
    customer: pl.Int64 = field("who", was={1: Was(name="user_id", dtype=pl.Int32)})
    pages: pl.Int64 = field("how many", was={1: Was(dtype=pl.Int32)})
    channel: pl.String = field("how they came", required=True, since=2, default="web")


def contract(model: type[pa.DataFrameModel], version: int) -> Contract:
    return Contract(
        name="visits", version=version, model=model, key="visit_id", time="at", partition="visit_date",
        order_by=("at",),
    )  # fmt: skip


Streams = dict[str, Stream]


@pytest.fixture
def both(stack: Stack, tmp_path: Path) -> Iterator[Streams]:
    """One stream as two processes have it: one with the old contract and one with the new."""
    config = stack.settings.model_copy(
        update={
            "lake_uri": str(tmp_path / "lake"),
            "raw_database": f"raw_{uuid.uuid4().hex[:8]}",
            "dbt_schema": f"marts_{uuid.uuid4().hex[:8]}",
        }
    )
    versions = {"old": contract(OldVisits, 1), "new": contract(NewVisits, 2)}
    opened = {
        name: Stream(Pipeline(one, sources=(Files("visits"),), owner="team:a", description="visits"), config)
        for name, one in versions.items()
    }
    yield opened
    for one in opened.values():
        one.close()


@pytest.fixture
def history(both: Streams, batch_of: Callable[..., MicroBatch]) -> Streams:
    """Rows of person 7 and of others: by the old contract two days ago, by the new one, by the old again."""
    old, new = both["old"], both["new"]
    offset = 0

    def landed(stream: Stream, days_ago: int, *records: dict[str, Any]) -> None:
        nonlocal offset
        tables = (stream.lake.rejected, stream.lake.good)
        before = [one.open().version + 1 if one.exists() else 0 for one in tables]
        made = [
            msgspec.json.encode({"visit_id": f"v-{offset + n}", "at": f"{DAY}T10:00:00Z", **one})
            for n, one in enumerate(records)
        ]
        land(batch_of(made, start=offset), stream.contract, stream.lake, stream.limits)
        offset += len(records)
        for table, first in zip(tables, before, strict=True):
            for version in range(first, table.open().version + 1):
                dated(table, version, today() - timedelta(days=days_ago))

    landed(old, 2, {"user_id": 7, "pages": 1}, {"user_id": 8, "pages": 2}, {"user_id": 7, "pages": "?"})
    old.publish()
    landed(new, 1, {"customer": 7, "pages": 2**40}, {"customer": 2**40, "pages": 3}, {"user_id": 9})
    new.publish()
    landed(old, 0, {"user_id": 7, "pages": 4}, {"user_id": 8, "pages": 5})
    return both


def raw(stream: Stream) -> list[tuple[Any, ...]]:
    return stream.warehouse.query(
        f"SELECT customer, pages, channel FROM {stream.settings.raw_database}.visits ORDER BY _offset"
    )


@pytest.mark.parametrize("who", ["old", "new"])
def test_lake_and_warehouse_agree_whoever_publishes_and_asks(history: Streams, who: str) -> None:
    assert history[who].publish().rows == 2
    expected = [
        (7, 1, "web"), (8, 2, "web"), (7, 2**40, "web"), (2**40, 3, "web"), (9, None, "web"), (7, 4, "web"),
        (8, 5, "web"),
    ]  # fmt: skip
    assert raw(history[who]) == expected
    for one in history.values():
        found = parity(one)
        assert (found.different, found.inconclusive) == ({}, "")
        assert dict(one.replace_days([DAY])) == {DAY: 7}
        assert raw(one) == expected
    new = history["new"]
    Server(new.settings).command(
        f"ALTER TABLE {new.settings.raw_database}.visits DELETE WHERE customer = 9 SETTINGS mutations_sync = 2"
    )
    assert parity(history[who]).different == {DAY: (7, 6)}, "or nothing is compared"


@pytest.mark.parametrize("who", ["old", "new"])
def test_a_person_is_in_no_version_whatever_their_column_was_called(history: Streams, who: str) -> None:
    asking, new = history[who], history["new"]
    table = new.lake.good
    versions = sorted(kept(table).daily)
    assert len(versions) == 2, "one of each contract, or this tests nothing"
    server, schema = Server(new.settings), new.settings.dbt_schema
    server.command(f"CREATE DATABASE {schema}")
    for name in ("user_id", "customer"):
        server.command(f"CREATE TABLE {schema}.by_{name} ({name} Int64) ENGINE = MergeTree ORDER BY ()")
        server.command(f"INSERT INTO {schema}.by_{name} VALUES (7), (8)")
    receipt = erase([asking], "7")
    assert receipt.finished
    [done] = receipt.streams
    assert (done.rows, done.rejected_rows) == (3, 1)
    assert receipt.models == {f"{schema}.by_user_id": 1, f"{schema}.by_customer": 1}
    assert sorted(new.lake.good.scan().collect()["customer"]) == [8, 8, 9, 2**40]
    assert {v: sorted(table.at(v).collect()["customer"]) for v in versions} == {
        versions[0]: [8], versions[1]: [8, 9, 2**40]
    }  # fmt: skip
    new.publish()
    assert [row[0] for row in raw(new)] == [8, 2**40, 9, 8]
    for one in history.values():
        assert dict(one.replace_days([DAY])) == {DAY: 4}
        assert (parity(one).different, parity(one).inconclusive) == ({}, "")
    assert [row[0] for row in raw(new)] == [8, 2**40, 9, 8]


def test_two_erasures_at_once_leave_every_kept_version_readable_and_neither_person_in_it(
    history: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, put, waits = history["new"].lake.good, lake_history.put_log_file, threading.Event()
    versions, tried = sorted(kept(table).daily), MigrationLock._tried
    other = threading.Thread(target=lambda: erase([history["old"]], "8"))

    def noted(lock: MigrationLock) -> bool:
        got = tried(lock)
        if not got:
            waits.set()
        return got

    def another_first(storage: DeltaStorage, name: str, content: bytes) -> None:
        """Have another erasure begin while the first one has read what it is about to replace."""
        if other.ident is None:
            other.start()
            assert eventually(lambda: waits.is_set() or not other.is_alive(), 120, "the other one")
        put(storage, name, content)

    monkeypatch.setattr(MigrationLock, "_tried", noted)
    monkeypatch.setattr(lake_history, "put_log_file", another_first)
    assert erase([history["new"]], "7").finished
    other.join(120)
    assert waits.is_set(), "or this tests nothing"
    left = {v: sorted(table.at(v).collect()["customer"]) for v in versions}
    assert left == {versions[0]: [], versions[1]: [9, 2**40]}
    assert sorted(table.scan().collect()["customer"]) == [9, 2**40]
    assert table.scan_kept().filter(pl.col("customer").is_in([7, 8])).collect().is_empty()


@pytest.mark.parametrize("who", ["old", "new"])
def test_who_was_erased_lands_no_more_by_either_name(
    history: Streams, batch_of: Callable[..., MicroBatch], who: str
) -> None:
    erase([history["old" if who == "new" else "new"]], "7")
    name = {"old": "user_id", "new": "customer"}[who]
    made = [msgspec.json.encode({"visit_id": f"w-{n}", "at": f"{DAY}T10:00:00Z", name: n}) for n in (7, 8)]
    stream = history[who]
    landed = land(batch_of(made, start=20), stream.contract, stream.lake, stream.limits)
    assert (landed.good, landed.erased) == (1, 1)
    assert 7 not in history["new"].lake.good.scan().collect()["customer"]
