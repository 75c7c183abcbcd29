"""Receipts hold the numbers of entries, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.collector.base import Refused
from headrace.collector.receipts import numbers_of, receipt


@given(st.sets(st.integers(0, 2**62), min_size=1, max_size=50) | st.sets(st.integers(0, 60), min_size=1))
def test_a_receipt_gives_back_its_numbers(numbers: set[int]) -> None:
    told = receipt("abc", {"events": list(numbers), "metrics": [7]})
    assert numbers_of("abc", told) == {"events": sorted(numbers), "metrics": [7]}


def test_a_long_range_is_short() -> None:
    assert len(receipt("abc", {"e": range(10**9, 10**9 + 50_000)})) < 20


@given(st.text(max_size=30) | st.binary(max_size=20).map(lambda raw: "rabc.events:" + raw.hex()))
def test_whatever_is_no_receipt_is_refused(told: str) -> None:
    try:
        found = numbers_of("abc", told)
    except Refused:
        return
    assert found is None or all(len(some) <= 100_000 for some in found.values())


def test_a_receipt_of_another_log_is_told() -> None:
    with pytest.raises(Refused, match="another"):
        numbers_of("abc", receipt("abd", {"e": [1]}))
