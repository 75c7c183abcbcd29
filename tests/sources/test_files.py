"""Files of the archive: each content once, from every format, whatever happens to the file or to us meanwhile."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec
import polars as pl
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import EVENT, event
from headrace.contracts import EVENTS, METRICS, Limits
from headrace.core.batch import MicroBatch, Position
from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable
from headrace.flow.commit import Landed, StreamLake
from headrace.flow.ingest import ingest, position_of
from headrace.flow.reads import Pace
from headrace.formats import FileReader, read_file
from headrace.lake.memory import MemoryLakeTable
from headrace.pipelines import Files
from headrace.sources.files import archive as archives
from headrace.sources.files.archive import Archive, s3_options
from headrace.sources.files.source import FilesSource

QUICK = Pace(batch_messages=7, idle_seconds=0.001)


class Crash(Exception):
    """The process dies here."""


class Folder:
    """An archive in a folder, and sources on its ``events``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "an archive" / "events"
        self.index = root / "home" / "index.json"
        self.archive = Archive(str(self.root.parent))

    def put(self, name: str, content: bytes, mtime: float | None = None) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if mtime is not None:
            os.utime(path, (mtime, mtime))
        return path

    def source(self, *, quiet_seconds: float = 0, reader: FileReader | None = None) -> FilesSource:
        return FilesSource(
            "events", self.archive, reader or FileReader(EVENTS), self.index, quiet_seconds=quiet_seconds
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def new_lake() -> StreamLake[MemoryLakeTable]:
    return StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))


def drain(source: FilesSource, lake: StreamLake[MemoryLakeTable], pace: Pace = QUICK) -> Landed:
    return sum(ingest(source, EVENTS, lake, Limits(), pace), Landed())


def ids(lake: StreamLake[MemoryLakeTable]) -> list[str]:
    return sorted(lake.good.rows()["event_id"])


def read_all(source: FilesSource, sizes: Iterator[int] | None = None) -> list[MicroBatch]:
    after, batches = Position(), []
    while len(batch := source.read(after, next(sizes) if sizes else 1_000, 0.001)):
        batches.append(batch)
        after = after.advanced(batch.after)
    return batches


def lines(first: int, end: int) -> bytes:
    return b"".join(event(event_id=f"{n:04}") + b"\n" for n in range(first, end))


def csv() -> bytes:
    row = ",".join(str(EVENT[name]) for name in EVENT if name != "event_id")
    names = ",".join(["event_id", *(name for name in EVENT if name != "event_id")])
    return "\n".join([names, *(f"c-{n},{row}" for n in range(20)), ""]).encode()


def parquet() -> bytes:
    at, out = datetime(2026, 1, 2, tzinfo=UTC), io.BytesIO()
    pl.DataFrame([{**EVENT, "event_id": str(n), "occurred_at": at} for n in range(30)]).write_parquet(out)
    return out.getvalue()


LOG = b'1.1.1.1 - - [01/Jan/2026:00:00:00 +0100] "GET /a HTTP/1.1" 200 5\nno log line\n'
CONTENTS = {"a.ndjson": lines(0, 40), "b.csv": csv(), "c.parquet": parquet(), "access.log": LOG}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".gz", gzip.compress), (".zst", zstandard.compress)])
def test_every_format_gives_the_messages_that_send_would_send(
    folder: Folder, name: str, end: str, pack: Callable[[bytes], bytes]
) -> None:
    path = folder.put(f"2026/{name}{end}", pack(CONTENTS[name]), mtime=1_700_000_000)
    [batch] = read_all(folder.source())
    sent = [(p, k) for c in read_file(path, EVENTS) for p, k in zip(c.payloads, c.keys, strict=True)]
    records = batch.records.filter(pl.col("payload") != b"no log line")
    assert list(records.select("payload", "key").iter_rows()) == sent
    assert batch.records["offset"].to_list() == list(range(len(batch)))
    assert batch.records["cursor"].n_unique() == 1
    assert set(batch.records["timestamp"]) == {datetime.fromtimestamp(1_700_000_000, UTC)}
    assert len(batch) == len(sent) + (name == "access.log")


