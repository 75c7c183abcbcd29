"""A worker's door: judges events, and hands them to the owner of the log, one parcel at a time.

While a parcel is on its way, all that comes waits for the next one. So the owner is asked as seldom as it syncs.
Nothing here outlives the worker: what the owner has got is committed, what it has not got was never answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime

from headrace.collector.base import Claim, Event, Refused, Taken, Told
from headrace.collector.door import MOST_WAITING, busy
from headrace.collector.judge import judge
from headrace.collector.line import fitting
from headrace.collector.parcels import Parcel, Ticket, Wait, outcomes, packed
from headrace.collector.prepare import Target
from headrace.collector.workers.messages import Commit, Done, NotDone

log = logging.getLogger(__name__)


class Blocked:
    """Remembers who was told to wait; the owner counts, because there are several workers. For one loop.

    Args:
        clock: Seconds, monotonic.
        most: Who is remembered at most; the one that was told longest ago is forgotten first.
    """

    def __init__(self, clock: Callable[[], float], most: int = 10_000) -> None:
        self._clock, self._most = clock, most
        self._until: dict[tuple[str, str], float] = {}

    def wait(self, claims: Sequence[Claim], events: int) -> float:
        """Return how long somebody is still to wait; 0 for who is to be counted."""
        now = self._clock()
        for claim in claims:
            at = claim.whose, claim.name
            if (until := self._until.get(at)) is not None:
                if until > now:
                    return until - now
                del self._until[at]
        return 0.0

    def note(self, claim: Claim, seconds: float) -> None:
        """Note that somebody was told to wait."""
        self._until[claim.whose, claim.name] = self._clock() + seconds
        if len(self._until) > self._most:
            del self._until[next(iter(self._until))]


class Gate:
    """Hands events to the owner. For one loop.

    Args:
        send: Sends a parcel to the owner, which answers by ``done`` or ``not_done``.
        targets: The streams by name.
        blocked: Is told who sends too fast.
        refused: Counts requests that could not be committed.
        executor: Judges, in one thread.
        message_bytes: Longest payload of an entry with several events.
        most_waiting: Bytes that may wait for the owner; beyond that the gate says that it is busy.
    """

    def __init__(
        self,
        send: Callable[[Commit], object],
        targets: Mapping[str, Target],
        blocked: Blocked,
        refused: Callable[[int], object],
        executor: Executor,
        message_bytes: int,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._send, self._targets, self._blocked, self._refused = send, targets, blocked, refused
        self._executor, self._message_bytes, self._most_waiting = executor, message_bytes, most_waiting
        self._loop = asyncio.get_running_loop()
        self._ready: list[Ticket] = []
        self._odd: list[Ticket] = []
        self._judging = self._scheduled = False
        self._sent: tuple[list[Ticket], Parcel] | None = None
        self._waiting = 0

    def take(self, events: Sequence[Event], told: Told, claims: Sequence[Claim] = ()) -> None:
        """Say what became of a request's events by one call of ``told``, once all that is taken of them is durable.

        Raises:
            Refused: Too much waits; nothing was taken.
        """
        ticket = Ticket(events, told, claims)
        if self._waiting and self._waiting + ticket.bytes > self._most_waiting:
            raise busy()
        self._waiting += ticket.bytes
        if all(event.plain for event in events):
            self._ready.append(ticket)
            self._go_on()
        else:
            self._odd.append(ticket)
            if not self._judging:
                self._judge()

    def _judge(self) -> None:
        """Judge all that is not plain, in a thread."""
        tickets, self._odd, self._judging = self._odd, [], True
        odd = [event for ticket in tickets for event in ticket.events]
        judged = self._loop.run_in_executor(self._executor, judge, self._targets, odd, datetime.now(UTC))
        judged.add_done_callback(lambda done: self._judged(tickets, done.exception()))

    def _judged(self, tickets: list[Ticket], error: BaseException | None) -> None:
        self._judging = False
        if error is None:
            self._ready += tickets
            self._go_on()
        else:  # a defect; whoever waits must hear of it
            log.error("events could not be judged", exc_info=error)
            said = "the collector has a defect, which its log names; nothing was taken"
            self._tell(tickets, [Refused(503, said, 5)] * len(tickets))
        if self._odd:
            self._judge()

    def _go_on(self) -> None:
        """Send what waits, once all that came with it is here."""
        if self._ready and self._sent is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._post)

    def _post(self) -> None:
        self._scheduled = False
        if self._sent is not None:
            return
        tickets = self._ready[: fitting(self._ready)]
        del self._ready[: len(tickets)]
        parcel = packed(tickets, self._targets, self._message_bytes)
        self._sent = tickets, parcel
        self._send(Commit(parcel))

    def done(self, answer: Done) -> None:
        """Hear what became of the parcel."""
        tickets, parcel = self._answered()
        for wait in answer.committed.waits:
            self._note(parcel, wait)
        self._tell(tickets, outcomes(tickets, parcel, answer.committed))
        self._go_on()

    def _note(self, parcel: Parcel, wait: Wait) -> None:
        self._blocked.note(parcel.bills[wait.bill].claims[wait.claim], wait.seconds)

    def not_done(self, answer: NotDone) -> None:
        """Hear that nothing was taken of the parcel."""
        tickets, _ = self._answered()
        self._tell(tickets, [Refused(answer.status, answer.why, answer.retry_after)] * len(tickets))
        self._refused(len(tickets))
        self._go_on()

    def _answered(self) -> tuple[list[Ticket], Parcel]:
        assert self._sent is not None, "an answer to no parcel"
        sent, self._sent = self._sent, None
        return sent

    def _tell(self, tickets: Sequence[Ticket], answers: Sequence[Taken | Refused]) -> None:
        for ticket, answer in zip(tickets, answers, strict=True):
            self._waiting -= ticket.bytes
            ticket.told(answer)
