"""The way of one stream's entries from the log to its topic, until the lake holds them.

A message follows the one before it in its lane. It is sent again, with all behind it, from the lake's position of the
lane on, whenever the broker may have lost it: at every start, after every error, when the topic is another one, when
offsets go backwards or end too early, and when the lake has read beyond a message that has not landed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from headrace.core.errors import Fatal, HeadraceError
from headrace.core.lanes import cursor_of, headers, spread

if TYPE_CHECKING:
    from headrace.collector.log import DurableLog, Entry

log = logging.getLogger(__name__)

#: Numbers of the log that are taken together to tell whether they have landed.
BUCKET = 1_024
#: Seconds between two looks at the lake while something is on its way, and between two at an idle one.
LOOK_SECONDS, IDLE_SECONDS = 2.0, 30.0
#: Seconds without progress after which the topic is asked whether it still has what it acknowledged.
QUIET_SECONDS = 10.0
#: First and longest pause after an error.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
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


class Way:
    """One stream's way, in a thread of its own while it is started.

    Attributes:
        stream: Name of the stream.
        landed: All the stream's entries with lower numbers are in the lake.
        problem: Why nothing is sent at the moment; None while all is well.
    """

    def __init__(self, durable: DurableLog, stream: str, far: Far, moved: Callable[[], object]) -> None:
        """Start nothing yet.

        Args:
            durable: The log.
            stream: Name of the stream.
            far: Its topic and its lake.
            moved: Called when ``landed`` has moved.
        """
        self.stream, self.landed = stream, 0
        self.problem: str | None = None
        self._log, self._far, self._moved = durable, far, moved
        self._cursors = [cursor_of(durable.id, lane) for lane in range(durable.lanes)]
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lanes: list[_Lane] = []
        self._buckets: dict[int, dict[int, int]] = {}  # last number by lane, of entries that have not landed
        self._offsets: dict[int, int] = {}  # last that was acknowledged, by partition
        self._lost: str | None = None
        self._under_way = 0  # messages without an answer of the broker
        self.others: dict[str, int] = {}  # first number of entries of other streams

    def start(self) -> None:
        """Send what the log holds, and what comes, until ``stop``."""
        self._thread = threading.Thread(target=self._run, name=f"dispatch-{self.stream}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; what was not acknowledged is sent after the next start."""
        self._stopping.set()
        self._log.wake()
        if self._thread is not None:
            self._thread.join()

    def in_topic(self, number: int) -> bool:
        """Tell whether the broker, or the lake, has an entry, as far as is known."""
        lanes = self._lanes
        if number < self.landed or not lanes:
            return number < self.landed
        lane = lanes[spread(number, self._log.lanes)]
        return lane.delivered is not None and number <= lane.delivered[0]

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                why = self._session()
            except HeadraceError as error:
                self._say(str(error))
            except Exception:
                log.exception("the way of %s broke off", self.stream)
                self._say("a defect of Headrace, see the log")
            else:
                if why is not None:
                    log.warning(
                        "%s: %s; entries are sent again from the lake's position on", self.stream, why
                    )
                    pause = FIRST_PAUSE
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.error("%s: %s", self.stream, problem)
        self.problem = problem

    def _session(self) -> str | None:
        """Send from the lake's positions on; returns why that has to begin anew."""
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
        beyond = max(seen.lanes.values(), default=0)
        if beyond > self._log.next:
            raise Fatal(
                f"the lake holds entries up to {beyond - 1} of log {self._log.id}, but it ends at {self._log.next - 1}:"
                f" {self._log.folder} is an older copy. Move it away, so that a new log with another id is begun"
            )
        self._lanes = [_Lane(seen.lanes.get(cursor, 0)) for cursor in self._cursors]
        self._buckets, self._offsets, self._lost, self._under_way = {}, {}, None, 0
        return seen

    def _send(self, outlet: Outlet, number: int, entry: Entry) -> None:
        if entry.stream != self.stream:
            self.others.setdefault(entry.stream, number)
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
        before = self.landed
        self.landed = max(before, read if first is None else first * BUCKET)
        if self.landed > before:
            self._moved()
        return self.landed > before

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
