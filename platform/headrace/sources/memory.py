"""Sources in memory with both kinds of delivery and scripted faults, for tests and for learning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl

from headrace.core.batch import HEADERS, Backlog, Gap, MicroBatch, Position
from headrace.core.lanes import numbered, once_each

#: Names and values of a message's headers.
Headers = Sequence[tuple[str, bytes]]


class MemoryLog:
    """A log like a Kafka topic: numbered partitions of numbered messages.

    ``trim`` drops the oldest messages as retention does.
    """

    replayable = True

    def __init__(self, name: str, partitions: int = 1) -> None:
        self.name = f"memory/{name}"
        self._messages: list[list[bytes | None]] = [[] for _ in range(partitions)]
        self._headers: list[dict[int, Headers]] = [{} for _ in range(partitions)]
        self._begin = [0] * partitions
        self.acknowledged = Position()

    def publish(
        self, payloads: Sequence[bytes | None], partition: int = 0, headers: Sequence[Headers] = ()
    ) -> None:
        """Append messages to a partition, with the headers of each, if they have any."""
        first = len(self._messages[partition])
        self._headers[partition].update(enumerate(headers, first))
        self._messages[partition].extend(payloads)

    def trim(self, begin: int, partition: int = 0) -> None:
        """Drop all messages before ``begin``."""
        self._begin[partition] = begin

    def cursors(self) -> list[str]:
        """List one cursor per partition."""
        return [f"{self.name}/{n}" for n in range(len(self._messages))]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Read messages of all partitions in order; never waits."""
        rows: list[tuple[str, int, bytes | None]] = []
        start, moved, gaps = {}, {}, []
        for n, cursor in enumerate(self.cursors()):
            wanted = after.get(cursor)
            begin = self._begin[n]
            if wanted is not None and wanted < begin:
                gaps.append(Gap(cursor, wanted, begin))
            start[cursor] = begin if wanted is None else max(wanted, begin)
            end = min(len(self._messages[n]), start[cursor] + max_messages - len(rows))
            rows += [(cursor, at, self._messages[n][at]) for at in range(start[cursor], end)]
            if end > start[cursor]:
                moved[cursor] = end
        before = Position(start)
        batch = MicroBatch.of(
            self.name,
            [payload for _, _, payload in rows],
            cursor=[cursor for cursor, _, _ in rows],
            offset=[offset for _, offset, _ in rows],
            timestamp=datetime.now(UTC),
            before=before.advanced({gap.cursor: gap.first for gap in gaps}),
            after=before.advanced(moved),
            gaps=tuple(gaps),
        )
        number = {cursor: n for n, cursor in enumerate(self.cursors())}
        headers = _headers(self._headers[number[cursor]].get(offset) for cursor, offset, _ in rows)
        records, lanes = numbered(batch.records.with_columns(headers=headers))
        return replace(batch, records=records, lanes=lanes)

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Store the position, for tests to look at."""
        self.acknowledged = self.acknowledged.advanced(batch.after)

    def backlog(self, after: Position, /) -> Backlog:
        """Count the messages beyond ``after``."""
        waiting = {
            cursor: len(self._messages[n]) - max(after.get(cursor, 0), self._begin[n])
            for n, cursor in enumerate(self.cursors())
        }
        return Backlog(sum(waiting.values()), by_cursor=waiting)

    def close(self) -> None:
        """Do nothing: memory holds no connection."""


class MemoryQueue:
    """A queue like one of SQS: messages with ids, which are delivered until they are deleted.

    ``expire`` makes all messages in flight visible again, as the end of the visibility timeout does.
    """

    replayable = False

    def __init__(self, name: str, redelivery_window: timedelta | None = None) -> None:
        self.name = f"memory/{name}"
        self._redelivery_window = redelivery_window
        self._messages: dict[str, bytes] = {}
        self._headers: dict[str, Headers] = {}
        self._sent_at: dict[str, datetime] = {}
        self._received: dict[str, int] = {}
        self._hidden: set[str] = set()
        self._sent = 0

    def publish(self, payloads: Sequence[bytes], headers: Sequence[Headers] = ()) -> None:
        """Add messages, with the headers of each, if they have any."""
        for place, payload in enumerate(payloads):
            self._messages[f"m{self._sent}"] = payload
            if headers:
                self._headers[f"m{self._sent}"] = headers[place]
            self._sent_at[f"m{self._sent}"] = datetime.now(UTC)
            self._sent += 1

    def expire(self) -> None:
        """End every visibility timeout."""
        self._hidden.clear()

    def cursors(self) -> list[str]:
        """Return the queue as its only cursor."""
        return [self.name]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Receive visible messages and hide them."""
        ids = [i for i in self._messages if i not in self._hidden][:max_messages]
        self._hidden.update(ids)
        for i in ids:
            self._received[i] = self._received.get(i, 0) + 1
        before = Position({self.name: after.get(self.name, 0)})
        moved = {self.name: before[self.name] + 1} if ids else {}
        batch = MicroBatch.of(
            self.name,
            [self._messages[i] for i in ids],
            cursor=self.name,
            message_id=ids,
            redelivered=[self._received[i] > 1 for i in ids],
            timestamp=[self._sent_at[i] for i in ids],
            before=before,
            after=before.advanced(moved),
            receipts=ids,
            redelivery_window=self._redelivery_window,
        )
        records, lanes = once_each(batch.records.with_columns(headers=_headers(map(self._headers.get, ids))))
        return replace(batch, records=records, lanes=lanes)

    def purge(self) -> None:
        """Lose every message."""
        self._messages.clear()
        self._hidden.clear()

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Delete the batch."""
        for i in batch.receipts:
            self._messages.pop(i, None)
            self._hidden.discard(i)

    def backlog(self, after: Position, /) -> Backlog:
        """Count visible and hidden messages."""
        waiting = len(self._messages) - len(self._hidden)
        return Backlog(waiting, len(self._hidden), {self.name: waiting})

    def close(self) -> None:
        """Make all messages visible again."""
        self.expire()


def _headers(every: Iterable[Headers | None]) -> pl.Series:
    found = [None if one is None else [{"key": k, "value": v} for k, v in one] for one in every]
    return pl.Series(found, dtype=HEADERS)