def test_a_file_is_known_by_its_content_under_however_many_names(folder: Folder) -> None:
    lake = new_lake()
    first = folder.put("a.ndjson", lines(0, 10))
    folder.put("sub/copy.ndjson", lines(0, 10))
    assert drain(folder.source(), lake).messages == 10
    first.rename(first.with_name("z.ndjson"))
    assert drain(folder.source(), lake) == Landed()
    assert len(ids(lake)) == 10


def test_after_a_restart_it_goes_on_in_the_middle_of_the_file(folder: Folder) -> None:
    folder.put("a.ndjson.gz", gzip.compress(lines(0, 50)))
    lake = new_lake()
    first = folder.source()
    for step in ingest(first, EVENTS, lake, Limits(), QUICK):
        assert step.messages == 7
        break
    second = folder.source()
    assert second.backlog(position_of(second, lake)).waiting == 43
    rest = drain(second, lake)
    assert (rest.messages, rest.repeated) == (43, 0)
    assert ids(lake) == [f"{n:04}" for n in range(50)]


def test_a_big_file_is_not_opened_anew_for_every_batch(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    really = Archive.open
    monkeypatch.setattr(Archive, "open", lambda self, path: (opened.append(path), really(self, path))[1])
    folder.put("a.ndjson", lines(0, 300))
    batches = read_all(folder.source(), iter([10] * 100))
    assert len(batches) == 30
    assert len(opened) == 5, "to hash, and twice (format, records) to count and to read"


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=10), closes=st.sets(st.integers(0, 20)))
def test_however_it_is_split_into_reads_the_records_are_the_same(sizes: list[int], closes: set[int]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root))
        for name, content in CONTENTS.items():
            folder.put(name, content)
        whole = pl.concat([b.records for b in read_all(folder.source())])
        source, after, parts = folder.source(), Position(), []
        while len(batch := source.read(after, sizes[len(parts) % len(sizes)], 0.001)):
            assert len(batch) <= sizes[len(parts) % len(sizes)]
            parts.append(batch.records)
            after = after.advanced(batch.after)
            if len(parts) in closes:
                source.close()
        assert pl.concat(parts).equals(whole)


def test_malformed_lines_are_rejected_with_their_untouched_bytes(folder: Folder) -> None:
    bad = [b'{"event_id": "\xff', b"not json", b"[1, 2", b"42"]
    folder.put("a.ndjson", lines(0, 3) + b"\n".join(bad) + b"\n\n" + lines(3, 5))
    folder.put("b.csv", csv() + b'c-x,"two\nlines",\xfe\n')
    lake = new_lake()
    done = drain(folder.source(), lake)
    assert (done.messages, done.good, done.rejected) == (30, 25, 5)
    payloads = lake.rejected.rows()["payload"].to_list()
    assert payloads == [*bad, b'c-x,"two\nlines",\xfe']
    source = folder.source()
    position = position_of(source, lake)
    for cursor, end in position.items():
        count = sum(t.rows().filter(pl.col("_cursor") == cursor).height for t in (lake.good, lake.rejected))
        assert count == end


