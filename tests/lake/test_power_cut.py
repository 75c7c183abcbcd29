"""What a source was told of survives a power cut, and what it was not told of is landed once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from builders import NOW, event
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import Chunk, MicroBatch, Table
from headrace.core.errors import Fatal
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.publish import publish
from headrace.flow.reads import Pace
from headrace.health.status import torn_ends
from headrace.lake.delta import DeltaLakeTable, durable
from headrace.pipelines import discover
from headrace.sources.memory import MemoryLog, MemoryQueue
from headrace.streams.stream import Stream
from headrace.warehouse import Publication
from headrace.warehouse.memory import MemoryWarehouse
from lake.unsafe_disk import UnsafeDisk

Batch = Callable[..., MicroBatch]
CURSOR = "test/0"
QUICK = Pace(batch_messages=3, idle_seconds=0.001)


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_SETTLE_SECONDS", 0.0)


def lake_at(root: Path, *, sync: bool = True) -> StreamLake[DeltaLakeTable]:
    good, rejected = (
        DeltaLakeTable(str(root), table, sync=sync) for table in (EVENTS.table, EVENTS.rejected_table)
    )
    return StreamLake(good, rejected)


def payloads(count: int) -> list[bytes]:
    """Every fourth is bad; of three days."""
    return [
        b"bad %d" % n if n % 4 == 3 else event(event_id=f"{n}", occurred_at=f"2026-01-0{1 + n % 3}T00:00:00Z")
        for n in range(count)
    ]


def origins(lake: StreamLake[DeltaLakeTable]) -> list[tuple[Any, ...]]:
    columns = ["_cursor", "_offset", "_message_id"]
    found = [table.scan().select(columns).collect() for table in (lake.good, lake.rejected)]
    return sorted(pl.concat(found).iter_rows(), key=str)


def drain(source: MemoryLog | MemoryQueue, lake: StreamLake[DeltaLakeTable]) -> Landed:
    return sum(ingest(source, EVENTS, lake, Limits(), QUICK), Landed())


class _CutAtEachAcknowledgement:
    """What is left of the lake whenever a source is told, and what it has been told of by then."""

    def __init__(self, source: MemoryLog | MemoryQueue, disk: UnsafeDisk, into: Path) -> None:
        self.cuts: list[tuple[Path, set[tuple[Any, ...]]]] = []
        told: set[tuple[Any, ...]] = set()
        real = source.acknowledge

        def acknowledge(batch: MicroBatch, /) -> None:
            ids = batch.receipts or []
            ends = {c: o for c, o in batch.after.items() if batch.before.get(c) != o} if not ids else {}
            told.update((source.name, None, one) for one in ids)
            told.update((c, at, None) for c, end in ends.items() for at in range(end))
            self.cuts.append((disk.after_power_cut(into / str(len(self.cuts))), set(told)))
            real(batch)

        source.acknowledge = acknowledge  # type: ignore[method-assign]


@pytest.mark.long
@pytest.mark.parametrize("kind", [MemoryLog, MemoryQueue])
@pytest.mark.parametrize("sync", [True, False])
def test_what_a_source_was_told_of_is_on_the_disk(
    kind: type[MemoryLog] | type[MemoryQueue],
    sync: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "disk").mkdir()
    source = kind("events")
    source.publish(payloads(30))  # type: ignore[arg-type]
    seen = _CutAtEachAcknowledgement(source, UnsafeDisk(tmp_path / "disk", monkeypatch), tmp_path / "cuts")
    drain(source, lake_at(tmp_path / "disk" / "home" / "lake", sync=sync))
    assert len(seen.cuts) >= 2
    for left, told in seen.cuts:
        after = lake_at(left / "home" / "lake")
        assert (told <= set(origins(after))) == sync  # negative control: without syncs all of it is gone
        again = kind("events")
        again.publish(payloads(30))  # type: ignore[arg-type]
        if kind is MemoryLog:
            drain(again, after)
            assert origins(after) == [(again.cursors()[0], n, None) for n in sorted(range(30), key=_as_text)]


def _as_text(number: int) -> str:
    return str(("memory/events/0", number, None))


def test_what_another_writer_committed_is_synced_by_who_builds_on_it(
    tmp_path: Path, batch_of: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    disk = UnsafeDisk(tmp_path / "disk", monkeypatch)
    killed = DeltaLakeTable(str(tmp_path / "disk"), EVENTS.table, sync=False)  # it got no further
    _append(killed, batch_of, 0)
    _append(killed, batch_of, 1)
    DeltaTable(killed.uri).optimize.compact()  # delta-rs' own files
    _append(DeltaLakeTable(str(tmp_path / "disk"), EVENTS.table), batch_of, 2)
    left = DeltaLakeTable(str(disk.after_power_cut(tmp_path / "left")), EVENTS.table)
    assert sorted(left.scan().select("_offset").collect().to_series()) == [0, 1, 2]
    assert not left.set_aside()


def _append(table: DeltaLakeTable, batch_of: Batch, at: int) -> int:
    batch = batch_of([event(event_id=str(at))], start=at)
    good = check_batch(EVENTS, batch, batch_id=str(at), now=NOW, limits=Limits()).good
    return table.open().append(good, {CURSOR: at + 1}, str(at))


class _Durable(MemoryWarehouse):
    """Checks that a version survives before it takes anything of it."""

    def __init__(self, disk: UnsafeDisk, into: Path) -> None:
        super().__init__()
        self._disk, self._into, self.seen = disk, into, 0

    def insert(self, table: Table, rows: Chunk, token: str, /) -> None:
        self.seen += 1
        left = DeltaLakeTable(str(self._disk.after_power_cut(self._into / str(self.seen))), table)
        assert left.open().version >= int(token.split(":")[2])
        assert left.describe(int(token.split(":")[2])).rows == rows.num_rows
        super().insert(table, rows, token)

    def record(self, table: Table, publication: Publication, /) -> None:
        super().record(table, publication)


@pytest.mark.parametrize("sync", [True, False])
def test_nothing_is_published_before_it_is_synced(
    sync: bool, tmp_path: Path, batch_of: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    disk = UnsafeDisk(tmp_path / "disk", monkeypatch)
    other = DeltaLakeTable(str(tmp_path / "disk"), EVENTS.table, sync=False)  # commits, and is frozen there
    _append(other, batch_of, 0), _append(other, batch_of, 1)
    warehouse = _Durable(disk, tmp_path / "left")
    publisher = DeltaLakeTable(str(tmp_path / "disk"), EVENTS.table, sync=sync)
    if not sync:  # negative control
        with pytest.raises(AssertionError):
            publish(publisher, warehouse)
        return
    publish(publisher, warehouse)
    assert warehouse.seen == 2


def _cut(path: Path, keep: Callable[[bytes], bytes]) -> None:
    path.write_bytes(keep(path.read_bytes()))


def _last(table: DeltaLakeTable) -> Path:
    return max((Path(table.uri) / "_delta_log").glob("*.json"))


def _data_of(commit: Path) -> Path:
    [add] = [json.loads(line)["add"] for line in commit.read_text().splitlines() if '"add"' in line]
    return commit.parents[1] / add["path"].replace("%3D", "=")


_TORN: dict[str, Callable[[Path], None]] = {
    "empty": lambda commit: _cut(commit, lambda _: b""),
    "zeros": lambda commit: _cut(commit, lambda b: bytes(len(b))),
    "cut": lambda commit: _cut(commit, lambda b: b[: len(b) // 2]),
    "cut between two lines": lambda commit: _cut(commit, lambda b: b[: b.rindex(b"\n")]),
    "data gone": lambda commit: _data_of(commit).unlink(),
    "data empty": lambda commit: _cut(_data_of(commit), lambda _: b""),
    "data cut": lambda commit: _cut(_data_of(commit), lambda b: b[: len(b) // 2]),
    "data zeros": lambda commit: _cut(_data_of(commit), lambda b: bytes(len(b))),
}


@pytest.mark.parametrize("how", _TORN)
@pytest.mark.parametrize("torn", [1, 2])
def test_a_torn_end_of_the_log_is_set_aside_and_its_numbers_are_used_again(
    how: str, torn: int, tmp_path: Path, batch_of: Batch, caplog: pytest.LogCaptureFixture
) -> None:
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(4):
        _append(before, batch_of, n)
    for version in range(5 - torn, 5):
        _TORN[how](Path(before.uri) / "_delta_log" / f"{version:020d}.json")
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    snapshot = table.open()
    assert (snapshot.version, dict(snapshot.position([CURSOR]))) == (4 - torn, {CURSOR: 4 - torn})
    assert [name[:20] for name in table.set_aside()] == [f"{v:020d}" for v in range(5 - torn, 5)]
    assert caplog.text.count("set aside in") == torn
    for n in range(4 - torn, 6):
        assert _append(table, batch_of, n) == n + 1
    assert sorted(table.scan().select("_offset").collect().to_series()) == list(range(6))
    caplog.clear()
    assert DeltaLakeTable(str(tmp_path), EVENTS.table).open().version == 6
    assert not caplog.text


@pytest.mark.long
@pytest.mark.parametrize("what", ["checkpoint", "commit and checkpoint", "hint"])
@pytest.mark.parametrize("left", [lambda _: b"", lambda b: b[: len(b) // 2], lambda b: bytes(len(b))])
def test_a_torn_checkpoint_is_not_trusted(
    what: str, left: Callable[[bytes], bytes], tmp_path: Path, batch_of: Batch
) -> None:
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(30):
        _append(before, batch_of, n)
        if list((Path(before.uri) / "_delta_log").glob("*.checkpoint.parquet")):
            break
    made = before.open().version
    [checkpoint] = (Path(before.uri) / "_delta_log").glob("*.checkpoint.parquet")
    if what != "hint":
        _cut(checkpoint, left)
    else:
        _cut(checkpoint.with_name("_last_checkpoint"), left)
    if what == "commit and checkpoint":
        _cut(_last(before), left)
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    kept = made - (what == "commit and checkpoint")
    assert (table.open().version, dict(table.open().position([CURSOR]))) == (kept, {CURSOR: kept})
    assert table.counts_by_day() == {date(2026, 1, 2): kept}
    assert _append(table, batch_of, kept) == kept + 1


def test_a_torn_commit_that_others_follow_is_named(tmp_path: Path, batch_of: Batch) -> None:
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(4):
        _append(before, batch_of, n)
    _TORN["cut"](Path(before.uri) / "_delta_log" / f"{3:020d}.json")
    with pytest.raises(Fatal, match=r"0003\.json is cut off, and later commits follow it; restore"):
        DeltaLakeTable(str(tmp_path), EVENTS.table).open()
    assert not DeltaLakeTable(str(tmp_path), EVENTS.table).set_aside()


def test_a_table_that_was_torn_while_it_was_made_is_made_anew(tmp_path: Path, batch_of: Batch) -> None:
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    before.open()
    _TORN["empty"](_last(before))
    table = DeltaLakeTable(str(tmp_path), EVENTS.table)
    assert table.open().version == 0
    assert table.id != before.id
    assert _append(table, batch_of, 0) == 1


def test_several_who_find_a_torn_end_set_it_aside_once(tmp_path: Path, batch_of: Batch) -> None:
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    for n in range(4):
        _append(before, batch_of, n)
    _TORN["empty"](_last(before))
    ready, versions = threading.Barrier(8), []

    def look() -> None:
        table = DeltaLakeTable(str(tmp_path), EVENTS.table)
        ready.wait()
        versions.append(table.open().version)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [3] * 8
    assert len(before.set_aside()) == 1


def test_what_is_whole_again_a_moment_later_is_left_alone(
    tmp_path: Path, batch_of: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's commit may be seen in part on a shared folder."""
    before = DeltaLakeTable(str(tmp_path), EVENTS.table)
    _append(before, batch_of, 0)
    whole = _last(before).read_bytes()
    _TORN["cut"](_last(before))
    monkeypatch.setattr(durable.time, "sleep", lambda _: _last(before).write_bytes(whole))
    assert DeltaLakeTable(str(tmp_path), EVENTS.table).open().version == 1
    assert not before.set_aside()


def test_status_says_what_was_set_aside(tmp_path: Path, batch_of: Batch) -> None:
    settings = load_settings(home=tmp_path, lake_uri=str(tmp_path / "lake"))
    stream = Stream(discover().pipelines["events"], settings)
    _append(stream.lake.good, batch_of, 0)
    assert torn_ends(stream) == ""
    _TORN["empty"](_last(stream.lake.good))
    stream = Stream(discover().pipelines["events"], settings)
    assert stream.lake.good.open().version == 0
    folder = tmp_path / "lake" / "events" / "_set_aside"
    assert torn_ends(stream).startswith("a torn commit set aside after a power cut")
    assert torn_ends(stream).endswith(f"delete {folder} to forget")


def test_the_setting_reaches_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").mkdir()
    disk = UnsafeDisk(tmp_path / "disk", monkeypatch)
    for sync, synced in ((False, False), (True, True)):
        settings = load_settings(home=tmp_path, lake_uri=str(tmp_path / "disk"), lake_sync=sync)
        lake = Stream(discover().pipelines["events"], settings).lake
        for table in (lake.good, lake.rejected):
            before = disk.synced
            table.open().append(table.stage(), {CURSOR: 1 + sync}, "b")
            assert (disk.synced > before) == synced
