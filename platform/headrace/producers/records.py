"""Files to messages: NDJSON, CSV, Parquet and web servers' access logs, plain or compressed.

One pass in bounded memory. A line that is no record is never an error: it is counted and shown. A value that
a contract would refuse is sent as it is, because the pipeline keeps what it refuses, with the reasons.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, get_args

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from headrace.contracts import Contract
from headrace.errors import BadData
from headrace.producers.access_log import AccessLog, is_access_log

Format = Literal["ndjson", "csv", "parquet", "access_log"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: Records of one chunk.
CHUNK = 5_000
#: A longer line is set aside unread: no broker's default takes it, and a file without newlines has no bound.
MAX_LINE_BYTES = 16_000_000
SHOWN_CHARACTERS = 120

_EXTENSIONS: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, pa.ArrowInvalid, OSError)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A line that is no record.

    Attributes:
        line: Its number, from 1.
        reason: Why it is none.
        start: How it begins.
    """

    line: int
    reason: str
    start: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}: {self.start}"


@dataclass(slots=True)
class FileChunk:
    """Some of a file's records.

    Attributes:
        read: Lines (or rows) that were looked at, blank ones not counted: payloads + malformed.
        payloads: One JSON message each.
        keys: One Kafka key per payload: the session, else the record's own id, so that what belongs together
            keeps its order.
        malformed: What is not sent.
    """

    payloads: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    @property
    def read(self) -> int:
        return len(self.payloads) + len(self.malformed)


Item = tuple[bytes, bytes | None] | Malformed


def read_file(path: Path, contract: Contract, format: Format | None = None) -> Iterator[FileChunk]:
    """The records of a file in chunks of ``CHUNK``.

    Args:
        path: Plain, gzip or Zstandard, told by content.
        contract: What the records should be; says the types of a CSV's columns.
        format: Overrides what name and content say.

    Raises:
        BadData: There is no such file, or it cannot be read as its format, or the format cannot be told.
    """
    if not path.is_file():
        raise BadData(f"{path} is not a file; name an NDJSON, CSV, Parquet or access log file")
    chunk = FileChunk()
    done = 0
    try:
        with open_plain(path) as file:
            for item in _items(file, path, contract, format or detect(path, contract)):
                if isinstance(item, Malformed):
                    chunk.malformed.append(item)
                else:
                    chunk.payloads.append(item[0])
                    chunk.keys.append(item[1])
                if chunk.read == CHUNK:
                    yield chunk
                    done += CHUNK
                    chunk = FileChunk()
    except _BROKEN as error:
        raise BadData(
            f"{path} cannot be read beyond record {done + chunk.read:,}: {error}; is it complete? "
            "Records up to a whole chunk before that were read"
        ) from error
    if chunk.read:
        yield chunk


def detect(path: Path, contract: Contract) -> Format:
    """The format that a file's first bytes and name say.

    Raises:
        BadData: Neither says.
    """
    try:
        with open_plain(path) as file:
            start = file.read(65_536)
    except _BROKEN as error:
        raise BadData(f"{path} cannot be decompressed: {error}; is it complete?") from error
    if start[:4] == b"PAR1":
        return "parquet"
    named = next((_EXTENSIONS[s] for s in reversed(path.suffixes) if s.lower() in _EXTENSIONS), None)
    looks = _looks(start, contract)
    if named == "parquet" or (named and looks == "access_log"):
        hint = f"it looks like {looks}: say --format {looks}" if looks else "write it anew"
        raise BadData(f"{path} is named {named} but is not; {hint}")
    found = named or looks
    if found is None:
        raise BadData(f"cannot tell the format of {path}; say --format with one of {', '.join(FORMATS)}")
    return found