BROKEN = {
    "b.ndjson.gz": gzip.compress(lines(0, 5_000))[:-20],
    "b.ndjson.zst": zstandard.compress(os.urandom(9_000).hex().encode())[:-20],
    "b.parquet": parquet()[:-20],
    "b.csv": b"event_id,event_typ\n1,2\n",
    "b.dat": b"hello\nworld\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_whole_and_the_others_go_on(folder: Folder, name: str) -> None:
    folder.put("a.ndjson", lines(0, 10))
    folder.put(name, BROKEN[name])
    folder.put("c.ndjson", lines(10, 20))
    lake, source = new_lake(), folder.source()
    done = drain(source, lake)
    assert (done.messages, done.rejected) == (20, 0)
    [why] = done.refused
    assert str(folder.root / name) in why
    assert "nothing of this file has landed" in why
    backlog = source.backlog(position_of(source, lake))
    assert (backlog.waiting, backlog.problems) == (0, (why,))
    assert drain(folder.source(), lake) == Landed(), "it is looked through once"
    folder.put(name, b"").unlink()
    folder.put("b.ndjson", lines(20, 25))
    assert drain(source, lake).messages == 5
    assert source.backlog(position_of(source, lake)).problems == ()


def same_length(content: bytes) -> bytes:
    return content.replace(b"e", b"E")


@pytest.mark.parametrize("change", [same_length, lambda c: c + lines(50, 60), lambda c: c[:100]])
def test_a_file_that_changes_between_its_chunks_is_noticed(
    folder: Folder, change: Callable[[bytes], bytes]
) -> None:
    before = lines(0, 50)
    folder.put("a.ndjson", before, mtime=1_700_000_000)
    source = folder.source()
    first = source.read(Position(), 10, 0)
    assert len(first) == 10
    after, known = first.after, source.cursors()
    folder.put("a.ndjson", change(before))
    second = source.read(after, 1_000, 0)
    assert known == [*first.after]
    assert len(second) == 0, "what was read of it then is thrown away"
    third = source.read(after, 1_000, 0)
    assert third.records["offset"].to_list()[0] == 0
    assert set(third.records["cursor"]).isdisjoint(first.records["cursor"])
    assert b"\n".join(third.records["payload"]) == change(before).rstrip(b"\n")


def test_without_the_stamp_the_change_would_not_be_noticed(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(Archive, "stamp", lambda self, path: "same")
    before = lines(0, 50_000)
    folder.put("a.ndjson", before, mtime=1_700_000_000)
    source = folder.source()
    first = source.read(Position(), 10, 0)
    source.cursors()
    folder.put("a.ndjson", same_length(before))
    second = source.read(first.after, 100_000, 0)
    assert set(second.records["cursor"]) == set(first.records["cursor"])
    assert any(b"EvEnt" in payload for payload in second.records["payload"])


def test_a_file_that_grows_later_is_a_new_file(folder: Folder) -> None:
    lake = new_lake()
    folder.put("a.ndjson", lines(0, 10))
    assert drain(folder.source(), lake).messages == 10
    folder.put("a.ndjson", lines(0, 15))
    assert drain(folder.source(), lake).messages == 15
    assert lake.good.rows()["_cursor"].n_unique() == 2
    assert len(set(ids(lake))) == 15, "the marts count an event_id once"


@pytest.mark.parametrize("window", ["before rejected", "after rejected", "before good", "after good"])
def test_a_crash_in_any_window_repeats_nothing_and_loses_nothing(folder: Folder, window: str) -> None:
    folder.put("a.ndjson", b"bad 1\n" + lines(0, 20) + b"bad 2\n")
    lake = new_lake()
    table = lake.rejected if window.endswith("rejected") else lake.good
    table.fail_next_append = Crash()
    table.fail_after_commit = window.startswith("after")
    with pytest.raises(Crash):
        drain(folder.source(), lake)
    drain(folder.source(), lake)
    assert ids(lake) == [f"{n:04}" for n in range(20)]
    assert lake.rejected.rows()["_offset"].to_list() == [0, 21]


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b'{"reader": 1'), None])
def test_a_lost_index_or_another_machine_repeats_nothing(
    folder: Folder, damage: Callable[[Path], object] | None
) -> None:
    for n in range(12):
        folder.put(f"{n}.ndjson", lines(10 * n, 10 * n + 10))
    lake = new_lake()
    assert drain(folder.source(), lake).messages == 120
    commits = len(lake.good.commits)
    if damage is None:
        folder.index = folder.index.with_name("elsewhere.json")
    else:
        damage(folder.index)
    source = folder.source()
    assert source.backlog(position_of(source, lake)).waiting == 12, "files that nobody has looked through"
    assert drain(source, lake) == Landed()
    assert len(lake.good.commits) == commits
    assert source.backlog(position_of(source, lake)).waiting == 0


