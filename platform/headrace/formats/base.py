"""Define a record of a file, and what all formats have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal, get_args

import msgspec

from headrace.contracts import Contract
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


def key_column(contract: Contract) -> str:
    """Return the column whose value is the message's key."""
    names = {c.name for c in contract.columns}
    return "session_id" if "session_id" in names else contract.key


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
    known = [c.name for c in contract.columns]
    missing = [
        c.name for c in contract.columns if not c.nullable and c.default is None and c.name not in names
    ]
    strange = [column for column in names if column not in known]
    if strange and (missing or contract.unknown == "reject"):
        near = difflib.get_close_matches(strange[0], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(known)}"
        raise BadData(f"{name}: {contract.name} has no column {strange[0]!r}; {hint}")
    for column in names:
        if names.count(column) > 1:
            raise BadData(f"{name}: column {column!r} appears twice; rename one of them")
    if missing:
        raise BadData(f"{name}: column {missing[0]!r} is missing; {contract.name} requires it")
