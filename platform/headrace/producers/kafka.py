"""Kafka, fast: whole record batches are encoded here and handed to kafka-python's own accumulator.

kafka-python's ``send`` costs 40 to 70 microseconds a message: a hash, a future and several locks each. Here a
chunk is partitioned (``murmur``) and framed at once, as the record batch format v2 says
(https://kafka.apache.org/documentation/#recordbatch), and one batch costs what one message did. Connections,
metadata, leaders, compression, checksums, sequence numbers, retries and splitting of batches that a broker
finds too large stay kafka-python's. It leans on private parts of kafka-python (pinned to 3.0.12): a test
compares what arrives with what the public ``send`` produces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka import KafkaProducer as Client
from kafka import errors as kafka_errors
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.record.util import encode_varint

from headrace.clients.kafka import connect, missing, refusal
from headrace.core.errors import BadData, Fatal, HeadraceError, Retriable
from headrace.producers.base import Keys, Payloads, keys_of
from headrace.producers.murmur import partition_hashes

#: Uncompressed bytes of a batch of several messages: below a broker's default ``message.max.bytes``, 1 MiB.
BATCH_BYTES = 900_000
#: Bytes handed over and not yet acknowledged, beyond which ``send`` waits.
IN_FLIGHT_BYTES = 16_000_000
#: One message may be this long; the topic's ``max.message.bytes`` must allow it too.
MAX_MESSAGE_BYTES = 64_000_000
_RECORD_OVERHEAD = 26  # bytes: five varints, attributes and header count, at most

_Record = tuple[bytes | None, bytes | None]


class KafkaProducer:
    """Producer of one topic. Guarantee: idempotent, acks from all replicas, in order per key.

    Messages without a key go round the partitions chunk by chunk. After an error the producer stays broken:
    make a new one.

    Args:
        bootstrap_servers: ``host:port``, comma separated.
        topic: Must exist; it is never created here.
        security: Options as ``clients.kafka.client_options`` takes them.
        timeout: Seconds after which an unanswered batch fails.
        codec: ``gzip``, ``snappy``, ``lz4`` or ``zstd``; None sends batches as they are.

    Raises:
        Retriable: No broker answers.
        Fatal: The topic does not exist, or the broker refuses the credentials.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        security: Mapping[str, Any] | None = None,
        timeout: float = 60.0,
        codec: str | None = "lz4",
    ) -> None:
        self.name = f"kafka/{topic}"
        self._topic = topic
        self._timeout = timeout
        try:
            _require_topic(bootstrap_servers, security or {}, topic)
            self._client = connect(
                Client,
                bootstrap_servers,
                security or {},
                acks="all",
                enable_idempotence=True,
                compression_type=codec,
                batch_size=BATCH_BYTES,
                max_request_size=MAX_MESSAGE_BYTES,
                allow_auto_create_topics=False,
                request_timeout_ms=int(timeout * 1_000),
                delivery_timeout_ms=int(timeout * 1_000),
                max_block_ms=int(timeout * 1_000),
                metrics_enabled=False,
            )
            found = self._client.partitions_for(topic)
        except kafka_errors.KafkaError as error:
            what = f"Kafka on {bootstrap_servers}"
            raise refusal(error, bootstrap_servers) or _translated(error, what) from error
        self._partitions: list[int] = sorted(found)
        self._keyless = 0
        self._changed = threading.Condition()
        self._unanswered = 0  # messages
        self._in_flight = 0.0  # bytes
        self._failure: Exception | None = None
        self.acknowledged = 0

    def send(self, payloads: Payloads, keys: Keys | None = None, /) -> None:
        """Encode and hand over a chunk; waits while ``IN_FLIGHT_BYTES`` are unanswered."""
        longest = max((len(p) for p in payloads if p is not None), default=0)
        if longest > MAX_MESSAGE_BYTES:
            raise BadData(
                f"a message of {longest:,} bytes is too long for {self.name} (limit {MAX_MESSAGE_BYTES:,})"
            )
        spread: dict[int, list[_Record]] = {}
        count = len(self._partitions)
        self._keyless += 1
        known = list(keys_of(payloads, keys))
        hashes = iter(partition_hashes([key for key in known if key is not None]))
        for key, payload in zip(known, payloads, strict=True):
            at = (self._keyless if key is None else next(hashes)) % count
            spread.setdefault(self._partitions[at], []).append((key, payload))
        for partition, records in spread.items():
            for batch in _split(records):
                self._append(TopicPartition(self._topic, partition), batch)

    def flush(self) -> None:
        """Wait until every batch is answered."""
        self._wait_until(lambda: self._unanswered == 0)

    def close(self) -> None:
        """End the sending thread; waits a moment for what is under way."""
        self._client.close(timeout=5)

    def _append(self, at: TopicPartition, records: Sequence[_Record]) -> None:
        size = sum(_size(r) for r in records)
        self._wait_until(lambda: self._in_flight < IN_FLIGHT_BYTES)
        accumulator = self._client._accumulator
        codec = accumulator.config["compression_attrs"]
        batch = ProducerBatch(at, _built(records, codec))
        # a batch that the broker finds too large is split: its records are then rebound to smaller ones
        batch._record_futures = [_Rebound(self._settle, size / len(records))] * len(records)
        batch.produce_future.add_callback(lambda answer: self._settle(len(records), size, answer))
        with self._changed:
            self._in_flight += size
            self._unanswered += len(records)
        with accumulator._tp_lock(at):
            accumulator._batches[at].append(batch)
            accumulator._incomplete.add(batch)
        self._client._sender.wakeup()

    def _settle(self, records: int, size: float, answer: tuple[int, int, Any]) -> None:
        """Called by the sending thread with the broker's answer; its third part makes an error, if any."""
        with self._changed:
            self._in_flight -= size
            self._unanswered -= records
            if answer[2] is None:
                self.acknowledged += records
            else:
                self._failure = self._failure or answer[2](0)
            self._changed.notify_all()

    def _wait_until(self, enough: Callable[[], bool]) -> None:
        with self._changed:
            # kafka-python fails a batch by itself at the timeout: the margin only guards against its defects
            answered = self._changed.wait_for(
                lambda: self._failure is not None or enough(), self._timeout + 10
            )
            if self._failure is not None:
                raise _translated(self._failure, f"topic {self._topic!r}") from self._failure
        if not answered:
            raise Retriable(f"topic {self._topic!r} does not answer; see 'headrace status' and send again")


