"""The way of one stream's entries from the log to its queue, until the lake holds them.

A queue keeps no order. So a lane has one message on its way, a bundle of its next entries, and the next one is sent
when the lake has it (docs/adr/0054). It is sent again when the queue is empty and the lake does not have it, and after
a long time, in which a queue that others use, too, may have lost it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from headrace.collector.sender import Sender
from headrace.core.lanes import headers, spread

if TYPE_CHECKING:
    from headrace.collector.log import DurableLog, Entry
    from headrace.collector.log.reader import Reader

#: Seconds between two looks at the lake while something is on its way, and between two at an idle one.
LOOK_SECONDS, IDLE_SECONDS = 1.0, 30.0
#: Seconds after which a message that has not landed is looked for in the queue.
QUIET_SECONDS = 15.0
#: Seconds after which it is sent again although the queue holds messages; doubled each time, up to the second.
AGAIN_SECONDS, LONGEST_AGAIN_SECONDS = 300.0, 3_600.0
#: Longest bundle in bytes: a queue of SQS takes 256 KiB with all attributes.
BUNDLE_BYTES = 240_000
#: Bytes of entries that wait in memory.
_WAITING_BYTES = 16 << 20
#: Longest wait for entries.
_WAIT_SECONDS = 0.5
#: Bytes of an id in an entry; one per event.
_ID_BYTES = 24


@dataclass(frozen=True, slots=True)
class Bundle:
    """A message for a queue.

    Attributes:
        lane: Its lane.
        payload: Its body.
        headers: Names and values.
    """

    lane: int
    payload: bytes
    headers: list[tuple[str, bytes]]


class Outlet(Protocol):
    """Takes messages to a queue."""

    @property
    def longest(self) -> int:
        """Bytes that a message may have."""

    def post(self, bundles: Sequence[Bundle]) -> None:
        """Send messages, and return when the queue has acknowledged them all.

        Raises:
            Retriable: It does not answer; some may have arrived.
            Fatal: It refuses.
        """

    def close(self) -> None:
        """Release connections."""


@runtime_checkable
class QueueFar(Protocol):
    """The far end of a way: a stream's queue, and its lake.

    Attributes:
        records: Most events of a bundle.
    """

    records: int

    def outlet(self) -> Outlet:
        """Connect to the queue; raises as ``Outlet.post`` does."""

    def look(self, lanes: list[str]) -> Mapping[str, int]:
        """Look at the lake's positions: number behind the last entry that landed, by lane."""

    def judged(self, lanes: list[str]) -> Mapping[str, int]:
        """Look at the positions in the rejected table, which is written first."""

    def depth(self) -> int:
        """Ask how many messages the queue holds, visible or not."""

    def close(self) -> None:
        """Release every connection."""


@dataclass(slots=True)
class _Flight:
    """A message on its way: number of its last entry, when it was sent, and when it is sent again at the latest."""

    number: int
    sent: float
    again: float


@dataclass(slots=True)
class _Lane:
    """A lane since the last start.

    Attributes:
        landed: Its position in the lake.
        judged: Its position in the rejected table; beyond ``landed`` after a crash between the two commits.
        waiting: Number, payload and number of events of the entries that have not landed, as far as they are read.
        flight: The message on its way; None if there is none.
        patience: Seconds until it is sent again in any case.
    """

    landed: int = 0
    judged: int = 0
    waiting: deque[tuple[int, bytes, int]] = field(default_factory=deque)
    flight: _Flight | None = None
    patience: float = field(default_factory=lambda: AGAIN_SECONDS)

    def has(self, number: int) -> bool:
        """Tell whether the queue, or the lake, has an entry."""
        return number < self.landed or (self.flight is not None and number <= self.flight.number)