def test_the_index_is_no_longer_good_for_another_contract_or_format(folder: Folder) -> None:
    folder.put("a.ndjson", lines(0, 10))
    assert len(read_all(folder.source())) == 1
    other = folder.source(reader=FileReader(EVENTS, "csv"))
    [problem] = other.read(Position(), 10, 0).refused
    assert "has no column" in problem
    assert folder.source(reader=FileReader(METRICS)).cursors() == []


def test_looking_opens_no_file(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("a.ndjson", lines(0, 10))
    source = folder.source()
    source.read(Position(), 1, 0)
    folder.put("b.ndjson", lines(0, 50))
    monkeypatch.delattr(Archive, "open")
    assert len(source.cursors()) == 1
    assert source.backlog(Position()).waiting == 11


def test_files_that_are_not_finished_or_not_meant_are_passed_over(folder: Folder) -> None:
    for name in (".hidden", "_SUCCESS", "a.tmp", "b.ndjson.part", "_logs/a.ndjson", ".git/b.ndjson"):
        folder.put(name, lines(0, 1))
    folder.put("../other/c.ndjson", lines(0, 1))
    folder.put("event_date=2026-01-02/d.ndjson", lines(1, 2))
    assert folder.source().backlog(Position()).waiting == 1
    [batch] = read_all(folder.source())
    assert b"0001" in batch.records["payload"][0]


def test_a_file_that_is_being_written_waits(folder: Folder) -> None:
    path = folder.put("a.ndjson", lines(0, 5))
    source = folder.source(quiet_seconds=3_600)
    assert source.backlog(Position()).waiting == 0
    assert read_all(source) == []
    for written in (path.stat().st_mtime - 4_000, path.stat().st_mtime + 4_000):  # long ago; by another clock
        os.utime(path, (written, written))
        assert source.backlog(Position()).waiting == 1
    assert len(read_all(source)) == 1


def test_a_file_that_goes_away_halfway_is_missed_until_it_is_back(folder: Folder, tmp_path: Path) -> None:
    path = folder.put("a.ndjson", lines(0, 20))
    folder.put("b.ndjson", lines(20, 30))
    lake, source = new_lake(), folder.source()
    next(iter(ingest(source, EVENTS, lake, Limits(), QUICK)))
    path.rename(tmp_path / "aside")
    drain(folder.source(), lake)
    [problem] = source.backlog(position_of(source, lake)).problems
    assert "went away when 7 of its 20 records had landed" in problem
    (tmp_path / "aside").rename(path.with_name("back.ndjson"))
    assert drain(folder.source(), lake).messages == 13
    assert source.backlog(position_of(source, lake)).problems == ()
    assert ids(lake) == [f"{n:04}" for n in range(30)]
    path.with_name("back.ndjson").unlink()
    assert source.backlog(position_of(source, lake)).problems == (), "what has landed whole may go"


def test_a_missing_folder_is_empty(folder: Folder) -> None:
    source = folder.source()
    assert source.cursors() == []
    assert source.backlog(Position()).waiting == 0
    assert not folder.index.exists()


@pytest.mark.parametrize("bytes_until", [0, 5_000, 40_000])
def test_storage_that_fails_is_not_taken_for_a_broken_file(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, bytes_until: int
) -> None:
    content = b"\n".join(event(event_id=str(n), user_id=os.urandom(9).hex()) for n in range(3_000))
    folder.put("a.ndjson.gz", gzip.compress(content))
    lake, source = new_lake(), folder.source()
    really = archives._Raw.readinto

    def failing(self: archives._Raw, buffer: memoryview) -> int:
        if self.tell() >= bytes_until:
            raise Retriable("the storage is away")
        return really(self, buffer[:4_096])

    monkeypatch.setattr(archives._Raw, "readinto", failing)
    with pytest.raises(Retriable):
        drain(source, lake)
    assert source.backlog(Position()).problems == ()
    monkeypatch.setattr(archives._Raw, "readinto", really)
    assert drain(source, lake, Pace(batch_messages=1_000, idle_seconds=0.001)).good == 3_000


def test_a_batch_that_was_not_handed_out_is_read_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a.ndjson", lines(0, 20))
    source = folder.source()
    first = source.read(Position(), 5, 0)

    def away(self: Archive, path: str) -> str:
        raise Retriable("the storage is away")

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "stamp", away)
        with pytest.raises(Retriable):
            source.read(first.after, 5, 0)
    assert source.read(first.after, 5, 0).records["offset"].to_list() == [5, 6, 7, 8, 9]


