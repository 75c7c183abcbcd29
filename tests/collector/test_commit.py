"""Parcels: what is new of them is in the log, once, whoever sends it and beside what."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.doubles import STREAMS, MemoryIndex, MemoryLog
from headrace.collector.base import Claim, Event, Reason, Refused, Taken
from headrace.collector.commit import Committer
from headrace.collector.limits import Rated
from headrace.collector.log import ID_BYTES
from headrace.collector.meters import Meters
from headrace.collector.parcels import Committed, Parcel, Ticket, outcomes, packed

WRONG = [Reason("isin", "channel", "fax")]
#: The id, which of two bodies it has, whether the contract rejects it, its stream.
Wish = tuple[int, int, bool, str]
WISHES = st.tuples(
    st.integers(0, 8), st.integers(0, 3), st.booleans(), st.sampled_from(["events", "metrics"])
)


def made(wish: Wish) -> Event:
    number, body, wrong, stream = wish
    digest = f"{stream}{number}".encode().ljust(16, b".") + bytes([body > 2]) * 8  # the second body is rare
    payload = b'{"id":%d,"body":%d}' % (number, body > 2)
    return Event(stream, payload, str(number), digest, not wrong, WRONG if wrong else [])


@dataclass
class Model:
    """What a committer has to do, event by event."""

    known: dict[tuple[str, str], bytes] = field(default_factory=dict)
    landed: list[bytes] = field(default_factory=list)

    def take(self, one: Event) -> str:
        at = one.stream, one.id
        if at in self.known:
            return "repeated" if self.known[at] == one.digest else "conflict"
        self.known[at] = one.digest
        self.landed.append(one.payload)
        return "rejected" if one.reasons else "accepted"


def told_of(tickets: list[Ticket], parcel: Parcel, done: Committed) -> list[Taken | Refused]:
    """What becomes of requests, across a message."""
    return outcomes(tickets, parcel, msgspec.msgpack.decode(msgspec.msgpack.encode(done), type=Committed))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.lists(st.lists(WISHES, min_size=1, max_size=5), max_size=4), max_size=3), max_size=4)
)
def test_all_that_is_new_is_in_the_log_once(groups: list[list[list[list[Wish]]]]) -> None:
    """Groups of parcels of requests of events."""
    log, index, meters, model = MemoryLog(), MemoryIndex(), Meters(), Model()
    committer = Committer(log, index, meters)
    for group in groups:
        senders = [[Ticket([made(w) for w in some], lambda _: None) for some in one] for one in group if one]
        parcels = [packed(tickets, STREAMS, 60) for tickets in senders]
        across = [msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Parcel) for one in parcels]
        if not across:
            continue
        done = committer.commit(across)
        for tickets, parcel, each in zip(senders, parcels, done, strict=True):
            for ticket, taken in zip(tickets, told_of(tickets, parcel, each), strict=True):
                assert isinstance(taken, Taken)
                assert [one.status for one in taken.outcomes] == [model.take(one) for one in ticket.events]
                there = {
                    n: {p["id"] for p in records(log.entries[n].payload)}
                    for s in taken.numbers.values()
                    for n in s
                }
                kept = {
                    int(e.id)
                    for e, o in zip(ticket.events, taken.outcomes, strict=True)
                    if o.status != "conflict"
                }
                assert kept <= set().union(*there.values()), (
                    "the numbers are those of the entries that hold them"
                )
    assert sorted(p for e in log.entries for p in parts(e.payload)) == sorted(model.landed)
    for entry in log.entries:
        assert len(entry.ids) == ID_BYTES * len(records(entry.payload))
    counted = sum(meters.counts.events.get(one, 0) for one in ("accepted", "rejected"))
    assert counted == len(model.landed)


def records(payload: bytes) -> list[dict[str, int]]:
    value = msgspec.json.decode(payload)
    return value if isinstance(value, list) else [value]


def parts(payload: bytes) -> list[bytes]:
    return [msgspec.json.encode(one) for one in records(payload)]


def test_who_comes_too_fast_is_left_out_and_nothing_is_a_repeat_of_it() -> None:
    log, index, now = MemoryLog(), MemoryIndex(), 100.0
    committer = Committer(log, index, Meters(), Rated(lambda: now))
    slow = [Claim("key", "slow", 1.0)]
    first = Ticket([made((n, 0, False, "events")) for n in range(5)], lambda _: None, slow)
    again = Ticket([made((9, 0, False, "events"))], lambda _: None, slow)
    other = Ticket([made((9, 0, False, "events"))], lambda _: None)
    tickets = [first, again, other]
    parcel = packed(tickets, STREAMS, 1_000)
    taken, refused, same = told_of(tickets, parcel, committer.commit([parcel])[0])
    assert isinstance(taken, Taken) and [one.status for one in taken.outcomes] == ["accepted"] * 5
    assert isinstance(refused, Refused) and (refused.status, refused.retry_after) == (429, 3)
    assert isinstance(same, Taken) and same.outcomes[0].status == "accepted"
    assert [one["id"] for e in log.entries for one in records(e.payload)] == [0, 1, 2, 3, 4, 9]
    assert committer.commit([packed([again], STREAMS, 1_000)])[0].waits, "nobody waited"
    now += 10
    (late,) = told_of([again], parcel := packed([again], STREAMS, 1_000), committer.commit([parcel])[0])
    assert isinstance(late, Taken) and late.outcomes[0].status == "repeated"


def test_an_array_of_one_is_no_object() -> None:
    """What is no object is in an array of its own, also after a repeat was cut out beside it."""
    log, committer_log = MemoryLog(), MemoryIndex()
    committer = Committer(log, committer_log, Meters())
    odd = [Event("events", b"[1]", str(n), bytes([n]) * 24, False, WRONG) for n in range(2)]
    for some in (odd[:1], odd):
        parcel = packed([Ticket(some, lambda _: None)], STREAMS, 1_000)
        committer.commit([parcel])
    assert [entry.payload for entry in log.entries] == [b"[[1]]", b"[[1]]"]
