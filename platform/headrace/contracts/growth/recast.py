"""Bring values from the dtype of one version of a contract to that of another, in columns."""

from __future__ import annotations

import polars as pl

from headrace.contracts.dtypes import instance


def recast(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Convert values to a wider dtype, or back; what does not fit the narrower one is null or another value.

    Members of structs are found by name: those that the dtype does not have are left out, those that the values do
    not have are null.
    """
    if values.dtype == dtype:
        return values
    if isinstance(dtype, pl.Struct):
        return _struct(values, dtype)
    if isinstance(dtype, pl.List):
        return _list(values, dtype)
    if isinstance(dtype, pl.Enum):
        return values.cast(pl.String).cast(dtype, strict=False)
    return values.cast(dtype, strict=False)


def _struct(values: pl.Series, dtype: pl.Struct) -> pl.Series:
    known = {member.name for member in values.dtype.fields}  # type: ignore[attr-defined]
    members = []
    for member in dtype.fields:
        one = instance(member.dtype)
        if member.name in known:
            members.append(recast(values.struct.field(member.name), one).alias(member.name))
        else:
            members.append(pl.Series(member.name, [None], dtype=one).new_from_index(0, len(values)))
    found = pl.DataFrame(members).to_struct(values.name)
    return found if values.null_count() == 0 else found.set(values.is_null(), None)


def _list(values: pl.Series, dtype: pl.List) -> pl.Series:
    from headrace.contracts.wire.nested import in_lists

    sizes = values.list.len()
    some = values.filter((sizes > 0).fill_null(False))
    elements = some.explode() if len(some) else pl.Series([], dtype=values.dtype.inner)  # type: ignore[attr-defined]
    lists = in_lists(recast(elements, instance(dtype.inner)), sizes.fill_null(0).to_numpy()).alias(
        values.name
    )
    found = lists.cast(dtype)
    return (
        found
        if values.null_count() == 0
        else found.zip_with(
            values.is_not_null(), pl.Series([None], dtype=dtype).new_from_index(0, len(values))
        )
    )
