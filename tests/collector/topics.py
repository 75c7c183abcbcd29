"""A topic and a lake in memory, which lose and refuse what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import polars as pl

from builders import event
from headrace.collector.log import Entry
from headrace.collector.way import Outlet, Seen
from headrace.contracts import EVENTS, Limits
from headrace.core.errors import Retriable
from headrace.flow.commit import StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.lake.memory import MemoryLakeTable
from headrace.sources.memory import MemoryLog


def entry(name: str, stream: str = "events") -> Entry:
    """An entry of one event; every fourth is rejected by the contract."""
    bad = name.isdigit() and int(name) % 4 == 3
    return Entry(stream, b'{"odd": "%s"}' % name.encode() if bad else event(event_id=name))


class Topic:
    """Far end of a way. Several partitions; what was acknowledged can be lost.

    Attributes:
        away: Whether the topic answers nothing.
        silent: Whether it takes messages and acknowledges none.
        losing: Whether it acknowledges messages and keeps none.
        sent: Number of messages that were sent to it, of whatever incarnation.
    """

    def __init__(self, partitions: int = 3) -> None:
        self._partitions, self._incarnation = partitions, 0
        self.lake = StreamLake(MemoryLakeTable(EVENTS.table), MemoryLakeTable(EVENTS.rejected_table))
        self.source = self._new()
        self.away = self.silent = self.losing = False
        self.sent = 0
        self.lock = threading.Lock()

    def _new(self) -> MemoryLog:
        return MemoryLog(f"events {self._incarnation}", self._partitions)

    def recreate(self) -> None:
        """Forget every message, under another identity."""
        with self.lock:
            self._incarnation += 1
            self.source = self._new()

    def ingest(self) -> None:
        """Land what the topic holds."""
        with self.lock:
            for _ in ingest(
                self.source, EVENTS, self.lake, Limits(), Pace(batch_messages=50, idle_seconds=0.001)
            ):
                pass

    def outlet(self) -> Outlet:
        if self.away:
            raise Retriable("the topic does not answer")
        return _Outlet(self)

    def look(self, lanes: list[str]) -> Seen:
        with self.lock:
            cursors = self.source.cursors()
            position = self.lake.good.open().position([*lanes, *cursors])
            read = {n: position[c] for n, c in enumerate(cursors) if c in position}
            return Seen({c: position[c] for c in lanes if c in position}, read, self.source.name)

    def held(self) -> Mapping[int, tuple[int, int]]:
        with self.lock:
            return {n: (0, len(held)) for n, held in enumerate(self.source._messages)}

    def close(self) -> None:
        pass

    def landed(self) -> list[str]:
        """Names of the entries that landed, rows of both tables, sorted as numbers."""
        good = self.lake.good.rows()
        bad = self.lake.rejected.rows()["payload"].cast(pl.String).str.extract(r'"odd": "(\d+)"')
        return sorted([*good["event_id"].to_list(), *bad.to_list()], key=int)


class _Outlet:
    def __init__(self, topic: Topic) -> None:
        self._topic, self._answers = topic, list[Callable[[], object]]()

    def send_in_lane(
        self, lane: int, payload: bytes, headers: list[tuple[str, bytes]], told: Callable[[int, int], object]
    ) -> None:
        topic = self._topic
        if topic.away:
            raise Retriable("the topic does not answer")
        with topic.lock:
            topic.sent += 1
            partition = lane % len(topic.source.cursors())
            offset = len(topic.source._messages[partition])
            if not topic.losing:
                topic.source.publish([payload], partition, [headers])
        if not topic.silent:
            self._answers.append(lambda: told(partition, offset))

    def poll(self, seconds: float = 0.0) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            answer()
        if not answers and seconds:
            threading.Event().wait(min(seconds, 0.005))

    def close(self) -> None:
        self._answers.clear()
