"""Define a producer: it takes chunks of messages and counts those that the broker acknowledged.

That count is the independent side of every reconciliation (acknowledged = landed + rejected). So it comes from
the broker's answers alone, never from what was handed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.core.errors import Fatal

Payloads = Sequence[bytes | None]
#: One per payload; None is a message without a key.
Keys = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages that are sent together, column by column.

    Attributes:
        payloads: Message bodies; None is a tombstone, which only Kafka knows.
        keys: One per payload; None if the messages have no keys.
    """

    payloads: Payloads
    keys: Keys | None = None

    def __len__(self) -> int:
        return len(self.payloads)


class Producer(Protocol):
    """Sends messages to one topic or queue.

    Guarantee: at least once, and in order per key if the broker keeps an order. A message counts as produced
    when the broker says so: ``acknowledged`` is final after ``flush``.
    """

    @property
    def name(self) -> str:
        """Name of the destination, e.g. ``kafka/analytics_events``."""

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged so far."""

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Hand over a chunk.

        May return before the chunk is acknowledged, and may wait while too many messages are under way.

        Raises:
            BadData: The broker cannot carry one of the payloads; nothing of the chunk was sent.
            Retriable: The broker is away or slow; unacknowledged messages may or may not have arrived.
            Fatal: The broker refuses the messages, or the topic or queue is gone.
        """

    def flush(self) -> None:
        """Wait until all messages are acknowledged; raises as ``send`` does."""

    def close(self) -> None:
        """Release connections; messages that were not flushed may be lost. Closing twice is a no-op."""


@dataclass(slots=True)
class MemoryProducer:
    """Keeps the messages in a list, for tests and trials.

    Attributes:
        messages: Pairs of key and payload, in order.
        capacity: Messages to accept before the producer fails as a full broker would.
    """

    name: str = "memory/messages"
    capacity: int | None = None
    messages: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)
    acknowledged: int = 0
    closed: bool = False

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Keep the chunk."""
        if self.closed:
            raise Fatal(f"{self.name} is closed")
        chunk = list(zip(keys_of(payloads, keys), payloads, strict=True))
        room = len(chunk) if self.capacity is None else self.capacity - len(self.messages)
        self.messages += chunk[:room]
        self.acknowledged = len(self.messages)
        if room < len(chunk):
            raise Fatal(f"{self.name} is full: it takes {self.capacity} messages")

    def flush(self) -> None:
        """Do nothing: no message is ever under way."""

    def close(self) -> None:
        """Refuse further messages."""
        self.closed = True


def keys_of(payloads: Payloads, keys: Keys | None) -> Keys:
    """Return the keys, or a None for each payload.

    Raises:
        ValueError: There are keys, but not one per payload.
    """
    if keys is None:
        return [None] * len(payloads)
    if len(keys) != len(payloads):
        raise ValueError(f"{len(keys)} keys for {len(payloads)} payloads")
    return keys
