"""Take events for good: look them up, append them to the log with one sync for all that arrived, then answer.

Two threads beside the server's loop. Plain events go to the committer at once. Those that have to be judged first go
through the judge, who takes all that waits as one batch, and cannot hold the others up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from headrace.collector.base import Claim, Event, Refused, Taken, Told
from headrace.collector.commit import Committer
from headrace.collector.judge import judge
from headrace.collector.line import Line
from headrace.collector.meters import Meters
from headrace.collector.parcels import Ticket, outcomes, packed
from headrace.collector.prepare import Target
from headrace.core.errors import HeadraceError

log = logging.getLogger(__name__)

#: Bytes that may wait for the disk; beyond that the door says that it is busy.
MOST_WAITING = 128 << 20
_BUSY_SECONDS = 1


def busy() -> Refused:
    """Return the refusal while too much waits."""
    return Refused(503, "too many events wait for the disk; send them again", _BUSY_SECONDS)


class _Here(Ticket):
    """A request's events, and the loop in which somebody waits for them."""

    __slots__ = ("loop",)

    def __init__(self, events: Sequence[Event], told: Told) -> None:
        super().__init__(events, told)
        self.loop = asyncio.get_running_loop()


class Door:
    """Commits events. ``close`` when done; ``take`` may be called in several loops.

    Args:
        committer: Commits; nobody else may use it.
        targets: The streams by name.
        meters: Counts what is taken.
        group_seconds: Shortest time from one group's beginning to the next one's. Who comes after a pause waits for
            nobody.
        message_bytes: Longest payload of an entry with several events; one that is longer is an entry of its own.
    """

    def __init__(
        self,
        committer: Committer,
        targets: Mapping[str, Target],
        meters: Meters,
        *,
        group_seconds: float = 0.003,
        message_bytes: int = 262_144,
    ) -> None:
        self._committer, self._targets, self._meters = committer, targets, meters
        self._group_seconds, self._message_bytes = group_seconds, message_bytes
        self._odd, self._ready = Line[_Here](), Line[_Here]()
        self._waiting = 0
        self._count = threading.Lock()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("collector-judge", self._judging), ("collector-commit", self._committing))
        ]
        for thread in self._threads:
            thread.start()

    def take(self, events: Sequence[Event], told: Told, claims: Sequence[Claim] = ()) -> None:
        """Say what became of a request's events by one call of ``told``, once all that is taken of them is durable.

        What was handed over is committed, also if nobody waits for its answer any more.

        Args:
            events: The events.
            told: Called in the loop that runs now; it may not raise.
            claims: For whom they were counted.

        Raises:
            Refused: Too much waits; nothing was taken.
        """
        ticket = _Here(events, told)
        with self._count:
            if self._waiting and self._waiting + ticket.bytes > MOST_WAITING:
                raise busy()
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
                self._settle(tickets, taken)
                self._meters.group(time.perf_counter() - began)

    def _commit(self, tickets: Sequence[_Here]) -> list[Taken | Refused]:
        parcel = packed(tickets, self._targets, self._message_bytes)
        return outcomes(tickets, parcel, self._committer.commit([parcel])[0])

    def _refuse(self, tickets: Sequence[_Here], error: Exception) -> None:
        refused = self._committer.refusal(error, sum(ticket.bytes for ticket in tickets))
        self._meters.refused(len(tickets))
        self._settle(tickets, [refused] * len(tickets))

    def _settle(self, tickets: Sequence[_Here], answers: Sequence[Taken | Refused]) -> None:
        """Wake those who wait: once per loop, not once per request."""
        with self._count:
            self._waiting -= sum([ticket.bytes for ticket in tickets])
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
