"""A stream's lake goes back to a moment, and forward again; nothing lands twice, and the counts agree."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from builders import event
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.core.batch import CheckedBatch, MicroBatch, Position
from headrace.core.errors import Conflict, Fatal, HistoryGone
from headrace.flow.commit import Commit, land
from headrace.flow.validate import validate
from headrace.health import verdicts
from headrace.health.audit import audit
from headrace.health.parity import parity
from headrace.lake.delta import history
from headrace.lake.delta import restore as delta_restore
from headrace.lake.delta.storage import DeltaStorage
from headrace.repair import restore as repair_restore
from headrace.repair.restore import restore_stream
from headrace.streams.stream import Stream, streams

CURSOR = "kafka/t/i/0"
QUEUE = "sqs/q"
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """Five batches, a day apart: each has four events and a message that is refused."""
    one = streams(load_settings(home=tmp_path, lake_uri=str(tmp_path / "a lake")))["events"]
    for n in range(5):
        landed(one, 5 * n, at(n))
    yield one
    one.close()


def at(day: float) -> datetime:
    return BEGIN + timedelta(days=day)


def landed(stream: Stream, first: int, ingested: datetime, messages: Sequence[bytes] | None = None) -> int:
    """Land a batch that was ingested at a time; returns its rows."""
    payloads = messages or [event(event_id=f"e-{first + n}", user_id=f"u-{n}") for n in range(4)]
    batch = MicroBatch.of(
        "test",
        [*payloads, event(channel="?")] if messages is None else list(payloads),
        cursor=CURSOR,
        offset=range(first, first + len(payloads) + (messages is None)),
    )
    done = land(batch, stream.contract, stream.lake, stream.limits, checked=dated(stream, batch, ingested))
    return done.good + done.rejected


def dated(stream: Stream, batch: MicroBatch, ingested: datetime) -> CheckedBatch:
    checked = validate(batch, stream.contract, stream.limits)
    when = pl.lit(ingested).cast(pl.Datetime("us", "UTC")).alias("_ingested_at")
    return replace(
        checked, good=checked.good.with_columns(when), rejected=checked.rejected.with_columns(when)
    )


def held(stream: Stream) -> tuple[list[int], list[int]]:
    """Offsets of good and rejected rows."""
    tables = (stream.lake.good, stream.lake.rejected)
    good, rejected = (sorted(t.scan().select("_offset").collect()["_offset"]) for t in tables)
    return good, rejected


def whole(batches: int) -> tuple[list[int], list[int]]:
    return [n for n in range(5 * batches) if n % 5 < 4], [n for n in range(5 * batches) if n % 5 == 4]


def reconciled(stream: Stream) -> int:
    """Messages that are out; every offset is accounted for."""
    found = audit(stream.lake, cursors=[CURSOR])
    assert verdicts.every_message_once(found).passed
    position = stream.lake.good.open().position([CURSOR])[CURSOR]
    missing = sum(end - first for first, end in found.missing.get(CURSOR, []))
    assert missing == found.absent.get(CURSOR, 0)
    assert found.by_cursor.get(CURSOR, 0) + missing == position
    return found.restored.get(CURSOR, 0)


def test_back_and_forward_again(stream: Stream) -> None:
    there = datetime.now(UTC)
    planned = restore_stream(stream, at(1.5), dry_run=True)
    assert held(stream) == whole(5), "a dry run changes nothing"
    done = restore_stream(stream, at(1.5))
    assert held(stream) == whole(2)
    assert [(t.table, t.out, t.back) for t in done.tables] == [("events_rejected", 3, 0), ("events", 12, 0)]
    assert [(t.out, t.back, t.days) for t in planned.tables] == [(t.out, t.back, t.days) for t in done.tables]
    assert done.messages == {CURSOR: 15}
    assert reconciled(stream) == 15
    again = restore_stream(stream, at(1.5))
    assert [(t.out, t.back, t.version) for t in again.tables] == [(0, 0, None)] * 2
    assert landed(stream, 0, at(6)) == 0, "the positions stay: what was taken out does not land again"
    assert landed(stream, 20, at(6)) == 0
    assert landed(stream, 25, datetime.now(UTC)) == 5
    middle = restore_stream(stream, at(3.5))
    assert [(t.out, t.back) for t in middle.tables] == [(1, 2), (4, 8)]
    assert held(stream) == whole(4)
    assert reconciled(stream) == 10
    restore_stream(stream, there)
    assert held(stream) == whole(5)
    assert reconciled(stream) == 5, "what landed after the first restore is out"


def test_an_undone_restore_keeps_what_has_landed_since(stream: Stream) -> None:
    with pytest.raises(Fatal, match="no restore to undo"):
        restore_stream(stream, None)
    restore_stream(stream, at(0.5))
    landed(stream, 25, datetime.now(UTC))
    assert reconciled(stream) == 20
    done = restore_stream(stream, None)
    assert [(t.out, t.back) for t in done.tables] == [(0, 4), (0, 16)]
    assert held(stream) == whole(6)
    assert reconciled(stream) == 0
    with pytest.raises(Fatal, match="no restore to undo"):
        restore_stream(stream, None)


def test_rows_are_known_as_they_were_at_any_moment(stream: Stream) -> None:
    def known(moment: datetime) -> list[int]:
        return sorted(stream.as_of(moment).select("_offset").collect()["_offset"])

    before = [known(at(n + 0.5)) for n in range(5)]
    assert before == [whole(n + 1)[0] for n in range(5)]
    assert known(at(-1)) == []
    assert known(at(1)) == whole(2)[0], "a row is known from its moment on"
    assert known(at(1) - timedelta(microseconds=1)) == whole(1)[0]
    there = datetime.now(UTC)
    restore_stream(stream, at(1.5))
    landed(stream, 25, datetime.now(UTC))
    assert [known(at(n + 0.5)) for n in range(5)] == before, "also what a restore has taken out since"
    assert known(there) == whole(5)[0]
    assert known(datetime.now(UTC)) == [*whole(2)[0], 25, 26, 27, 28]
    assert stream.as_of(at(0.5), rejected=True).collect()["_offset"].to_list() == [4]
    with pytest.raises(Fatal, match="no time zone"):
        stream.as_of(datetime(2026, 1, 1))


def test_what_is_no_longer_kept_is_said(stream: Stream) -> None:
    restore_stream(stream, at(1.5))
    for table in (stream.lake.good, stream.lake.rejected):
        [one] = history.restores(table.newest())
        table.newest().create_checkpoint()
        log = Path(table.uri) / "_delta_log"
        for file in log.iterdir():
            if file.name[:20].isdigit() and int(file.name[:20]) < one.version:
                file.unlink()
    with pytest.raises(HistoryGone, match=r"was restored to 2026-11-02 12:00:00 UTC at .* no longer kept"):
        restore_stream(stream, at(2.5))
    assert held(stream) == whole(2)
    assert sorted(stream.as_of(at(0.5)).collect()["_offset"]) == [0, 1, 2, 3], (
        "an earlier moment is in every row"
    )


def test_a_restore_that_was_killed_between_the_tables_is_finished_by_the_next(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = delta_restore._commit, list[str]()

    def killed(storage: object, *rest: object) -> int:
        calls.append("")
        if len(calls) == 2:
            raise KeyboardInterrupt
        return commit(storage, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(delta_restore, "_commit", killed)
    with pytest.raises(KeyboardInterrupt):
        restore_stream(stream, at(1.5))
    assert held(stream) == (whole(5)[0], whole(2)[1])
    assert reconciled(stream) == 3
    files = set(Path(stream.lake.good.uri).rglob("*.parquet"))
    restore_stream(stream, at(1.5))
    assert held(stream) == whole(2)
    assert reconciled(stream) == 15
    assert len(files) == 5, "what was written for the commit is removed"
    restore_stream(stream, None)
    assert held(stream) == whole(5)
    assert reconciled(stream) == 0


def test_undoing_one_that_was_killed_and_run_again_brings_all_of_it_back(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what landed between both attempts."""
    restored = delta_restore.restore

    def killed(storage: DeltaStorage, *args: Any, **named: Any) -> Any:
        if storage.table.name == "events":
            raise KeyboardInterrupt
        return restored(storage, *args, **named)

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(repair_restore, "restore", killed)
        restore_stream(stream, at(1.5))
    assert held(stream) == (whole(5)[0], whole(2)[1]), "or this tests nothing"
    landed(stream, 25, datetime.now(UTC))
    restore_stream(stream, at(1.5))
    assert held(stream) == whole(2)
    landed(stream, 30, datetime.now(UTC))
    restore_stream(stream, None)
    assert held(stream) == whole(7)
    assert reconciled(stream) == 0
    with pytest.raises(Fatal, match="no restore to undo"):
        restore_stream(stream, None)


