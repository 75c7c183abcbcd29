"""Erasing one of many people from what everybody has: files of many people, many cursors, what other writers left."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from builders import NOW, event
from conftest import Stack
from headrace.contracts.events import EVENTS
from headrace.core.batch import ORIGIN_KEY, MicroBatch, Position
from headrace.core.errors import Conflict, Fatal, Retriable
from headrace.flow.commit import Commit, Landed, StreamLake, land
from headrace.flow.validate import validate
from headrace.health.audit import audit
from headrace.health.parity import parity
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.memory import MemoryLakeTable
from headrace.lake.suppression import ERASURES, Erasures, Suppressed, possible_ids
from headrace.repair import edits, rejects
from headrace.repair.erase import Receipt, erase, lift
from headrace.repair.redrive import redrive
from headrace.streams.drain import drain
from headrace.streams.stream import Stream, streams

WHO = "user-7"
PEOPLE, EVENTS_OF_ALL = 50, 2_000
QUEUE = "sqs/analytics_events"


@pytest.fixture
def stream(stack: Stack, tmp_path: Path) -> Iterator[Stream]:
    """A stream of its own, with nothing in it."""
    config = stack.settings.model_copy(
        update={
            "lake_uri": str(tmp_path / "a lake"),
            "archive": str(tmp_path / "archive"),
            "archive_quiet_seconds": 0.0,
            "raw_database": f"raw_{uuid.uuid4().hex[:8]}",
            "dbt_schema": f"marts_{uuid.uuid4().hex[:8]}",
        }
    )
    one = streams(config)["events"]
    yield one
    one.close()


def ingested(stream: Stream, name: str, lines: list[bytes]) -> Landed:
    """Land a file as ``headrace ingest`` does."""
    folder = Path(stream.settings.archive_uri) / "events"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"\n".join(lines))
    [*_, last] = drain(stream, "files/events", replace(stream.pace, idle_seconds=0.1))
    return last.landed


def ordinary(stream: Stream) -> None:
    """2,000 events of 50 users on two days in two files, each with refused ones of everybody."""
    for n in range(2):
        lines = [
            event(
                event_id=f"e-{n}-{i}",
                user_id=f"user-{i % PEOPLE}",
                occurred_at=f"2026-01-0{1 + i % 2}T10:00:00Z",
                channel=["web", "chat"][i % 2],
            )
            for i in range(EVENTS_OF_ALL // 2)
        ]
        bad = [event(channel="?", event_id=f"b-{n}-{i}", user_id=f"user-{i}") for i in range(PEOPLE)]
        landed = ingested(stream, f"{n}.ndjson", lines + bad)
        assert (landed.good, landed.rejected) == (EVENTS_OF_ALL // 2, PEOPLE)


def left(stream: Stream) -> tuple[int, int, int, set[str]]:
    """Rows of the lake, of the rejected table, of the warehouse, and whose they are."""
    good = stream.lake.good.scan().select("user_id").collect()["user_id"]
    refused = [json.loads(p)["user_id"] for p in stream.lake.rejected.scan().collect()["payload"]]
    [(rows,)] = stream.warehouse.query(f"SELECT count() FROM {stream.settings.raw_database}.events")
    return len(good), len(refused), int(rows), {*good, *refused}


def views(stream: Stream) -> set[str]:
    """Types of the cursor's column in the live files of both tables."""
    found = set()
    for table in (stream.lake.good, stream.lake.rejected):
        paths = [Path(unquote(uri)) for uri in DeltaTable(table.uri).file_uris()]
        found |= {str(pq.read_schema(path).field("_cursor").type) for path in paths}
    return found


