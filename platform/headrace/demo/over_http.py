"""The part of the demo's events that goes over HTTP: what is sent to the collector, and what of it is in the lake."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import polars as pl
import urllib3

from headrace.core.errors import Retriable
from headrace.core.lanes import CURSOR
from headrace.producers.malformed import MalformedMessage, interleave
from headrace.streams.adapters import http_producer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.config.settings import Settings
    from headrace.producers.base import Chunk
    from headrace.streams.stream import Stream

#: One of so many events goes over HTTP.
SHARE = 4
#: Events that are sent a second time, as a client does whose answer was lost.
AGAIN = 1_000
#: Bytes of a malformed message beyond which it stays with the broker: a collector refuses a request for one too long.
_LONGEST = 10_000
_READY_SECONDS, _PAUSE = 180.0, 0.2


@dataclass(slots=True)
class OverHttp:
    """What is sent to the collector.

    Attributes:
        events: ``payload`` and ``key``, in order.
        malformed: Those of them that the contract rejects.
        acknowledged: Events that it has taken so far, each once.
        repeated: Events that it has recognised as repeats.
    """

    events: pl.DataFrame
    malformed: tuple[MalformedMessage, ...] = ()
    acknowledged: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Landed:
    """What of it is in the lake.

    Attributes:
        good: Rows of the lake table.
        rejected: Rows of the rejected table.
        messages: Messages of the topic that left them; one holds the events of a request.
        messages_rejected: Messages of which no event is good.
    """

    good: int = 0
    rejected: int = 0
    messages: int = 0
    messages_rejected: int = 0

    @property
    def rows(self) -> int:
        """Rows of both tables."""
        return self.good + self.rejected


def split(
    events: pl.DataFrame, malformed: Sequence[MalformedMessage]
) -> tuple[pl.DataFrame, tuple[MalformedMessage, ...], OverHttp]:
    """Choose what goes over HTTP.

    Args:
        events: ``payload`` and ``key``.
        malformed: Malformed messages; of those that are one object with an id, every second goes over HTTP, with an
            id of its own.

    Returns:
        Events and malformed messages that do not, and what does.
    """
    number = pl.int_range(pl.len()) % SHARE
    suited = [n for n, one in enumerate(malformed) if _identified(one.payload)][::2]
    chosen = tuple(_renamed(malformed[n]) for n in suited)
    others = tuple(one for n, one in enumerate(malformed) if n not in suited)
    over = interleave(events.filter(number == SHARE - 1), chosen)
    return events.filter(number != SHARE - 1), others, OverHttp(over, chosen)


def _identified(payload: bytes | None) -> bool:
    if payload is None or len(payload) > _LONGEST:
        return False
    try:
        found = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(found, dict) and found.get("event_id") == "malformed"


def _renamed(one: MalformedMessage) -> MalformedMessage:
    record = msgspec.json.decode(one.payload or b"")
    return replace(one, payload=msgspec.json.encode({**record, "event_id": f"malformed, {one.name}"}))


def send(over: OverHttp, stream: str, settings: Settings, chunks: Iterator[Chunk]) -> None:
    """Send events to the collector, once it takes them, and some of them twice.

    Args:
        over: Told what it has acknowledged.
        stream: Name of the stream.
        settings: Settings with the collector's address.
        chunks: The events.

    Raises:
        Retriable: The collector does not take events.
    """
    _await(settings.collector_url)
    producer = http_producer(settings, stream)
    again = AGAIN
    try:
        for chunk in chunks:
            producer.send(chunk.payloads)
            if again:
                producer.send(chunk.payloads[:again])
                again = 0
            over.acknowledged, over.repeated = producer.acknowledged, producer.repeated
    finally:
        producer.close()


def _await(url: str) -> None:
    until, pause = time.monotonic() + _READY_SECONDS, threading.Event()
    while time.monotonic() < until:
        try:
            if urllib3.request("GET", f"{url}/readyz", timeout=5.0, retries=False).status == 200:
                return
        except urllib3.exceptions.HTTPError:
            pass
        pause.wait(_PAUSE)
    raise Retriable(f"the collector does not take events on {url}; its log says why")


def landed(stream: Stream) -> Landed:
    """Count what came over HTTP, by the ids that the collector gives its messages."""
    good, rejected = (
        table.open()
        .rows(["_message_id"])
        .filter(pl.col("_message_id").str.starts_with(CURSOR))["_message_id"]
        for table in (stream.lake.good, stream.lake.rejected)
    )
    messages, some_good = pl.concat([good, rejected]).n_unique(), good.n_unique()
    return Landed(len(good), len(rejected), messages, messages - some_good)
