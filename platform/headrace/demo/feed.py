"""Publish the demo's input and record what was published."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from headrace.config.settings import Settings
from headrace.demo.over_http import OverHttp, send, split
from headrace.pipelines import Kafka, Sqs
from headrace.producers import Producer
from headrace.producers.flights import (
    Expected,
    chunks,
    expected_events,
    expected_metrics,
    flight_events,
    weather_messages,
)
from headrace.producers.malformed import MalformedMessage, interleave, malformed_events, malformed_metrics
from headrace.streams.adapters import producer


@dataclass(slots=True)
class Feed:
    """One stream's input while it is published.

    Attributes:
        stream: Name of the stream.
        source: Name of the topic or queue.
        total: Messages to publish, and events to send over HTTP; 0 until known.
        acknowledged: Messages that the broker has acknowledged so far.
        http: What is sent over HTTP; None if nothing is.
        expected: Expected outcome of the well-formed messages, computed from the files alone. Set before ``done``.
        malformed: The messages that are malformed on purpose.
        twin: Rows that land and that are rejected, as found by landing the same records in memory; None for input
            whose outcome is ``expected``.
        failure: Why publishing ended early.
        done: Set when everything is acknowledged, or ``failure`` is set.
    """

    stream: str
    source: str
    total: int = 0
    acknowledged: int = 0
    http: OverHttp | None = None
    expected: Expected | None = None
    malformed: tuple[MalformedMessage, ...] = ()
    twin: tuple[int, int] | None = None
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def produced(self) -> int:
        """Messages and events that broker and collector have acknowledged so far."""
        return self.acknowledged + (self.http.acknowledged if self.http else 0)

    @property
    def rows(self) -> int:
        """Rows that must land: those of well-formed messages, and the valid records of malformed ones."""
        if self.twin is not None:
            return self.twin[0]
        return (self.expected.rows if self.expected else 0) + sum(m.landed for m in self.malformed)

    @property
    def is_known(self) -> bool:
        """Whether it is known what must become of the input."""
        return self.expected is not None or self.twin is not None

    @property
    def rejects(self) -> int:
        """Rows that must be rejected."""
        if self.twin is not None:
            return self.twin[1]
        return sum(m.rejected for m in self.malformed)


def start_feeds(settings: Settings) -> list[Feed]:
    """Start to publish flights and weather in the background."""
    events = Feed("events", "kafka/analytics_events")
    metrics = Feed("metrics", "sqs/metrics")
    background(events, lambda: _publish_flights(events, settings))
    background(metrics, lambda: _publish_weather(metrics, settings))
    return [events, metrics]


def background(feed: Feed, publish: Callable[[], object]) -> None:
    """Publish in a thread of its own; its failure is noted in the feed."""

    def run() -> None:
        try:
            publish()
        except BaseException as error:  # raised by the thread that watches the feed
            feed.failure = error
        finally:
            feed.done.set()

    threading.Thread(target=run, name=f"feed-{feed.stream}", daemon=True).start()


def _publish_flights(feed: Feed, settings: Settings) -> None:
    events, malformed = flight_events(), malformed_events()
    with ThreadPoolExecutor(1, "feed-http") as beside:
        sending = None
        if settings.collector_url:
            events, malformed, over = split(events, malformed)
            feed.http = over
            sending = beside.submit(send, over, feed.stream, settings, chunks(over.events))
        messages = interleave(events, malformed)
        feed.malformed = (*malformed, *(feed.http.malformed if feed.http else ()))
        feed.total = messages.height + (feed.http.events.height if feed.http else 0)
        _send(feed, producer(settings, Kafka("analytics_events")), messages)
        if sending is not None:
            sending.result()
    feed.expected = expected_events()


def _publish_weather(feed: Feed, settings: Settings) -> None:
    feed.malformed = tuple(m for m in malformed_metrics() if m.sqs)
    messages = interleave(weather_messages(), feed.malformed)
    feed.total = messages.height
    _send(feed, producer(settings, Sqs("metrics")), messages)
    feed.expected = expected_metrics()


def _send(feed: Feed, to: Producer, messages: object) -> None:
    for chunk in chunks(messages):  # type: ignore[arg-type]
        to.send(chunk.payloads, chunk.keys)
        feed.acknowledged = to.acknowledged
    to.flush()
    feed.acknowledged = to.acknowledged
    to.close()
