"""Sample a file that has no contract yet: its first rows, and rows from everywhere in the rest."""

from __future__ import annotations

import bisect
import csv as csv_module
import io
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import to_builtins

from headrace.contracts.inference.sample import Sample
from headrace.core.errors import BadData
from headrace.formats import access_log, csv
from headrace.formats.arrow_json import json_column, keyed
from headrace.formats.base import MAX_LINE_BYTES, lines
from headrace.formats.records import BROKEN, EXTENSIONS, Open, plain

#: Bytes of rows that a sample holds at most.
_HELD_BYTES = 64 << 20
#: Bytes that are read of a larger file; beyond that the number of its rows is estimated.
_READ_BYTES = 2 << 30
#: Rows by which text is taken for CSV.
_TRIED = 5
#: Rows of a wide Parquet file that are looked at in any case, and rows of one read of Parquet.
_FIRST, _PARQUET_ROWS = 1_000, 10_000
_BINARY = (pa.binary(), pa.large_binary(), pa.binary_view())
_PARTS = 8  # places of a Parquet file that are looked at

T = TypeVar("T")


def sample_file(open: Open, name: str, rows: int) -> Sample:
    """Read up to ``rows`` rows of a file, and count all of them.

    Half of the sample are the first rows, where repeats and order show; the rest are random rows of everything
    else, the same in every call. Memory is bounded, whatever the size of the file.

    Args:
        open: Opens the file, seekable.
        name: Path of the file, for its extension and for messages.
        rows: Most rows to look at.

    Raises:
        BadData: The file cannot be read, or is in no format that can be sampled.
    """
    shown = PurePosixPath(name).name
    try:
        with open() as file:
            start = plain(file).read(65_536)
        format = _format(start, name)
        with open() as file:
            if format == "parquet":
                return _parquet(file, name, Sample(shown, "parquet"), rows)
            content = plain(file)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            progress = _Progress(file.tell, size)
            if format == "ndjson":
                return _ndjson(content, Sample(shown, "json"), rows, progress)
            return _csv(content, name, Sample(shown, "csv"), rows, progress)
    except BROKEN as error:
        raise BadData(f"{name} cannot be read: {error}; is it complete?") from error


def _format(start: bytes, name: str) -> str:
    if start[:4] == b"PAR1":
        return "parquet"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text:
        raise BadData(f"{name} is empty: there is nothing to learn from it")
    first, *others = text.splitlines()
    if any(access_log.is_access_log(line) for line in (first, *others[:20])):
        raise BadData(
            f"{name} is a web server's access log, for which there is the stream 'events': 'headrace send {name}', or"
            " 'headrace contracts try' with '--against events'"
        )
    if first[:1] in (b"{", b"["):
        if first.strip() in (b"{", b"[") or first.strip() == b"[{":
            raise BadData(
                f"{name} is JSON over many lines; Headrace reads one record per line: jq -c '.[]? // .' FILE"
                " > FILE.ndjson"
            )
        return "ndjson"
    suffixes = {suffix.lower() for suffix in PurePosixPath(name).suffixes}
    named = next((EXTENSIONS[s] for s in suffixes if s in EXTENSIONS), None)
    if named in ("ndjson", "parquet"):
        raise BadData(f"{name} is named {named} but is not; it begins with {first[:40]!r}")
    if b"\0" in start:
        raise BadData(f"{name} is neither NDJSON, CSV nor Parquet: it begins with {first[:20]!r}")
    if named == "csv":
        return "csv"
    if _is_table(text.decode("utf-8", "replace")):
        return "csv"
    raise BadData(f"cannot tell the format of {name}; name it .ndjson, .csv or .parquet")


def _is_table(text: str) -> bool:
    """Tell whether the first rows have as many cells as the header, and more than one."""
    rows = csv_module.reader(io.StringIO(text, newline=""), delimiter=csv.delimiter_of(text.splitlines()[0]))
    try:
        widths = [len(row) for row in itertools.islice(rows, _TRIED) if row]
    except csv_module.Error:
        return False
    return widths[0] > 1 and set(widths) == {widths[0]}