@pytest.mark.long
@pytest.mark.parametrize("by_others", [False, True], ids=["ours", "with files of a DELETE"])
def test_one_of_many_is_gone_and_everything_goes_on(stream: Stream, by_others: bool) -> None:
    ordinary(stream)
    gone = 0
    if by_others:  # as earlier versions of Headrace erased, and as others still may
        for table in (stream.lake.good, stream.lake.rejected):
            DeltaTable(table.uri).delete("_offset = 3")
        assert "string_view" in views(stream), "or this tests nothing"
        gone = 2
    receipt = erase([stream], WHO)
    [done] = receipt.streams
    assert (done.rows, done.rejected_rows, done.finished, receipt.finished) == (40, 2, True, True)
    assert done.versions
    assert done.rejected_versions
    good, refused, warehouse, people = left(stream)
    assert (good, refused, warehouse) == (1_960 - gone, 98, 1_960 - gone)
    assert WHO not in people
    assert len(people) == PEOPLE - 1
    assert not parity(stream).different
    if not by_others:
        assert views(stream) == {"string"}, "what is rewritten is stored as what is appended"
    # whatever reads the tables
    snapshot, refusals = stream.lake.good.open(), stream.lake.rejected.open()
    cursors = list(snapshot.below("files/events/"))
    assert len(cursors) == 2
    for cursor in cursors:
        assert snapshot.origins(cursor, 0, 10_000).height == 980 - gone // 2
        assert refusals.origins(cursor, 0, 10_000).height == 49
        assert snapshot.erased(cursor) + refusals.erased(cursor) == 21, "20 events and a refused one"
    assert snapshot.origins_of(QUEUE, pl.Series(["a", "b"]), NOW, timedelta(days=1)).is_empty()
    found = rejects.find(stream, reason="channel")
    assert found.height == 98
    repair = edits.transformed(found.head(5), '.channel = "web"')
    assert redrive(stream, [repair.rows]).landed == 5
    assert audit(stream.lake).doubled == 0
    assert ingested(stream, "late.ndjson", [event(event_id="late")]).good == 1
    for table in (stream.lake.good, stream.lake.rejected):
        table.maintain(timedelta(days=1), timedelta(days=1))
    assert rejects.find(stream).height == 93
    dict(stream.replace_days([date(2026, 1, 1), date(2026, 1, 2)]))
    assert not parity(stream).different
    assert WHO not in left(stream)[3]


def test_after_a_kill_between_the_two_commits_ingestion_goes_on(stream: Stream, batch_of: Any) -> None:
    """The rejected table's file is of a DELETE, and what landed above the good table's position is looked for."""
    lines = [event(event_id=f"e-{n}", channel="web" if n % 2 else "?") for n in range(20)]
    mixed = batch_of(lines[:10], cursor="kafka/t/i/0"), batch_of(lines, cursor="kafka/t/i/1")
    for batch in mixed:
        land(batch, EVENTS, stream.lake, stream.limits)
    more = batch_of([event(channel="?"), event(event_id="ok")] * 5, start=20, cursor="kafka/t/i/1")
    checked = validate(more, EVENTS, stream.limits)
    stream.lake.rejected.open().append(checked.rejected, {"kafka/t/i/1": 30}, "killed after this")
    stream.lake.rejected.newest().optimize.compact()
    DeltaTable(stream.lake.rejected.uri).delete("_offset = 0")
    assert "string_view" in views(stream)
    landed = land(more, EVENTS, stream.lake, stream.limits)
    assert (landed.good, landed.rejected) == (5, 0)
    assert audit(stream.lake).doubled == 0


def message(name: str, again: bool, **changes: Any) -> MicroBatch:
    """A message of a queue."""
    return MicroBatch.of(
        QUEUE, [event(**changes)], cursor=QUEUE, message_id=name, timestamp=NOW, redelivered=again,
        before=Position({QUEUE: 0}), after=Position({QUEUE: 1}),
    )  # fmt: skip


def test_nothing_brings_the_person_back_and_what_is_dropped_is_counted(
    stream: Stream, batch_of: Callable[..., MicroBatch], tmp_path: Path
) -> None:
    ordinary(stream)
    land(message("m-1", again=False, user_id=WHO), EVENTS, stream.lake, stream.limits)
    erase([stream], WHO)
    elsewhere = streams(stream.settings.model_copy(update={"home": tmp_path / "another machine"}))["events"]
    for one in (stream, elsewhere):
        again = land(message("m-1", again=True, user_id=WHO), EVENTS, one.lake, one.limits)
        assert (again.messages, again.good, again.rejected, again.repeated, again.erased) == (1, 0, 0, 0, 1)
    lines = [
        event(user_id=WHO),
        event(user_id="somebody"),
        event(channel="?", user_id=WHO),
        b'{"user_id": "user-7"',
    ]
    late = ingested(stream, "late.ndjson", lines)
    assert (late.messages, late.good, late.rejected, late.erased) == (4, 1, 0, 3)
    [cursor] = [c for c in stream.lake.good.open().below("files/") if stream.lake.good.open().erased(c) == 3]
    # a topic that is read from its beginning again, after a restore
    topic = "kafka/t/i/0"
    array = json.dumps([json.loads(event(user_id=who)) for who in (WHO, "a", "b")]).encode()
    kafka = land(
        batch_of([event(user_id=WHO), array, event()], cursor=topic), EVENTS, stream.lake, stream.limits
    )
    assert (kafka.messages, kafka.good, kafka.erased) == (3, 3, 1)
    # a refused record that somebody edits
    bad = land(
        batch_of([event(channel="?", user_id="x")], start=3, cursor=topic), EVENTS, stream.lake, stream.limits
    )
    assert bad.rejected == 1
    rows = rejects.find(stream, ids=[f"{topic}:3:0"])
    repair = edits.transformed(rows, f'.channel = "web" | .user_id = "{WHO}"')
    redrive(stream, [repair.rows])
    assert WHO not in left(stream)[3]
    good = stream.lake.good.open()
    for name, messages in ((cursor, 4), (topic, 4)):
        audited = audit(stream.lake)
        assert good.position([name])[name] == messages == audited.by_cursor[name] + good.erased(name)
    elsewhere.close()


