"""Tell which dtypes widen to which: every value of the one is a value of the other, in files that exist already.

One rule serves contracts, lake and warehouse. A 64-bit integer becomes a double, too, which has all of them up to
2**53 and rounds beyond; contracts say so where they are declared.
"""

from __future__ import annotations

import polars as pl

_SIGNED: tuple[pl.DataType, ...] = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64())
_UNSIGNED: tuple[pl.DataType, ...] = (pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64())
#: Dtypes whose values a double holds, or rounds (64 bits).
_DOUBLES: tuple[pl.DataType, ...] = (*_SIGNED, *_UNSIGNED[:-1], pl.Float32())


def widens(old: pl.DataType, new: pl.DataType) -> bool:
    """Tell whether a column of one dtype may become one of another; every dtype widens to itself.

    Integers widen to more bits, unsigned ones also to the next wider signed one; integers (but ``UInt64``) and
    ``Float32`` to ``Float64``; decimals to more digits without losing any before the point; enums to a superset;
    lists, maps and structs member by member, and structs may gain members.

    Args:
        old: Dtype of values that are there, as an instance.
        new: Dtype that they should have.
    """
    if old == new:
        return True
    if old in _SIGNED and new in _SIGNED:
        return _SIGNED.index(old) < _SIGNED.index(new)
    if old in _UNSIGNED and new in _UNSIGNED:
        return _UNSIGNED.index(old) < _UNSIGNED.index(new)
    if old in _UNSIGNED and new in _SIGNED:
        return _UNSIGNED.index(old) < _SIGNED.index(new)
    if new == pl.Float64():
        return old in _DOUBLES
    if isinstance(old, pl.Decimal) and isinstance(new, pl.Decimal):
        return _digits(old, new)
    if isinstance(old, pl.Enum) and isinstance(new, pl.Enum):
        return set(old.categories) <= set(new.categories)
    if isinstance(old, pl.List) and isinstance(new, pl.List):
        return widens(_instance(old.inner), _instance(new.inner))
    if isinstance(old, pl.Struct) and isinstance(new, pl.Struct):
        return _members(old, new)
    return False


def _digits(old: pl.Decimal, new: pl.Decimal) -> bool:
    before, after = (one.precision - one.scale for one in (old, new))
    return new.scale >= old.scale and after >= before


def _members(old: pl.Struct, new: pl.Struct) -> bool:
    known = {member.name: _instance(member.dtype) for member in new.fields}
    return all(m.name in known and widens(_instance(m.dtype), known[m.name]) for m in old.fields)


def _instance(dtype: object) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]
