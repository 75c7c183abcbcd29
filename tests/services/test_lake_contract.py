"""The lake suite on the local disk and on S3, in the same words."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Barrier

import polars as pl
import pytest
from deltalake import DeltaTable

from builders import event
from headrace.contracts import EVENTS, Contract, Limits
from headrace.core.batch import ORIGIN_KEY
from headrace.core.errors import Conflict, Retriable
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake import Snapshot
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.history import kept, put_log_file, read_log, restores
from headrace.lake.delta.restore import Target, fence, restore
from headrace.sources.memory import MemoryLog
from lake import test_lake
from lake.test_lake import CURSOR, Batch, rows

from . import servers
from .servers import Bucket
from .suites import suite

servers.asked_for(servers.S3)

globals().update(suite(test_lake, "make"))

Make = Callable[..., DeltaLakeTable]


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """Where this test's lake is: below a name with a space."""
    bucket = Bucket(str(tmp_path), {}) if request.param == "disk" else request.getfixturevalue("bucket")
    return Bucket(f"{bucket.uri}/{uuid.uuid4().hex}/a lake", bucket.storage_options)


@pytest.fixture
def make(place: Bucket) -> Make:
    """``make(contract)``: a table of the lake."""

    def build(contract: Contract = EVENTS) -> DeltaLakeTable:
        return DeltaLakeTable(place.uri, contract.table, place.storage_options)

    return build


def test_of_writers_that_race_for_a_cursor_exactly_one_wins(make: Make, batch_of: Batch) -> None:
    """The store itself must refuse the second of two writes of one log entry."""
    table, writers = make(), 4
    table.open()
    for start in range(5):
        good = rows(batch_of([event(event_id=str(start))], start=start))
        snapshots = [table.open() for _ in range(writers)]
        at_once = Barrier(writers)

        def won(snapshot: Snapshot, good: pl.DataFrame, end: int, at_once: Barrier = at_once) -> bool:
            at_once.wait(10)
            try:
                snapshot.append(good, {CURSOR: end}, "b")
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(writers) as pool:
            wins = list(pool.map(won, snapshots, [good] * writers, [start + 1] * writers))
        assert wins.count(True) == 1
        assert dict(table.open().position([CURSOR])) == {CURSOR: start + 1}
    assert table.counts_by_day() == {date(2026, 1, 2): 5}
    assert sorted(table.scan().collect()["event_id"]) == [str(n) for n in range(5)]


def test_writers_of_other_cursors_all_land_at_once(make: Make, batch_of: Batch) -> None:
    table, writers = make(), 4
    table.open()

    def write(number: int) -> None:
        cursor = f"test/{number}"
        for start in range(5):
            good = rows(batch_of([event(event_id=f"{number}-{start}")], start=start, cursor=cursor))
            table.open().append(good, {cursor: start + 1}, "b")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    position = table.open().position([f"test/{n}" for n in range(writers)])
    assert dict(position) == {f"test/{n}": 5 for n in range(writers)}
    assert table.scan().collect()["event_id"].n_unique() == table.scan().collect().height == 20


def test_a_stream_lands_with_its_rejects(place: Bucket) -> None:
    good, rejected = (
        DeltaLakeTable(place.uri, table, place.storage_options)
        for table in (EVENTS.table, EVENTS.rejected_table)
    )
    lake = StreamLake(good, rejected)
    log = MemoryLog("log")
    log.publish([event(event_id=str(n)) for n in range(30)] + [b"bad"])
    pace = Pace(batch_messages=10, idle_seconds=0.2)
    landed = sum(ingest(log, EVENTS, lake, Limits(), pace), Landed())
    assert (landed.good, landed.rejected) == (30, 1)
    assert lake.rejected.scan().collect()["payload"].to_list() == [b"bad"]
    assert sum(ingest(log, EVENTS, lake, Limits(), pace), Landed()) == Landed()


def test_the_last_version_of_a_day_stays_and_forgets(make: Make, batch_of: Batch) -> None:
    """The log is shortened by age, files are put together and removed, and somebody is erased."""
    table, today = make(), datetime.now(UTC)
    snapshot = table.open()
    for n in range(24):
        snapshot.append(rows(batch_of([event(event_id=f"e-{n}")], start=n)), {CURSOR: n + 1}, "b")
    for version in range(4):  # of the day before yesterday
        said = b'"timestamp":%d' % ((today - timedelta(days=2)).timestamp() * 1_000)
        log = re.sub(rb'"timestamp":\d+', said, table.read_commit(version), count=1)
        put_log_file(table, f"{version:020d}.json", log)
    assert list(kept(table).daily) == [3]
    table.maintain(timedelta(days=1), timedelta(microseconds=1))
    log_now = read_log(table)
    assert (log_now.kept, log_now.readable.start > 3) == ([3], True)
    assert kept_offsets(table) == [0, 1, 2]
    gone = table.scan().filter(pl.col("_offset") == 1).select(*ORIGIN_KEY).collect()
    assert table.forget(table.erase(gone)) >= 2
    assert kept_offsets(table) == [0, 2]
    assert table.scan().collect().height == 23
    fence(table, "mark")
    moment = table.scan().collect()["_ingested_at"].min()
    assert isinstance(moment, datetime)
    done = restore(table, Target(moment - timedelta(days=1)), lambda w: w.clear(), lambda r: r)
    assert (done.out.height, table.scan().collect().height) == (23, 0)
    [one] = restores(table.newest())
    restore(table, Target(one.to, one), lambda w: w.clear(), lambda r: r)
    assert table.scan().collect().height == 23
    table.version_days = 0
    table.maintain(timedelta(days=1), timedelta(microseconds=1))
    assert read_log(table).kept == []


def kept_offsets(table: DeltaLakeTable) -> list[int]:
    plain = DeltaTable(table.uri, version=3, storage_options=table.options)
    return sorted(plain.to_pyarrow_table()["_offset"].to_pylist())


def test_a_store_that_is_away_is_retriable() -> None:
    keys = {"aws_access_key_id": "headrace", "aws_secret_access_key": "headrace", "aws_region": "us-east-1"}
    options = {"aws_endpoint": "http://127.0.0.1:1", "allow_http": "true", **keys}
    with pytest.raises(Retriable, match="s3://nowhere/lake/events"):
        DeltaLakeTable("s3://nowhere/lake", EVENTS.table, options).open()
