"""Record batches to columns: as kafka-python decodes them, or an error."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch

from headrace.sources.kafka import decode as kafka_batches
from headrace.sources.kafka.batch import BATCH_SCHEMA, CorruptBatch, RawBatch
from headrace.sources.kafka.decode import decode

from .record_batches import Record, batch, decoded, records

SIMPLE: list[Record] = [(n, n, b"key", b"value %d" % n, [("h", None)]) for n in range(3)]


def raw(made: bytearray, wanted: int = 0) -> RawBatch:
    """The bytes of an uncompressed batch."""
    whole = DefaultRecordBatch(made)
    appended = whole.max_timestamp if whole.timestamp_type else None
    body = bytes(made[whole._pos :])
    return RawBatch(body, whole.records_count, whole.base_offset, whole.first_timestamp, appended, wanted)


def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    assert frame.schema == BATCH_SCHEMA
    times = frame["timestamp"].dt.timestamp("ms")
    found = frame.with_columns(times.alias("timestamp")).iter_rows()
    return [(v, k, [(h["key"], h["value"]) for h in hs or ()], t, o) for v, k, hs, t, o in found]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            records() | records(headers=False), st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 42)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_batches_are_what_kafka_python_makes_of_them(
    many: list[tuple[list[Record], int, int | None]],
) -> None:
    made = [batch(found, base, append_timestamp=time) for found, base, time in many]
    frame = decode([raw(one) for one in made])
    assert rows(frame) == [row for one in made for row in decoded(one)]
    bare = sum(not pairs for found, _, _ in many for *_, pairs in found)
    assert frame["headers"].null_count() == bare


@settings(deadline=None)
@given(records(), st.integers(-3, 40))
def test_a_batch_can_be_entered_anywhere(found: list[Record], into: int) -> None:
    made = batch(found, base_offset=1000)
    wanted = 1000 + into
    assert rows(decode([raw(made, wanted)])) == [row for row in decoded(made) if row[-1] >= wanted]


@settings(deadline=None)
@given(records(), st.data())
def test_what_is_cut_off_is_an_error(found: list[Record], data: st.DataObject) -> None:
    whole = raw(batch(found))
    end = data.draw(st.integers(0, len(whole) - 1))
    cut = RawBatch(whole.records[:end], whole.count, 0, 0, None, 0)
    with pytest.raises(CorruptBatch, match="at offset 0"):
        decode([cut])
    with pytest.raises(CorruptBatch, match="at offset 0"):
        decode([cut, whole])


@settings(deadline=None)
@given(records(), st.integers(1, 255), st.data())
def test_a_changed_byte_loses_no_record(found: list[Record], change: int, data: st.DataObject) -> None:
    """The CRC finds it before; what does get here is an error, or as many records with other contents."""
    whole = raw(batch(found))
    body = bytearray(whole.records)
    body[data.draw(st.integers(0, len(body) - 1))] ^= change
    try:
        frame = decode([RawBatch(body, whole.count, 0, 0, None, 0)])
    except CorruptBatch:
        return
    assert frame.height == whole.count


@pytest.mark.parametrize(
    ("body", "count", "said"),
    [
        (b"\x10\x00\x00\x00\x01\x01\x00", 1, "reaches beyond the batch's end"),
        (b"\x0c\x00\x00\x00\x01\x01\x00\x00", 1, "1 bytes are left over"),
        (b"\x0c\x00\x00\x00\x01\x01\x00", 2, "7 bytes cannot hold as many"),
        (b"\x0c\x00\x00\x00\x01\x01\x00", -1, "7 bytes cannot hold as many"),
        (b"\x0b\x00\x00\x00\x01\x01\x00", 1, "its length is negative"),
        (b"\x0c\x00\x00\x00\x01\x01\x01", 1, "the number of its headers is negative"),
        (b"\x0c\x00\x00\x00\x01\x01\x02", 1, "reaches beyond its end"),
        (b"\x0e\x00\x00\x00\x01\x01\x00\x00", 1, "longer than its fields"),
        (b"\x10\x00\x00\x00\x01\x01\x02\x01\x01", 1, "a header has no name"),
        (b"\x12\x00\x00\x00\x01\x01\x02\x02\xff\x01", 1, "a header's name is not UTF-8"),
        (b"\x0c\x00\x80\x80\x80\x80\x80", 1, "a number in it is cut off"),
        (b"\x22\x00" + b"\x80" * 11 + b"\x00\x00\x01\x01\x00", 1, "longer than 64 bits"),
    ],
)
def test_an_error_names_the_record(body: bytes, count: int, said: str) -> None:
    with pytest.raises(CorruptBatch, match=said) as caught:
        decode([raw(batch(SIMPLE)), RawBatch(body, count, 17, 0, None, 0)])
    assert "offset 17" in str(caught.value)


def test_many_bytes_are_joined_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_batches, "_JOINED_BYTES", 100)
    made = [batch(SIMPLE, base) for base in range(0, 300, 3)]
    assert rows(decode([raw(one) for one in made])) == [row for one in made for row in decoded(one)]


def test_nothing_is_an_empty_frame() -> None:
    assert rows(decode([])) == []
