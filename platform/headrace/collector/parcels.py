"""Make one parcel of all that waits, and say by the committer's answer what became of each event.

A parcel is what a door hands over, in the same process or to another one. It is in columns, so that whoever commits it
has nothing to do for a single event, as long as none of them came before.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.collector.base import Claim, Event, Outcome, Reason, Refused, Status, Taken, Told, too_fast
from headrace.collector.log import ID_BYTES
from headrace.collector.prepare import Target

#: What became of an event, as one byte of ``Committed.fates``; ``TAKEN`` says nothing of its contract.
TAKEN, REPEATED, CONFLICT, UNTAKEN = range(4)
_NONE: list[Reason] = []


class Ticket:
    """A request's events on their way.

    Attributes:
        events: The events.
        told: Is told what became of them.
        claims: What they count for, where that is still to be judged.
        bytes: Bytes of their payloads.
    """

    __slots__ = ("bytes", "claims", "events", "told")

    def __init__(self, events: Sequence[Event], told: Told, claims: Sequence[Claim] = ()) -> None:
        self.events, self.told, self.claims = events, told, claims
        self.bytes = sum([len(event.payload) for event in events])

    @property
    def number(self) -> int:
        """How many events it has."""
        return len(self.events)


class Proposed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry of the log, if none of its events came before.

    Attributes:
        stream: Name of the stream.
        payload: JSON: one event, or an array of events.
        rejected: Whether the contract rejects them.
    """

    stream: str
    payload: bytes
    rejected: bool


