"""A file's report agrees with what arrived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.contracts import EVENTS
from headrace.core.errors import Fatal
from headrace.formats import base
from headrace.producers.base import MemoryProducer
from headrace.producers.kafka import KafkaProducer
from headrace.producers.send import EXAMPLES, SendReport, send_file

from .brokers import read_topic

Write = Callable[[str, bytes], Path]


def content(good: int, bad: int) -> bytes:
    lines = [b'{"session_id":"s%d"}' % n for n in range(good)] + [b"broken"] * bad
    return b"\n".join(lines)


def test_report(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHUNK", 10)
    producer, seen = MemoryProducer(), list[SendReport]()
    producer.send([b"before"])
    report = send_file(write("a.ndjson", content(25, 12)), EVENTS, producer, on_progress=seen.append)
    assert (report.read, report.sent, report.malformed) == (37, 25, 12)
    assert [m.line for m in report.examples] == [26, 27, 28, 29, 30]
    assert len(report.examples) == EXAMPLES
    assert [r.read for r in seen] == [10, 20, 30, 37]
    assert producer.messages[1] == (b"s0", b'{"session_id":"s0"}')
    assert len(producer.messages) == 26


def test_an_empty_file_sends_nothing(write: Write) -> None:
    assert send_file(write("a.ndjson", b"\n\n"), EVENTS, MemoryProducer()) == SendReport()


def test_a_broker_that_refuses_is_heard(write: Write) -> None:
    with pytest.raises(Fatal):
        send_file(write("a.ndjson", content(25, 0)), EVENTS, MemoryProducer(capacity=7))


def test_through_a_real_broker(write: Write, bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap, topic)
    report = send_file(write("a.ndjson", content(2_000, 3)), EVENTS, producer)
    producer.close()
    assert (report.read, report.sent, report.malformed) == (2_003, 2_000, 3)
    records = read_topic(bootstrap, topic, 2_000)
    assert sorted(r.value for r in records) == sorted(content(2_000, 0).split(b"\n"))
