"""Two ways to one stream: everything arrives by one of them, whatever becomes of the second."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headrace.core.errors import Fatal, Retriable
from headrace.producers import MemoryProducer
from headrace.producers.base import Keys, Payloads
from headrace.producers.shared import SharedProducer
from headrace.producers.traffic import Traffic, run_traffic
from producers.test_traffic import START, Clock


class Door(MemoryProducer):
    """Refuses while it is shut."""

    shut = False

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        if self.shut:
            raise Retriable("the door is shut")
        super().send(payloads, keys)


def keys(count: int) -> list[bytes]:
    return [b"s-%d" % n for n in range(count)]


def test_sessions_stay_together_and_only_objects_go_the_second_way() -> None:
    first, second = MemoryProducer(), Door()
    both = SharedProducer(first, second, print)
    both.send([b'{"n": %d}' % n for n in range(200)] * 2, keys(200) * 2)
    both.send([b"{", b"[{}]", b"", None, b"\xff"] * 40, [key for key in keys(40) for _ in range(5)])
    assert both.acknowledged == 600 == len(first.messages) + len(second.messages)
    assert 120 < len(second.messages) < 280
    assert not {key for key, payload in second.messages} & {k for k, p in first.messages if p and b"n" in p}


def test_what_the_second_way_refuses_goes_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, told = MemoryProducer(), Door(), list[str]()
    both = SharedProducer(first, second, told.append)
    second.shut = True
    both.send([b"{}"] * 50, keys(50))
    second.shut = False
    both.send([b"{}"] * 50, keys(50))  # it rests
    assert len(first.messages) == 100 and not second.messages
    monkeypatch.setattr(both, "_rests_until", 0.0)
    both.send([b"{}"] * 50, keys(50))
    assert second.messages and both.acknowledged == 150
    assert told == [
        "the door is shut; meanwhile memory/messages gets all messages",
        "memory/messages takes messages again",
    ]


def test_what_the_first_way_refuses_is_raised() -> None:
    both = SharedProducer(MemoryProducer(capacity=0), Door(), print)
    with pytest.raises(Fatal, match="is full"):
        both.send([b"{"], [b"k"])


def test_traffic_goes_the_live_way_once_history_is_sent() -> None:
    events, live, clock = MemoryProducer(), MemoryProducer(), Clock(20)
    run_traffic(
        events, MemoryProducer(), 2, clock, timedelta(minutes=25), live=live, seed=9, now=lambda: clock.now
    )
    expected = Traffic(9, 2).between(START - timedelta(minutes=25), START + timedelta(seconds=25))[0]
    assert events.messages and live.messages
    assert [payload for _, payload in (*events.messages, *live.messages)] == expected.payloads
    assert len(events.messages) == len(Traffic(9, 2).between(START - timedelta(minutes=25), START)[0])
