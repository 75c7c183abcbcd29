"""Send a log's entries to the topics of their streams, and remove from it what the lake holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.collector import queue_way
from headrace.collector.landed import Landed
from headrace.collector.queue_way import Bundle, QueueFar, QueueWay
from headrace.collector.sender import Sender
from headrace.collector.topics import topic_of
from headrace.collector.way import Far, Outlet, Seen, Way
from headrace.core.batch import Position
from headrace.core.errors import HeadraceError
from headrace.pipelines import Kafka, Sqs
from headrace.producers.kafka import KafkaProducer
from headrace.producers.sqs import carried
from headrace.sources.kafka.source import KafkaSource
from headrace.streams.adapters import queue_producer
from headrace.streams.stream import Stream

if TYPE_CHECKING:
    from headrace.collector.ids import Ids
    from headrace.collector.log import DurableLog

log = logging.getLogger(__name__)

#: Seconds after which the broker's silence about a message is an error.
_TIMEOUT_SECONDS = 30.0


class KafkaFar:
    """A stream's topic and its lake. For one thread."""

    def __init__(self, stream: Stream) -> None:
        """Connect to nothing yet.

        Args:
            stream: For this thread alone.
        """
        self._stream = stream

    def outlet(self) -> Outlet:
        """Connect a producer."""
        settings, spec = self._stream.settings, topic_of(self._stream.pipeline)
        assert isinstance(spec, Kafka)
        return KafkaProducer(settings.kafka_servers, spec.topic, settings.kafka_security, _TIMEOUT_SECONDS)

    def look(self, lanes: list[str]) -> Seen:
        """Read the newest positions; those of lanes and of offsets are of one version."""
        cursors = self._topic().cursors()
        good = self._stream.lake.good
        position = good.open().position([*lanes, *cursors])
        topic = cursors[0].rpartition("/")[0] if cursors else ""
        read = {int(c.rpartition("/")[2]): position[c] for c in cursors if c in position}
        return Seen({c: position[c] for c in lanes if c in position}, read, topic)

    def held(self) -> Mapping[int, tuple[int, int]]:
        """Ask for begin and end of each partition."""
        offsets = self._topic().offsets()
        return {int(cursor.rpartition("/")[2]): both for cursor, both in offsets.items()}

    def _topic(self) -> KafkaSource:
        return self._stream.kafka(topic_of(self._stream.pipeline).name)

    def close(self) -> None:
        """Release every connection."""
        self._stream.close()


class SqsFar:
    """A stream's queue and its lake. For one thread."""

    def __init__(self, stream: Stream) -> None:
        """Connect to nothing yet.

        Args:
            stream: For this thread alone.
        """
        self._stream = stream
        self.records = stream.limits.max_message_records

    def outlet(self) -> queue_way.Outlet:
        """Connect a producer."""
        return _QueueOutlet(self._stream)

    def look(self, lanes: list[str]) -> Mapping[str, int]:
        """Read the newest positions."""
        return self._stream.lake.good.open().position(lanes)

    def judged(self, lanes: list[str]) -> Mapping[str, int]:
        """Read those of the rejected table."""
        return self._stream.lake.rejected.open().position(lanes)

    def depth(self) -> int:
        """Ask for the depth of the queue."""
        found = self._stream.source(topic_of(self._stream.pipeline).name).backlog(Position())
        return found.waiting + found.in_flight

    def close(self) -> None:
        """Release every connection."""
        self._stream.close()


class _QueueOutlet:
    def __init__(self, stream: Stream) -> None:
        spec = topic_of(stream.pipeline)
        assert isinstance(spec, Sqs)
        self._producer = queue_producer(stream.settings, spec)
        self.longest = self._producer.longest

    def post(self, bundles: Sequence[Bundle]) -> None:
        payloads = [carried(one.payload) for one in bundles]
        keys = [b"%d" % one.lane for one in bundles]
        self._producer.send(payloads, keys, [one.headers for one in bundles])
        self._producer.flush()

    def close(self) -> None:
        self._producer.close()


def far_of(stream: Stream) -> Far | QueueFar:
    """Return the far end of a stream's way; it connects on first use."""
    return KafkaFar(stream) if isinstance(topic_of(stream.pipeline), Kafka) else SqsFar(stream)


