"""A person who was erased is nowhere, and nothing brings them back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from builders import event
from conftest import Stack
from headrace.core.batch import MicroBatch
from headrace.core.errors import Fatal, Retriable
from headrace.flow.commit import land
from headrace.health.parity import parity
from headrace.lake.suppression import Suppressed
from headrace.repair.erase import erase
from headrace.streams.stream import Stream, streams
from headrace.warehouse.server import Server

WHO = "Zoë O'Neil"
DAYS = ["2026-01-02", "2026-01-03"]


@pytest.fixture
def stream(stack: Stack, tmp_path: Path, batch_of: Callable[..., MicroBatch]) -> Iterator[Stream]:
    """Two days, two versions: the person and somebody else, and rejected records of both."""
    config = stack.settings.model_copy(
        update={
            "lake_uri": str(tmp_path / "a lake"),
            "raw_database": f"raw_{uuid.uuid4().hex[:8]}",
            "dbt_schema": f"marts_{uuid.uuid4().hex[:8]}",
        }
    )
    one = streams(config)["events"]
    for n, day in enumerate(DAYS):
        mine = event(event_id=f"mine-{n}", user_id=WHO, occurred_at=f"{day}T10:00:00Z")
        other = event(event_id=f"other-{n}", user_id="somebody", occurred_at=f"{day}T11:00:00Z")
        bad = event(channel="?", user_id=WHO), event(channel="?", user_id="somebody")
        land(batch_of([mine, other, *bad], start=4 * n), one.contract, one.lake, one.limits)
    one.publish()
    yield one
    one.close()


def people(stream: Stream) -> dict[str, list[str]]:
    """Who is where."""
    raw = stream.settings.raw_database
    return {
        "lake": sorted(stream.lake.good.scan().select("user_id").collect().to_series()),
        "warehouse": sorted(u for (u,) in stream.warehouse.query(f"SELECT user_id FROM {raw}.events")),
        "rejected": sorted(json.loads(p)["user_id"] for p in rejected(stream)),
    }


def rejected(stream: Stream) -> list[bytes]:
    return stream.lake.rejected.scan().select("payload").collect().to_series().to_list()


def bytes_of(stream: Stream) -> bytes:
    """Everything that is on disk of the lake, as far as it is not compressed: names, logs, statistics."""
    root = Path(stream.settings.lake)
    return b"".join(f.read_bytes() for f in sorted(root.rglob("*.json")))


def test_nobody_but_the_person_is_gone_and_a_rebuild_does_not_bring_them_back(stream: Stream) -> None:
    both = sorted([WHO, "somebody"] * 2)
    assert people(stream) == {"lake": both, "warehouse": both, "rejected": both}
    schema = stream.settings.dbt_schema
    server = Server(stream.settings)
    for database in (schema, f"{schema}_speed"):
        server.command(f"CREATE DATABASE {database}")
        server.command(f"CREATE TABLE {database}.m (user_id Nullable(String)) ENGINE = MergeTree ORDER BY ()")
        server.command(f"INSERT INTO {database}.m SELECT user_id FROM {stream.settings.raw_database}.events")
    receipt = erase([stream], WHO)
    [done] = receipt.streams
    assert (done.rows, done.rejected_rows, done.days) == (2, 2, tuple(DAYS))
    assert receipt.models == {f"{schema}.m": 2, f"{schema}_speed.m": 2}
    left = {"lake": ["somebody"] * 2, "warehouse": ["somebody"] * 2, "rejected": ["somebody"] * 2}
    assert people(stream) == left
    assert done.files == 4, "a file of each version of each table"
    dict(stream.replace_days([date.fromisoformat(day) for day in DAYS]))
    assert people(stream) == left
    assert WHO not in str(receipt)
    assert WHO.encode() not in bytes_of(stream)
    assert {t.day.isoformat() for t in stream.stale_days()} == set(DAYS), "their models are built again"
    again = erase([stream], WHO).streams[0]
    assert (again.rows, again.rejected_rows, again.files) == (0, 0, 0)


def test_the_position_stays_so_that_nothing_lands_again(stream: Stream) -> None:
    before = stream.lake.good.open().position(["test/0"])
    erase([stream], WHO)
    assert stream.lake.good.open().position(["test/0"]) == before == {"test/0": 8}


def test_an_erasure_that_broke_off_is_finished_by_the_next(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, calls = stream.publish, []

    def away() -> object:
        calls.append(1)
        if len(calls) == 2:
            raise Retriable("the warehouse is away")
        return publish()

    monkeypatch.setattr(stream, "publish", away)
    with pytest.raises(Retriable):
        erase([stream], WHO)
    assert people(stream)["lake"] == ["somebody"] * 2
    assert WHO in people(stream)["warehouse"]
    done = erase([stream], WHO).streams[0]
    assert done.files == 4
    assert people(stream)["warehouse"] == ["somebody"] * 2


def test_a_new_warehouse_takes_the_lake_whole_after_an_erasure(stream: Stream) -> None:
    """Its first versions can no longer be read: their files are gone, as they had to be."""
    erase([stream], WHO)
    config = stream.settings.model_copy(update={"raw_database": f"raw_{uuid.uuid4().hex[:8]}"})
    fresh = streams(config)["events"]
    fresh.publish()
    assert people(fresh) == people(stream)
    assert parity(fresh).different == {}
    fresh.publish()
    assert parity(fresh).different == {}
    fresh.close()


def test_nobody_is_refused(stream: Stream) -> None:
    with pytest.raises(Fatal, match="empty"):
        erase([stream], " ")
    assert len(people(stream)["lake"]) == 4


def test_rows_that_somebody_deletes_go_from_the_warehouse_too(stream: Stream) -> None:
    """Whoever rewrites the lake table with another tool: published again as days, and not as new rows."""
    from deltalake import DeltaTable

    DeltaTable(stream.lake.good.uri).delete("event_id = 'other-1'")
    stream.publish()
    assert parity(stream).different == {}
    assert len(people(stream)["warehouse"]) == 3
    assert stream.lake.good.scan().select(pl.len()).collect().item() == 3


def test_a_short_id_does_not_take_others_along(stream: Stream, batch_of: Callable[..., MicroBatch]) -> None:
    refused = [
        event(channel="?", user_id="7"),
        b'{"user_id": 7, "x": [',
        b'{"user_id": 7}',
        event(channel="?", user_id="77", event_id="7-7"),
        b'{"n": 7}',
        b"no json 77",
    ]
    before = rejected(stream)
    land(batch_of(refused, cursor="test/1"), stream.contract, stream.lake, stream.limits)
    [done] = erase([stream], "7").streams
    assert (done.rows, done.rejected_rows) == (0, 3)
    assert sorted(rejected(stream)) == sorted([*before, *refused[3:]])


def test_an_id_that_is_a_number_or_a_uuid_is_found_by_its_text(stream: Stream) -> None:
    some = "123e4567-e89b-12d3-a456-426614174000"
    listed = Suppressed(b"salt", frozenset({Suppressed(b"salt", frozenset()).digest("7")}))
    origins = {
        "_cursor": ["c", "c", "c"],
        "_offset": [0, 1, 2],
        "_message_id": ["", "", ""],
        "_index": [0, 0, 0],
    }
    good = pl.DataFrame({"user_id": [7, 77, None], **origins})
    _, left, _ = listed.drop(good.head(0).with_columns(payload=pl.lit(b""), _key=pl.lit(b"")), good)
    assert left["user_id"].to_list() == [77, None]
    server, database = Server(stream.settings), stream.settings.dbt_schema
    server.command(f"CREATE DATABASE {database}")
    server.command(f"CREATE TABLE {database}.n (user_id Nullable(Int64)) ENGINE = MergeTree ORDER BY ()")
    server.command(f"INSERT INTO {database}.n VALUES (7), (77), (NULL)")
    server.command(f"CREATE TABLE {database}.u (user_id UUID) ENGINE = MergeTree ORDER BY ()")
    server.command(f"INSERT INTO {database}.u VALUES ('{some}'), (generateUUIDv4())")
    assert stream.warehouse.erase(database, "user_id", "7") == {f"{database}.n": 1}
    assert stream.warehouse.erase(database, "user_id", some) == {f"{database}.u": 1}
    assert stream.warehouse.query(f"SELECT count(), min(user_id) FROM {database}.n") == [(2, 77)]
    assert stream.warehouse.query(f"SELECT count() FROM {database}.u") == [(1,)]
