"""Take events for good: look them up, append them to the log with one sync for all that arrived, then answer.

Two threads beside the server's loop. Plain events go to the committer at once. Those that have to be judged first go
through the judge, who takes all that waits as one batch, and cannot hold the others up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING

from headrace.collector.base import STATUSES, Event, Index, Log, Outcome, Reason, Refused, Status, Taken
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
_NONE: list[Reason] = []


#: Is told, in its loop, what became of a request's events, or why nothing of them was taken.
Told = Callable[[Taken | Refused], None]


class _Ticket:
    """A request's events on their way."""

    __slots__ = ("bytes", "events", "loop", "told")

    def __init__(self, events: Sequence[Event], told: Told, loop: asyncio.AbstractEventLoop) -> None:
        self.events, self.told, self.loop = events, told, loop
        self.bytes = sum([len(event.payload) for event in events])


class _Line:
    """Tickets that wait for a thread, which takes all of them at once."""

    def __init__(self) -> None:
        self._tickets: list[_Ticket] = []
        self._lock, self._begun = threading.Lock(), SimpleQueue[None]()
        self._ended = False

    def put(self, ticket: _Ticket) -> None:
        """Put a ticket at the end."""
        with self._lock:
            self._tickets.append(ticket)
            first = len(self._tickets) == 1
        if first:
            self._begun.put(None)

    def end(self) -> None:
        """Let ``take`` return None once the line is empty."""
        self._ended = True
        self._begun.put(None)

    def take(self, not_before: float = 0.0) -> list[_Ticket] | None:
        """Wait for tickets; None at the end.

        Args:
            not_before: Moment of the clock ``time.perf_counter`` until which more may come.
        """
        while True:
            self._begun.get()
            if (wait := not_before - time.perf_counter()) > 0 and not self._ended:
                time.sleep(wait)
            with self._lock:
                taken = self._tickets[: _fitting(self._tickets)]
                del self._tickets[: len(taken)]
                more = bool(self._tickets) or self._ended
            if more:
                self._begun.put(None)
            if taken:
                return taken
            if self._ended:
                return None


def _fitting(tickets: Sequence[_Ticket]) -> int:
    """Return how many tickets one group takes, one at least."""
    events = size = 0
    for at, ticket in enumerate(tickets):
        if events >= _GROUP_EVENTS or size >= _GROUP_BYTES:
            return at
        events += len(ticket.events)
        size += ticket.bytes
    return len(tickets)


class _Growing:
    """An entry that still takes events: ``most`` of them."""

    __slots__ = ("bytes", "digests", "most", "payloads", "stream")

    def __init__(self, stream: str, most: int) -> None:
        self.stream, self.bytes, self.most = stream, 0, most
        self.payloads: list[bytes] = []
        self.digests: list[bytes] = []

    def entry(self) -> Entry:
        """Return it as it is now: one event as it is, several as an array."""
        payloads = self.payloads
        alone = len(payloads) == 1 and payloads[0][:1] == b"{"
        return Entry(
            self.stream,
            payloads[0] if alone else b"[" + b",".join(payloads) + b"]",
            b"".join(self.digests),
        )


