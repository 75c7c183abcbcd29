"""Handle JSON text of values of any type: tell text from the rest, and read it as the type that a column has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import polars as pl

from headrace.contracts.dtypes import WireField
from headrace.contracts.wire.decoded import Failures
from headrace.contracts.wire.json_array import BROKEN
from headrace.contracts.wire.parse import parse

#: Most bytes that Polars counts: what is within a message is no longer than it, whose length has been checked.
ANY_SIZE = (1 << 32) - 1
_TEXT = msgspec.json.Decoder(str)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def unquoted(tokens: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the text of strings, other values as they are written, and which are strings; a null stays null."""
    quoted = tokens.str.starts_with('"').fill_null(False)
    texts = tokens.zip_with(~quoted, tokens.str.slice(1).str.head(-1)) if quoted.any() else tokens
    escaped = quoted & tokens.str.contains("\\", literal=True).fill_null(False)
    if escaped.any():
        at = escaped.arg_true()
        texts = texts.scatter(at, pl.Series([_TEXT.decode(tokens[row]) for row in at], dtype=pl.String))
    return texts, quoted


def as_kinds(
    tokens: Mapping[str, pl.Series], fields: Mapping[str, WireField], failures: Failures
) -> pl.DataFrame:
    """Read values as the kinds of columns have it, by the parser that reads messages.

    Args:
        tokens: JSON text by column; null where there is no value.
        fields: The kind of each column.
        failures: Gets every value of another type.
    """
    short = {name: f"{n}" for n, name in enumerate(tokens)}
    pieces: list[pl.Expr] = []
    for name in tokens:
        pieces += [pl.lit(f'{"," if pieces else "{"}"{short[name]}":'), pl.col(name).fill_null("null")]
    objects = pl.DataFrame(dict(tokens)).select(pl.concat_str(*pieces, pl.lit("}"))).to_series()
    wanted = [WireField(short[name], f.kind, f.low, f.high) for name, f in fields.items()]
    found = parse(wanted, None, objects.cast(pl.Binary), ANY_SIZE)
    names = {number: name for name, number in short.items()}
    for row, check, column, value in failed(found.failures):
        failures.add(row, check, names.get(column, column), value)
    return found.raw.fields.rename(names)


def failed(failures: Failures) -> list[tuple[int, str, str, str]]:
    """List failures as row, check, column and value."""
    return list(zip(failures.row, failures.check, failures.column, failures.value, strict=True))


def objects_of(tokens: pl.Series, array: bool, wanted: Sequence[str]) -> tuple[pl.Series, list[int]]:
    """Return objects to parse, empty ones where there is no value.

    Args:
        tokens: JSON text of what should be objects or arrays.
        array: Whether they should be arrays, whose elements become members named by their number.
        wanted: Numbers of the elements that are looked for.

    Returns:
        Objects as binary, and the rows whose value is neither.
    """
    wrong = (~tokens.str.starts_with("[" if array else "{")).fill_null(False)
    rows = wrong.arg_true().to_list()
    if rows:
        tokens = tokens.set(wrong, None)
    if array:
        tokens = _as_objects(tokens, wanted)
    return tokens.fill_null("{}").cast(pl.Binary), rows


def _as_objects(arrays: pl.Series, wanted: Sequence[str]) -> pl.Series:
    """Turn JSON arrays into objects with the wanted elements; a null stays null."""
    from headrace.contracts.wire.json_columns import elements  # see parse

    known = arrays.is_not_null()
    present = arrays.filter(known)
    texts, sizes = elements(present)
    first = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
    members = pl.DataFrame(
        {
            number: texts.gather(pl.Series(first + int(number)).set(pl.Series(sizes <= int(number)), None))
            for number in wanted
        }
    )
    pieces = [pl.concat_str(pl.lit(f'"{number}":'), pl.col(number)) for number in wanted]
    inner = pl.concat_str(*pieces, separator=",", ignore_nulls=True)
    objects = members.select(pl.concat_str(pl.lit("{"), inner, pl.lit("}"))).to_series()
    unsure = np.flatnonzero(sizes < 0)
    if unsure.size:  # rare ones are left to a whole parser
        rest = [_elements(present[int(row)], wanted) for row in unsure]
        objects = objects.scatter(unsure, pl.Series(rest, dtype=pl.String))
    if len(objects) == len(arrays):
        return objects
    place = pl.Series(np.cumsum(known.to_numpy()) - 1)
    return objects.gather(place.set(~known, None)) if len(objects) else arrays


def _elements(text: str, wanted: Sequence[str]) -> str:
    try:
        elements = _LIST.decode(text)
    except BROKEN:  # a lone surrogate in it, which the parser names
        return text
    found = {n: elements[int(n)] for n in wanted if int(n) < len(elements)}
    return msgspec.json.encode(found).decode()
