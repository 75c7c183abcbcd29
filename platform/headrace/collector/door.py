"""Take events for good: look them up, append them to the log with one sync for all that arrived, then answer.

Two threads beside the server's loop. Plain events go to the committer at once. Those that have to be judged first go
through the judge, who takes all that waits as one batch, and cannot hold the others up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from headrace.collector.base import Event, Index, Log, Outcome, Refused, Status, Taken
from headrace.collector.judge import judge
from headrace.collector.limits import Drain
from headrace.collector.log import Entry, LogFull
from headrace.collector.meters import Meters
from headrace.collector.prepare import Target
from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.collector.ids import Looked

log = logging.getLogger(__name__)

#: Events and bytes of a group, beyond which it is committed without waiting for more.
_GROUP_EVENTS, _GROUP_BYTES = 5_000, 4 << 20
#: Bytes that may wait for the disk; beyond that the door says that it is busy.
_MOST_WAITING = 128 << 20
_BUSY_SECONDS = 1
#: About the bytes of an entry in the log beside payload and ids.
_FRAME = 40


class _Ticket:
    """A request's events on their way."""

    __slots__ = ("bytes", "events", "future", "loop")

    def __init__(self, events: Sequence[Event], loop: asyncio.AbstractEventLoop) -> None:
        self.events, self.loop = events, loop
        self.future: asyncio.Future[Taken] = loop.create_future()
        self.bytes = sum(len(event.payload) for event in events)


