"""Ids that are read by columns are those of the entries, wherever one begins and whatever is damaged."""

from __future__ import annotations

import random

import pytest

from headrace.collector.log.columns import ids_at
from headrace.collector.log.frames import Entry, encoded, entries_at


def _some(random: random.Random) -> bytes:
    """Return the frames of entries of all sizes, and zeros behind them, as in a segment."""
    entries = [
        Entry("s" * random.randint(0, 12), random.randbytes(random.randint(0, 90)), random.randbytes(24 * n))
        for n in random.choices(range(5), k=random.randint(0, 25))
    ]
    return encoded(random.randint(0, 1 << 60), entries) + bytes(random.choice([0, 3, 500]))


def _damaged(random: random.Random, data: bytes) -> bytes:
    made = bytearray(data[: len(data) - random.choice([0, 0, random.randint(0, len(data))])])
    for _ in range(random.choice([0, 1, 3]) if made else 0):
        made[random.randrange(len(made))] ^= 1 << random.randrange(8)
    return bytes(made)


@pytest.mark.parametrize("seed", range(20))
def test_columns_find_what_is_found_one_by_one(seed: int) -> None:
    source = random.Random(seed)
    for _ in range(50):
        data = _damaged(source, _some(source))
        for most in (1, source.randint(1, 2_000), 1 << 20):
            entries, end = entries_at(data, 0, most)
            assert ids_at(data, 0, most) == ([(number, entry.ids) for number, entry in entries], end)
            if end:
                assert ids_at(data, 1, most) == ([], 1), "no entry begins there"


def test_a_bit_of_any_place_is_told() -> None:
    whole = encoded(7, [Entry("events", b"{}", bytes(24)), Entry("events", b"[]", bytes(48))])
    found, end = ids_at(whole, 0, 1 << 20)
    assert (found, end) == ([(7, bytes(24)), (8, bytes(48))], len(whole))
    for place in range(len(whole)):
        torn = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert ids_at(torn, 0, 1 << 20)[0] in ([], found[:1])
