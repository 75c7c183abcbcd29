"""Buffer what was polled of a topic's partitions, so that a batch takes from all of them alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import polars as pl

from headrace.core.batch import RECORD_SCHEMA
from headrace.core.errors import Fatal
from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, concat
from headrace.sources.kafka.fetch import Fetched, columns, pieces

if TYPE_CHECKING:
    from kafka import KafkaConsumer, TopicPartition

#: A poll after the first of a read waits this long: long enough for a fetch that is under way.
_NEXT_POLL_MS = 100
#: A read ends after this even while messages keep coming, so that its messages land soon.
_READ_SECONDS = 5.0
#: Most batches that are polled ahead, so that slow partitions get their share.
_AHEAD = 4


class PartitionBuffers:
    """Messages that were polled and not delivered yet, by partition.

    On its own, the client drains one partition's fetch after the other, and some brokers put all messages of a
    partition into one response, whatever the limit. With these buffers a batch takes from all partitions alike. So
    messages that were produced together land together, and a batch changes few days.

    Args:
        servers: The brokers, for error messages.
        partitions: The assigned partitions.
    """

    def __init__(self, servers: str, partitions: Iterable[TopicPartition]) -> None:
        self._servers = servers
        self._ahead: dict[TopicPartition, deque[Fetched | pl.DataFrame]] = {tp: deque() for tp in partitions}

    def __bool__(self) -> bool:
        return any(self._ahead.values())

    def clear(self, partition: TopicPartition) -> None:
        """Forget what was polled of a partition."""
        self._ahead[partition].clear()

    def first(self, partition: TopicPartition) -> int | None:
        """Return the first offset that is buffered of a partition; None if nothing is."""
        ahead = self._ahead[partition]
        return _first(ahead[0]) if ahead else None

    def fill(self, consumer: KafkaConsumer, max_messages: int, wait_seconds: float) -> None:
        """Poll until every partition has its share of a batch, or no more messages come."""
        share = -(-max_messages // len(self._ahead))
        wait_ms = 0 if self else int(wait_seconds * 1000)
        deadline = time.monotonic() + wait_seconds + _READ_SECONDS
        while time.monotonic() < deadline:
            waiting = [sum(map(_messages, ahead)) for ahead in self._ahead.values()]
            if min(waiting) >= share or sum(waiting) >= _AHEAD * max_messages:
                return
            found = consumer.poll(wait_ms, max_records=max_messages)
            if not found:
                return
            for tp, records in found.items():
                self._ahead[tp].extend(pieces(records))
            wait_ms = _NEXT_POLL_MS

    def take(self, max_messages: int, cursors: Mapping[TopicPartition, str]) -> pl.DataFrame:
        """Take an equal share of every partition; partitions that have more fill the rest.

        Returns:
            ``RECORD_SCHEMA``, partition by partition in the order of ``cursors``.

        Raises:
            Fatal: A partition holds bytes that are no record batch.
        """
        waiting = [tp for tp, ahead in self._ahead.items() if ahead]
        waiting.sort(key=lambda tp: sum(map(_messages, self._ahead[tp])))
        taken: dict[TopicPartition, pl.DataFrame] = {}
        for n, tp in enumerate(waiting):
            left = max_messages - sum(map(len, taken.values()))
            taken[tp] = self._cut(tp, -(-left // (len(waiting) - n)))
        return concat(RECORD_SCHEMA, [_records(cursors[tp], taken[tp]) for tp in cursors if tp in taken])

    def _cut(self, tp: TopicPartition, messages: int) -> pl.DataFrame:
        """Take the first messages of a partition; the rest stays."""
        ahead, cut = self._ahead[tp], pl.DataFrame(schema=BATCH_SCHEMA)
        try:
            # a batch may hold fewer messages than it counts: some were taken before
            while cut.height < messages and ahead:
                chosen = [ahead.popleft()]
                while ahead and cut.height + sum(map(_messages, chosen)) < messages:
                    chosen.append(ahead.popleft())
                cut = concat(BATCH_SCHEMA, [cut, columns(chosen)])
        except CorruptBatch as error:
            raise Fatal(
                f"partition {tp.partition} of {tp.topic!r} on {self._servers} holds what is no record batch: {error};"
                " drop its records up to there with 'kafka-delete-records' to go on"
            ) from error
        if cut.height > messages:
            ahead.appendleft(cut[messages:])
        return cut[:messages]


def _messages(piece: Fetched | pl.DataFrame) -> int:
    return piece.count if isinstance(piece, Fetched) else piece.height


def _first(piece: Fetched | pl.DataFrame) -> int:
    return piece.first if isinstance(piece, Fetched) else int(piece["offset"][0])


def _records(cursor: str, columns: pl.DataFrame) -> pl.DataFrame:
    """Turn ``BATCH_SCHEMA`` of one partition into ``RECORD_SCHEMA``."""
    constant = {"cursor": cursor, "message_id": None, "redelivered": False}
    literals = [pl.lit(value, RECORD_SCHEMA[name]).alias(name) for name, value in constant.items()]
    return columns.with_columns_seq(literals).select(RECORD_SCHEMA.names())
