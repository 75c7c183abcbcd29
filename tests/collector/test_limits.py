"""Rates, and when to come again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.collector.limits import Drain, Rates


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = Clock()
    rates = Rates(burst_seconds=2.0, clock=clock)
    assert [rates.wait("a", 10, 5) for _ in range(4)] == [0, 0, 0, 0]
    assert rates.wait("a", 10, 1) > 0
    assert rates.wait("b", 10, 1) == 0, "another has a bucket of its own"
    clock.now += 0.1
    assert rates.wait("a", 10, 1) == 0


def test_the_answer_is_when_the_next_one_passes() -> None:
    clock = Clock()
    rates = Rates(burst_seconds=1.0, clock=clock)
    assert rates.wait("a", 10, 100) == 0, "a batch that is larger than the bucket passes"
    wait = rates.wait("a", 10, 1)
    assert wait == 9.0
    clock.now += wait - 0.01
    assert rates.wait("a", 10, 1) > 0
    clock.now += 0.02
    assert rates.wait("a", 10, 1) == 0


def test_without_a_rate_nothing_waits() -> None:
    rates = Rates()
    assert all(rates.wait("a", 0, 1_000) == 0 for _ in range(1_000))


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), min_size=1, max_size=60))
def test_never_more_than_rate_and_burst_and_one_request(requests: list[tuple[float, int]]) -> None:
    clock, rate, burst = Clock(), 10.0, 2.0
    rates, taken, largest = Rates(burst_seconds=burst, clock=clock), 0, 0
    for pause, events in requests:
        clock.now += pause
        if not rates.wait("a", rate, events):
            taken += events
            largest = max(largest, events)
    assert taken <= rate * (clock.now - 100.0) + rate * burst + largest


def test_memory_is_bounded() -> None:
    rates = Rates(most=10, clock=Clock())
    for number in range(100):
        rates.wait(f"a{number}", 1, 1)
    assert len(rates._buckets) == 10


def test_a_drain_says_when_there_will_be_room() -> None:
    clock = Clock()
    drain = Drain(clock)
    assert drain.seconds_until(1) == 30, "nothing is known"
    for second in range(5):
        clock.now = 100.0 + second
        drain.note(second * 1_000)
    assert drain.seconds_until(10_000) == 10
    assert drain.seconds_until(1) == 1
    assert drain.seconds_until(10**9) == 300


def test_a_drain_that_stands_still_says_so() -> None:
    clock = Clock()
    drain = Drain(clock)
    for second in range(5):
        clock.now = 100.0 + second
        drain.note(1_000)
    assert drain.seconds_until(1) == 30
