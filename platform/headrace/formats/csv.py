"""Read CSV with a header, typed by the contract; separated by commas, semicolons, tabs or bars."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import IO

import msgspec

from headrace.contracts import Contract
from headrace.contracts.shaping.names import Sent, put, sent_columns
from headrace.core.errors import BadData
from headrace.formats import base
from headrace.formats.base import Record, json_value, key_in, key_names, malformed, require_columns


def read(file: IO[bytes], name: str, contract: Contract) -> Iterator[Record]:
    """Read every row as a JSON object without its empty cells; a row of empty cells is a blank line.

    Raises:
        BadData: The header does not fit the contract.
    """
    # a byte that is no UTF-8 becomes a surrogate, so that the bytes of a malformed line can be restored
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline(base.MAX_LINE_BYTES)
    delimiter = delimiter_of(first)
    names = header(first, name)
    require_columns(name, contract, names)
    sent = sent_columns(contract)
    converters = [_converter(sent.get(name)) for name in names]
    nested = {name: sent[name].place for name in names if name in sent and sent[name].place != (name,)}
    keys = key_names(contract)
    lines = _Lines(text)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield malformed(rows.line_num + 1, f"not CSV ({error})", lines.raw())
            continue
        if not any(row):
            continue
        number = rows.line_num + 1
        if len(row) != len(names):
            yield malformed(number, f"{len(row)} fields, the header has {len(names)}", lines.raw())
            continue
        record = {n: convert(cell) for n, convert, cell in zip(names, converters, row, strict=True) if cell}
        key = key_in(record, keys)
        for name in nested.keys() & record.keys():
            put(record, nested[name], record.pop(name))
        try:
            yield msgspec.json.encode(record), key, None
        except UnicodeEncodeError:
            yield malformed(number, "not UTF-8", lines.raw())


class _Lines(Iterator[str]):
    """Lines of bounded length for a CSV reader; ``taken`` holds those it has read since the last clear."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.taken: list[str] = []

    def __next__(self) -> str:
        line = rest = self._text.readline(base.MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        while len(rest) == base.MAX_LINE_BYTES and rest[-1] not in "\r\n":
            rest = self._text.readline(base.MAX_LINE_BYTES)
        self.taken.append(line)
        return line

    def raw(self) -> bytes:
        """Return the bytes of the lines taken."""
        return "".join(self.taken).encode("utf-8", "surrogateescape").rstrip(b"\r\n")


def header(line: str, name: str) -> list[str]:
    """Return the names of the columns.

    Raises:
        BadData: The line is no CSV.
    """
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter_of(line)), [])]
    except csv.Error as error:
        raise BadData(f"{name}: the header is not CSV ({error}); write the columns' names there") from error


def delimiter_of(line: str) -> str:
    """Return the delimiter of a header."""
    bare = _QUOTED.sub("", line)
    return max(",;\t|", key=bare.count)


def _converter(sent: Sent | None) -> Callable[[str], object]:
    """Return how the cells of a column become values; an object with several columns inside is JSON."""
    if sent is None:
        return _text
    return _CELLS.get(sent.column.wire if sent.column else "object", _text)


def _text(cell: str) -> object:
    return cell


def _number(cell: str) -> object:
    """Return a number as it is written; anything else stays text, for the contract to judge."""
    text = cell.strip(" \t")
    if _JSON_NUMBER.fullmatch(text):
        return msgspec.Raw(text.encode())
    return float(text) if _OTHER_NUMBER.fullmatch(text) else cell


def _integer(cell: str) -> object:
    text = cell.strip(" \t")
    return int(text) if _OTHER_INTEGER.fullmatch(text) else _number(cell)


def _decimal(cell: str) -> object:
    """Return a number exactly as it is written, without a double in between."""
    text = cell.strip(" \t")
    if _OTHER_NUMBER.fullmatch(text) and not _JSON_NUMBER.fullmatch(text):
        return f"{Decimal(text):f}"
    return _number(cell)


def _boolean(cell: str) -> object:
    return _TRUTHS.get(cell.strip(" \t").lower(), cell)


def _word(cell: str) -> object:
    return cell.strip(" \t")


#: What databases and spreadsheets write for true and false.
_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
#: A quoted cell of a header, which may have any of the delimiters inside.
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
#: Numbers of JSON, and what spreadsheets write besides: a plus, leading zeros, no digit before or after the point.
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_OTHER_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,99}\.?[0-9]{0,99}|\.[0-9]{1,99})(?:[eE][+-]?[0-9]{1,2})?")
_OTHER_INTEGER = re.compile(r"(?:\+|[+-]?0+)[0-9]{1,99}")
_CELLS: dict[str, Callable[[str], object]] = {
    "number": _number,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "date": _word,
    "uuid": _word,
    "object": json_value,
    "map": json_value,
    "list": json_value,
    "struct": json_value,
}
