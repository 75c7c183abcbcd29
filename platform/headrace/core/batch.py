"""Define all values that cross between rooms: Position, MicroBatch, CheckedBatch, Table, Chunk.

They are frozen, hold Polars frames (columns, never a Python object per event) and know no driver.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import pyarrow as pa

# Polars imports NumPy at its first use of it, which fails in one of two threads that come to it at once: its stand-in
# for the module keeps its own ``_globals`` where NumPy's go. So it is used once here, before there are threads.
pl.Series([0]).to_numpy()

_LATEST = "9" * 13  # stamp of a batch whose messages do not say when they were sent
UTC_MICROS = pl.Datetime("us", "UTC")


def map_of(value: Any) -> pl.List:
    """Return the dtype of a map from text to a dtype; Polars has no map type of its own."""
    return pl.List(pl.Struct({"key": pl.String, "value": value}))


#: A map of text to text.
STRING_MAP = map_of(pl.String)
#: Headers of a message: names, which may repeat, with bytes or null.
HEADERS = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))


def is_map(dtype: Any) -> bool:
    """Tell whether a dtype is a map: pairs of ``key`` and ``value``. Headers are none, as their names repeat."""
    if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct) or dtype == HEADERS:
        return False
    members = dtype.inner.fields
    return [m.name for m in members] == ["key", "value"] and members[0].dtype == pl.String


def _schema(columns: Mapping[str, Any]) -> pl.Schema:
    return pl.Schema(dict(columns))


#: Columns of ``MicroBatch.records``, one row per message.
RECORD_SCHEMA = _schema(
    {
        "payload": pl.Binary,  # the untouched message value; null for a Kafka tombstone
        "key": pl.Binary,
        "headers": HEADERS,  # Kafka's headers, SQS' message attributes; null for none
        "timestamp": UTC_MICROS,  # the broker's time of the message, or the file's last write
        "cursor": pl.String,  # what the position counts, e.g. kafka/<topic>/<topic id>/<partition>
        "offset": pl.Int64,  # null where the source has none (SQS)
        "message_id": pl.String,  # null where the source has offsets (Kafka) and the sender gave no number
        "redelivered": pl.Boolean,  # true if the source says it has delivered this message before
    }
)

#: Where a landed or rejected row came from. ``(_cursor, _offset | _message_id, _index)`` is unique.
ORIGIN_SCHEMA = _schema(
    {
        "_source": pl.String,  # e.g. kafka/analytics_events
        "_cursor": pl.String,
        "_offset": pl.Int64,
        "_message_id": pl.String,
        "_index": pl.Int32,  # place of the record within an array message, else 0
        "_key": pl.Binary,  # the message's key, null for none
        "_headers": HEADERS,  # its headers, empty for none
        "_ingested_at": UTC_MICROS,
        "_batch_id": pl.String,
    }
)

#: Columns that identify a record by where it came from, for ever.
ORIGIN_KEY = ["_cursor", "_offset", "_message_id", "_index"]

#: Columns of ``CheckedBatch.rejected``.
REJECTED_SCHEMA = _schema(
    {
        "payload": pl.Binary,
        "reasons": pl.List(pl.Struct({"check": pl.String, "column": pl.String, "value": pl.String})),
        "contract": pl.String,
        "contract_version": pl.Int32,
        "message_timestamp": UTC_MICROS,
        "rejected_date": pl.Date,  # UTC date of _ingested_at, the partition column
        **ORIGIN_SCHEMA,
    }
)


@dataclass(frozen=True)
class Table:
    """One table, the same in lake and warehouse.

    Attributes:
        name: Name in both.
        schema: Columns and Polars dtypes.
        partition: Date column. Both have one partition per day, because a backfill replaces a day.
        order_by: Sorting key in the warehouse.
        nullable: Columns that may be null; all others never are.
        low_cardinality: Columns with few distinct values.
        distinct: Columns whose values hardly repeat: a dictionary of them would cost more than it saves.
        nested: Columns of lists, structs and maps whose members and elements may be null.
        uuids: Columns of text that is a UUID, which the warehouse stores as one.
        ranges: Columns whose smallest and largest values the warehouse stores per granule, to skip granules.
        description: One line for people.
        comments: Column descriptions.
        version: Version of the contract that the table is of.
        renamed: Earlier names of columns, the newest first. Old rows have their values under these, which are
            columns of the lake's table and not of ``schema``; the first that is not null counts.
        fills: Values of columns in rows that were written before the column existed; without one, null.
        retired: Columns that records no longer fill; new rows have null there.
        description_json: Plain description of the contract, recorded with the lake's table; empty for none.
        key: The producer's key, whose hash the warehouse stores beside it; empty for none.
    """

    name: str
    schema: pl.Schema
    partition: str
    order_by: tuple[str, ...]
    nullable: frozenset[str]
    low_cardinality: frozenset[str] = frozenset()
    distinct: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()
    uuids: frozenset[str] = frozenset()
    ranges: tuple[str, ...] = ()
    description: str = ""
    comments: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    renamed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fills: Mapping[str, Any] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    description_json: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A Parquet file, byte by byte.

    Attributes:
        pieces: Reads the file from its beginning.
        ingested_on: UTC day of ``_ingested_at`` of all its rows.
    """

    pieces: Callable[[], Iterator[bytes]]
    ingested_on: date

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that become one block in the warehouse; every iteration reads them again, part by part.

    Attributes:
        num_rows: Rows of all parts together.
        parts: Reads the parts, in the table's Arrow schema.
        parquet: The same rows as a file, if one Parquet file holds exactly them, with the same columns.
        columns: Columns of the rows; none for those of the table.
    """

    num_rows: int
    parts: Callable[[], Iterator[pa.Table]]
    parquet: ParquetFile | None = None
    columns: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[pa.Table]:
        return self.parts()

    @classmethod
    def of(cls, *parts: pa.Table) -> Chunk:
        """Make a chunk of rows in memory."""
        names = tuple(parts[0].schema.names) if parts else ()
        return cls(sum(part.num_rows for part in parts), lambda: iter(parts), columns=names)


class Position(Mapping[str, int]):
    """Frozen map from cursor name to the next offset to read."""

    __slots__ = ("_next",)

    def __init__(self, next_offsets: Mapping[str, int] | None = None) -> None:
        self._next = dict(next_offsets or {})

    def __getitem__(self, cursor: str) -> int:
        return self._next[cursor]

    def __iter__(self) -> Iterator[str]:
        return iter(self._next)

    def __len__(self) -> int:
        return len(self._next)

    def __hash__(self) -> int:
        return hash(frozenset(self._next.items()))

    def __repr__(self) -> str:
        return f"Position({self._next})"

    def advanced(self, other: Mapping[str, int]) -> Position:
        """Return this position with every cursor of ``other`` set to its offset there."""
        return Position({**self._next, **other})


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets that a source can no longer deliver.

    They were lost to retention, with the broker's memory, or with their topic.

    Attributes:
        cursor: The cursor that lost them.
        first: First lost offset.
        end: One past the last lost offset; None if nobody knows it, because the topic is gone.
    """

    cursor: str
    first: int
    end: int | None

    def __str__(self) -> str:
        return f"{self.cursor} [{self.first}, {'unknown' if self.end is None else self.end})"


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """Messages of another format, as JSON.

    Attributes:
        payloads: Binary, the JSON text of each message; null where there is none.
        unread: Check and value of each message that could not be read, by row.
    """

    payloads: pl.Series
    unread: Mapping[int, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The result of one read of a source.

    Attributes:
        source: Name of the source, e.g. ``kafka/analytics_events``.
        records: ``RECORD_SCHEMA``, one row per message, ordered by offset within a cursor.
        before: Where the read was asked to begin. If a gap follows, the read itself began after the gap.
        after: Where the next read begins; differs from ``before`` only in cursors that moved.
        receipts: What the source needs to acknowledge the batch; opaque to everybody else.
        gaps: Ranges that were lost before they could be read.
        redelivery_window: How long after it was sent a queue's message may be delivered again; None for ever.
        refused: Lines that say why parts of the source cannot be read at all (a broken file); ``records`` has
            nothing of these parts.
        unwrap: Turns the payloads into JSON for the check; None if they are JSON.
        lanes: What the senders number their messages with (``headrace.core.lanes``), one row per message; None if
            no message has a number.
    """

    source: str
    records: pl.DataFrame
    before: Position
    after: Position
    receipts: Any = None
    gaps: tuple[Gap, ...] = ()
    redelivery_window: timedelta | None = None
    refused: tuple[str, ...] = ()
    unwrap: Callable[[pl.Series], Unwrapped] | None = None
    lanes: pl.DataFrame | None = None

    def __len__(self) -> int:
        return self.records.height

    @classmethod
    def of(
        cls,
        source: str,
        payloads: Sequence[bytes | None] | pl.Series,
        *,
        cursor: str | Sequence[str],
        offset: Sequence[int] | None = None,
        message_id: str | Sequence[str] | None = None,
        key: bytes | Sequence[bytes | None] | None = None,
        timestamp: datetime | Sequence[datetime | None] | None = None,
        redelivered: bool | Sequence[bool] = False,
        before: Position | None = None,
        after: Position | None = None,
        receipts: Any = None,
        gaps: tuple[Gap, ...] = (),
        redelivery_window: timedelta | None = None,
    ) -> MicroBatch:
        """Build a batch from columns; a single value stands for every message.

        Adapters that read millions of messages a minute build ``records`` themselves.

        Args:
            source: Name of the source.
            payloads: Message values, null for a tombstone; their number is the number of messages.
            cursor: Position's cursor of each message.
            offset: Offset of each message, for a source that has offsets.
            message_id: Id of each message, for a source that has none.
            key: Message keys.
            timestamp: Times of the messages, UTC.
            redelivered: Whether the source has handed the message out before.
            before: Where the read began; default: at the first offset of each cursor.
            after: Where the next read begins; default: one past the last offset of each cursor.
            receipts: What the source needs to acknowledge the batch.
            gaps: Ranges that were lost before they could be read.
            redelivery_window: How long a message of a queue may still come again.
        """
        count = len(payloads)
        columns = {
            "payload": payloads,
            "key": _spread(key, count),
            "headers": [None] * count,
            "timestamp": _spread(timestamp, count),
            "cursor": _spread(cursor, count),
            "offset": _spread(offset, count),
            "message_id": _spread(message_id, count),
            "redelivered": _spread(redelivered, count),
        }
        records = pl.DataFrame(columns, schema=RECORD_SCHEMA)
        if before is None or after is None:
            found = records.drop_nulls("offset").group_by("cursor").agg(
                first=pl.col("offset").min(), end=pl.col("offset").max() + 1
            )  # fmt: skip
            before = Position(dict(found.select("cursor", "first").iter_rows())) if before is None else before
            ends = dict(found.select("cursor", "end").iter_rows())
            after = before.advanced(ends) if after is None else after
        return cls(source, records, before, after, receipts, gaps, redelivery_window)


def _spread(value: Any, count: int) -> Any:
    """Repeat a single value ``count`` times; a column stays as it is."""
    single = value is None or isinstance(value, str | bytes | bool | datetime)
    return [value] * count if single else value


def sent_stamp(sent: datetime | None) -> str:
    """Return the beginning of a batch id for a last message that was sent at a time; sorts as text by time."""
    return f"{0 if sent is None else round(sent.timestamp() * 1_000):013d}"


def new_batch_id(batch: MicroBatch) -> str:
    """Make the id of a micro-batch: a UUID, preceded by the time at which a queue's last message was sent.

    The queue dates a message once, and every delivery repeats that time, whatever the receivers' clocks say. So
    a batch id rules out rows: a redelivered message cannot be in a batch whose messages were all sent before
    it.
    """
    sent = batch.records["timestamp"] if batch.redelivery_window is not None else None
    unknown = sent is not None and sent.null_count() > 0
    last = sent.max() if sent is not None and not unknown else None
    assert last is None or isinstance(last, datetime)
    return f"{_LATEST if unknown else sent_stamp(last)}-{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """A micro-batch after the check against its contract.

    Attributes:
        good: The contract's typed columns, its partition column, and ``ORIGIN_SCHEMA``.
        rejected: ``REJECTED_SCHEMA``.
        batch_id: Id in every row of both.
        unknown: Records by field that the contract does not name, unless it rejects them.
    """

    good: pl.DataFrame
    rejected: pl.DataFrame
    batch_id: str
    unknown: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many messages wait in a source.

    Attributes:
        waiting: Messages that can be read now.
        in_flight: Messages that were delivered and not acknowledged yet (queues only).
        by_cursor: ``waiting`` by cursor.
        problems: Lines for people: files that cannot be read.
    """

    waiting: int
    in_flight: int = 0
    by_cursor: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