class Door:
    """Commits events. ``close`` when done; ``take`` may be called in several loops.

    Args:
        log: The log; the door is the only one who appends.
        index: The index of what was accepted.
        targets: The streams by name.
        meters: Counts what is taken.
        group_seconds: Shortest time from one group's beginning to the next one's. Who comes after a pause waits for
            nobody.
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
        self._odd, self._ready = _Line(), _Line()
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

    def take(self, events: Sequence[Event], told: Told) -> None:
        """Say what became of a request's events by one call of ``told``, once all that is taken of them is durable.

        What was handed over is committed, also if nobody waits for its answer any more.

        Args:
            events: The events.
            told: Called in the loop that runs now; it may not raise.

        Raises:
            Refused: Too much waits; nothing was taken.
        """
        ticket = _Ticket(events, told, asyncio.get_running_loop())
        with self._count:
            if self._waiting and self._waiting + ticket.bytes > _MOST_WAITING:
                raise Refused(503, "too many events wait for the disk; send them again", _BUSY_SECONDS)
            self._waiting += ticket.bytes
        plain = all(event.plain for event in events)
        (self._ready if plain else self._odd).put(ticket)

    def close(self) -> None:
        """Commit what waits, and end. Closing twice is a no-op."""
        judging, committing = self._threads
        for line, thread in ((self._odd, judging), (self._ready, committing)):
            if thread.is_alive():
                line.end()
                thread.join()

    def _judging(self) -> None:
        while (tickets := self._odd.take()) is not None:
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
        began = 0.0
        while (tickets := self._ready.take(began + self._group_seconds)) is not None:
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
        looked = self._index.look(b"".join([event.digest for event in events]))
        new = looked.new.tolist()
        entries, places = self._entries(tickets, new)
        numbers = self._log.append(entries)
        self._appended += sum(len(entry.payload) + len(entry.ids) + _FRAME for entry in entries)
        indexed = [(number, entry.ids) for number, entry in zip(numbers, entries, strict=True)]
        try:
            self._index.add(indexed)
        except HeadraceError as error:  # they are durable, so they are accepted
            log.error("%s", error)
            self._unindexed = indexed
        return self._told(tickets, numbers.start, places, None if all(new) else looked)

    def _entries(self, tickets: Sequence[_Ticket], new: Sequence[bool]) -> tuple[list[Entry], list[int]]:
        """Make the entries of a group's new events, and say in which one each event is; -1 for none.

        What is surely accepted shares entries with other requests: one per stream, more if they are long. What is
        rejected does not, so it cannot take anything of others with it.
        """
        made: list[_Growing] = []
        open_: dict[object, int] = {}
        places: list[int] = []
        most, at = self._message_bytes, 0
        for ticket in tickets:
            for event in ticket.events:
                if not new[at]:
                    places.append(-1)
                    at += 1
                    continue
                key: object = (ticket, event.stream) if event.reasons else event.stream
                size, place = len(event.payload) + 1, open_.get(key, -1)
                if place < 0 or made[place].bytes + size > most or not made[place].most:
                    place = open_[key] = len(made)
                    made.append(
                        _Growing(event.stream, self._targets[event.stream].limits.max_message_records)
                    )
                growing = made[place]
                growing.most -= 1
                growing.payloads.append(event.payload)
                growing.digests.append(event.digest)
                growing.bytes += size
                places.append(place)
                at += 1
        return [one.entry() for one in made], places

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
        numbers = [first + place if place >= 0 else -1 for place in places]
        conflicts: Sequence[bool] = ()
        if looked is not None:
            earlier, conflicts = looked.number.tolist(), looked.other_body.tolist()
            for at, before in enumerate(looked.within.tolist()):
                if numbers[at] < 0:  # a repeat of another request, or of this group
                    numbers[at] = earlier[at] if earlier[at] >= 0 else numbers[before]
        found, at, counts = [], 0, dict.fromkeys(map(str, STATUSES), 0)
        for ticket in tickets:
            mine: dict[str, list[int]] = {}
            outcomes = []
            for event in ticket.events:
                status: Status = "accepted"
                if places[at] < 0:
                    status = "conflict" if conflicts[at] else "repeated"
                elif event.reasons:
                    status = "rejected"
                counts[status] += 1
                if status != "conflict":
                    some = mine.get(event.stream)
                    if some is None:
                        mine[event.stream] = [numbers[at]]
                    elif some[-1] != numbers[at]:
                        some.append(numbers[at])
                outcomes.append(Outcome(status, event.id, event.reasons if status == "rejected" else _NONE))
                at += 1
            found.append(Taken(mine, outcomes))
        self._meters.events(counts)
        return found

    def _settle(self, tickets: list[_Ticket], taken: Sequence[Taken]) -> None:
        self._done(tickets, taken)

    def _refuse(self, tickets: list[_Ticket], error: Exception) -> None:
        known = isinstance(error, HeadraceError)
        said = str(error) if known else "the collector has a defect, which its log names; nothing was taken"
        if isinstance(error, LogFull):
            after = self.drain.seconds_until(sum(ticket.bytes for ticket in tickets))
        else:
            after, self.broken = 5, said
        self._meters.refused(len(tickets))
        self._done(tickets, [Refused(503, said, after) for _ in tickets])

    def _done(self, tickets: list[_Ticket], answers: Sequence[Taken | Refused]) -> None:
        """Wake those who wait: once per loop, not once per request."""
        with self._count:
            self._waiting -= sum(ticket.bytes for ticket in tickets)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Told, Taken | Refused]]] = {}
        for ticket, answer in zip(tickets, answers, strict=True):
            by_loop.setdefault(ticket.loop, []).append((ticket.told, answer))
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(_answer, mine)
            except RuntimeError:  # the loop was closed: nobody waits any more
                log.warning("%d requests ended before they were answered", len(mine))


def _answer(answers: list[tuple[Told, Taken | Refused]]) -> None:
    for told, answer in answers:
        told(answer)
