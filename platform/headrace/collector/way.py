"""The way of one stream's entries from the log to its topic, until the lake holds them.

A message follows the one before it in its lane. It is sent again, with all behind it, from the lake's position of the
lane on, whenever the broker may have lost it: at every start, after every error, when the topic is another one, when
offsets go backwards or end too early, and when the lake has read beyond a message that has not landed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from headrace.collector.sender import Sender
from headrace.core.lanes import headers, spread

if TYPE_CHECKING:
    from headrace.collector.log import DurableLog, Entry

#: Numbers of the log that are taken together to tell whether they have landed.
BUCKET = 1_024
#: Seconds between two looks at the lake while something is on its way, and between two at an idle one.
LOOK_SECONDS, IDLE_SECONDS = 2.0, 30.0
#: Seconds without progress after which the topic is asked whether it still has what it acknowledged.
QUIET_SECONDS = 10.0
#: Entries that are sent between two looks at the broker's answers.
_SERVE_EVERY = 200
#: Longest wait for answers of the broker, and for entries.
_POLL_SECONDS, _WAIT_SECONDS = 0.05, 0.5


class Outlet(Protocol):
    """Takes messages to a topic, each lane's in order."""

    def send_in_lane(
        self, lane: int, payload: bytes, headers: list[tuple[str, bytes]], told: Callable[[int, int], object]
    ) -> None:
        """Hand a message over; ``told`` is called with partition and offset once the broker has it."""

    def poll(self, seconds: float = 0.0) -> None:
        """Look at what the broker has answered, and call ``told``."""

    def close(self) -> None:
        """Release connections; what is under way may be lost."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the lake says of a stream.

    Attributes:
        lanes: Number behind the last entry that landed, by cursor of the lane.
        read: Offset up to which each partition was read, of the topic as it is now.
        topic: Identity of the topic as it is now.
    """

    lanes: Mapping[str, int]
    read: Mapping[int, int]
    topic: str


class Far(Protocol):
    """The far end of a way: a stream's topic, and its lake."""

    def outlet(self) -> Outlet:
        """Connect to the topic.

        Raises:
            Retriable: It does not answer.
            Fatal: It does not exist, or refuses.
        """

    def look(self, lanes: list[str]) -> Seen:
        """Look at the lake's positions, and at the topic's identity."""

    def held(self) -> Mapping[int, tuple[int, int]]:
        """Ask the topic for begin and end of each partition."""

    def close(self) -> None:
        """Release every connection."""


@dataclass(slots=True)
class _Lane:
    """A lane since the last start.

    Attributes:
        follows: Number behind the last entry that was sent.
        delivered: Number, partition and offset of the last entry that the broker has; None for none.
        marks: Some of those, until they have landed, the oldest first.
    """

    follows: int
    delivered: tuple[int, int, int] | None = None
    marks: deque[tuple[int, int, int]] = field(default_factory=deque)

    def has(self, number: int) -> bool:
        """Tell whether the broker has an entry."""
        return self.delivered is not None and number <= self.delivered[0]