class Dispatcher:
    """The ways of all streams, and the removal of what has landed.

    Entries of a stream that is no more stay in the log, and are named, unless they had landed before.
    """

    def __init__(self, durable: DurableLog, ids: Ids, fars: Mapping[str, Far | QueueFar]) -> None:
        """Start nothing yet.

        Args:
            durable: The log.
            ids: Its index: nothing leaves the log that the index does not hold for good.
            fars: Topic and lake of each stream.
        """
        self._log, self._ids = durable, ids
        self._landed = threading.Event()
        self._fars = dict(fars)
        self._started, self._stopping = False, threading.Event()
        self._changing = threading.Lock()
        self._named: set[str] = set()
        self._former = Landed(durable.folder / "landed.json", durable.id)
        self.ways: dict[str, Sender] = {name: self._way(name, far) for name, far in fars.items()}
        self._remover = threading.Thread(target=self._remove, name="collector-removal", daemon=True)

    def _way(self, stream: str, far: Far | QueueFar) -> Sender:
        kind: Any = QueueWay if isinstance(far, QueueFar) else Way
        way: Sender = kind(self._log, stream, far, self._landed.set)
        way.former = self._former
        return way

    def start(self) -> None:
        """Send, and remove, until ``stop``."""
        with self._changing:
            self._started = True
            for way in self.ways.values():
                way.start()
        self._remover.start()

    def follow(self, stream: str, far: Far | QueueFar) -> None:
        """Send a stream's entries to another far end from now on; what the lake there lacks is sent again.

        Args:
            stream: The stream; it may be new, as long as no entry of it was appended since the start.
            far: Topic and lake; closed in the end, or when others follow.
        """
        with self._changing:
            if self._stopping.is_set():
                far.close()
                return
            before = self.ways.get(stream)
            if before is not None:
                before.stop()
                self._fars[stream].close()
            self._fars[stream] = far
            way = self._way(stream, far)
            self.ways = {**self.ways, stream: way}
            if self._started:
                way.start()

    def stop(self) -> None:
        """Stop; a no-op if it was never started."""
        self._stopping.set()
        self._landed.set()
        with self._changing:
            for way in self.ways.values():
                way.stop()
        self._note()
        if self._remover.is_alive():
            self._remover.join()
        for far in self._fars.values():
            far.close()

    def in_topic(self, stream: str, number: int) -> bool:
        """Tell whether the broker, or the lake, has an entry, as far as is known."""
        way = self.ways.get(stream)
        return way is not None and way.in_topic(number)

    @property
    def landed(self) -> int:
        """Number below which the lake holds every entry."""
        strange = self._strange()
        ends = [way.landed for way in self.ways.values()] + [first for _, first in strange]
        return min(ends, default=0)

    @property
    def problems(self) -> Sequence[str]:
        """Why entries do not reach their topics at the moment, a line each."""
        stuck = [f"{way.stream}: {way.problem}" for way in self.ways.values() if way.problem]
        gone = [
            f"the log holds entries of stream {name!r} from {first} on, and there is no such stream; bring it back, or"
            " move the log away"
            for name, first in self._strange()
        ]
        return [*stuck, *gone]

    def _strange(self) -> list[tuple[str, int]]:
        found: dict[str, int] = {}
        for way in list(self.ways.values()):
            for name, first in list(way.others.items()):
                if name not in self.ways:
                    found[name] = min(first, found.get(name, first))
        return sorted(found.items())

    def _remove(self) -> None:
        while not self._stopping.is_set():
            self._landed.wait()
            self._landed.clear()
            if self._stopping.is_set():
                return
            try:
                self.remove_landed()
            except HeadraceError as error:
                log.error("%s", error)
            except Exception:
                log.exception("nothing was removed from the log")
            self._stopping.wait(1.0)

    def _note(self) -> None:
        """Note how far the streams are, for a start without one of them."""
        self._former.note({name: way.landed for name, way in list(self.ways.items())})

    def remove_landed(self) -> None:
        """Remove what the lake and, for good, the index hold.

        Raises:
            Retriable: The disk fails.
        """
        for name, first in self._strange():
            if name not in self._named:
                self._named.add(name)
                log.error("stream %r is no more, and the log holds entries of it from %d on", name, first)
        self._note()
        before = self.landed
        segments = self._log.segments()
        if len(segments) > 1 and segments[1].first <= before:  # there is a segment to remove
            if self._ids.synced < before:
                self._ids.sync()
            self._log.remove(min(before, self._ids.synced))
