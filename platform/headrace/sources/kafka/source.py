"""Read Kafka topics.

Delivery: the position lives in the Delta log, so a message is read again exactly when it has not landed.
Offsets are committed to a consumer group afterwards, only so that lag shows in Kafka's own tools. Unit of
parallelism: the partition, assigned explicitly; no group membership, so no rebalance.

A cursor is ``kafka/<topic>/<topic id>/<partition>``. A topic that was deleted and created again has another id.
So it is read from its beginning instead of being skipped up to the old offset. A batch during which that
happens is thrown away. Gaps within a partition (compaction, transaction markers) are normal. Offsets below the
log's start that never landed are reported as ``Gap``.

Messages are columns from the fetched bytes on; see ``fetch`` and ``decode``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import polars as pl
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    NodeNotReadyError,
    OffsetOutOfRangeError,
    RetriableError,
)
from kafka.structs import OffsetAndMetadata

from headrace.clients.kafka import connect, missing, refusal
from headrace.core.batch import RECORD_SCHEMA, Backlog, Gap, MicroBatch, Position, Unwrapped
from headrace.core.errors import Fatal, Inconclusive, Retriable
from headrace.core.lanes import numbered
from headrace.sources.kafka.buffer import PartitionBuffers
from headrace.sources.kafka.fetch import whole_batches

#: Bytes of one partition in one fetch.
_FETCH_BYTES = 1 << 20
#: The same for ``count``; a broker returns a whole batch at least.
_ASKED_BYTES = 1 << 14
#: Wait of a poll that looks for watermarks or counts messages.
_POLL_MS = 100
#: Watermarks come with a fetch; the first one has to connect.
_WATERMARK_SECONDS = 5.0
_OFFSETS_SECONDS = 30.0  # the same, for those who judge by it


@contextmanager
def _translated(servers: str) -> Iterator[None]:
    """Translate kafka-python's exceptions into ours, here and nowhere else."""
    try:
        yield
    except (KafkaTimeoutError, KafkaConnectionError, NodeNotReadyError) as error:
        raise Retriable(
            f"no Kafka broker answers on {servers}; is it up? See 'headrace stack status'"
        ) from error
    except LogTruncationError as error:
        raise Retriable(
            f"Kafka on {servers} gave up what was read of a topic; start over: {error}"
        ) from error
    except KeyError as error:  # kafka-python leaves out partitions whose leader it does not know now
        raise Retriable(f"Kafka on {servers} has no leader for {error} at the moment") from error
    except KafkaError as error:
        kind = Retriable if isinstance(error, RetriableError) else Fatal
        said = f"Kafka on {servers}: {type(error).__name__}: {error}"
        raise refusal(error, servers) or kind(said) from error