class Door:
    """Commits events. ``close`` when done; ``take`` may be called from several loops.

    Args:
        log: The log; the door is the only one who appends.
        index: The index of what was accepted.
        targets: The streams by name.
        meters: Counts what is taken.
        group_seconds: How long a group waits for more events.
        message_bytes: Longest payload of an entry with several events; one that is longer is an entry of its own.
    """

    def __init__(
        self,
        log: Log,
        index: Index,
        targets: Mapping[str, Target],
        meters: Meters,
        *,
        group_seconds: float = 0.003,
        message_bytes: int = 262_144,
    ) -> None:
        self._log, self._index, self._targets, self._meters = log, index, targets, meters
        self._group_seconds, self._message_bytes = group_seconds, message_bytes
        self._odd: SimpleQueue[_Ticket | None] = SimpleQueue()
        self._ready: SimpleQueue[_Ticket | None] = SimpleQueue()
        self._waiting = 0
        self._count = threading.Lock()
        self._unindexed: list[tuple[int, bytes]] = []
        self.drain = Drain()
        self._appended = log.bytes
        self.broken = ""
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("collector-judge", self._judging), ("collector-commit", self._committing))
        ]
        for thread in self._threads:
            thread.start()

    async def take(self, events: Sequence[Event]) -> Taken:
        """Return what became of a request's events, once all that is taken of them is durable.

        Raises:
            Refused: Nothing of them was taken: there is no room, the disk fails, or too much waits.
        """
        ticket = _Ticket(events, asyncio.get_running_loop())
        with self._count:
            if self._waiting and self._waiting + ticket.bytes > _MOST_WAITING:
                raise Refused(503, "too many events wait for the disk; send them again", _BUSY_SECONDS)
            self._waiting += ticket.bytes
        queue = self._ready if all(event.plain for event in events) else self._odd
        queue.put(ticket)
        # whoever waits may go away; what it sent is committed all the same
        return await ticket.future

    def close(self) -> None:
        """Commit what waits, and end. Closing twice is a no-op."""
        judging, committing = self._threads
        for queue, thread in ((self._odd, judging), (self._ready, committing)):
            if thread.is_alive():
                queue.put(None)
                thread.join()

    def _judging(self) -> None:
        while (tickets := _waiting_in(self._odd)) is not None:
            odd = [event for ticket in tickets for event in ticket.events]
            try:
                judge(self._targets, odd, datetime.now(UTC))
            except Exception as error:  # a defect; whoever waits must hear of it
                log.exception("events could not be judged")
                self._refuse(tickets, error)
                continue
            for ticket in tickets:
                self._ready.put(ticket)

    def _committing(self) -> None:
        while (tickets := _waiting_in(self._ready, self._group_seconds)) is not None:
            began = time.perf_counter()
            try:
                taken = self._commit(tickets)
            except Exception as error:
                if not isinstance(error, HeadraceError):
                    log.exception("events could not be committed")
                self._refuse(tickets, error)
            else:
                self.broken = ""
                self._settle(tickets, taken)
                self._meters.group(len(tickets), time.perf_counter() - began)
            if self.drain.due:
                self.drain.note(self._appended - self._log.bytes)

    def _commit(self, tickets: list[_Ticket]) -> list[Taken]:
        if self._unindexed:  # what is durable must be found before anything else is looked up
            self._index.add(self._unindexed)
            self._unindexed = []
        events = [event for ticket in tickets for event in ticket.events]
        looked = self._index.look(b"".join(event.digest for event in events))
        new = looked.new.tolist()
        every = all(new)
        entries: list[Entry] = []
        places: list[int] = []  # number of each event's entry, from the group's first on; -1 for none
        at = 0
        for ticket in tickets:
            mine = new[at : at + len(ticket.events)]
            at += len(ticket.events)
            self._enter(ticket.events, mine, entries, places)
        numbers = self._log.append(entries)
        self._appended += sum(len(entry.payload) + len(entry.ids) + _FRAME for entry in entries)
        indexed = [(number, entry.ids) for number, entry in zip(numbers, entries, strict=True)]
        try:
            self._index.add(indexed)
        except HeadraceError as error:  # they are durable, so they are accepted
            log.error("%s", error)
            self._unindexed = indexed
        return self._told(tickets, numbers.start, places, None if every else looked)

    def _enter(
        self, events: Sequence[Event], new: list[bool], entries: list[Entry], places: list[int]
    ) -> None:
        """Make the entries of a request's new events: one per stream, more if they are long."""
        if len(events) == 1:
            event = events[0]
            if new[0]:
                places.append(len(entries))
                entries.append(Entry(event.stream, _alone(event.payload), event.digest))
            else:
                places.append(-1)
            return
        open_: dict[str, tuple[int, list[Event], int]] = {}  # place of the entry, its events, its bytes
        made: dict[int, tuple[str, list[Event]]] = {}
        first = len(entries)
        for event, is_new in zip(events, new, strict=True):
            if not is_new:
                places.append(-1)
                continue
            place, group, size = open_.get(event.stream, (-1, [], 0))
            size += len(event.payload) + 1
            if place < 0 or size > self._message_bytes:
                place, group, size = first + len(made), [], len(event.payload) + 1
                made[place] = (event.stream, group)
            group.append(event)
            open_[event.stream] = (place, group, size)
            places.append(place)
        for stream, group in made.values():
            payload = (
                _alone(group[0].payload)
                if len(group) == 1
                else b"[" + b",".join(e.payload for e in group) + b"]"
            )
            entries.append(Entry(stream, payload, b"".join(e.digest for e in group)))

    def _told(
        self, tickets: list[_Ticket], first: int, places: list[int], looked: Looked | None
    ) -> list[Taken]:
        """Say what became of each request's events.

        Args:
            tickets: The requests.
            first: Number of the group's first entry.
            places: Place of each event's entry in the group; -1 for none.
            looked: What was known of the events; None if all were new.
        """
        number_of = [first + place if place >= 0 else -1 for place in places]
        repeats = other = None
        if looked is not None:
            repeats, other = looked.number.tolist(), looked.other_body.tolist()
            for at, earlier in enumerate(looked.within.tolist()):
                if earlier >= 0 and repeats[at] < 0:
                    repeats[at] = number_of[earlier] if repeats[earlier] < 0 else repeats[earlier]
        found, at, counts = [], 0, dict.fromkeys(("accepted", "repeated", "rejected", "conflict"), 0)
        for ticket in tickets:
            numbers: dict[str, list[int]] = {}
            outcomes = []
            for event in ticket.events:
                status: Status = "rejected" if event.reasons else "accepted"
                number = number_of[at]
                if number < 0 and repeats is not None and other is not None:
                    number, status = repeats[at], "conflict" if other[at] else "repeated"
                counts[status] += 1
                if status != "conflict":
                    mine = numbers.setdefault(event.stream, [])
                    if not mine or mine[-1] != number:
                        mine.append(number)
                reasons = event.reasons if status == "rejected" else []
                outcomes.append(Outcome(status, event.id, reasons))
                at += 1
            found.append(Taken(numbers, outcomes))
        self._meters.events(counts)
        return found

    def _settle(self, tickets: list[_Ticket], taken: Iterable[Taken]) -> None:
        self._done(
            tickets, [(ticket.future.set_result, one) for ticket, one in zip(tickets, taken, strict=True)]
        )

    def _refuse(self, tickets: list[_Ticket], error: Exception) -> None:
        known = isinstance(error, HeadraceError)
        said = str(error) if known else "the collector has a defect, which its log names; nothing was taken"
        if isinstance(error, LogFull):
            after = self.drain.seconds_until(sum(ticket.bytes for ticket in tickets))
        else:
            after, self.broken = 5, said
        self._meters.refused(len(tickets))
        self._done(tickets, [(ticket.future.set_exception, Refused(503, said, after)) for ticket in tickets])

    def _done(self, tickets: list[_Ticket], answers: list[tuple[Callable[..., None], object]]) -> None:
        """Wake those who wait: once per loop, not once per request."""
        with self._count:
            self._waiting -= sum(ticket.bytes for ticket in tickets)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket, Callable[..., None], object]]] = {}
        for ticket, (answer, value) in zip(tickets, answers, strict=True):
            by_loop.setdefault(ticket.loop, []).append((ticket, answer, value))
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(_answer, mine)
            except RuntimeError:  # the loop was closed: nobody waits any more
                log.warning("%d requests ended before they were answered", len(mine))


def _answer(answers: list[tuple[_Ticket, Callable[..., None], object]]) -> None:
    for ticket, answer, value in answers:
        if not ticket.future.done():  # whoever waited may have gone
            answer(value)


def _waiting_in(queue: SimpleQueue[_Ticket | None], seconds: float = 0.0) -> list[_Ticket] | None:
    """Wait for tickets, and a little for more; None at the end."""
    first = queue.get()
    if first is None:
        return None
    tickets, events, size = [first], len(first.events), first.bytes
    if seconds and events < _GROUP_EVENTS:
        time.sleep(seconds)
    while events < _GROUP_EVENTS and size < _GROUP_BYTES:
        try:
            ticket = queue.get_nowait()
        except Empty:
            break
        if ticket is None:
            queue.put(None)  # the end comes after these
            break
        tickets.append(ticket)
        events += len(ticket.events)
        size += ticket.bytes
    return tickets


def _alone(payload: bytes) -> bytes:
    """Return the payload of a message with one event: an object as it is, anything else as an element."""
    return payload if payload.startswith(b"{") else b"[" + payload + b"]"
