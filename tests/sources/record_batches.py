"""Record batches as a broker stores them, made by kafka-python's own builders."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

#: offset delta, timestamp, key, value, headers
Record = tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
CONTROL, LOG_APPEND_TIME = 0x20, 0x08
_ATTRIBUTES, _LAST_DELTA, _MAX_TIMESTAMP = 21, 23, 35

#: Lengths beside every limit: of a view's own bytes, and of varints of one to four bytes.
_LENGTHS = [0, 1, 3, 4, 5, 11, 12, 13, 62, 63, 64, 65, 8191, 8192, 1 << 16]
BLOBS = (
    st.none()
    | st.binary(max_size=80)
    | st.builds(
        lambda byte, size: byte * size, st.sampled_from([b"\n", b"\x00", b"\xff"]), st.sampled_from(_LENGTHS)
    )
)
HEADER_LISTS = st.lists(st.tuples(st.text(max_size=20), BLOBS), max_size=4)
TIMES = st.integers(0, 1 << 42) | st.sampled_from([0, 1, 63, 64, 1 << 20, 1 << 41])


@st.composite
def records(draw: st.DrawFn, headers: bool = True) -> list[Record]:
    """One batch of records, with gaps as compaction leaves them."""
    found: list[Record] = []
    delta = draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 12))):
        pairs = draw(HEADER_LISTS) if headers else []
        found.append((delta, draw(TIMES), draw(BLOBS), draw(BLOBS), pairs))
        delta += draw(st.integers(1, 3) | st.sampled_from([63, 64, 8192, 1 << 20]))
    return found


def batch(
    found: Sequence[Record],
    base_offset: int = 0,
    codec: int = 0,
    attributes: int = 0,
    producer: int = -1,
    last_delta: int | None = None,
    append_timestamp: int | None = None,
) -> bytearray:
    """Bytes of one batch of magic 2 with its CRC. ``producer`` makes it transactional."""
    transactional = producer >= 0
    builder = DefaultRecordBatchBuilder(
        2, codec, transactional, producer, 0 if transactional else -1, 0, 1 << 30
    )
    for record in found:
        builder.append(*record)
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base_offset)
    if append_timestamp is not None:
        attributes |= LOG_APPEND_TIME
        struct.pack_into(">q", made, _MAX_TIMESTAMP, append_timestamp)
    if last_delta is not None:
        struct.pack_into(">i", made, _LAST_DELTA, last_delta)
    [present] = struct.unpack_from(">h", made, _ATTRIBUTES)
    struct.pack_into(">h", made, _ATTRIBUTES, present | attributes)
    struct.pack_into(">I", made, _ATTRIBUTES - 4, calc_crc32c(memoryview(made)[_ATTRIBUTES:]))
    return made


def marker(offset: int, producer: int, commit: bool) -> bytearray:
    """A control batch that ends a transaction."""
    key = struct.pack(">hh", 0, int(commit))
    return batch([(0, 0, key, b"\x00" * 6, [])], offset, attributes=CONTROL, producer=producer)


def decoded(made: bytes | bytearray) -> list[tuple[Any, ...]]:
    """``(payload, key, headers, timestamp, offset)`` by kafka-python."""
    return [(r.value, r.key, r.headers, r.timestamp, r.offset) for r in DefaultRecordBatch(made)]