class _Rebound:
    """Stands in a batch's list of futures for each of its records, for the one call that is made on them."""

    def __init__(self, settle: Any, size: float) -> None:
        self._settle, self._size = settle, size

    def rebind(self, future: Any, _index: int) -> None:
        """A split batch was sent again as smaller ones; ``future`` is the record's new batch's."""
        future.add_callback(lambda answer: self._settle(1, self._size, answer))


def _built(records: Sequence[_Record], codec: int) -> MemoryRecordsBuilder:
    """A batch that holds ``records``, ready for the accumulator."""
    zero = b"\x00"
    parts: list[bytes] = []
    for place, (key, value) in enumerate(records):
        head = zero + zero + _varint(place)  # attributes, timestamp delta, offset delta
        head += _varint(-1) if key is None else _varint(len(key)) + key
        head += _varint(-1 if value is None else len(value))
        body = value or b""
        parts += (_varint(len(head) + len(body) + 1), head, body, zero)  # the last is the count of headers
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=0)
    inner: DefaultRecordBatchBuilder = builder._builder
    inner._buffer += b"".join(parts)
    inner._first_timestamp = inner._max_timestamp = int(time.time() * 1_000)
    inner._num_records = builder._next_offset = len(records)
    inner._last_offset = len(records) - 1
    return builder


def _split(records: Sequence[_Record]) -> Iterable[Sequence[_Record]]:
    """Parts of at most ``BATCH_BYTES``; a longer message is a part of its own."""
    start = size = 0
    for at, record in enumerate(records):
        own = _size(record)
        if size + own > BATCH_BYTES and at > start:
            yield records[start:at]
            start, size = at, 0
        size += own
    yield records[start:]


def _size(record: _Record) -> int:
    return len(record[0] or b"") + len(record[1] or b"") + _RECORD_OVERHEAD


@cache
def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def _require_topic(servers: str, security: Mapping[str, Any], topic: str) -> None:
    """Some brokers create a topic that is only asked for, with settings that nobody chose: list them all."""
    admin = connect(KafkaAdminClient, servers, security)
    try:
        topics = sorted(admin.list_topics())
    finally:
        admin.close()
    if topic not in topics:
        raise missing(topic, servers, topics)


def _translated(error: Exception, what: str) -> HeadraceError:
    said = str(error) or type(error).__name__
    if isinstance(error, kafka_errors.RetriableError):
        return Retriable(f"{what} does not answer: {said}; is it running? See 'headrace status'.")
    return Fatal(f"{what} refuses the messages: {said}")