def test_undoing_one_of_two_restores_to_a_moment_leaves_the_other(stream: Stream) -> None:
    restore_stream(stream, at(1.5))
    landed(stream, 25, datetime.now(UTC))
    restore_stream(stream, at(1.5))
    restore_stream(stream, None)
    good, rejected = whole(2)
    assert held(stream) == ([*good, 25, 26, 27, 28], [*rejected, 29])
    assert reconciled(stream) == 15


def test_a_writer_from_before_is_refused_and_one_that_lands_meanwhile_is_taken_out(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = MicroBatch.of("test", [event(event_id="late")], cursor=CURSOR, offset=[25])
    prepared = Commit(stream.contract, stream.lake, (stream.lake.rejected.open(), stream.lake.good.open()))
    prepared.add(batch, dated(stream, batch, at(5)))
    commit, calls = delta_restore._commit, list[str]()

    def raced(storage: object, *rest: object) -> int:
        calls.append("")
        if len(calls) == 2:  # the good table's
            landed(stream, 30, at(5))
        return commit(storage, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(delta_restore, "_commit", raced)
    done = restore_stream(stream, at(1.5))
    with pytest.raises(Conflict):
        prepared.commit()
    assert len(calls) == 3
    assert held(stream)[0] == whole(2)[0]
    assert done.tables[1].out == 16


def test_erased_people_stay_out(stream: Stream) -> None:
    restore_stream(stream, at(1.5))
    stream.erasures.suppress("u-2")
    restore_stream(stream, None)
    people = stream.lake.good.scan().select("user_id", "_offset").collect()
    back = people.filter(pl.col("_offset") >= 10)
    assert sorted(back["user_id"].unique()) == ["u-0", "u-1", "u-3"]
    assert people.height == 8 + 9


def test_a_queues_message_that_comes_again_is_known_although_it_is_out(stream: Stream) -> None:
    def again(redelivered: bool) -> int:
        batch = MicroBatch.of(
            "sqs", [event(event_id="q")], cursor=QUEUE, message_id="m-1", timestamp=at(4.6),
            redelivered=redelivered, before=Position({QUEUE: 0}), after=Position({QUEUE: 1}),
            redelivery_window=timedelta(days=14),
        )  # fmt: skip
        tables = stream.lake.rejected.open(), stream.lake.good.open()
        checked = dated(stream, batch, at(4.6))
        return land(batch, stream.contract, stream.lake, stream.limits, tables, checked).good

    assert again(redelivered=False) == 1
    assert again(redelivered=True) == 0
    restore_stream(stream, at(4.5))
    assert held(stream) == whole(5)
    assert again(redelivered=True) == 0
    assert again(redelivered=False) == 1, "the control: one that is not looked up lands"


def test_what_was_taken_out_stays_readable_when_log_and_files_get_old(stream: Stream) -> None:
    good = stream.lake.good
    restore_stream(stream, at(1.5))
    [one] = history.restores(good.newest())
    for n in range(45):
        good.open().append(good.scan().head(0).collect(), {"x": n}, str(uuid.uuid4()))
    good.shorten_log(1_000, 5)
    good.maintain(timedelta(days=1), timedelta(hours=1))
    assert history.kept(good).before_restores == {one.version - 1}
    assert one.version - 1 not in history.read_log(good).readable
    assert (
        DeltaTable(good.uri, version=one.version - 1).to_pyarrow_dataset().to_table(["_offset"]).num_rows
        == 20
    )
    restore_stream(stream, None)
    assert held(stream) == whole(5)


def test_the_warehouse_and_its_models_follow(stack: Stack, tmp_path: Path) -> None:
    config = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "a lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    one = streams(config)["events"]

    def published() -> int:
        one.publish()
        assert not parity(one).different
        raw, table = config.raw_database, one.contract.rejected_table.name
        [(rejected,)] = one.warehouse.query(f"SELECT count() FROM {raw}.{table}")
        assert int(rejected) == len(held(one)[1])
        return sum(one.warehouse_counts().values())

    try:
        for n in range(3):
            landed(one, 5 * n, at(n))
        assert published() == 12
        day = next(iter(one.warehouse_counts()))
        one.refreshed(one.published_version(), [day], datetime.now(UTC))
        assert one.stale_days() == []
        restore_stream(one, at(0.5))
        assert published() == 4
        assert [stale.day for stale in one.stale_days()] == [day]
        restore_stream(one, None)
        landed(one, 15, datetime.now(UTC))
        assert published() == 16
    finally:
        one.close()
