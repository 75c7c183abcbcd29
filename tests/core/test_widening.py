"""Which dtypes widen to which."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest

from headrace.core.batch import UTC_MICROS, map_of
from headrace.core.widening import widens

SCALARS: list[Any] = [
    pl.String(), pl.Boolean(), pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(),
    pl.UInt64(), pl.Float32(), pl.Float64(), pl.Date(), pl.Binary(), UTC_MICROS,
]  # fmt: skip
DECIMALS = [pl.Decimal(p, s) for p, s in ((5, 2), (6, 2), (6, 3), (7, 3), (5, 3), (38, 18))]
#: Largest and smallest value of each number.
EDGES = {
    pl.Int8(): 2**7,
    pl.Int16(): 2**15,
    pl.Int32(): 2**31,
    pl.Int64(): 2**63,
    pl.UInt8(): 2**8,
    pl.UInt16(): 2**16,
    pl.UInt32(): 2**32,
    pl.UInt64(): 2**64,
}


@pytest.mark.parametrize("old, new", list(itertools.product(SCALARS, SCALARS)), ids=str)
def test_what_widens_holds_every_value(old: Any, new: Any) -> None:
    """Between integers the answer is exactly whether all values fit; everything else is listed."""
    if old in EDGES and new in EDGES:
        signed = old.is_signed_integer()
        values = [-EDGES[old] if signed else 0, EDGES[old] - 1]
        fits = pl.Series(values, dtype=pl.Int128).cast(new, strict=False).null_count() == 0
        assert widens(old, new) is fits
    elif new == pl.Float64() and old != new:
        assert widens(old, new) is (old == pl.Float32() or (old in EDGES and old != pl.UInt64()))
    else:
        assert widens(old, new) is (old == new)


@pytest.mark.parametrize("old, new", list(itertools.product(DECIMALS, DECIMALS)), ids=str)
def test_a_decimal_widens_if_its_largest_and_its_finest_value_fit(old: Any, new: Any) -> None:
    before, after = old.precision - old.scale, new.precision - new.scale
    assert widens(old, new) is (before <= after and old.scale <= new.scale)


WIDE = [
    (pl.Enum(["a", "b"]), pl.Enum(["c", "b", "a"])),
    (pl.List(pl.Int32()), pl.List(pl.Int64())),
    (pl.List(pl.Int32), pl.List(pl.Int64)),
    (map_of(pl.Int8), map_of(pl.Float64)),
    (pl.Struct({"a": pl.Int8()}), pl.Struct({"b": pl.String(), "a": pl.Int16()})),
    (pl.List(pl.Struct({"a": pl.Int8()})), pl.List(pl.Struct({"a": pl.Int8(), "b": pl.List(pl.Date())}))),
]
NARROW = [
    (pl.Enum(["a", "b"]), pl.Enum(["a", "c"])),
    (pl.Enum(["a"]), pl.String()),
    (pl.List(pl.String()), pl.String()),
    (pl.String(), pl.List(pl.String())),
    (pl.Struct({"a": pl.Int8(), "b": pl.Int8()}), pl.Struct({"a": pl.Int8()})),
    (pl.Struct({"a": pl.Int8()}), pl.Struct({"b": pl.Int8()})),
    (map_of(pl.Int64), map_of(pl.Int32)),
    (pl.Date(), UTC_MICROS),
]


@pytest.mark.parametrize("old, new", WIDE, ids=str)
def test_nested_types_widen_member_by_member(old: Any, new: Any) -> None:
    assert widens(old, new)
    assert not widens(new, old)


@pytest.mark.parametrize("old, new", NARROW, ids=str)
def test_nothing_else_widens(old: Any, new: Any) -> None:
    assert not widens(old, new)