class Bill(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a request counts for: if its key or address sends too fast, none of its events is taken.

    Attributes:
        first: Place of its first event in the parcel.
        events: How many it has.
        claims: Whom they count for, in this order.
    """

    first: int
    events: int
    claims: list[Claim]


class Parcel(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Events of several requests, in order, and the entries that they would be.

    Attributes:
        entries: The entries.
        digests: ``ID_BYTES`` of each event.
        places: Place of each event's entry, as 32 bits; empty if there is one entry.
        lengths: Bytes of each event's payload, as 32 bits.
        bills: Of the requests whose rate is still to be judged.
    """

    entries: list[Proposed]
    digests: bytes
    places: bytes
    lengths: bytes
    bills: list[Bill] = []

    @property
    def number(self) -> int:
        """How many events it has."""
        return len(self.digests) // ID_BYTES

    @property
    def size(self) -> int:
        """Bytes of its payloads."""
        return sum([len(one.payload) for one in self.entries])

    def entry_of(self) -> npt.NDArray[np.uint32]:
        """Return the place of each event's entry."""
        if not self.places:
            return np.zeros(self.number, np.uint32)
        return np.frombuffer(self.places, np.uint32)


class Wait(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A request that came too fast.

    Attributes:
        bill: Place of its bill.
        claim: Place of the claim that was too much.
        seconds: After how many seconds it may come again.
    """

    bill: int
    claim: int
    seconds: float


class Committed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What became of a parcel; all that is taken of it is durable.

    Attributes:
        first: Number of its first entry. If all events were taken, the others follow it, and the rest is empty.
        numbers: Number of the entry that holds each event, as 64 bits; of one that came before, the earlier entry.
        fates: What became of each event, a byte each.
        waits: The requests that came too fast.
    """

    first: int
    numbers: bytes = b""
    fates: bytes = b""
    waits: list[Wait] = []


class _Growing:
    """An entry that still takes events: ``most`` of them."""

    __slots__ = ("bytes", "most", "payloads", "rejected", "stream")

    def __init__(self, stream: str, most: int, rejected: bool) -> None:
        self.stream, self.bytes, self.most, self.rejected = stream, 0, most, rejected
        self.payloads: list[bytes] = []

    def entry(self) -> Proposed:
        """Return it as it is now."""
        return Proposed(self.stream, joined(self.payloads), self.rejected)


def joined(payloads: Sequence[bytes]) -> bytes:
    """Return one event as it is, several as an array; what is no object is in an array, too."""
    if len(payloads) == 1 and payloads[0][:1] == b"{":
        return payloads[0]
    return b"[" + b",".join(payloads) + b"]"


def packed(tickets: Sequence[Ticket], targets: Mapping[str, Target], most: int) -> Parcel:
    """Make a parcel of requests.

    What is surely accepted shares entries with other requests: one per stream, more if they are long. What is rejected
    does not, so it cannot take anything of others with it.

    Args:
        tickets: The requests.
        targets: The streams by name.
        most: Longest payload of an entry with several events; an event that is longer is an entry of its own.
    """
    made: list[_Growing] = []
    open_: dict[object, int] = {}
    places, lengths = array("I"), array("I")
    digests: list[bytes] = []
    bills: list[Bill] = []
    for ticket in tickets:
        if ticket.claims:
            bills.append(Bill(len(digests), len(ticket.events), list(ticket.claims)))
        for event in ticket.events:
            key: object = (ticket, event.stream) if event.reasons else event.stream
            size, place = len(event.payload), open_.get(key, -1)
            if place < 0 or made[place].bytes + size >= most or not made[place].most:
                place = open_[key] = len(made)
                records = targets[event.stream].limits.max_message_records
                made.append(_Growing(event.stream, records, bool(event.reasons)))
            growing = made[place]
            growing.most -= 1
            growing.bytes += size + 1
            growing.payloads.append(event.payload)
            digests.append(event.digest)
            places.append(place)
            lengths.append(size)
    return Parcel(
        [one.entry() for one in made],
        b"".join(digests),
        places.tobytes() if len(made) > 1 else b"",
        lengths.tobytes(),
        bills,
    )


def outcomes(tickets: Sequence[Ticket], parcel: Parcel, done: Committed) -> list[Taken | Refused]:
    """Say what became of each request.

    Args:
        tickets: The requests.
        parcel: What was made of them.
        done: What became of that.
    """
    if not done.fates:
        return _all_taken(tickets, parcel, done.first)
    numbers = np.frombuffer(done.numbers, np.int64).tolist()
    slow = {parcel.bills[wait.bill].first: wait for wait in done.waits}
    found: list[Taken | Refused] = []
    at = 0
    for ticket in tickets:
        end = at + len(ticket.events)
        if ticket.claims and at in slow:
            found.append(too_fast(slow[at].seconds))
        else:
            found.append(_taken(ticket.events, numbers[at:end], done.fates[at:end]))
        at = end
    return found


def _all_taken(tickets: Sequence[Ticket], parcel: Parcel, first: int) -> list[Taken | Refused]:
    """Say what became of requests of which every event was new."""
    several = np.frombuffer(parcel.places, np.uint32).tolist() if parcel.places else None
    found: list[Taken | Refused] = []
    at = 0
    for ticket in tickets:
        mine: dict[str, list[int]] = {}
        told = []
        for event in ticket.events:
            number = first if several is None else first + several[at]
            some = mine.get(event.stream)
            if some is None:
                mine[event.stream] = [number]
            elif some[-1] != number:
                some.append(number)
            reasons = event.reasons
            told.append(Outcome("rejected" if reasons else "accepted", event.id, reasons or _NONE))
            at += 1
        found.append(Taken(mine, told))
    return found


def _taken(events: Sequence[Event], numbers: Sequence[int], fates: bytes) -> Taken:
    mine: dict[str, list[int]] = {}
    told = []
    for event, number, fate in zip(events, numbers, fates, strict=True):
        status: Status = "accepted"
        if fate:
            status = "conflict" if fate == CONFLICT else "repeated"
        elif event.reasons:
            status = "rejected"
        if fate != CONFLICT:
            some = mine.get(event.stream)
            if some is None:
                mine[event.stream] = [number]
            elif some[-1] != number:
                some.append(number)
        told.append(Outcome(status, event.id, event.reasons if status == "rejected" else _NONE))
    return Taken(mine, told)
