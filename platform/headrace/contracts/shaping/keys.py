"""Make keys of 128 bits from a record: of fields' values, of its bytes, or of its position in the source.

A key is the BLAKE2b hash (RFC 7693) of 16 bytes, in lower-case hexadecimal digits. It is the same on every machine
and in every version of Headrace, because the bytes that it is made of are fixed. They are a row of pieces, one per
value: a letter, the length of what follows in bytes as a decimal number, a colon, and

=====  ==========================================================================================
n      nothing: the value is null
t      text as UTF-8; also an enum, a UUID, and the JSON text of an object
i      an integer in decimal digits, whatever its width
b      0 or 1
f      the bits of an IEEE 754 double, as a decimal number; -0.0 counts as 0.0, and every NaN is one
m      a decimal without exponent and without zeros behind its last digit
d      a date as YYYY-MM-DD
z      a time in microseconds since 1970, UTC
x      bytes in lower-case hexadecimal digits
l      the pieces of a list's elements; a map is a list of structs of key and value, in their order
s      the pieces of a struct's members, in their order
=====  ==========================================================================================

So ``("ab", 7, None)`` is ``t2:abi1:7n0:``. The key ``payload`` is the hash of the record's bytes themselves; the key
``position`` has three pieces: the cursor, the offset (or else the message's id), and the record's index.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from headrace.contracts.wire.json_array import take

_SIZE = 16
_NOTHING = "n0:"
_NAN_BITS = 0x7FF8_0000_0000_0000


def key_of_fields(values: Sequence[pl.Series]) -> pl.Series:
    """Hash the values of each row, in the order of the columns."""
    return _hashed(_joined([_pieces(column) for column in values]))


def key_of_position(records: pl.DataFrame, message: pl.Series, index: pl.Series) -> pl.Series:
    """Hash where each record came from.

    Args:
        records: ``MicroBatch.records``.
        message: Row of each record's message.
        index: Place of each record in its message.
    """
    origin = records.select("cursor", "offset", "message_id")[message]
    place = _pieces(origin["offset"])
    if place.is_in([_NOTHING]).any():
        place = place.zip_with(origin["offset"].is_not_null(), _pieces(origin["message_id"]))
    return _hashed(_joined([_pieces(origin["cursor"]), place, _pieces(index)]))


def key_of_payload(
    payloads: pl.Series, message: pl.Series, index: pl.Series, arrays: Sequence[int]
) -> pl.Series:
    """Hash the bytes of each record; an element of an array is hashed as it was sent.

    Args:
        payloads: Payload of each message; a missing one counts as no bytes.
        message: Row of each record's message.
        index: Place of each record in its message.
        arrays: Messages that are arrays of records.
    """
    parts = payloads[message].to_list()
    if arrays:
        rows = pl.DataFrame({"message": message, "index": index}).with_row_index("row")
        within = rows.filter(pl.col("message").is_in(arrays)).group_by("message").agg("row", "index")
        for at, places, elements in within.iter_rows():
            for row, part in zip(places, take(payloads[at], elements), strict=True):
                parts[row] = part
    return pl.Series([_digest(part or b"") for part in parts], dtype=pl.String)


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=_SIZE).hexdigest()


def _hashed(texts: pl.Series) -> pl.Series:
    return pl.Series(list(map(_digest, texts.cast(pl.Binary).to_list())), dtype=pl.String)


def _joined(pieces: Sequence[pl.Series]) -> pl.Series:
    frame = pl.DataFrame([piece.alias(str(n)) for n, piece in enumerate(pieces)])
    return frame.select(pl.concat_str(pl.all())).to_series()


def _pieces(column: pl.Series) -> pl.Series:
    """Return the pieces of a column's values."""
    dtype = column.dtype
    if dtype.is_nested():
        return pl.Series([_piece(value, dtype) for value in column.to_list()], dtype=pl.String)
    letter, text = _written(column)
    one = pl.col("v")
    piece = pl.concat_str(pl.lit(letter), one.str.len_bytes().cast(pl.String), pl.lit(":"), one)
    return text.alias("v").to_frame().select(piece.fill_null(_NOTHING)).to_series()


def _written(column: pl.Series) -> tuple[str, pl.Series]:
    dtype = column.dtype
    if dtype.is_integer():
        return "i", column.cast(pl.String)
    if dtype == pl.Boolean:
        return "b", column.cast(pl.Int8).cast(pl.String)
    if dtype.is_float():
        # not the bits of a null, which NumPy sees as NaN
        doubles = column.cast(pl.Float64).to_numpy() + 0.0
        bits = np.where(np.isnan(doubles), np.uint64(_NAN_BITS), doubles.view(np.uint64))
        return "f", pl.Series(bits).cast(pl.String).set(column.is_null(), None)
    if dtype.is_decimal():
        text = column.cast(pl.String)
        return "m", text.zip_with(~text.str.contains(".", literal=True), text.str.replace(r"\.?0+$", ""))
    if dtype == pl.Date:
        return "d", column.dt.to_string("%Y-%m-%d")
    if isinstance(dtype, pl.Datetime):
        return "z", column.dt.timestamp("us").cast(pl.String)
    if dtype == pl.Binary:
        return "x", column.bin.encode("hex")
    return "t", column.cast(pl.String)


def _piece(value: Any, dtype: pl.DataType) -> str:
    """Return the piece of one value, which may have others inside."""
    if value is None:
        return _NOTHING
    if isinstance(dtype, pl.List):
        letter, text = "l", "".join(_piece(one, dtype.inner) for one in value)  # type: ignore[arg-type]
    elif isinstance(dtype, pl.Struct):
        letter, text = "s", "".join(_piece(value[f.name], f.dtype) for f in dtype.fields)  # type: ignore[arg-type]
    else:
        return str(_pieces(pl.Series([value], dtype=dtype))[0])
    return f"{letter}{len(text.encode())}:{text}"