def test_a_batch_is_bounded_by_its_bytes_too(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.sources.files.source._BATCH_BYTES", 1_000)
    folder.put("a.ndjson", lines(0, 100))
    folder.put("b.ndjson", lines(100, 200))
    batches = read_all(folder.source())
    assert sum(map(len, batches)) == 200
    assert all(sum(map(len, b.records["payload"])) < 1_000 + len(lines(0, 1)) for b in batches)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (FileNotFoundError("x"), BadData, "is no longer there"),
        (PermissionError("x"), Fatal, "let Headrace's user read it"),
        (OSError("AWS Error ACCESS_DENIED during HeadObject"), Fatal, "check the keys"),
        (OSError("AWS Error NETWORK_CONNECTION"), Retriable, "cannot be read now"),
    ],
)
def test_what_the_storage_says_becomes_our_errors(
    error: OSError, kind: type[HeadraceError], said: str
) -> None:
    with pytest.raises(kind, match=said), archives._translated("s3://b/a.csv"):
        raise error


def test_the_lakes_storage_options_are_understood() -> None:
    given = {
        "AWS_ACCESS_KEY_ID": "k", "aws_secret_access_key": "s", "aws_endpoint": "http://127.0.0.1:1",
        "region": "eu-central-1", "allow_http": "true", "conditional_put": "etag",
    }  # fmt: skip
    assert s3_options(given) == {
        "access_key": "k", "secret_key": "s", "endpoint_override": "http://127.0.0.1:1", "region": "eu-central-1",
    }  # fmt: skip
    assert s3_options({"endpoint_url": "store:9000", "aws_allow_http": "true"})["scheme"] == "http"


def test_half_a_pair_of_keys_is_said(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"HEADRACE_ARCHIVE_STORAGE_OPTIONS do not fit s3://b/a: .*secret_key"):
        Archive("s3://b/a", {"aws_access_key_id": "k"}).files("events")


@pytest.mark.parametrize("wrong", ["", "/etc", "../secrets", "a/../b", "a/", "."])
def test_a_folder_lies_below_the_archive(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not below the archive"):
        Files(wrong)
    assert Files("events/2024").name == "files/events/2024"


def test_a_whole_file_reaches_the_reader(folder: Folder) -> None:
    """The raw file answers as any file does, or a reader would take its end for the end of the data."""
    folder.put("a.bin", os.urandom(600_000))

    def whole(file: IO[bytes]) -> bytes:
        with file:
            start = file.read(1_000)
            file.seek(-1_000, io.SEEK_END)
            end = file.read()
            file.seek(0)
            content = file.read()
        assert (content[:1_000], content[-1_000:]) == (start, end)
        return content

    assert whole(folder.archive.open("events/a.bin")) == (folder.root / "a.bin").read_bytes()


def test_events_keep_their_keys_through_a_drain(folder: Folder) -> None:
    folder.put("a.ndjson", msgspec.json.encode({**EVENT, "session_id": "s-9"}))
    lake = new_lake()
    drain(folder.source(), lake)
    row = lake.good.rows().row(0, named=True)
    assert (row["_key"], row["_offset"], row["_message_id"]) == (b"s-9", 0, None)
    assert (row["_source"], row["_cursor"].rpartition("/")[0]) == ("files/events", "files/events")