def open_plain(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressing it if its first bytes say that it is compressed."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=file), 1 << 18)
    if magic == b"\x28\xb5\x2f\xfd":
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return io.BufferedReader(reader, 1 << 18)
    return file


def _looks(start: bytes, contract: Contract) -> Format | None:
    lines = start.removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    first = lines[0] if lines else b""
    if first[:1] in (b"{", b"["):
        return "ndjson"
    # the first lines of a log may be broken
    if any(is_access_log(line) for line in lines[:20]):
        return "access_log"
    header = first.decode("utf-8", "replace")
    names = {name.strip(' "') for name in header.split(_delimiter(header))}
    return "csv" if names & {c.name for c in contract.columns} else None


def _items(file: IO[bytes], path: Path, contract: Contract, format: Format) -> Iterable[Item]:
    match format:
        case "ndjson":
            return _ndjson(file, contract)
        case "csv":
            return _csv(file, path, contract)
        case "parquet":
            return _parquet(file, path, contract)
        case "access_log":
            if contract.name != "events":
                raise BadData(f"an access log holds events, not {contract.name}: say --stream events")
            return _access_log(file)
    raise BadData(f"format {format!r} is unknown; use one of {', '.join(FORMATS)}")


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | Malformed]]:
    """Numbered lines without their ends; blank ones are left out, overlong ones come as malformed."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) == MAX_LINE_BYTES and line[-1:] != b"\n":
            start = line
            while line and line[-1:] != b"\n":
                line = file.readline(MAX_LINE_BYTES)
            yield number, malformed(number, f"longer than {MAX_LINE_BYTES:,} bytes", start)
        elif not line.isspace():
            yield number, line.rstrip(b"\r\n")


def malformed(line: int, reason: str, start: bytes) -> Malformed:
    """A ``Malformed`` that shows how the line begins, control characters escaped."""
    text = start[: 4 * SHOWN_CHARACTERS].decode("utf-8", "backslashreplace")[:SHOWN_CHARACTERS]
    return Malformed(line, reason, "".join(c if c.isprintable() else repr(c)[1:-1] for c in text))


def key_column(contract: Contract) -> str:
    """Column whose value is the Kafka key."""
    names = {c.name for c in contract.columns}
    return "session_id" if "session_id" in names else contract.key


def _ndjson(file: IO[bytes], contract: Contract) -> Iterator[Item]:
    column = key_column(contract)
    keyed = msgspec.json.Decoder(msgspec.defstruct("Keyed", [(column, Any, None)]))
    anything = msgspec.json.Decoder()
    for number, line in _lines(file):
        if isinstance(line, Malformed):
            yield line
            continue
        try:
            line.decode()
            key = getattr(keyed.decode(line), column)
        except msgspec.ValidationError:  # JSON so far, but no object
            try:
                value = anything.decode(line)
            except (msgspec.DecodeError, RecursionError) as error:
                yield malformed(number, f"not JSON ({error})", line)
                continue
            if not isinstance(value, list):
                yield malformed(number, "neither an object nor an array", line)
                continue
            first = value[0] if value else None
            key = first.get(column) if isinstance(first, dict) else None
        except UnicodeDecodeError as error:
            yield malformed(number, f"not UTF-8 ({error.reason} at byte {error.start})", line)
            continue
        except (msgspec.DecodeError, RecursionError) as error:
            yield malformed(number, f"not JSON ({error})", line)
            continue
        yield line, _key(key)


def _key(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) and value else None


def _access_log(file: IO[bytes]) -> Iterator[Item]:
    log = AccessLog()
    for number, line in _lines(file):
        if isinstance(line, Malformed):
            yield line
            continue
        found = log.parse(number, line)
        yield malformed(number, found, line) if isinstance(found, str) else found


def _csv(file: IO[bytes], path: Path, contract: Contract) -> Iterator[Item]:
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline(MAX_LINE_BYTES)
    delimiter = _delimiter(first)
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    _require_columns(path, contract, names)
    converters = [_CELLS.get(c.wire, _text) for name in names for c in contract.columns if c.name == name]
    column = key_column(contract)
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Malformed(rows.line_num + 1, f"not CSV ({error})", "")
            continue
        if not any(row):
            continue
        number = rows.line_num + 1
        if len(row) != len(names):
            why = f"{len(row)} fields, the header has {len(names)}"
            yield malformed(number, why, delimiter.join(row).encode("utf-8", "surrogateescape"))
            continue
        record = {n: convert(cell) for n, convert, cell in zip(names, converters, row, strict=True) if cell}
        try:
            yield msgspec.json.encode(record), _key(record.get(column))
        except UnicodeEncodeError:
            yield malformed(number, "not UTF-8", delimiter.join(row).encode("utf-8", "surrogateescape"))


def _delimiter(header: str) -> str:
    return max(",;\t|", key=header.count)


def _text(cell: str) -> object:
    return cell


def _number(kind: Callable[[str], float], cell: str) -> object:
    """A number, or the text itself where it is none or is one that JSON does not have."""
    try:
        value = kind(cell)
    except ValueError:
        return cell
    return value if abs(value) < float("inf") else cell


def _json(cell: str) -> object:
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return cell


_CELLS: dict[str, Callable[[str], object]] = {
    "number": partial(_number, float),
    "integer": partial(_number, int),
    "object": _json,
    "map": _json,
}


def _require_columns(path: Path, contract: Contract, names: Sequence[str]) -> None:
    known = [c.name for c in contract.columns]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(known)}"
            raise BadData(f"{path}: {contract.name} has no column {name!r}; {hint}")
        if names.count(name) > 1:
            raise BadData(f"{path}: column {name!r} appears twice; rename one of them")
    for c in contract.columns:
        if not c.nullable and c.default is None and c.name not in names:
            raise BadData(f"{path}: column {c.name!r} is missing; {contract.name} requires it")


def _parquet(file: IO[bytes], path: Path, contract: Contract) -> Iterator[Item]:
    if isinstance(file, io.BufferedReader) and not isinstance(file.raw, io.FileIO):
        with tempfile.TemporaryFile() as plain:  # Parquet is read from its end: unpack it to disk first
            shutil.copyfileobj(file, plain, 1 << 20)
            plain.seek(0)
            yield from _parquet(plain, path, contract)
        return
    table = pq.ParquetFile(file)
    # a file of the lake has its partition and the rows' origins besides
    landed = set(contract.landed_schema.names()) - {c.name for c in contract.columns}
    names = [name for name in table.schema_arrow.names if name not in landed]
    _require_columns(path, contract, names)
    for name in names:
        kind = table.schema_arrow.field(name).type
        if pa.types.is_timestamp(kind) and kind.tz is None:
            raise BadData(f"{path}: times of column {name!r} have no zone; write them as timestamps in UTC")
    nested = {c.name for c in contract.columns if c.wire in ("object", "map")}
    column = key_column(contract)
    number = 0
    for batch in table.iter_batches(CHUNK, columns=names):
        for row in batch.to_pylist():
            number += 1
            record = {n: _nested(v) if n in nested else v for n, v in row.items() if v is not None}
            try:
                yield msgspec.json.encode(record), _key(record.get(column))
            except (TypeError, ValueError) as error:
                yield malformed(number, f"no JSON ({error})", repr(record).encode("utf-8", "replace"))


def _nested(value: object) -> object:
    """JSON text, a struct, an Arrow map or the lake's list of key and value, as an object."""
    if isinstance(value, str):
        return _json(value)
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, list) and all(isinstance(v, dict) and v.keys() == {"key", "value"} for v in value):
        return {v["key"]: v["value"] for v in value}
    return value