class KafkaSource:
    """One topic. Connects on first use; for one thread.

    Args:
        topic: Name of the topic.
        bootstrap_servers: ``host:port``, comma separated.
        group: Consumer group to which offsets are committed, for lag tools; None if nobody will acknowledge.
        security: Options as ``clients.kafka.client_options`` takes them.
        share: ``(n, of)``: only partitions whose number is n modulo ``of``.
        unwrap: Turns messages into JSON; None if they are JSON.
    """

    replayable = True

    def __init__(
        self,
        topic: str,
        bootstrap_servers: str,
        *,
        group: str | None,
        security: Mapping[str, Any] | None = None,
        share: tuple[int, int] = (0, 1),
        unwrap: Callable[[pl.Series], Unwrapped] | None = None,
    ) -> None:
        self.topic = topic
        self.name = f"kafka/{topic}"
        self._servers = bootstrap_servers
        self._group = group
        self._security = dict(security or {})
        self._share = share
        self._unwrap = unwrap
        self._consumer: KafkaConsumer | None = None
        self._tried = False  # whether the consumer was asked to keep record batches whole
        self._admin: KafkaAdminClient | None = None
        self._asker: KafkaConsumer | None = None
        self._partitions: dict[str, TopicPartition] = {}
        self._at: dict[str, int] = {}  # where the next read begins by itself
        self._ahead = PartitionBuffers(self._servers, ())  # polled, not delivered yet

    def _connected(self) -> KafkaConsumer:
        if self._consumer is None:
            with _translated(self._servers):
                self._consumer = connect(
                    KafkaConsumer,
                    self._servers,
                    self._security,
                    group_id=self._group,
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    isolation_level="read_committed",
                    max_partition_fetch_bytes=_FETCH_BYTES,
                    metrics_enabled=False,
                )
        return self._consumer

    def cursors(self) -> list[str]:
        """List one cursor per partition of the topic's present incarnation."""
        found = self._described()
        topic_id = found["topic_id"]
        number, of = self._share
        partitions = sorted(
            p["partition_index"] for p in found["partitions"] if p["partition_index"] % of == number
        )
        assigned = {f"kafka/{self.topic}/{topic_id}/{p}": TopicPartition(self.topic, p) for p in partitions}
        if assigned != self._partitions:
            self._partitions, self._at = assigned, {}
            self._ahead = PartitionBuffers(self._servers, assigned.values())
            with _translated(self._servers):
                self._connected().assign(list(assigned.values()))
                # so that the client knows the leaders of partitions that were added since
                self._connected().topics()
        return list(assigned)

    def _described(self) -> dict[str, Any]:
        """Describe the topic as the broker has it now.

        Raises:
            Fatal: It does not exist.
        """
        with _translated(self._servers):
            if self._admin is None:
                self._admin = connect(KafkaAdminClient, self._servers, self._security)
            # list all topics: asking for one by name creates it on brokers with automatic creation
            topics = {t["name"]: t for t in self._admin.describe_topics()}
        found = topics.get(self.topic)
        if found is None:
            raise missing(self.topic, self._servers, topics)
        return dict(found)

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Poll every partition from ``after`` on."""
        if not self._partitions and not self.cursors():  # fewer partitions than shares
            return MicroBatch(self.name, pl.DataFrame(schema=RECORD_SCHEMA), Position(), Position())
        consumer = self._connected()
        if not self._tried:  # loads the compiled code, which looking at offsets does not need
            whole_batches(consumer)
            self._tried = True
        with _translated(self._servers):
            before, gaps = self._filled(consumer, after, max_messages, wait_seconds)
            records = self._ahead.take(max_messages, {tp: cursor for cursor, tp in self._partitions.items()})
            moved = self._positions(consumer, before)
            if not moved:
                self._refuse_truncated(consumer, before)
        if moved and f"/{self._described()['topic_id']}/" not in next(iter(moved)):
            # the messages may be the new topic's, and the offsets in the lake are the old one's
            self._partitions = {}
            raise Retriable(f"topic {self.topic!r} was created again while it was read; start over")
        # a gap moves the position even if no message follows it, so that it is counted exactly once
        asked = before.advanced({gap.cursor: gap.first for gap in gaps})
        records, lanes = numbered(records)
        after = before.advanced(moved)
        return MicroBatch(self.name, records, asked, after, None, gaps, unwrap=self._unwrap, lanes=lanes)

    def _filled(
        self, consumer: KafkaConsumer, after: Position, max_messages: int, wait_seconds: float
    ) -> tuple[Position, tuple[Gap, ...]]:
        """Poll from ``after`` on; return where that begins and what was lost before.

        A read that continues the last one asks for nothing but messages. It asks where the log starts only in
        two cases: when no messages come, which also tells a broker that is away from an idle one, and when
        retention has passed the position.
        """
        at, self._at = self._at, {}  # a failed read leaves the place unknown, so the next one seeks
        if all(after.get(cursor) == at.get(cursor, -1) for cursor in self._partitions):
            with suppress(OffsetOutOfRangeError):
                self._ahead.fill(consumer, max_messages, wait_seconds)
                if self._ahead:
                    return Position(at), ()
                wait_seconds = 0
        before, gaps = self._seek(consumer, after, at)
        try:
            self._ahead.fill(consumer, max_messages, wait_seconds)
        except OffsetOutOfRangeError as error:
            raise Retriable(f"an offset of {self.topic!r} is out of range, starting over: {error}") from error
        return before, gaps

    def _seek(
        self, consumer: KafkaConsumer, after: Position, at: Mapping[str, int]
    ) -> tuple[Position, tuple[Gap, ...]]:
        """Move every partition that is not in place to ``after``, or to the log's start if that is later."""
        start: dict[str, int] = {}
        gaps: list[Gap] = []
        first = consumer.beginning_offsets(list(self._partitions.values()))
        for cursor, tp in self._partitions.items():
            wanted, begin = after.get(cursor), first[tp]
            if wanted is not None and wanted < begin:
                gaps.append(Gap(cursor, wanted, begin))
            start[cursor] = begin if wanted is None else max(wanted, begin)
            if at.get(cursor) != start[cursor]:  # a seek throws away what was fetched ahead
                self._ahead.clear(tp)
                consumer.seek(tp, start[cursor])
        return Position(start), tuple(gaps)

    def _positions(self, consumer: KafkaConsumer, before: Position) -> dict[str, int]:
        """Return where each moved partition stands now: past gaps and markers, not merely past the last record."""
        moved = {}
        for cursor, tp in self._partitions.items():
            first = self._ahead.first(tp)
            self._at[cursor] = consumer.position(tp) if first is None else first
            if self._at[cursor] != before[cursor]:
                moved[cursor] = self._at[cursor]
        return moved

    def _refuse_truncated(self, consumer: KafkaConsumer, before: Position) -> None:
        """Refuse a position beyond the end: it would read nothing for ever, and pass for an idle topic."""
        suspects = {
            c: tp
            for c, tp in self._partitions.items()
            if (end := consumer.highwater(tp)) is not None and end < before[c]
        }
        ends = self._watermarks(consumer, _WATERMARK_SECONDS) if suspects else {}
        for cursor, tp in suspects.items():
            if cursor in ends and ends[cursor] < before[cursor]:
                raise Fatal(
                    f"the lake holds {tp.topic}/{tp.partition} up to offset {before[cursor]}, but the topic ends at"
                    f" {ends[cursor]}: the broker lost data or {self._servers} is another cluster"
                )

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Commit offsets to the group, for lag tools. A failure here loses nothing and is not raised."""
        moved = {c: o for c, o in batch.after.items() if c in self._partitions and batch.before.get(c) != o}
        offsets = {self._partitions[c]: OffsetAndMetadata(o, "", -1) for c, o in moved.items()}
        try:
            self._connected().commit(offsets)
        except KafkaError:
            return

    def backlog(self, after: Position, /) -> Backlog:
        """Count high watermark minus position, by partition.

        ``_watermarks`` explains why ListOffsets alone is not enough.
        """
        if not self._partitions:
            self.cursors()
        consumer = self._connected()
        with _translated(self._servers):
            before, _ = self._seek(consumer, after, {})
            listed = consumer.end_offsets(list(self._partitions.values()))
            ends = self._watermarks(consumer, _WATERMARK_SECONDS, listed)
        waiting = {c: max(0, ends.get(c, listed[tp]) - before[c]) for c, tp in self._partitions.items()}
        return Backlog(sum(waiting.values()), by_cursor=waiting)

    def _watermarks(
        self, consumer: KafkaConsumer, seconds: float, listed: Mapping[TopicPartition, int] | None = None
    ) -> dict[str, int]:
        """Return the end offset of every partition for which the broker gives it within these seconds.

        Some brokers answer ListOffsets with the base offset of the last batch plus one, and give no watermark
        for partitions that did not fit into a fetch response. So the last message of every partition is
        fetched, which fits, and the watermark of that response counts. Leaves the consumer's place undefined.

        Args:
            consumer: Asks the broker.
            seconds: How long to wait.
            listed: What ListOffsets has said just now; None to ask.
        """
        listed = consumer.end_offsets(list(self._partitions.values())) if listed is None else listed
        first = consumer.beginning_offsets(list(self._partitions.values()))
        known = {c: listed[tp] for c, tp in self._partitions.items() if listed[tp] <= first[tp]}
        self._at = {}  # the next read seeks
        for tp in self._partitions.values():
            consumer.seek(tp, max(first[tp], listed[tp] - 1))
        deadline = time.monotonic() + seconds
        while len(known) < len(self._partitions) and time.monotonic() < deadline:
            consumer.poll(_POLL_MS, max_records=1)
            for cursor, tp in self._partitions.items():
                end = consumer.highwater(tp)
                if end is not None and end >= listed[tp]:
                    known[cursor] = end
        return known

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Return begin and end offset by cursor: the broker's own count of its messages.

        Raises:
            Inconclusive: The broker answers, and does not say in half a minute where a partition ends.
        """
        self.cursors()
        consumer = self._connected()
        with _translated(self._servers):
            first = consumer.beginning_offsets(list(self._partitions.values()))
            ends = self._watermarks(consumer, _OFFSETS_SECONDS)
        if silent := [f"{tp.topic}/{tp.partition}" for c, tp in self._partitions.items() if c not in ends]:
            raise Inconclusive(
                f"the broker at {self._servers} did not say within {_OFFSETS_SECONDS:.0f} s where {silent[0]} ends"
            )
        return {c: (first[tp], ends[c]) for c, tp in self._partitions.items()}

    def count(self, cursor: str, first: int, end: int, most: int, /) -> int:
        """Count the messages that the broker delivers from offset ``first`` to below ``end``, up to ``most``.

        Uses a connection of its own, so that reading continues where it was.
        """
        if cursor not in self._partitions:
            self.cursors()
        tp = self._partitions[cursor]
        with _translated(self._servers):
            if self._asker is None:
                self._asker = connect(
                    KafkaConsumer,
                    self._servers,
                    self._security,
                    enable_auto_commit=False,
                    auto_offset_reset="none",
                    isolation_level="read_committed",
                    max_partition_fetch_bytes=_ASKED_BYTES,
                    metrics_enabled=False,
                )
            self._asker.assign([tp])
            self._asker.seek(tp, first)
            deadline, found = time.monotonic() + _WATERMARK_SECONDS, 0
            while found < most and self._asker.position(tp) < end and time.monotonic() < deadline:
                try:
                    polled = self._asker.poll(_POLL_MS, max_records=most - found)
                except OffsetOutOfRangeError:  # retention was faster
                    break
                found += sum(record.offset < end for record in polled.get(tp, ()))
        return found

    def close(self) -> None:
        """Close the connections."""
        for client in (self._consumer, self._admin, self._asker):
            if client is not None:
                client.close()
        self._consumer = self._admin = self._asker = None
        self._tried = False
        self._partitions, self._at, self._ahead = {}, {}, PartitionBuffers(self._servers, ())
