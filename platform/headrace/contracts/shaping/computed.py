"""Compute derived fields and keys in columns, and call the contract's own function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.contracts.shaping.declared import PAYLOAD, POSITION, Shape
from headrace.contracts.shaping.fitted import fitted
from headrace.contracts.shaping.keys import key_of_fields, key_of_payload, key_of_position
from headrace.contracts.shaping.parts import Hopeless, by_parts, said
from headrace.contracts.wire.decoded import SHOWN, Decoded, Failures
from headrace.contracts.wire.typed import typed
from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.contracts.base import Column, Contract
    from headrace.contracts.shaping.shaping import Shaping, Transform

DERIVE, TRANSFORM = "derive", "transform"
#: Rows of a batch that are computed once more alone, to see that they depend on no others.
_TRIED = 4


def constants(shaping: Shaping, height: int) -> list[pl.Series]:
    """Return the columns of constants."""
    return [
        pl.Series(column.name, [shape.constant], dtype=column.dtype).new_from_index(0, height)
        for column, shape in shaping.constants
    ]


def compute(contract: Contract, shaping: Shaping, records: pl.DataFrame, decoded: Decoded) -> None:
    """Add derived fields, keys and what the transform makes to decoded records.

    A record with a reason already gets null instead of what depends on the wrong value, and no second reason.

    Args:
        contract: The contract, for messages.
        shaping: Its shaping.
        records: ``MicroBatch.records``.
        decoded: Records whose columns are read and typed; gets the others, and further reasons.

    Raises:
        Fatal: An expression does not fit the contract's columns; no record could pass.
    """
    for column, shape in shaping.computed:
        needed = shaping.needs[column.name]
        if shape.derive is not None:
            wrong = _wrong_rows(decoded, needed)
            found = _derived(contract, column, shape.derive, decoded.rows, wrong, decoded.failures)
        else:
            found = _key(shape, records, decoded)
            wrong = _wrong_rows(decoded, needed)
            if wrong.any():
                found = found.set(pl.Series(wrong), None)
        decoded.rows = decoded.rows.with_columns(found.alias(column.name))
    if shaping.transform is not None:
        _transformed(contract, shaping.transform, decoded)


def _wrong_rows(decoded: Decoded, needed: frozenset[str] | None = None) -> npt.NDArray[np.bool_]:
    """Mark the rows with a reason in one of these columns, or for the whole record; by default in any column."""
    wrong = np.zeros(decoded.rows.height, np.bool_)
    failures = decoded.failures
    for row, column in zip(failures.row, failures.column, strict=True):
        # a reason within a column names its path, such as address.zip or tags[]
        if needed is None or not column or column.partition(".")[0].partition("[")[0] in needed:
            wrong[row] = True
    return wrong


def _key(shape: Shape, records: pl.DataFrame, decoded: Decoded) -> pl.Series:
    if shape.hashed == POSITION:
        return key_of_position(records, decoded.message, decoded.index)
    if shape.hashed == PAYLOAD:
        return key_of_payload(records["payload"], decoded.message, decoded.index, decoded.arrays)
    return key_of_fields([decoded.rows[name] for name in shape.hashed])


def _derived(
    contract: Contract,
    column: Column,
    derive: pl.Expr,
    rows: pl.DataFrame,
    wrong: npt.NDArray[np.bool_],
    failures: Failures,
) -> pl.Series:
    at = np.flatnonzero(~wrong)
    right = rows if at.size == rows.height else rows[at]
    found: list[tuple[int, pl.Series]] = []
    for first, _, part in by_parts(right, lambda some: _evaluated(some, derive, some.height == right.height)):
        if isinstance(part, Hopeless):
            raise Fatal(f"contract {contract.name!r}: field {column.name!r} cannot be derived: {part}")
        if isinstance(part, Exception):
            failures.add(int(at[first]), DERIVE, column.name, said(part))
            continue
        try:
            values, unfit = fitted(part, column.dtype)
        except TypeError as error:
            raise Fatal(
                f"contract {contract.name!r}: field {column.name!r} cannot be derived: {error}"
            ) from error
        for row in unfit.arg_true():
            failures.add(int(at[first + row]), DERIVE, column.name, str(part[row]))
        reasons = Failures()
        found.append((first, _valid(column, values, reasons)))
        _add(failures, reasons, at[first:])
    return _gathered([one for _, one in found], _places(at, found), column.dtype, rows.height)


def _add(failures: Failures, more: Failures, at: npt.NDArray[np.int64]) -> None:
    """Add failures of rows that have these numbers in the whole batch."""
    for row, check, name, value in zip(more.row, more.check, more.column, more.value, strict=True):
        failures.add(int(at[row]), check, name, value)


def _places(at: npt.NDArray[np.int64], parts: Sequence[tuple[int, Sized]]) -> npt.NDArray[np.int64]:
    """Return the numbers, in the whole batch, of the rows of parts."""
    return np.concatenate([np.zeros(0, np.int64), *(at[first : first + len(one)] for first, one in parts)])


def _gathered(
    parts: Sequence[pl.Series], at: npt.NDArray[np.int64], dtype: pl.DataType, height: int
) -> pl.Series:
    """Put the values of parts into the rows that they are of; null elsewhere."""
    whole = pl.concat(parts) if parts else pl.Series([], dtype=dtype)
    if at.size == height:
        return whole
    place = np.full(height, -1, np.int64)
    place[at] = np.arange(at.size)
    return whole.gather(pl.Series(place).set(pl.Series(place < 0), None))


def _evaluated(rows: pl.DataFrame, derive: pl.Expr, all_rows: bool) -> pl.Series:
    try:
        found = rows.select(derive).to_series()
        if not derive.meta.root_names():
            found = found.new_from_index(0, rows.height) if len(found) == 1 else found
    except pl.exceptions.PolarsError:
        if all_rows:
            try:
                rows.clear().lazy().select(derive).collect_schema()
            except pl.exceptions.PolarsError as error:  # it fits no values of these dtypes at all
                raise Hopeless(said(error)) from error
        raise
    if len(found) != rows.height:
        raise Hopeless(
            f"the expression gives {len(found)} values for {rows.height} records; it is one per record"
        )
    if rows.height > 1:
        for row in range(min(_TRIED, rows.height)):
            alone = rows.slice(row, 1).select(derive).to_series()
            if not alone.equals(found.slice(row, 1), null_equal=True, check_names=False):
                raise Hopeless(
                    "the expression gives another value to a record that is alone: it looks at other records"
                )
    return found


def _valid(column: Column, values: pl.Series, failures: Failures) -> pl.Series:
    """Refuse texts that are not what the column holds: a UUID, a JSON object."""
    if column.wire == "uuid":
        return typed(column, values, failures)
    if column.wire != "object":
        return values
    wrong = ~values.map_elements(_is_object, return_dtype=pl.Boolean).fill_null(True)
    for row in wrong.arg_true():
        failures.add(row, "type(object)", column.name, values[row])
    return values.set(wrong, None)


def _is_object(text: str) -> bool:
    import msgspec

    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _transformed(contract: Contract, transform: Transform, decoded: Decoded) -> None:
    columns = {column.name: column for column in contract.fields}
    at = np.flatnonzero(~_wrong_rows(decoded))
    rows = decoded.rows.select(*columns)
    found: list[tuple[int, pl.DataFrame]] = []
    right = rows if at.size == rows.height else rows[at]
    for first, count, part in by_parts(right, lambda some: _called(transform, some, columns)):
        if isinstance(part, Exception):
            text = said(part)
            for row in range(first, first + count):
                decoded.failures.add(int(at[row]), TRANSFORM, "", text)
            continue
        frame, reasons = part
        _add(decoded.failures, reasons, at[first:])
        found.append((first, frame))
    place = _places(at, found)
    done = np.zeros(rows.height, np.bool_)
    done[place] = True
    made = []
    for name, column in columns.items():
        values = _gathered([frame[name] for _, frame in found], place, column.dtype, rows.height)
        # records that have failed keep their values, and so get no reasons for lacking them
        made.append(values if done.all() else values.zip_with(pl.Series(done), rows[name]))
    others = [name for name in decoded.rows.columns if name not in columns]
    decoded.rows = pl.DataFrame([one.alias(name) for name, one in zip(columns, made, strict=True)]).hstack(
        decoded.rows.select(others)
    )


def _called(
    transform: Transform, rows: pl.DataFrame, columns: Mapping[str, Column]
) -> tuple[pl.DataFrame, Failures]:
    found = transform(rows)
    if isinstance(found, pl.LazyFrame):
        found = found.collect()
    if not isinstance(found, pl.DataFrame):
        raise Hopeless(f"it returned {type(found).__name__}, no pl.DataFrame")
    missing = [name for name in columns if name not in found.columns]
    if missing:
        raise Hopeless(f"it returned no column {missing[0]!r}")
    if found.height != rows.height:
        raise ValueError(f"it returned {found.height} rows for {rows.height}")
    fits, reasons = [], Failures()
    for name, column in columns.items():
        try:
            values, unfit = fitted(found[name], column.dtype)
        except TypeError as error:
            raise Hopeless(f"column {name!r}: {error}") from error
        for row in unfit.arg_true():
            reasons.add(row, TRANSFORM, name, str(found[name][row])[:SHOWN])
        fits.append(_valid(column, values, reasons).alias(name))
    return pl.DataFrame(fits), reasons
