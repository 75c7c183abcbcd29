"""The simulator repeats itself, follows the day, and passes its contracts but for what it spoils."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from random import Random

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts import EVENTS, METRICS
from headrace.core.batch import CheckedBatch
from headrace.core.errors import Fatal
from headrace.producers import traffic
from headrace.producers.base import MemoryProducer
from headrace.producers.traffic import Traffic, run_traffic

START = datetime(2026, 5, 6, 14, tzinfo=UTC)


@pytest.fixture(scope="module")
def hour() -> tuple[list[bytes | None], list[bytes | None]]:
    events, metrics = Traffic(1, 6).between(START, START + timedelta(hours=1))
    return list(events.payloads), list(metrics.payloads)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(0, 40), max_size=6))
def test_what_is_sent_does_not_depend_on_how_time_is_divided(pauses: list[float]) -> None:
    end = START + timedelta(minutes=3)
    whole = Traffic(7, 0.5).between(START, end)
    divided, at = Traffic(7, 0.5), START
    events: list[bytes | None] = []
    metrics: list[bytes | None] = []
    for moment in [*pauses, 3_600.0]:
        after = min(at + timedelta(seconds=moment), end)
        first, second = divided.between(at, after)
        events += first.payloads
        metrics += second.payloads
        at = after
    assert (events, metrics) == (whole[0].payloads, whole[1].payloads)


def test_the_past_is_what_the_present_was() -> None:
    """Starting in the middle gives the same messages as having run all along."""
    half = START + timedelta(minutes=10)
    end = START + timedelta(minutes=20)
    running = Traffic(3, 2)
    running.between(START, half)
    second = running.between(half, end)
    assert Traffic(3, 2).between(half, end)[0].payloads == second[0].payloads
    assert running.between(half, end)[0].payloads == second[0].payloads  # going back starts anew
    inside = Traffic(3, 2)
    inside.between(START, half + timedelta(seconds=5))
    assert inside.between(half, end)[0].payloads == second[0].payloads  # and so does going back a little
    assert Traffic(4, 2).between(half, end)[0].payloads != second[0].payloads


def test_contracts(
    hour: tuple[list[bytes | None], list[bytes | None]], judge: Callable[..., CheckedBatch]
) -> None:
    events, metrics = hour
    checked = judge(EVENTS, events)
    share = checked.rejected.height / len(events)
    assert 0.25 * traffic.MALFORMED < share < 4 * traffic.MALFORMED
    kinds = set(checked.good["event_type"].unique())
    assert kinds >= {"page_view", "click", "search", "add_to_cart", "purchase", "signup", "page_load"}
    assert kinds >= {"app_open", "screen_view", "api_call", "message_sent", "message_received"}
    assert set(checked.good["channel"].unique()) == {"web", "mobile", "chat"}
    numbers = judge(METRICS, metrics)
    assert set(numbers.good["kind"].unique()) == {"counter", "gauge", "histogram"}
    assert numbers.rejected.height < 0.01 * numbers.good.height
    assert numbers.good["metric_id"].n_unique() == numbers.good.height
    assert len(metrics) == 360 * 5


def test_everything_spoiled_is_refused(judge: Callable[..., CheckedBatch]) -> None:
    event = next(e for _, e in traffic._session(Random(1), START.timestamp()))
    assert judge(EVENTS, [msgspec.json.encode(event)]).rejected.is_empty()
    spoiled = [traffic._spoiled(choice, event) for choice in range(traffic._SPOILED)]
    assert judge(EVENTS, spoiled).good.is_empty()


def test_late_and_repeated_events(hour: tuple[list[bytes | None], list[bytes | None]]) -> None:
    ids, times = [], []
    for payload in hour[0]:
        try:
            event = msgspec.json.decode(payload or b"")
            times.append(datetime.fromisoformat(event["occurred_at"]))
        except (msgspec.DecodeError, ValueError):
            continue
        ids.append(event["event_id"])
    twice = sum(n > 1 for name, n in Counter(ids).items() if name)
    assert 0.3 * traffic.TWICE < twice / len(ids) < 3 * traffic.TWICE
    sent = pl.Series(times).cum_max()
    late = ((sent - pl.Series(times)) > timedelta(minutes=2)).sum()
    assert 0.3 * traffic.LATE < late / len(times) < 2 * traffic.LATE


def test_the_rate_is_the_mean_over_a_day_and_follows_its_hours() -> None:
    simulated = Traffic(5, 0.3)
    counts = [
        len(simulated.between(START + timedelta(hours=h), START + timedelta(hours=h + 1))[0])
        for h in range(24)
    ]
    assert sum(counts) == pytest.approx(0.3 * 86_400, rel=0.1)
    by_hour = {(START.hour + h) % 24: n for h, n in enumerate(counts)}
    assert max(by_hour, key=by_hour.__getitem__) in range(12, 20)
    assert min(by_hour, key=by_hour.__getitem__) in range(7)
    assert max(counts) > 3 * min(counts)


def test_people_follow_their_own_clock() -> None:
    east = Traffic(5, 1, timezone(timedelta(hours=9)))
    assert east._rhythm(0) == pytest.approx(Traffic(5, 1)._rhythm(9 * 3_600))


def test_sessions_are_as_long_as_the_rate_assumes() -> None:
    counts = [sum(1 for _ in traffic._session(Random(n), 0.0)) for n in range(3_000)]
    assert sum(counts) / len(counts) == pytest.approx(traffic.EVENTS_PER_SESSION, rel=0.05)


def test_counters_grow_and_begin_again() -> None:
    values = []
    for tick in range(0, 12 * 3_600, traffic.METRICS_EVERY):
        values.append(msgspec.json.decode(traffic._reading(1, "web-1", tick, 1.0))[0]["value"])
    drops = sum(after < before for before, after in pairwise(values))
    assert drops == 1


def test_poisson_has_its_mean() -> None:
    rng = Random(1)
    assert traffic._poisson(rng, 0) == 0
    for mean in (0.2, 3.0, 1_234.5):
        assert sum(traffic._poisson(rng, mean) for _ in range(2_000)) / 2_000 == pytest.approx(mean, rel=0.1)


class Clock(threading.Event):
    """Time that passes when the loop waits, and that ends it."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.now, self._left = START, waits

    def is_set(self) -> bool:
        return self._left < 0

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        self.now += timedelta(seconds=(timeout or 0) + 0.25)
        return self.is_set()


def test_history_and_present_without_a_seam() -> None:
    events, metrics, clock = MemoryProducer(), MemoryProducer(), Clock(20)
    run_traffic(events, metrics, 2, clock, timedelta(minutes=25), seed=9, now=lambda: clock.now)
    expected = Traffic(9, 2).between(START - timedelta(minutes=25), START + timedelta(seconds=25))
    assert [payload for _, payload in events.messages] == expected[0].payloads
    assert [key for key, _ in events.messages] == expected[0].keys
    assert [payload for _, payload in metrics.messages] == expected[1].payloads


def test_it_stops_when_told_and_tells_of_a_broken_broker() -> None:
    stop, events = threading.Event(), MemoryProducer()
    stop.set()
    run_traffic(events, MemoryProducer(), 5, stop, timedelta(hours=1))
    assert not events.messages
    with pytest.raises(Fatal, match="is full"):
        run_traffic(MemoryProducer(capacity=1), MemoryProducer(), 5, threading.Event(), timedelta(minutes=1))