class QueueWay(Sender):
    """One stream's way to a queue."""

    def __init__(self, durable: DurableLog, stream: str, far: QueueFar, moved: Callable[[], object]) -> None:
        """Start nothing yet.

        Args:
            durable: The log.
            stream: Name of the stream.
            far: Its queue and its lake.
            moved: Called when ``landed`` has moved.
        """
        super().__init__(durable, stream, moved)
        self._far = far
        self._lanes: list[_Lane] = []
        self._bytes = 0  # of the entries that wait

    def _session(self) -> str | None:
        seen = self._far.look(self._cursors)
        self._not_older(max(seen.values(), default=0))
        self._lanes, self._bytes = [_Lane() for _ in self._cursors], 0
        self._note(seen)
        self._judge()
        outlet = self._far.outlet()
        reader = self._log.reader(min(lane.landed for lane in self._lanes))
        self.problem = None
        next_look = looked_for = time.monotonic()
        try:
            while not self._stopping.is_set():
                read = self._read(reader)
                sent = self._send(outlet, reader.next)
                now = time.monotonic()
                under_way = any(lane.flight for lane in self._lanes)
                if sent:
                    next_look = min(next_look, now + LOOK_SECONDS)
                if now >= next_look:
                    if self._note(self._far.look(self._cursors)):
                        looked_for = now
                    elif now - looked_for >= QUIET_SECONDS:
                        self._look_for(now)
                        looked_for = now
                    self._settle(reader.next)
                    next_look = now + (LOOK_SECONDS if under_way else IDLE_SECONDS)
                elif self._bytes >= _WAITING_BYTES and not sent:
                    self._stopping.wait(min(_WAIT_SECONDS, LOOK_SECONDS))
                elif not read and not sent:
                    self._log.wait(reader.next, min(_WAIT_SECONDS, LOOK_SECONDS))
            return None
        finally:
            reader.close()
            outlet.close()

    def _read(self, reader: Reader[Entry]) -> bool:
        """Read entries, unless enough wait; returns whether there were any."""
        if self._bytes >= _WAITING_BYTES:
            return False
        taken = reader.take()
        for number, entry in taken:
            lane = self._lanes[spread(number, self._log.lanes)]
            if not self._is_other(number, entry) and number >= lane.landed:
                lane.waiting.append((number, entry.payload, max(1, len(entry.ids) // _ID_BYTES)))
                self._bytes += len(entry.payload)
        return bool(taken)

    def _send(self, outlet: Outlet, read: int) -> bool:
        """Send the next bundle of each lane that has none on its way; returns whether there was one."""
        bundles = []
        most = min(BUNDLE_BYTES, outlet.longest)
        for place, lane in enumerate(self._lanes):
            if lane.flight is None and (found := self._bundle(lane, read, most)) is not None:
                last, payload = found
                told = headers(self._log.id, place, lane.landed, last, bundle=True)
                bundles.append((lane, last, Bundle(place, payload, told)))
        if not bundles:
            return False
        outlet.post([bundle for _, _, bundle in bundles])
        now = time.monotonic()
        for lane, last, _ in bundles:
            lane.flight = _Flight(last, now, now + lane.patience)
            lane.patience = min(2 * lane.patience, LONGEST_AGAIN_SECONDS)
        return True

    def _bundle(self, lane: _Lane, read: int, most: int) -> tuple[int, bytes] | None:
        """Return number and payload of a lane's next message; None if there is none by now, or it cannot be sent."""
        crashed = lane.judged > lane.landed  # then it has to be the very bundle that was judged
        if not lane.waiting or (crashed and read < lane.judged):
            return None
        parts: list[bytes] = []
        size, events, last = 2, 0, lane.landed
        for number, payload, count in lane.waiting:
            size += len(payload) + 1
            events += count
            if crashed and number >= lane.judged:
                break
            if not crashed and parts and (size > most or events > self._far.records):
                break
            parts.append(payload if payload.startswith(b"{") else payload[1:-1])
            last = number
        if not parts:
            return None
        if len(parts[0]) > most:
            self._say(
                f"entry {last} of the log has {len(parts[0]):,} bytes, more than the queue takes ({most:,}); raise the"
                " queue's MaximumMessageSize. Others of its lane wait for it"
            )
            return None
        return (lane.judged - 1 if crashed else last), b"[" + b",".join(parts) + b"]"

    def _judge(self) -> None:
        """Look for crashes between the two commits, before anything is sent that may have been sent before."""
        judged = self._far.judged(self._cursors)
        for lane, cursor in zip(self._lanes, self._cursors, strict=True):
            lane.judged = judged.get(cursor, 0)

    def _note(self, seen: Mapping[str, int]) -> bool:
        """Go along with the lake; returns whether anything more has landed."""
        more = False
        for lane, cursor in zip(self._lanes, self._cursors, strict=True):
            landed = seen.get(cursor, 0)
            if landed > lane.landed:
                more, lane.landed, lane.flight, lane.patience = True, landed, None, AGAIN_SECONDS
            while lane.waiting and lane.waiting[0][0] < lane.landed:
                self._bytes -= len(lane.waiting.popleft()[1])
        return more

    def _settle(self, read: int) -> None:
        first = [lane.waiting[0][0] for lane in self._lanes if lane.waiting]
        self._land(min([read, *first]))

    def _look_for(self, now: float) -> None:
        """Have messages sent again that the queue no longer holds, or may have lost."""
        late = [lane for lane in self._lanes if lane.flight and now - lane.flight.sent >= QUIET_SECONDS]
        if late and self._far.depth() == 0:
            # what was deleted from the queue before it was counted is in the lake by now
            self._note(self._far.look(self._cursors))
        else:
            late = [lane for lane in late if lane.flight and now >= lane.flight.again]
        if late:
            self._judge()
        for lane in late:
            lane.flight = None
