"""When a job that fails may run again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.health.backoff import (
    EndedRun,
    Policy,
    cause_of,
    failing_days,
    pause_of,
    pauses_by_day,
    split_at,
)

BEGAN = datetime(2026, 3, 10, 12, tzinfo=UTC)
POLICY = Policy(timedelta(seconds=10), timedelta(minutes=15))
D = date(2026, 3, 10)


def failed(
    at: float, cause: str = "a", seconds: float = 1.0, version: str = "v1", day: int | None = None
) -> EndedRun:
    of = None if day is None else D + timedelta(days=day)
    return EndedRun(
        False, BEGAN + timedelta(seconds=at), seconds, version, cause, f"because of {cause}", of, of
    )


def well(at: float, day: int | None = None, version: str = "v1") -> EndedRun:
    of = None if day is None else D + timedelta(days=day)
    return EndedRun(True, BEGAN + timedelta(seconds=at), 1.0, version, first=of, last=of)


def waits(*runs: EndedRun, version: str | None = "v1") -> float | None:
    """Seconds from the last of these runs, given in the order of time, to the next try."""
    found = pause_of(reversed(runs), POLICY, version)
    return (found.next_try - runs[-1].at).total_seconds() if found else None


def test_pauses_double_up_to_a_limit_and_end_with_a_success() -> None:
    runs = [failed(n * 1_000) for n in range(12)]
    assert [waits(*runs[: n + 1]) for n in range(12)] == [10, 20, 40, 80, 160, 320, 640] + [900] * 5
    assert waits(*runs, well(99_999)) is None
    assert waits(*runs, well(99_999), failed(100_000)) == 10
    assert waits() is None
    found = pause_of(reversed(runs), POLICY, "v1")
    assert found is not None
    assert str(found) == "failed 12 times since 12:00:00, next try at 15:18:20 UTC: because of a"


def test_another_version_of_the_code_is_tried_at_once() -> None:
    runs = [failed(n * 1_000) for n in range(6)]
    assert waits(*runs, version="v2") is None
    assert waits(*runs, failed(9_000, version="v2"), version="v2") == 10
    assert waits(*runs, version=None) == 320, "whoever only looks takes that of the last run"
    assert waits(*runs, failed(9_000, version=""), version="v1") == 640, "launched by hand"


def test_another_cause_begins_with_short_pauses_but_not_for_ever() -> None:
    runs = [failed(n * 1_000) for n in range(3)]
    assert waits(*runs, failed(9_000, cause="b")) == 10
    assert waits(*runs, failed(9_000, cause="b"), failed(10_000)) == 80, "it was not gone"
    always_new = [failed(n * 1_000, cause=str(n)) for n in range(60)]
    assert waits(*always_new) == 900


def test_a_run_that_takes_long_to_fail_takes_half_of_the_time_at_most() -> None:
    assert waits(failed(0, seconds=600)) == 600
    assert waits(failed(0, seconds=3_600)) == 3_600


def test_numbers_do_not_make_another_cause() -> None:
    first = cause_of("Fatal", "run 4f1c2a9e-aa41 read 312 of 400 rows\nin step 3")
    assert first == cause_of("Fatal", "run 0badcafe-1234 read 9 of 77 rows\nin step 4")
    assert first != cause_of("Retriable", "run 4f1c2a9e-aa41 read 312 of 400 rows")
    assert first != cause_of("Fatal", "run 4f1c2a9e-aa41 wrote 312 of 400 rows")


@pytest.mark.long
@settings(deadline=None, max_examples=50)
@given(st.floats(0.1, 120), st.floats(0.5, 30))
def test_a_job_that_always_fails_is_launched_a_few_times_an_hour(seconds: float, look: float) -> None:
    runs: list[EndedRun] = []
    now, end = BEGAN, BEGAN + timedelta(hours=3)
    while now < end:
        found = pause_of(runs, POLICY, "v1")
        if found is None or now >= found.next_try:
            now += timedelta(seconds=seconds)
            runs.insert(0, EndedRun(False, now, seconds, "v1", "a"))
        now += timedelta(seconds=look)
    assert 10 <= len(runs) <= 7 + 3 * 4 + 1


def test_days_that_fail_do_not_hold_up_others() -> None:
    runs = [well(300, day=0), failed(200, day=-5), well(100, day=-5), failed(50, day=0)]  # the newest first
    assert failing_days(runs) == {D - timedelta(days=5)}
    assert set(pauses_by_day(runs, [D, D - timedelta(days=5)], POLICY, "v1")) == {D - timedelta(days=5)}
    assert failing_days([failed(9, day=3), *runs]) == {D - timedelta(days=5), D + timedelta(days=3)}
    assert failing_days([well(9, day=-5), *runs]) == set()


@settings(deadline=None)
@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_groups_hold_every_day_and_have_no_held_day_between_them(free: set[int], held: set[int]) -> None:
    held -= free
    groups = split_at([D + timedelta(days=n) for n in free], [D + timedelta(days=n) for n in held])
    assert [day for group in groups for day in group] == sorted(D + timedelta(days=n) for n in free)
    for group in groups:
        assert not {n for n in held if group[0] <= D + timedelta(days=n) <= group[-1]}
    if not held:
        assert len(groups) == bool(free)