class Way(Sender):
    """One stream's way to a topic."""

    def __init__(self, durable: DurableLog, stream: str, far: Far, moved: Callable[[], object]) -> None:
        """Start nothing yet.

        Args:
            durable: The log.
            stream: Name of the stream.
            far: Its topic and its lake.
            moved: Called when ``landed`` has moved.
        """
        super().__init__(durable, stream, moved)
        self._far = far
        self._lanes: list[_Lane] = []
        self._buckets: dict[int, dict[int, int]] = {}  # last number by lane, of entries that have not landed
        self._offsets: dict[int, int] = {}  # last that was acknowledged, by partition
        self._lost: str | None = None
        self._under_way = 0  # messages without an answer of the broker

    def _session(self) -> str | None:
        seen = self._begin()
        outlet = self._far.outlet()
        reader = self._log.reader(min(lane.follows for lane in self._lanes))
        self.problem = None
        next_look = progressed = time.monotonic()
        try:
            while not self._stopping.is_set():
                taken = reader.take()
                for place, (number, entry) in enumerate(taken):
                    self._send(outlet, number, entry)
                    if place % _SERVE_EVERY == 0:
                        outlet.poll()
                outlet.poll()
                if (now := time.monotonic()) >= next_look:
                    found = self._far.look(self._cursors)
                    if self._settle(found, reader.next):
                        progressed = now
                    self._lost = self._lost or self._amiss(seen, found)
                    if self._buckets and now - progressed > QUIET_SECONDS:
                        self._lost, progressed = self._lost or self._forgotten(), now
                    next_look = now + (LOOK_SECONDS if self._buckets else IDLE_SECONDS)
                if self._lost is not None:
                    return self._lost
                if taken:
                    next_look = min(next_look, now + LOOK_SECONDS)
                elif self._under_way:
                    outlet.poll(_POLL_SECONDS)
                else:
                    self._log.wait(reader.next, min(LOOK_SECONDS, _WAIT_SECONDS))
            return None
        finally:
            reader.close()
            outlet.close()

    def _begin(self) -> Seen:
        seen = self._far.look(self._cursors)
        self._not_older(max(seen.lanes.values(), default=0))
        self._lanes = [_Lane(seen.lanes.get(cursor, 0)) for cursor in self._cursors]
        self._buckets, self._offsets, self._lost, self._under_way = {}, {}, None, 0
        return seen

    def _send(self, outlet: Outlet, number: int, entry: Entry) -> None:
        if self._is_other(number, entry):
            return
        place = spread(number, self._log.lanes)
        lane = self._lanes[place]
        if number < lane.follows:
            return
        self._buckets.setdefault(number // BUCKET, {})[place] = number

        def told(partition: int, offset: int) -> None:
            if offset <= self._offsets.get(partition, -1):
                self._lost = f"the broker gave offset {offset} of partition {partition} a second time"
            self._offsets[partition] = offset
            self._under_way -= 1
            lane.delivered = number, partition, offset

        self._under_way += 1
        outlet.send_in_lane(place, entry.payload, headers(self._log.id, place, lane.follows, number), told)
        lane.follows = number + 1

    def _settle(self, seen: Seen, read: int) -> bool:
        """Note what has landed by now; returns whether anything more has."""
        landed = [seen.lanes.get(cursor, 0) for cursor in self._cursors]
        for bucket, last in list(self._buckets.items()):
            left = {lane: number for lane, number in last.items() if landed[lane] <= number}
            if left:
                self._buckets[bucket] = left
            else:
                del self._buckets[bucket]
        first = min(self._buckets, default=None)
        return self._land(read if first is None else first * BUCKET)

    def _amiss(self, began: Seen, seen: Seen) -> str | None:
        """Return why something has to be sent again; None if there is no reason."""
        if seen.topic != began.topic:
            return f"the topic is another one ({seen.topic}) than it was ({began.topic})"
        for lane, cursor in zip(self._lanes, self._cursors, strict=True):
            landed = seen.lanes.get(cursor, 0)
            if lane.delivered is not None and (not lane.marks or lane.marks[-1] != lane.delivered):
                lane.marks.append(lane.delivered)
            while lane.marks and lane.marks[0][0] < landed:
                lane.marks.popleft()
            if lane.marks:
                number, partition, offset = lane.marks[0]
                if seen.read.get(partition, 0) > offset:
                    return f"the lake has read beyond entry {number}, which has not landed"
        return None

    def _forgotten(self) -> str | None:
        """Ask the topic whether it still has what it acknowledged."""
        held = self._far.held()
        for lane in self._lanes:
            for number, partition, offset in lane.marks:
                begin, end = held.get(partition, (0, 0))
                if not begin <= offset < end:
                    return f"the topic has no longer entry {number} (partition {partition}, offset {offset})"
        return None
