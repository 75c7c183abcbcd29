"""What reads the newest rows looks at no more files than it must, and ends when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from builders import event
from headrace.config.settings import load_settings
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch
from headrace.flow.commit import land
from headrace.lake.delta import DeltaLakeTable, browse
from headrace.streams.stream import Stream, streams

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
BATCHES, EACH = 6, 5


def put(stream: Stream, n: int) -> None:
    payloads = [event(event_id=f"e-{n}-{i}", duration_ms=i) for i in range(EACH)]
    batch = MicroBatch.of("test", payloads, cursor="test/0", offset=range(EACH * n, EACH * n + EACH))
    now = BEGIN + timedelta(hours=n)
    checked = check_batch(stream.contract, batch, batch_id=f"b-{n}", now=now, limits=stream.limits)
    land(batch, stream.contract, stream.lake, stream.limits, checked=checked)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[DeltaLakeTable]:
    stream = streams(load_settings(home=tmp_path))["events"]
    for n in range(BATCHES):
        put(stream, n)
    yield stream.lake.good
    stream.close()


def test_only_files_that_may_hold_newer_rows_are_read(table: DeltaLakeTable) -> None:
    found = browse.newest_rows(table, EACH)
    assert (found.files, found.of_files, found.enough) == (1, BATCHES, True)
    assert found.rows["event_id"].to_list() == [f"e-5-{i}" for i in (4, 3, 2, 1, 0)]
    # of fewer rows than a file has, no second file; of one more, one more file
    assert browse.newest_rows(table, 2).files == 1
    assert browse.newest_rows(table, EACH + 1).files == 2


def test_it_ends_when_it_is_told_and_says_so(table: DeltaLakeTable) -> None:
    found = browse.newest_rows(table, 3, pl.col("event_id") == "e-0-0", over=lambda: True)
    assert (found.enough, found.files, found.looked_at) == (False, 0, EACH)
    whole = browse.newest_rows(table, 3, pl.col("event_id") == "e-0-0")
    assert (whole.enough, whole.looked_at, whole.matching) == (True, BATCHES * EACH, 1)


def test_a_compaction_changes_no_row(table: DeltaLakeTable) -> None:
    before = table.open().version
    table.maintain(timedelta(days=30), timedelta(days=30))
    after = table.open().version
    assert after > before
    found = browse.difference(table, before, after, 10)
    assert found.files_removed == BATCHES and found.files_added == 1
    assert (found.rows_added, found.rows_removed, found.days) == (0, 0, {})
    assert browse.newest_rows(table, EACH).rows["event_id"].to_list() == [f"e-5-{i}" for i in (4, 3, 2, 1, 0)]


def test_rows_that_are_gone_are_named(table: DeltaLakeTable) -> None:
    before = table.open().version
    rows = pl.concat(table.batches()).filter(pl.col("event_id") == "e-2-2")
    table.erase(rows.select("_cursor", "_offset", "_message_id", "_index"))
    found = browse.difference(table, before, table.open().version, 10)
    assert (found.rows_added, found.rows_removed) == (0, 1)
    assert found.removed["event_id"].to_list() == ["e-2-2"]


def test_too_much_to_compare_is_said_instead(table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "COMPARED_ROWS", 2 * EACH - 1)
    found = browse.difference(table, 4, 6, 10)
    assert (found.rows_added, found.rows_removed, found.files_added) == (None, None, 2)
    assert browse.difference(table, 5, 6, 10).rows_added == EACH


def test_batches_of_a_version_and_of_a_moment(table: DeltaLakeTable) -> None:
    assert sum(one.height for one in table.batches_of(version=2)) == 2 * EACH
    moment = BEGIN + timedelta(hours=3)
    known = pl.concat(table.batches_of(["event_id"], moment=moment))
    assert known.columns == ["event_id"] and known.height == 4 * EACH
