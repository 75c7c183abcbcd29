"""Record batches from kafka-python, undecoded.

kafka-python keeps everything but the decoding of records: connections, fetch sessions, positions, CRC, transactions,
codecs, and the formats before magic 2. Its fetcher hands each fetched partition to a class of its own,
``PartitionRecords``, which asks every batch for its records; here a batch answers with one record that stands for
all of them. ``pieces`` takes those out of a poll, still compressed, and ``columns`` decodes many at once.

That class is no public interface. So kafka-python is pinned exactly, ``whole_batches`` tries the whole way on a
batch made by kafka-python before it takes it, and leaves the client as it is where anything is not as expected.
``pieces`` takes what either path gives.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import polars as pl
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.record import MemoryRecords, MemoryRecordsBuilder

from headrace.core.batch import HEADERS
from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, RawBatch, joined, utc
from headrace.sources.kafka.decode import decode

log = logging.getLogger(__name__)


def whole_batches(consumer: KafkaConsumer) -> bool:
    """Make a consumer's ``poll`` return one record per record batch, for ``pieces`` to take out.

    ``max_records`` of ``poll`` still counts messages, and is passed by less than one record batch. The consumer's
    position is then beyond the last batch that was returned, never within one.

    Returns:
        False where this kafka-python does not work that way; the consumer then is as it was.
    """
    try:
        stock = consumer._fetcher.PartitionRecords
        whole = _undecoding(stock)
        if not _tried(whole).equals(_tried(stock)):
            raise ValueError("a batch is not the same on both paths")
    except Exception as error:  # whatever another version does otherwise
        why = f"{type(error).__name__}: {error}"
        log.warning("kafka-python decodes each message by itself, several times slower: %s", why)
        return False
    consumer._fetcher.PartitionRecords = whole
    return True


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record batch as it came, its CRC checked.

    Attributes:
        count: Records in it, also those before ``first``.
        first: Offset that the read began at, or of its first record if that is later.
    """

    count: int
    first: int
    _batch: Any

    def decompressed(self) -> RawBatch:
        """The bytes of its records.

        Raises:
            CorruptBatch: They are not of the codec that it names.
            KafkaError: The codec is not installed.
        """
        batch = self._batch
        try:
            batch._maybe_uncompress()
        except KafkaError:
            raise
        except Exception as error:  # each codec has its own
            what = f"the record batch at offset {batch.base_offset} cannot be decompressed: {error}"
            raise CorruptBatch(what) from error
        return RawBatch(
            memoryview(batch._buffer)[batch._pos :],
            batch.records_count,
            batch.base_offset,
            batch.first_timestamp,
            batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None,
            self.first,
        )

    def __len__(self) -> int:
        return len(self._batch._buffer)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Stands for all records of a batch, in the attributes that ``PartitionRecords`` reads of one."""

    value: Fetched
    offset: int  # of the last one: the position is set to the next
    size_in_bytes: int
    timestamp: int = -1
    timestamp_type: int = 0
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None

    def validate_crc(self) -> bool:
        """The batch has one CRC, which is checked before."""
        return True


class _Undecoded:
    """A record batch of kafka-python that yields a ``_Whole``, and is itself in everything else."""

    def __init__(self, batch: Any, wanted: int) -> None:
        self._batch = batch
        self._wanted = wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_Whole]:
        batch = self._batch
        if not batch.records_count:  # compaction leaves the batch where it removes the last record
            return
        fetched = Fetched(batch.records_count, max(self._wanted, batch.base_offset), batch)
        yield _Whole(fetched, batch.last_offset, batch.size_in_bytes)


class _Batches:
    """``MemoryRecords`` whose batches of magic 2 stay undecoded. Control batches are kafka-python's to look into."""

    def __init__(self, records: MemoryRecords, wanted: int) -> None:
        self._records = records
        self._wanted = wanted

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None or batch.magic != 2 or batch.is_control_batch:
            return batch
        return _Undecoded(batch, self._wanted)


class _Taken(list[Any]):
    """Records of one partition; its length is the number of messages, as the fetcher counts them."""

    messages = 0

    def __len__(self) -> int:
        return self.messages

    def append(self, record: Any) -> None:
        super().append(record)
        self.messages += record.value.count if isinstance(record.value, Fetched) else 1


@cache
def _undecoding(stock: Any) -> Any:
    """Kafka-python's ``PartitionRecords``, with batches that stay whole."""

    class Undecoding(stock):  # type: ignore[misc]
        def _unpack_records(self, tp: TopicPartition, records: MemoryRecords, *deserializers: Any) -> Any:
            return super()._unpack_records(tp, _Batches(records, self.fetch_offset), *deserializers)

        def take(self, n: int | None = None) -> _Taken:
            taken = _Taken()
            try:
                self._maybe_raise_next_inline_exception()
                for record in self.record_iterator or ():
                    taken.append(record)
                    if n is not None and taken.messages >= n:
                        break
            except Exception as error:
                if not taken:
                    self.drain()  # so that the next poll fetches these bytes again instead of ending here
                    raise
                self._next_inline_exception = error
            return taken

    return Undecoding


def _tried(kind: Any) -> pl.DataFrame:
    """What a ``PartitionRecords`` makes of a compressed batch that it is to enter at the second message."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=1, batch_size=1 << 14)
    for n in range(9):
        builder.append(
            timestamp=n, key=b"key" if n % 2 else None, value=b"value" * n, headers=[("n", b"%d" % n)]
        )
    builder.close()
    part = kind(1, TopicPartition("tried", 0), MemoryRecords(builder.buffer()))
    return columns(pieces([*part.take(8), *part.take(8)]))


def pieces(records: Iterable[Any]) -> Iterator[Fetched | pl.DataFrame]:
    """What ``poll`` returned for one partition: batches, and columns of what kafka-python has decoded."""
    for undecoded, group in groupby(records, lambda record: isinstance(record.value, Fetched)):
        if undecoded:
            yield from (record.value for record in group)
        else:
            yield _decoded(list(group))


def columns(found: Iterable[Fetched | pl.DataFrame]) -> pl.DataFrame:
    """Pieces of one partition as columns.

    Returns:
        ``BATCH_SCHEMA``, one row per message.

    Raises:
        CorruptBatch: See ``decode``; or a batch cannot be decompressed.
    """
    frames = []
    for undecoded, group in groupby(found, lambda piece: isinstance(piece, Fetched)):
        if undecoded:
            frames.append(decode([piece.decompressed() for piece in group]))  # type: ignore[union-attr]
        else:
            frames += group  # type: ignore[arg-type]
    return joined(BATCH_SCHEMA, frames)


def _decoded(records: list[Any]) -> pl.DataFrame:
    """Columns of records that kafka-python has decoded."""
    headers = [[{"key": k, "value": v} for k, v in r.headers] if r.headers else None for r in records]
    columns = {
        "payload": pl.Series([r.value for r in records], dtype=pl.Binary),
        "key": pl.Series([r.key for r in records], dtype=pl.Binary),
        "headers": pl.Series(headers, dtype=HEADERS),
        "timestamp": utc(pl.Series([r.timestamp for r in records], dtype=pl.Int64)),
        "offset": pl.Series([r.offset for r in records], dtype=pl.Int64),
    }
    return pl.DataFrame(columns, schema=BATCH_SCHEMA)