@dataclass(slots=True)
class _Progress:
    """How much of a file has been read, by its own bytes, compressed or not."""

    tell: Callable[[], int]
    size: int

    def total(self, seen: int) -> int:
        """Estimate the number of rows from those seen so far."""
        at = self.tell()
        return max(seen, round(seen * self.size / at)) if at else seen


@dataclass(slots=True)
class _Chosen(Generic[T]):
    """The first rows, and a reservoir of the others (Li's algorithm L, https://doi.org/10.1145/198429.198435)."""

    most: int
    size: Callable[[T], int]
    head: list[tuple[int, T]] = field(default_factory=list)
    rest: list[tuple[int, T]] = field(default_factory=list)
    seen: int = 0

    def take(self, rows: Iterable[T]) -> None:
        """Look through all rows."""
        chance, left, room = random.Random(0), iter(rows), 0
        for row in itertools.islice(left, max(1, self.most - self.most // 2)):
            self.seen += 1
            self.head.append((self.seen, row))
            room += self.size(row)
            if room > _HELD_BYTES // 2:
                break
        average = room / self.seen if self.seen else 1
        places = min(self.most // 2, int(_HELD_BYTES / 2 / average))
        for row in itertools.islice(left, places):
            self.seen += 1
            self.rest.append((self.seen, row))
        if not places:
            self.seen += sum(1 for _ in left)
            return
        weight = math.exp(math.log(1 - chance.random()) / places)
        while True:
            skip = int(math.log(1 - chance.random()) / math.log1p(-weight))
            passed = sum(1 for _ in itertools.islice(left, skip))
            self.seen += passed
            if passed < skip:
                return
            try:
                row = next(left)
            except StopIteration:
                return
            self.seen += 1
            self.rest[chance.randrange(places)] = (self.seen, row)
            weight *= math.exp(math.log(1 - chance.random()) / places)

    def rows(self) -> list[tuple[int, T]]:
        """Return the chosen rows with their numbers, in order."""
        return self.head + sorted(self.rest, key=lambda one: one[0])


def _ndjson(file: IO[bytes], sample: Sample, rows: int, progress: _Progress) -> Sample:
    taken = 0

    def bounded() -> Iterator[bytes]:
        nonlocal taken
        for number, line, overlong in lines(file):
            taken += len(line)
            if overlong:
                sample.add_wrong(f"longer than {MAX_LINE_BYTES:,} bytes", number, line)
                continue
            yield line
            if taken > _READ_BYTES:
                sample.exact = False
                return

    chosen = _Chosen[bytes](rows, len)
    chosen.take(bounded())
    for number, line in chosen.rows():
        sample.add_message(number, line)
    sample.total = chosen.seen if sample.exact else progress.total(chosen.seen)
    if len(sample.records) > len(chosen.rows()):
        sample.notes.append("some lines are arrays of records")
    return sample


def _csv(file: IO[bytes], name: str, sample: Sample, rows: int, progress: _Progress) -> Sample:
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline(MAX_LINE_BYTES)
    names = csv.header(first, name)
    delimiter = csv.delimiter_of(first)
    _require_header(names, name)
    if delimiter != ",":
        sample.notes.append(f"its columns are separated by {'a tab' if delimiter == chr(9) else delimiter}")
    taken = 0

    def limited() -> Iterator[str]:
        nonlocal taken
        while line := text.readline(MAX_LINE_BYTES):
            taken += len(line)
            yield line

    def bounded() -> Iterator[list[str]]:
        reader = csv_module.reader(limited(), delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv_module.Error as error:
                sample.add_wrong(f"not CSV ({error})", reader.line_num + 1, b"")
                continue
            if row is None:
                return
            if len(row) != len(names) and any(row):
                raw = delimiter.join(row).encode("utf-8", "surrogateescape")
                sample.add_wrong(f"{len(row)} fields, the header has {len(names)}", reader.line_num + 1, raw)
            elif any(row):
                yield row
            if taken > _READ_BYTES:
                sample.exact = False
                return

    chosen = _Chosen[list[str]](rows, lambda row: sum(map(len, row)) + 60 * len(row))
    chosen.take(bounded())
    for number, row in chosen.rows():
        try:
            "".join(row).encode()
        except UnicodeEncodeError:
            sample.add_wrong("not UTF-8", number, delimiter.join(row).encode("utf-8", "surrogateescape"))
            continue
        sample.records.append({n: cell for n, cell in zip(names, row, strict=True) if cell})
        sample.numbers.append(number)
    sample.total = chosen.seen if sample.exact else progress.total(chosen.seen)
    sample.types = dict.fromkeys(names)
    return sample


def _require_header(names: list[str], name: str) -> None:
    """Refuse a header that is none, and one that names a column twice."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        raise BadData(
            f"{name}: the header is not UTF-8; convert the file, e.g. with iconv -t UTF-8"
        ) from None
    if not any(names):
        raise BadData(f"{name}: the first line names no columns; write their names there")
    data = [cell for cell in names if _is_value(cell)]
    if data and len(data) * 2 >= len([cell for cell in names if cell]):
        raise BadData(
            f"{name}: the first line seems to be data ({data[0]!r}), not the columns' names; write a header there"
        )
    for column in names:
        if column and names.count(column) > 1:
            raise BadData(f"{name}: column {column!r} appears twice; rename one of them")


def _is_value(cell: str) -> bool:
    """Tell whether a cell is a number or begins like a date, which no name does."""
    try:
        float(cell)
    except ValueError:
        return cell[:4].isdigit() and cell[4:5] in ("-", "/") and cell[5:7].isdigit()
    return cell.lower() not in ("nan", "inf", "infinity")


def _parquet(file: IO[bytes], name: str, sample: Sample, rows: int) -> Sample:
    table = pq.ParquetFile(file)
    sample.total = table.metadata.num_rows
    schema = table.schema_arrow
    for column in schema.names:
        if schema.names.count(column) > 1:
            raise BadData(f"{name}: column {column!r} appears twice; rename one of them")
    sample.types = {one.name: one.type for one in schema}
    rows = min(rows, max(_FIRST, _HELD_BYTES // (60 * max(1, len(schema.names)))))
    begins = list(itertools.accumulate((g.num_rows for g in _groups(table)), initial=0))
    if sample.total <= rows:
        wanted = dict.fromkeys(range(table.num_row_groups), sample.total)
    else:  # from places all over the file, as many rows each
        part = max(1, rows // _PARTS)
        places = [round(n * (sample.total - part) / (_PARTS - 1)) for n in range(_PARTS)]
        groups = [bisect.bisect_right(begins, place) - 1 for place in places]
        wanted = {group: part * groups.count(group) for group in groups}
    for group, most in wanted.items():
        number = begins[group]
        for batch in table.iter_batches(_PARQUET_ROWS, row_groups=[group]):
            _add_batch(sample, batch.slice(0, most), number)
            number, most = number + len(batch), most - len(batch)
            if most <= 0:
                break
    return sample


def _groups(table: pq.ParquetFile) -> Iterator[Any]:
    return (table.metadata.row_group(n) for n in range(table.num_row_groups))


def _is_map(kind: pa.DataType) -> bool:
    """Tell whether a type is how the lake keeps a map: a list of keys and values."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(
        kind.value_type
    ):
        return False
    return {member.name for member in kind.value_type} == {"key", "value"}


def _add_batch(sample: Sample, batch: pa.RecordBatch, number: int) -> None:
    """Add rows as they become messages: with JSON's values, without nulls."""
    names = batch.schema.names
    columns = []
    for n, name in enumerate(names):
        kind = batch.schema.field(n).type
        column = json_column(batch.column(n))
        if column.wrong and kind in _BINARY:
            sample.binary.add(name)
        if pa.types.is_duration(kind):
            columns.append([v if v is None else to_builtins(v) for v in column.values])
        else:
            columns.append((keyed(column, str(kind)) if _is_map(kind) else column).values)
    for row in zip(*columns, strict=True) if columns else ():
        number += 1
        sample.records.append({n: value for n, value in zip(names, row, strict=True) if value is not None})
        sample.numbers.append(number)
