"""Read files as messages: NDJSON, CSV, Parquet and web servers' access logs, plain or compressed.

Reading is one pass in bounded memory. A line that is no record is never an error: it comes with the reason. A
value that a contract would refuse is a message like any other, because the pipeline keeps rejected records with
their reasons.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import IO

import pyarrow as pa

from headrace.contracts import Contract
from headrace.contracts.shaping.names import sent_columns
from headrace.core.errors import BadData
from headrace.formats import access_log, base, csv, ndjson, parquet
from headrace.formats.base import FORMATS, Format, Malformed, Record

EXTENSIONS: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
_BUFFER = 1 << 18
BROKEN = (EOFError, zlib.error, pa.ArrowException, OSError)

Open = Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads the files of one stream.

    Attributes:
        contract: What the records should be; gives the types of a CSV's columns.
        format: Overrides the format that name and content suggest.
    """

    contract: Contract
    format: Format | None = None

    @property
    def version(self) -> str:
        """Text that changes when the same file may yield other records than before."""
        contract = self.contract
        said = f"{contract.name} v{contract.version} {contract.unknown} {self.format or 'by content'}"
        if contract.shaping is None:
            return said
        # which columns a file may have, and where their values go, can change without a version
        places = sorted((name, str(sent.place)) for name, sent in sent_columns(contract).items())
        return f"{said} {blake2b(repr(places).encode(), digest_size=8).hexdigest()}"

    def records(self, open: Open, name: str) -> Generator[Record, None, None]:
        """Read every record of a file, in order; the same file yields the same records every time.

        Args:
            open: Opens the file, seekable; plain, gzip or Zstandard is detected by content. Called twice.
            name: Path of the file, for its extension and for messages.

        Raises:
            BadData: The file cannot be read as its format or to its end, or its format cannot be detected.
        """
        number = 0
        try:
            format = self.format or _detect(open, name, self.contract)
            with open() as file:
                for record in self._items(file, name, format):
                    yield record
                    number += 1
        except BROKEN as error:
            raise BadData(
                f"{name} cannot be read beyond record {number:,}: {error}; is it complete?"
            ) from error

    def _items(self, file: IO[bytes], name: str, format: Format) -> Iterator[Record]:
        content = plain(file)
        match format:
            case "ndjson":
                return ndjson.read(content, self.contract)
            case "csv":
                return csv.read(content, name, self.contract)
            case "parquet":
                read = parquet.read if content is file else parquet.read_packed
                return read(content, name, self.contract)
            case "access_log":
                if self.contract.name != "events":
                    raise BadData(f"{name}: an access log holds events, not {self.contract.name}")
                return access_log.read(content)
        raise BadData(f"format {format!r} is unknown; use one of {', '.join(FORMATS)}")


@dataclass(slots=True)
class FileChunk:
    """Some of a file's records.

    Attributes:
        payloads: One JSON message each.
        keys: One key per payload.
        malformed: Lines that are no records.
    """

    payloads: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    malformed: list[Malformed] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Number of lines (or rows) read, without blank ones."""
        return len(self.payloads) + len(self.malformed)


def read_file(path: Path, contract: Contract, format: Format | None = None) -> Iterator[FileChunk]:
    """Read a local file in chunks of ``CHUNK`` records; see ``FileReader.records``.

    Raises:
        BadData: There is no such file, or it cannot be read; whole chunks before that were read.
    """
    if not path.is_file():
        raise BadData(f"{path} is not a file; name an NDJSON, CSV, Parquet or access log file")
    chunk = FileChunk()
    try:
        for payload, key, wrong in FileReader(contract, format).records(lambda: path.open("rb"), str(path)):
            if wrong:
                chunk.malformed.append(wrong)
            else:
                chunk.payloads.append(payload)
                chunk.keys.append(key)
            if chunk.read == base.CHUNK:
                yield chunk
                chunk = FileChunk()
    except BadData as error:
        raise BadData(f"{error} (records up to a whole chunk before that were read)") from error
    if chunk.read:
        yield chunk


def detect(path: Path, contract: Contract) -> Format:
    """Detect the format of a local file from its first bytes and its name.

    Raises:
        BadData: Neither reveals the format.
    """
    return _detect(lambda: path.open("rb"), str(path), contract)


def _detect(open: Open, name: str, contract: Contract) -> Format:
    with open() as file:
        start = plain(file).read(65_536)
    if start[:4] == b"PAR1":
        return "parquet"
    suffixes = [suffix.lower() for suffix in reversed(PurePosixPath(name).suffixes)]
    named = next((EXTENSIONS[s] for s in suffixes if s in EXTENSIONS), None)
    looks = _looks(start, contract)
    if named == "parquet" or (named and looks == "access_log"):
        hint = (
            f"it looks like {looks}: rename it, or send it with --format {looks}"
            if looks
            else "write it anew"
        )
        raise BadData(f"{name} is named {named} but is not; {hint}")
    found = named or looks
    if found is None:
        raise BadData(
            f"cannot tell the format of {name}; name it .ndjson, .csv or .parquet, or send it with --format and one"
            f" of {', '.join(FORMATS)}"
        )
    return found


def plain(file: IO[bytes]) -> IO[bytes]:
    """Return the file itself, or a decompressing stream if its first bytes show a compression."""
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"\x1f\x8b":
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER)
    if magic == b"\x28\xb5\x2f\xfd":
        # not the zstandard package, whose reader takes a truncated file for a complete one
        return io.BufferedReader(pa.CompressedInputStream(file, "zstd"), _BUFFER)
    return file


def _looks(start: bytes, contract: Contract) -> Format | None:
    lines = start.removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    first = lines[0] if lines else b""
    if first[:1] in (b"{", b"["):
        return "ndjson"
    # the first lines of a log may be broken
    if any(access_log.is_access_log(line) for line in lines[:20]):
        return "access_log"
    header = first.decode("utf-8", "replace")
    names = {name.strip(' "') for name in header.split(csv.delimiter_of(header))}
    return "csv" if names & sent_columns(contract).keys() else None