def test_a_frozen_writer_is_refused_and_then_drops(
    stream: Stream, batch_of: Callable[..., MicroBatch]
) -> None:
    batch = batch_of([event(user_id=WHO), event(user_id="other"), event(channel="?", user_id=WHO)])
    tables = stream.lake.rejected.open(), stream.lake.good.open()
    group = Commit(EVENTS, stream.lake, tables)
    group.add(batch, validate(batch, EVENTS, stream.limits))
    between = stream.lake.rejected.open(), stream.lake.good.open()
    erase([stream], WHO)
    with pytest.raises(Conflict):
        group.commit()
    with pytest.raises(Conflict):
        between[1].append(pl.DataFrame(schema=EVENTS.landed_schema), {"other/0": 1}, "another cursor")
    landed = land(batch, EVENTS, stream.lake, stream.limits, between)
    assert (landed.good, landed.rejected, landed.erased) == (1, 0, 2)


def test_the_person_may_be_let_in_again(stream: Stream, batch_of: Callable[..., MicroBatch]) -> None:
    ordinary(stream)
    erase([stream], WHO)
    assert land(batch_of([event(user_id=WHO)]), EVENTS, stream.lake, stream.limits).erased == 1
    assert lift([stream], WHO)
    assert not lift([stream], WHO)
    assert land(batch_of([event(user_id=WHO)], start=1), EVENTS, stream.lake, stream.limits).good == 1
    erase([stream], WHO)
    assert WHO not in left(stream)[3]


