"""The share of rejected rows, as it happens."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import event
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.contracts import EVENTS
from headrace.core.batch import CheckedBatch, MicroBatch
from headrace.flow.commit import land
from headrace.health import verdicts
from headrace.health.checks import reject_rate
from headrace.health.reject_rate import DAY, Arrived, arrived
from headrace.health.status import inspect
from headrace.health.verdicts import FLOOR, Verdict
from headrace.lake.delta import DeltaLakeTable
from headrace.repair import edits, rejects
from headrace.repair.redrive import redrive
from headrace.streams.stream import Stream, streams

QUARTER = timedelta(minutes=15)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
Batch = Callable[..., MicroBatch]
judge = verdicts.reject_rate


def weight(found: Verdict) -> str | None:
    """Severity of a verdict that did not pass."""
    return None if found.passed else found.severity


@pytest.mark.parametrize(
    ("good", "rejected", "severity"),
    [
        (0, 0, None),
        (95, 5, None),
        (94, 6, "warning"),
        (50, 50, "warning"),  # not above a half
        (0, 62_212, "error"),
        (49, 51, "error"),
        (2, 3, "warning"),  # a quiet stream
        (0, FLOOR - 1, "warning"),
        (0, FLOOR, "error"),
    ],
)
def test_a_share_is_well_or_a_warning_or_from_a_floor_on_an_error(
    good: int, rejected: int, severity: str | None
) -> None:
    assert weight(judge([Arrived(QUARTER, good, rejected)], warn=0.05, error=0.5)) == severity


def test_the_worst_of_the_newest_and_the_days_rows_is_named() -> None:
    begins = judge([Arrived(QUARTER, 1, 300), Arrived(DAY, 1_000_000, 300)], warn=0.05, error=0.5)
    assert weight(begins) == "error"
    assert begins.description == "300 of 301 rows of the last 15 min rejected (99.67%, limit 50.00%)"
    burst = judge([Arrived(QUARTER, 0, 0), Arrived(DAY, 0, 62_212)], warn=0.05, error=0.5)
    assert weight(burst) == "error"
    assert "62,212 of 62,212 rows of the last 1 d rejected" in burst.description
    quiet = judge([Arrived(QUARTER, 0, 3), Arrived(DAY, 10, 60)], warn=0.05, error=0.5)
    assert weight(quiet) == "error", "an error before a warning of a higher share"
    assert "60 of 70 rows of the last 1 d" in quiet.description
    mended = judge([Arrived(DAY, 90, 10, repaired=900)], warn=0.05, error=0.5)
    assert mended.description.endswith("(10.00%, limit 5.00%, 900 more were repaired)")


def test_an_error_below_the_warning_is_a_warning_too() -> None:
    assert weight(judge([Arrived(DAY, 90, 10)], warn=0.5, error=0.05)) == "warning"


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_window_are_counted_exactly_before_and_after_files_are_put_together(
    tmp_path: Path, judge: Callable[..., CheckedBatch], seed: int
) -> None:
    table, chance = DeltaLakeTable(str(tmp_path / "a lake"), EVENTS.table), random.Random(seed)
    assert table.open().arrived(NOW) == 0
    ages: list[int] = []
    for _ in range(12):
        age, rows = chance.randrange(3_000), chance.randrange(1, 5)
        good = judge(EVENTS, [event(event_id=str(n)) for n in range(rows)], NOW - timedelta(seconds=age)).good
        table.open().append(good, {}, "b")
        ages += [age] * rows
    for _ in range(2):
        snapshot = table.open()
        for window in (0, 1, *ages, 3_000):
            counted = snapshot.arrived(NOW - timedelta(seconds=window))
            assert counted == sum(age <= window for age in ages)
            assert snapshot.origins_since(NOW - timedelta(seconds=window)).height == counted
        table.maintain(timedelta(hours=1), timedelta(hours=1))


@pytest.fixture
def stream(stack: Stack, tmp_path: Path) -> Iterator[Stream]:
    config = stack.settings.model_copy(
        update={"lake_uri": str(tmp_path / "a lake"), "raw_database": f"raw_{uuid.uuid4().hex[:8]}"}
    )
    one = streams(config)["events"]
    yield one
    one.close()


def test_all_rejected_is_red_in_the_status_at_once_and_green_when_it_is_repaired(
    stream: Stream, batch_of: Batch
) -> None:
    batch = batch_of([event(event_id=f"e-{n}", channel="pigeon") for n in range(30)])
    land(batch, stream.contract, stream.lake, stream.limits)
    red = inspect(stream)
    assert not red.healthy
    [said] = red.problems
    assert said.startswith("30 of 30 rows of the last 15 min rejected (100.00%, limit 50.00%)")
    assert said.endswith("see 'headrace rejects list events'")
    repaired = edits.transformed(rejects.find(stream).head(29), '.channel = "web"')
    redrive(stream, [repaired.rows])
    newest, day = arrived(stream)
    assert (newest.good, newest.rejected, newest.repaired) == (29, 1, 29)
    assert (day.within, day.good, day.rejected, day.repaired) == (DAY, 29, 1, 29)
    found = reject_rate(stream)
    assert found.passed
    assert found.metadata == {"rate": 0.0333, "rejected": 1, "repaired": 29}
    assert inspect(stream).problems == ()
    later = datetime.now(UTC) + DAY * 2
    assert [(one.good, one.rejected) for one in arrived(stream, later)] == [(0, 0), (0, 0)]
    assert reject_rate(stream, later).passed


def test_a_few_rejects_of_a_quiet_stream_are_a_warning(stream: Stream, batch_of: Batch) -> None:
    made = [event(), event(event_id="f"), *[event(channel="pigeon")] * 3]
    land(batch_of(made), stream.contract, stream.lake, stream.limits)
    found = inspect(stream)
    assert found.healthy
    [said] = found.warnings
    assert "3 of 5 rows" in said
    assert weight(reject_rate(stream)) == "warning"


def test_a_pipeline_and_the_settings_say_where_the_limits_are(stream: Stream, batch_of: Batch) -> None:
    made = [event(), *[event(channel="pigeon")] * 30]
    land(batch_of(made), stream.contract, stream.lake, stream.limits)
    mild = stream.settings.model_copy(update={"error_reject_rate": 1.0})
    assert weight(reject_rate(streams(mild)["events"])) == "warning"
    mild = stream.settings.model_copy(update={"error_reject_rate": 1.0, "max_reject_rate": 1.0})
    assert reject_rate(streams(mild)["events"]).passed
    assert load_settings().error_reject_rate == 0.5
    assert load_settings().reject_seconds == 900
