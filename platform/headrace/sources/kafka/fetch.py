"""Take record batches out of kafka-python, undecoded.

kafka-python keeps everything but the decoding of records: connections, fetch sessions, positions, CRC,
transactions, codecs, and the formats before magic 2. Its fetcher hands each fetched partition to a class of its
own, ``PartitionRecords``, which asks every batch for its records. Here a batch answers with one record that
stands for all of them. ``pieces`` takes these out of a poll, still compressed, and ``columns`` decodes many at
once.

That class is no public interface. So kafka-python is pinned exactly. Before ``whole_batches`` takes this path,
it tries all of it on a batch made by kafka-python. If anything is unexpected, the client stays as it is.
``pieces`` accepts the records of either path.
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
from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, RawBatch, concat, utc
from headrace.sources.kafka.decode import decode

log = logging.getLogger(__name__)


def whole_batches(consumer: KafkaConsumer) -> bool:
    """Make a consumer's ``poll`` return one record per record batch, for ``pieces`` to take out.

    ``max_records`` of ``poll`` still counts messages; it is exceeded by less than one record batch. The
    consumer's position is then after the last batch returned, never within one.

    Returns:
        False if this kafka-python does not work that way; the consumer is then unchanged.
    """
    try:
        stock = consumer._fetcher.PartitionRecords
        whole = _undecoding(stock)
        if not _tried(whole).equals(_tried(stock)):
            raise ValueError("a batch is not the same on both paths")
    except Exception as error:  # another version may differ in any way
        why = f"{type(error).__name__}: {error}"
        log.warning("kafka-python decodes each message by itself, several times slower: %s", why)
        return False
    consumer._fetcher.PartitionRecords = whole
    return True


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record batch as it came, with its CRC checked.

    Attributes:
        count: Number of records, including those before ``first``.
        first: Offset at which the read began, or of the first record if that is later.
    """

    count: int
    first: int
    _batch: Any

    def decompressed(self) -> RawBatch:
        """Return the bytes of the records.

        Raises:
            CorruptBatch: The bytes are not of the codec that the batch names.
            KafkaError: The codec is not installed.
        """
        batch = self._batch
        try:
            batch._maybe_uncompress()
        except KafkaError:
            raise
        except Exception as error:  # each codec raises errors of its own
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
    """Stands for all records of a batch, with the attributes that ``PartitionRecords`` reads of a record."""

    value: Fetched
    offset: int  # offset of the last record: the position becomes the next one
    size_in_bytes: int
    timestamp: int = -1
    timestamp_type: int = 0
    key: None = None
    headers: tuple[()] = ()
    checksum: None = None

    def validate_crc(self) -> bool:
        """Return True: the batch has one CRC, which was checked before."""
        return True


class _Undecoded:
    """A record batch of kafka-python that yields one ``_Whole``; everything else stays kafka-python's."""

    def __init__(self, batch: Any, wanted: int) -> None:
        self._batch = batch
        self._wanted = wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __iter__(self) -> Iterator[_Whole]:
        batch = self._batch
        if not batch.records_count:  # compaction keeps a batch whose last record it removes
            return
        fetched = Fetched(batch.records_count, max(self._wanted, batch.base_offset), batch)
        yield _Whole(fetched, batch.last_offset, batch.size_in_bytes)


class _Batches:
    """``MemoryRecords`` whose batches of magic 2 stay undecoded. kafka-python itself reads control batches."""

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
    """Derive a class from kafka-python's ``PartitionRecords`` whose batches stay whole."""

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
    """Let a ``PartitionRecords`` read a compressed batch from the second message on."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=1, batch_size=1 << 14)
    for n in range(9):
        builder.append(
            timestamp=n, key=b"key" if n % 2 else None, value=b"value" * n, headers=[("n", b"%d" % n)]
        )
    builder.close()
    part = kind(1, TopicPartition("tried", 0), MemoryRecords(builder.buffer()))
    return columns(pieces([*part.take(8), *part.take(8)]))


def pieces(records: Iterable[Any]) -> Iterator[Fetched | pl.DataFrame]:
    """Yield what ``poll`` returned for one partition: batches, and columns of records that kafka-python decoded."""
    for undecoded, group in groupby(records, lambda record: isinstance(record.value, Fetched)):
        if undecoded:
            yield from (record.value for record in group)
        else:
            yield _decoded(list(group))


def columns(found: Iterable[Fetched | pl.DataFrame]) -> pl.DataFrame:
    """Turn pieces of one partition into columns.

    Returns:
        ``BATCH_SCHEMA``, one row per message.

    Raises:
        CorruptBatch: A batch is corrupt (see ``decode``) or cannot be decompressed.
    """
    frames = []
    for undecoded, group in groupby(found, lambda piece: isinstance(piece, Fetched)):
        if undecoded:
            frames.append(decode([piece.decompressed() for piece in group]))  # type: ignore[union-attr]
        else:
            frames += group  # type: ignore[arg-type]
    return concat(BATCH_SCHEMA, frames)


def _decoded(records: list[Any]) -> pl.DataFrame:
    """Make columns of records that kafka-python has decoded."""
    headers = [[{"key": k, "value": v} for k, v in r.headers] if r.headers else None for r in records]
    columns = {
        "payload": pl.Series([r.value for r in records], dtype=pl.Binary),
        "key": pl.Series([r.key for r in records], dtype=pl.Binary),
        "headers": pl.Series(headers, dtype=HEADERS),
        "timestamp": utc(pl.Series([r.timestamp for r in records], dtype=pl.Int64)),
        "offset": pl.Series([r.offset for r in records], dtype=pl.Int64),
    }
    return pl.DataFrame(columns, schema=BATCH_SCHEMA)
