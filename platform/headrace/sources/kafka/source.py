"""Kafka topics as a source.

Delivery: the position lives in the Delta log, so a message is read again exactly when it has not landed.
Offsets are committed to a consumer group afterwards, only so that lag shows in Kafka's own tools. Unit of
parallelism: the partition, assigned explicitly; no group membership, so no rebalance.

A cursor is ``kafka/<topic>/<topic id>/<partition>``: a topic that was deleted and created again has another id
and starts anew instead of being skipped up to the old offset; a batch during which that happens is thrown away.
Gaps within a partition (compaction, transaction markers) are normal; offsets below the log's start that never
landed are reported as ``Gap``.

Messages are columns from the fetched bytes on: see ``fetch`` and ``decode``.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
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
from headrace.core.batch import RECORD_SCHEMA, Backlog, Gap, MicroBatch, Position
from headrace.core.errors import Fatal, Retriable
from headrace.sources.kafka.decode import BATCH_SCHEMA, CorruptBatch, joined
from headrace.sources.kafka.fetch import Fetched, columns, pieces, whole_batches

#: Bytes of one partition in one fetch.
_FETCH_BYTES = 1 << 20
#: The same for one who asks whether a message is there; a broker gives a batch at least.
_ASKED_BYTES = 1 << 14
#: A poll after the first of a read waits this long: long enough for a fetch that is under way.
_NEXT_POLL_MS = 100
#: A read ends after this even while messages keep coming, so that what was read lands soon.
_READ_SECONDS = 5.0
#: Batches that are polled ahead at most, so that slow partitions get their share.
_AHEAD = 4
#: Watermarks come with a fetch; the first one has to connect.
_WATERMARK_SECONDS = 5.0


@contextmanager
def _translated(servers: str) -> Iterator[None]:
    """kafka-python's exceptions become ours, once, here."""
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
    except (
        KeyError
    ) as error:  # kafka-python leaves out partitions whose leader it does not know at the moment
        raise Retriable(f"Kafka on {servers} has no leader for {error} at the moment") from error
    except KafkaError as error:
        kind = Retriable if isinstance(error, RetriableError) else Fatal
        said = f"Kafka on {servers}: {type(error).__name__}: {error}"
        raise refusal(error, servers) or kind(said) from error