def test_where_nobody_was_erased_nothing_is_created_or_hashed(
    stream: Stream, batch_of: Callable[..., MicroBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Suppressed, "drop", lambda *_: pytest.fail("looked"))
    assert land(batch_of([event(user_id=WHO)]), EVENTS, stream.lake, stream.limits).good == 1
    assert not (Path(stream.settings.lake) / "_erasures").exists()


def test_the_list_names_nobody(stream: Stream) -> None:
    ordinary(stream)
    erase([stream], WHO)
    digests = DeltaLakeTable(stream.settings.lake, ERASURES).scan().select("digest").collect()
    assert digests.height == 2, "a salt and a hash"
    found = stream.erasures.current(())
    assert found is not None
    assert found.holds(WHO)
    assert not Suppressed(b"another salt", found.digests).holds(WHO)
    files = Path(stream.settings.lake).rglob("*")
    assert not [f for f in files if f.is_file() and WHO.encode() in f.read_bytes()]


def test_an_entry_ends_with_its_time() -> None:
    table, day = MemoryLakeTable(ERASURES), timedelta(days=1)
    ever, short = Erasures(table), Erasures(table, day)
    assert ever.current(("",)) is None
    ever.suppress(WHO)
    ever.suppress("other")
    ever.lift("other")
    for one in (ever, short):
        found = one.current(("changed",))
        assert found is not None
        assert (found.holds(WHO), found.holds("other"), found.holds("nobody")) == (True, False, False)
    table.commits[1] = (
        table.commits[1][0].with_columns(_ingested_at=datetime.now(UTC) - 2 * day),
        table.commits[1][1],
    )
    assert short.current(("later",)) is None
    assert short.prune() == 3
    assert table.rows()["action"].to_list() == ["salt"], "by which later ids are hashed"
    assert ever.prune() == 0


def test_what_a_refused_record_may_name() -> None:
    assert possible_ids(b'{"a": [{"user_id": 7, "n": 8}], "b": "x y"}', b"k") == {"7", "x y", "k"}
    assert {"Zo\u00eb O'Neil", "7"} <= possible_ids(
        '{"user": "Zo\\u00eb O\'Neil", user_id=7; [\xff'.encode("latin-1"), None
    )
    assert possible_ids(b"", None) == set()
    assert "7" in possible_ids(b'{"user_id": "7", "a": "\xff"}', b"\xff")
    assert "7" in possible_ids(b"[" * 3_000 + b'"7"' + b"]" * 3_000, None)
    assert "7" in possible_ids(b'{"a": "\\ud800", "user_id": "7"}', None)


@pytest.mark.long
@pytest.mark.parametrize("step", ["publish", "forget", "models"])
def test_what_was_done_is_in_the_receipt_whatever_fails_later(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, step: str, tmp_path: Path
) -> None:
    ordinary(stream)
    with monkeypatch.context() as faulty:
        if step == "publish":
            publish, calls = stream.publish, list[int]()

            def away() -> Any:
                calls.append(1)
                if len(calls) > 1:
                    raise Retriable(f"the warehouse is away, and {WHO} too")
                return publish()

            faulty.setattr(stream, "publish", away)
        elif step == "forget":
            faulty.setattr(stream.lake.good, "forget", _fails)
        else:
            faulty.setattr(stream.warehouse, "erase", _fails)
        kept: list[Receipt] = []
        with pytest.raises((Retriable, Fatal)):
            erase([stream], WHO, tell=kept.append)
    path = kept[-1].save(tmp_path)
    said = json.loads(path.read_text())
    [one] = said["streams"]
    assert (one["rows"], one["rejected_rows"], said["finished"]) == (40, 2, False)
    assert one["versions"]
    assert one["finished"] is (step == "models")
    assert said["stopped_by"]
    assert WHO not in path.read_text()
    again = erase([stream], WHO)
    assert again.finished
    assert again.streams[0].rows == 0
    assert WHO not in left(stream)[3]
    assert not parity(stream).different
    assert not [f for f in Path(stream.settings.lake).rglob("*.parquet") if f.is_file() and _holds(f)]


def _fails(*_: Any, **__: Any) -> Any:
    raise Fatal("it fails")


def _holds(path: Path) -> bool:
    table = pl.read_parquet(path)
    return "user_id" in table.columns and WHO in table["user_id"]


def test_an_array_message_is_counted_when_its_last_record_goes(stream: Stream, batch_of: Any) -> None:
    """One with another's record stays a message; one whose records are good and refused ends with both."""
    mixed = [json.loads(event(user_id=WHO)), json.loads(event(user_id="b"))]
    both = [json.loads(event(user_id=WHO)), json.loads(event(user_id=WHO, channel="?"))]
    land(batch_of([json.dumps(m).encode() for m in (mixed, both)]), EVENTS, stream.lake, stream.limits)
    [done] = erase([stream], WHO).streams
    assert (done.rows, done.rejected_rows) == (2, 1)
    good, rejected = stream.lake.good.open(), stream.lake.rejected.open()
    assert good.erased("test/0") + rejected.erased("test/0") == 1


def test_two_erasures_at_once_and_a_compaction(stream: Stream) -> None:
    ordinary(stream)
    table = stream.lake.good
    of = {
        who: table.scan().filter(pl.col("user_id") == who).select(ORIGIN_KEY).collect()
        for who in ("user-1", WHO)
    }
    opened, calls = table.newest, list[int]()

    def others_first() -> Any:
        handle = opened()
        calls.append(1)
        if len(calls) == 1:
            opened().optimize.compact()
        if len(calls) == 2:
            assert type(table)(stream.settings.lake, table.table).erase(of["user-1"]).rows == 40
        return handle

    table.newest = others_first  # type: ignore[method-assign]
    assert table.erase(of[WHO]).rows == 40
    table.newest = opened  # type: ignore[method-assign]
    rest = table.scan().collect()
    assert rest.height == 1_920
    assert not {"user-1", WHO} & {*rest["user_id"]}


def test_the_lake_in_memory_refuses_what_was_opened_before_a_fence() -> None:
    lake = StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))
    before = lake.good.open()
    lake.good.fence("x")
    assert (before.mark, lake.good.open().mark) == ("", "x")
    with pytest.raises(Conflict):
        before.append(pl.DataFrame(schema=EVENTS.landed_schema), {"c": 1}, "")
