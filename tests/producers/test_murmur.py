"""Keys go to the partitions that every other client puts them into."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from headrace.producers.murmur import partition_hashes


@given(st.lists(st.binary(max_size=40), max_size=30))
@settings(deadline=None)
def test_any_keys_hash_as_kafka_python_hashes_them(keys: list[bytes]) -> None:
    assert partition_hashes(keys) == [murmur2(key) & 0x7FFFFFFF for key in keys]


def test_known_hashes() -> None:
    """Values of Kafka's own test of ``Utils.murmur2``
    (https://github.com/apache/kafka/blob/trunk/clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java)."""
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert partition_hashes(list(known)) == [value & 0x7FFFFFFF for value in known.values()]