class KafkaSource:
    """One topic. Connects on first use; for one thread."""

    replayable = True

    def __init__(
        self,
        topic: str,
        bootstrap_servers: str,
        *,
        group: str,
        security: Mapping[str, Any] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Args:
        topic: Its name.
        bootstrap_servers: ``host:port``, comma separated.
        group: Consumer group that offsets are committed to, for lag tools.
        security: Options as ``kafka_access.checked`` takes them.
        share: ``(n, of)``: only partitions whose number is n modulo ``of``.
        """
        self.topic = topic
        self.name = f"kafka/{topic}"
        self._servers = bootstrap_servers
        self._group = group
        self._security = dict(security or {})
        self._share = share
        self._consumer: KafkaConsumer | None = None
        self._tried = False  # whether the consumer was asked to leave record batches whole
        self._admin: KafkaAdminClient | None = None
        self._asker: KafkaConsumer | None = None
        self._partitions: dict[str, TopicPartition] = {}
        self._at: dict[str, int] = {}  # where the next read begins, if nobody asks for another place
        self._ahead: dict[TopicPartition, deque[Fetched | pl.DataFrame]] = {}  # polled, not handed out yet

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
        """One per partition of the topic's present incarnation."""
        found = self._described()
        topic_id = found["topic_id"]
        number, of = self._share
        partitions = sorted(
            p["partition_index"] for p in found["partitions"] if p["partition_index"] % of == number
        )
        assigned = {f"kafka/{self.topic}/{topic_id}/{p}": TopicPartition(self.topic, p) for p in partitions}
        if assigned != self._partitions:
            self._partitions, self._at = assigned, {}
            self._ahead = {tp: deque() for tp in assigned.values()}
            with _translated(self._servers):
                self._connected().assign(list(assigned.values()))
                # so that the client knows the leaders of partitions that were added since
                self._connected().topics()
        return list(assigned)

    def _described(self) -> dict[str, Any]:
        """The topic as the broker has it now.

        Raises:
            Fatal: It does not exist.
        """
        with _translated(self._servers):
            if self._admin is None:
                self._admin = connect(KafkaAdminClient, self._servers, self._security)
            # all topics, because asking for one by name creates it on brokers with automatic creation
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
        if not self._tried:  # loads the compiled code: not for those who only look how far the topic goes
            whole_batches(consumer)
            self._tried = True
        with _translated(self._servers):
            before, gaps = self._filled(consumer, after, max_messages, wait_seconds)
            records = self._take(max_messages)
            moved = self._positions(consumer, before)
            if not moved:
                self._refuse_truncated(consumer, before)
        if moved and f"/{self._described()['topic_id']}/" not in next(iter(moved)):
            # the messages may be the new topic's, and the offsets in the lake are the old one's
            self._partitions = {}
            raise Retriable(f"topic {self.topic!r} was created again while it was read; start over")
        # a gap moves the position even where nothing follows it, so that it is counted, and once
        asked = before.advanced({gap.cursor: gap.first for gap in gaps})
        return MicroBatch(self.name, records, asked, before.advanced(moved), None, gaps)

    def _filled(
        self, consumer: KafkaConsumer, after: Position, max_messages: int, wait_seconds: float
    ) -> tuple[Position, tuple[Gap, ...]]:
        """Poll from ``after`` on; returns where that begins and what was lost before.

        Who goes on where the last read ended asks for nothing but messages. Where the log starts is asked when none
        come, which also tells a broker that is away from an idle one, and when retention has passed what comes next.
        """
        at, self._at = self._at, {}  # a read that fails leaves the place unknown, so that the next one seeks
        if all(after.get(cursor) == at.get(cursor, -1) for cursor in self._partitions):
            with suppress(OffsetOutOfRangeError):
                self._fill(consumer, max_messages, wait_seconds)
                if any(self._ahead.values()):
                    return Position(at), ()
                wait_seconds = 0
        before, gaps = self._seek(consumer, after, at)
        try:
            self._fill(consumer, max_messages, wait_seconds)
        except OffsetOutOfRangeError as error:
            raise Retriable(f"an offset of {self.topic!r} is out of range, starting over: {error}") from error
        return before, gaps

    def _seek(
        self, consumer: KafkaConsumer, after: Position, at: Mapping[str, int]
    ) -> tuple[Position, tuple[Gap, ...]]:
        """Place every partition that is not ``at`` its place: at ``after``, or at the log's start if that is later."""
        start: dict[str, int] = {}
        gaps: list[Gap] = []
        first = consumer.beginning_offsets(list(self._partitions.values()))
        for cursor, tp in self._partitions.items():
            wanted, begin = after.get(cursor), first[tp]
            if wanted is not None and wanted < begin:
                gaps.append(Gap(cursor, wanted, begin))
            start[cursor] = begin if wanted is None else max(wanted, begin)
            if at.get(cursor) != start[cursor]:  # a seek throws away what was fetched ahead
                self._ahead[tp].clear()
                consumer.seek(tp, start[cursor])
        return Position(start), tuple(gaps)

    def _fill(self, consumer: KafkaConsumer, max_messages: int, wait_seconds: float) -> None:
        """Poll until every partition has its share of a batch, or no more comes.

        Left alone, the client drains one partition's fetch after the other, and some brokers put all that a
        partition holds into one response, whatever the limit. So what was polled is kept here, and a batch takes
        from all partitions alike: what was produced together then lands together, and a batch touches few days.
        """
        share = -(-max_messages // len(self._partitions))
        wait_ms = 0 if any(self._ahead.values()) else int(wait_seconds * 1000)
        deadline = time.monotonic() + wait_seconds + _READ_SECONDS
        while time.monotonic() < deadline:
            waiting = [sum(map(_messages, self._ahead[tp])) for tp in self._partitions.values()]
            if min(waiting) >= share or sum(waiting) >= _AHEAD * max_messages:
                return
            found = consumer.poll(wait_ms, max_records=max_messages)
            if not found:
                return
            for tp, records in found.items():
                self._ahead[tp].extend(pieces(records))
            wait_ms = _NEXT_POLL_MS

    def _take(self, max_messages: int) -> pl.DataFrame:
        """An equal share of every partition; those that have more fill the rest."""
        waiting = [tp for tp, ahead in self._ahead.items() if ahead]
        waiting.sort(key=lambda tp: sum(map(_messages, self._ahead[tp])))
        taken: dict[TopicPartition, pl.DataFrame] = {}
        for n, tp in enumerate(waiting):
            left = max_messages - sum(map(len, taken.values()))
            taken[tp] = self._cut(tp, -(-left // (len(waiting) - n)))
        cursors = {tp: cursor for cursor, tp in self._partitions.items()}
        return joined(RECORD_SCHEMA, [_records(cursors[tp], taken[tp]) for tp in cursors if tp in taken])

    def _cut(self, tp: TopicPartition, messages: int) -> pl.DataFrame:
        """The first messages of what was polled of a partition; the rest stays."""
        ahead, cut = self._ahead[tp], pl.DataFrame(schema=BATCH_SCHEMA)
        try:
            while (
                cut.height < messages and ahead
            ):  # a batch may hold fewer than it counts: some were taken before
                chosen = [ahead.popleft()]
                while ahead and cut.height + sum(map(_messages, chosen)) < messages:
                    chosen.append(ahead.popleft())
                cut = joined(BATCH_SCHEMA, [cut, columns(chosen)])
        except CorruptBatch as error:
            raise Fatal(
                f"partition {tp.partition} of {tp.topic!r} on {self._servers} holds what is no record batch: {error};"
                " drop its records up to there with 'kafka-delete-records' to go on"
            ) from error
        if cut.height > messages:
            ahead.appendleft(cut[messages:])
        return cut[:messages]

    def _positions(self, consumer: KafkaConsumer, before: Position) -> dict[str, int]:
        """Where each partition stands now; past gaps and markers, not merely past the last record."""
        moved = {}
        for cursor, tp in self._partitions.items():
            ahead = self._ahead[tp]
            self._at[cursor] = _first(ahead[0]) if ahead else consumer.position(tp)
            if self._at[cursor] != before[cursor]:
                moved[cursor] = self._at[cursor]
        return moved

    def _refuse_truncated(self, consumer: KafkaConsumer, before: Position) -> None:
        """A position beyond the end reads nothing for ever, which must not pass for an idle topic."""
        suspects = {
            c: tp
            for c, tp in self._partitions.items()
            if (end := consumer.highwater(tp)) is not None and end < before[c]
        }
        ends = self._watermarks(consumer) if suspects else {}
        for cursor, tp in suspects.items():
            if ends[cursor] < before[cursor]:
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
        """High watermark minus position, by partition.

        See ``_watermarks`` for why not simply ListOffsets.
        """
        if not self._partitions:
            self.cursors()
        consumer = self._connected()
        with _translated(self._servers):
            before, _ = self._seek(consumer, after, {})
            ends = self._watermarks(consumer)
        waiting = {c: max(0, ends[c] - before[c]) for c in self._partitions}
        return Backlog(sum(waiting.values()), by_cursor=waiting)

    def _watermarks(self, consumer: KafkaConsumer) -> dict[str, int]:
        """End offset of every partition.

        Some brokers answer ListOffsets with the base offset of the last batch plus one, and give no watermark
        for partitions that did not fit into a fetch response. So the last message of every partition is
        fetched, which fits, and the watermark of that response is taken. Leaves the consumer's place undefined.
        """
        listed = consumer.end_offsets(list(self._partitions.values()))
        first = consumer.beginning_offsets(list(self._partitions.values()))
        known = {c: listed[tp] for c, tp in self._partitions.items() if listed[tp] <= first[tp]}
        self._at = {}  # the next read seeks
        for tp in self._partitions.values():
            consumer.seek(tp, max(first[tp], listed[tp] - 1))
        deadline = time.monotonic() + _WATERMARK_SECONDS
        while len(known) < len(self._partitions) and time.monotonic() < deadline:
            consumer.poll(_NEXT_POLL_MS, max_records=1)
            for cursor, tp in self._partitions.items():
                end = consumer.highwater(tp)
                if end is not None and end >= listed[tp]:
                    known[cursor] = end
        return {c: known.get(c, listed[tp]) for c, tp in self._partitions.items()}

    def offsets(self) -> dict[str, tuple[int, int]]:
        """Begin and end offset by cursor: the broker's own count of what it holds."""
        self.cursors()
        consumer = self._connected()
        with _translated(self._servers):
            first = consumer.beginning_offsets(list(self._partitions.values()))
            ends = self._watermarks(consumer)
        return {c: (first[tp], ends[c]) for c, tp in self._partitions.items()}

    def count(self, cursor: str, first: int, end: int, most: int, /) -> int:
        """Messages that the broker hands out with offsets from ``first`` to below ``end``, no further than ``most``.

        Asked through a connection of its own: reading goes on where it was.
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
                    polled = self._asker.poll(_NEXT_POLL_MS, max_records=most - found)
                except OffsetOutOfRangeError:  # retention was faster
                    break
                found += sum(record.offset < end for record in polled.get(tp, ()))
        return found

    def close(self) -> None:
        """Close connections."""
        for client in (self._consumer, self._admin, self._asker):
            if client is not None:
                client.close()
        self._consumer = self._admin = self._asker = None
        self._tried = False
        self._partitions, self._at, self._ahead = {}, {}, {}


def _messages(piece: Fetched | pl.DataFrame) -> int:
    return piece.count if isinstance(piece, Fetched) else piece.height


def _first(piece: Fetched | pl.DataFrame) -> int:
    return piece.first if isinstance(piece, Fetched) else int(piece["offset"][0])


def _records(cursor: str, columns: pl.DataFrame) -> pl.DataFrame:
    """``BATCH_SCHEMA`` of one partition as ``RECORD_SCHEMA``."""
    constant = {"cursor": cursor, "message_id": None, "redelivered": False}
    literals = [pl.lit(value, RECORD_SCHEMA[name]).alias(name) for name, value in constant.items()]
    return columns.with_columns_seq(literals).select(RECORD_SCHEMA.names())
