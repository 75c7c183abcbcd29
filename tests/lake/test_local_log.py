"""A log that is shortened by number of commits loses nothing that anybody still needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from builders import NOW, event
from conftest import Stack
from headrace.bench.tasks import own_stream
from headrace.contracts import EVENTS, Limits, check_batch
from headrace.core.batch import MicroBatch
from headrace.core.errors import HistoryGone
from headrace.health.parity import parity
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.delta.local_log import shorten
from headrace.pipelines import Kafka

Batch = Callable[..., MicroBatch]
CURSOR = "test/0"
MARK = b"headrace.erasure"


def commit(table: DeltaLakeTable, batch_of: Batch, first: int, end: int) -> None:
    for n in range(first, end):
        batch = batch_of([event(event_id=f"e-{n}")], start=n)
        good = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits()).good
        table.open().append(good, {CURSOR: n + 1}, str(n))


@pytest.fixture
def table(tmp_path: Path, batch_of: Batch) -> DeltaLakeTable:
    """65 versions, a row each; checkpoints at 19, 39 and 59."""
    made = DeltaLakeTable(str(tmp_path / "a lake"), EVENTS.table)
    commit(made, batch_of, 0, 65)
    return made


def log_of(table: DeltaLakeTable) -> Path:
    return Path(table.uri) / "_delta_log"


@pytest.mark.parametrize(
    ("needed", "keep", "begin"),
    [
        (66, 5, 59),
        (66, 7, 59),
        (66, 8, 39),  # the commit before the checkpoint is one of the last eight
        (66, 0, 59),
        (58, 1, 39),  # the publisher is behind
        (59, 1, 59),
        (18, 1, 0),
        (66, 500, 0),
    ],
)
def test_it_begins_with_a_checkpoint_before_all_that_has_to_stay(
    table: DeltaLakeTable, needed: int, keep: int, begin: int
) -> None:
    assert shorten(log_of(table), needed, keep, MARK) == begin
    assert [int(path.stem) for path in sorted(log_of(table).glob("*.json"))] == [*range(begin, 66)]
    for version in range(begin, 66):
        handle = DeltaTable(table.uri, version=version)
        assert (handle.transaction_version(CURSOR) or 0) == version
        assert sum(table.counts_by_day(version).values()) == version
    if begin:
        with pytest.raises(HistoryGone):
            table.describe(begin - 1)
    assert [table.describe(version).rows for version in range(max(begin, 1), 66)] == [1] * (
        66 - max(begin, 1)
    )


def test_what_comes_afterwards_lands_as_ever(table: DeltaLakeTable, batch_of: Batch) -> None:
    before = table.open()
    shorten(log_of(table), 66, 5, MARK)
    batch = batch_of([event(event_id="e-65")], start=65)
    good = check_batch(EVENTS, batch, batch_id="b", now=NOW, limits=Limits()).good
    before.append(good, {CURSOR: 66}, "through a snapshot of before")
    commit(table, batch_of, 66, 90)
    assert shorten(log_of(table), 91, 5, MARK) == 79
    assert table.extent().rows == 90
    assert dict(table.open().position([CURSOR])) == {CURSOR: 90}


def test_an_erasure_stays_until_what_it_removed_is_gone(table: DeltaLakeTable, batch_of: Batch) -> None:
    origin = table.scan().head(1).select("_cursor", "_offset", "_message_id", "_index").collect()
    assert table.erase(origin).rows == 1
    commit(table, batch_of, 65, 130)
    assert shorten(log_of(table), 131, 5, MARK) == 59, "version 66 is the erasure"
    assert table.erase(origin).files, "so the file is found by whoever erases again"
    assert shorten(log_of(table), 132, 5, b"nothing is marked so") == 119
    assert not table.erase(origin).files, "the control: without its commit it is not"


def test_another_may_shorten_it_meanwhile(table: DeltaLakeTable, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def gone(path: Path) -> bytes:
        if int(path.stem) < 59:
            path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", gone)
    assert shorten(log_of(table), 66, 5, MARK) == 59
    assert table.extent().rows == 65


def test_a_log_without_checkpoints_stays_whole(tmp_path: Path, batch_of: Batch) -> None:
    young = DeltaLakeTable(str(tmp_path), EVENTS.table)
    commit(young, batch_of, 0, 5)
    assert shorten(log_of(young), 6, 1, MARK) == 0
    assert len([*log_of(young).glob("*.json")]) == 6


@pytest.mark.long
def test_publishing_shortens_what_is_published(stack: Stack, batch_of: Batch) -> None:
    settings = stack.settings.model_copy(update={"lake_log_commits": 10})
    with own_stream(settings, Kafka("none")) as stream:
        good = stream.lake.good
        commit(good, batch_of, 0, 125)
        assert good.describe(1).rows == 1, "nothing is published yet"
        assert stream.publish().rows == 125
        with pytest.raises(HistoryGone):
            good.describe(98)
        assert good.describe(99).rows == 1
        commit(good, batch_of, 125, 130)
        assert stream.publish().rows == 5
        assert not parity(stream).different
    with own_stream(settings.model_copy(update={"lake_log_commits": 0}), Kafka("none")) as stream:
        commit(stream.lake.good, batch_of, 0, 125)
        assert stream.publish().rows == 125
        assert stream.lake.good.describe(1).rows == 1, "told to keep all within its hours"
