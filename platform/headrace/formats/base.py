"""Define a record of a file, and what all formats have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Literal, get_args

import msgspec

from headrace.contracts import Contract
from headrace.contracts.shaping.names import names_of, sent_columns
from headrace.contracts.shaping.paths import Path, written
from headrace.core.errors import BadData

Format = Literal["ndjson", "csv", "parquet", "access_log"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: Records of one chunk.
CHUNK = 5_000
#: A longer line is malformed: no broker accepts it by default, and a file without newlines has no bound.
MAX_LINE_BYTES = 16_000_000
SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Malformed:
    """The reason why a line is no record.

    Attributes:
        line: Number of the line, from 1.
        reason: Why it is no record.
        start: How the line begins, for people.
    """

    line: int
    reason: str
    start: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}: {self.start}"


#: Payload, key, and what is wrong with the line. The payload is one JSON message; for a malformed line it is the
#: untouched line without its end, or the first ``MAX_LINE_BYTES`` bytes of a longer one. The key is the session, or
#: else the record's own id, so that related messages keep their order; None if there is neither.
Record = tuple[bytes, bytes | None, Malformed | None]


def malformed(line: int, reason: str, raw: bytes) -> Record:
    """Make the record of a malformed line; its shown start has control characters escaped."""
    text = raw[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")[:SHOWN_CHARACTERS]
    start = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return raw[:MAX_LINE_BYTES], None, Malformed(line, reason, start)


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes, Record | None]]:
    """Yield lines with their numbers, without their ends.

    Blank lines are left out. An overlong line comes with its malformed record.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == MAX_LINE_BYTES and line[-1:] != b"\n":
            start = line
            while line and line[-1:] != b"\n":
                line = file.readline(MAX_LINE_BYTES)
            yield number, start, malformed(number, f"longer than {MAX_LINE_BYTES:,} bytes", start)
        elif not line.isspace():
            yield number, line.rstrip(b"\r\n"), None


def key_names(contract: Contract) -> tuple[str, ...]:
    """Return the names, in a message, of the field whose value is the message's key; none if it is computed."""
    fields = {c.name: c for c in contract.read_columns}
    column = fields.get("session_id") or fields.get(contract.key)
    if column is None:
        return ()
    return tuple(name for name, sent in sent_columns(contract).items() if sent.column == column)


def key_in(record: Mapping[str, object], names: Sequence[str]) -> bytes | None:
    """Return the key of a record: the first of these fields that has a value."""
    return key_of(next((record[name] for name in names if record.get(name) is not None), None))


def key_of(value: object) -> bytes | None:
    """Turn a value into a key; None if it is no text or empty."""
    return value.encode() if isinstance(value, str) and value else None


_JSON = msgspec.json.Decoder(msgspec.Raw)


def json_value(text: str) -> object:
    """Return JSON text as it is written, or the text itself if it is no JSON."""
    try:
        return _JSON.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text


def require_columns(name: str, contract: Contract, names: Sequence[str]) -> None:
    """Compare a table's columns with the contract's.

    Columns outside the contract become fields of the records. If the contract rejects unknown fields, they are
    an error: otherwise every record would be rejected.

    Raises:
        BadData: A column is unknown and rejected, is probably a misspelled required column, appears twice, or
            is missing.
    """
    known = sent_columns(contract)
    missing = [
        c
        for c in contract.read_columns
        if not c.nullable and c.default is None and not any(name in names for name in names_of(contract, c))
    ]
    strange = [column for column in names if column not in known]
    if strange and (missing or contract.unknown == "reject"):
        computed = {c.name for c in contract.fields} - {c.name for c in contract.read_columns}
        if strange[0] in computed and contract.unknown == "reject":
            raise BadData(
                f"{name}: column {strange[0]!r} is computed by {contract.name}; leave it out of the file"
            )
        near = difflib.get_close_matches(strange[0], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(known)}"
        raise BadData(f"{name}: {contract.name} has no column {strange[0]!r}; {hint}")
    for column in names:
        if names.count(column) > 1:
            raise BadData(f"{name}: column {column!r} appears twice; rename one of them")
    _require_one_place(name, {n: known[n].place for n in names if n in known})
    if missing:
        others = [one for one in names_of(contract, missing[0]) if one != missing[0].name]
        called = f", which may also be called {' or '.join(map(repr, others))}" if others else ""
        raise BadData(f"{name}: column {missing[0].name!r} is missing{called}; {contract.name} requires it")


def _require_one_place(name: str, places: Mapping[str, Path]) -> None:
    """Refuse two columns of which one has the other inside, or that are one nested value."""
    for one, place in places.items():
        for other, within in places.items():
            if other != one and len(within) > 1 and within[: len(place)] == place:
                raise BadData(
                    f"{name}: columns {one!r} and {other!r} both have {written(within)!r} of a record; leave one out"
                )
