"""Define what passes between the rooms of the collector: drafts, events, outcomes, and the seams to log and index."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import msgspec

from headrace.core.errors import HeadraceError

if TYPE_CHECKING:
    from headrace.collector.ids import Looked
    from headrace.collector.log import Entry

Status = Literal["accepted", "repeated", "rejected", "conflict"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Refused(HeadraceError):
    """A request of which nothing is taken.

    Args:
        status: Status code of the answer.
        why: What is wrong with it, and what to do, for whoever sent it.
        retry_after: Seconds after which the same request may be taken; None if never.
    """

    def __init__(self, status: int, why: str, retry_after: int | None = None) -> None:
        super().__init__(why)
        self.status, self.retry_after = status, retry_after


def too_fast(seconds: float) -> Refused:
    """Return the refusal of who sends too fast."""
    return Refused(429, "too many events; send them again later", max(1, math.ceil(seconds)))


class Draft(msgspec.Struct, frozen=True, gc=False):
    """One record as a route hands it on.

    Attributes:
        stream: Name of its stream.
        raw: JSON in UTF-8, in the words of the stream's contract, before the collector adds anything: two drafts
            of the same bytes are the same event.
        fill: What a record that lacks it gets: ``id`` an id of its own, ``time`` the moment of reception.
    """

    stream: str
    raw: bytes | msgspec.Raw
    fill: frozenset[str] = frozenset()


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why a contract rejects a record: the failed check, the column (empty for the whole record), and the value."""

    check: str
    column: str
    value: str


class Event(msgspec.Struct, gc=False):
    """One record as it will be landed.

    Attributes:
        stream: Name of its stream.
        payload: JSON with everything that the collector added.
        id: Its id; empty if it has none.
        digest: 16 bytes of write key, stream and id, and 8 of the draft.
        plain: Whether the contract surely accepts it; if not, it is to be judged.
        reasons: Why the contract rejects it; empty for an accepted one.
    """

    stream: str
    payload: bytes
    id: str
    digest: bytes
    plain: bool
    reasons: list[Reason] = []


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What became of one event.

    Attributes:
        status: ``accepted``; ``repeated`` for one that was taken before; ``rejected`` by the contract, and kept in the
            rejected table; ``conflict`` for one that was not taken, because another body has the same id.
        id: Id of the event.
        reasons: Why it was rejected.
    """

    status: Status
    id: str
    reasons: list[Reason] = []


class Taken(msgspec.Struct, frozen=True, gc=False):
    """What became of a request, all of which is durable.

    Attributes:
        numbers: Numbers of the log's entries that hold its events, by stream; also those of earlier requests.
        outcomes: One per event, in order.
    """

    numbers: dict[str, list[int]]
    outcomes: list[Outcome]


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What the collector knows of a request, which its events are to say.

    Attributes:
        received: When it came (UTC).
        sent: When it was sent by the client's clock; None if it does not say.
        about: JSON object about the client, for ``properties``; empty for none.
        sender: Name of the write key.
        request_id: The request's own id, from which events without one get theirs; empty for none.
    """

    received: datetime
    sender: str
    sent: datetime | None = None
    about: bytes = b""
    request_id: str = ""


#: Is told, in its loop, what became of a request's events, or why nothing of them was taken.
Told = Callable[[Taken | Refused], None]


class Claim(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Events that count for somebody who may send only so many.

    Attributes:
        whose: ``key`` or ``address``.
        name: Name of the key, or the address.
        rate: Events per second.
    """

    whose: Literal["key", "address"]
    name: str
    rate: float


class Takes(Protocol):
    """Takes events for good; see ``Door``."""

    def take(self, events: Sequence[Event], told: Told, claims: Sequence[Claim] = (), /) -> None:
        """Say what became of events by one call of ``told``, once all that is taken of them is durable.

        Raises:
            Refused: Too much waits; nothing was taken.
        """


class Admits(Protocol):
    """Judges who sends too fast; see ``Rated``."""

    def wait(self, claims: Sequence[Claim], events: int, /) -> float:
        """Count events; return 0, or after how many seconds they may come again, in which case none count."""


class Log(Protocol):
    """Keeps entries; see ``DurableLog``."""

    @property
    def bytes(self) -> int:
        """Bytes that it holds."""

    def append(self, entries: Sequence[Entry], /) -> range:
        """Append entries and return their numbers once they are durable.

        Raises:
            LogFull: There is no room; nothing was appended.
            Retriable: The disk failed; nothing was appended.
            Fatal: The disk failed for good.
        """


class Index(Protocol):
    """Knows what was accepted before; see ``Ids``."""

    def look(self, digests: bytes, /) -> Looked:
        """Look events up, 24 bytes each."""

    def add(self, entries: Iterable[tuple[int, bytes]], /) -> None:
        """Add the events of durable entries.

        Raises:
            Retriable: The disk fails.
        """
